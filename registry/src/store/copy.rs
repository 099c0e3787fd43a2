//! Copies the database to a file next to it, before a migration changes it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use sqlx::SqliteConnection;

use super::{StoreError, file::create_private};

/// Copies the database at `path` before it is migrated to a schema. An existing copy is never overwritten: it may be
/// the one that is needed.
pub(super) async fn before_schema(
    connection: &mut SqliteConnection,
    path: &Path,
    schema: i64,
) -> Result<(), StoreError> {
    let beside = |ending: &str| {
        let mut name = OsString::from(path);
        name.push(format!(".before-schema-{schema}{ending}"));
        PathBuf::from(name)
    };
    let partial = beside(".partial");
    let failed = |source| StoreError::file(&partial, source);
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    // SQLite fills an empty file without changing its mode.
    drop(create_private(&partial)?);
    let name = partial
        .to_str()
        .ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidFilename)))?;
    sqlx::query("VACUUM INTO ?")
        .bind(name)
        .execute(connection)
        .await
        .map_err(|error| StoreError::sql("copy the database before it is migrated", error))?;
    File::open(&partial).and_then(|file| file.sync_all()).map_err(failed)?;
    let copy = (0_u32..)
        .map(|number| match number {
            0 => beside(""),
            number => beside(&format!(".{number}")),
        })
        .find(|copy| !copy.exists())
        .unwrap_or_else(|| partial.clone());
    fs::rename(&partial, &copy).map_err(failed)?;
    if let Some(folder) = copy.parent() {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
    }
    tracing::info!(copy = %copy.display(), "the database was copied before its migration to schema {schema}");
    Ok(())
}
