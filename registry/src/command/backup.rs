//! `backup`: copies the database at one revision and verifies the copy.

use std::{fs, io, path::Path};

use super::{CommandError, described, progress, read};
use crate::{
    config::Backup,
    domain::state::State,
    store::{self, StoreError},
};

pub(super) async fn run(told: Backup) -> Result<String, CommandError> {
    let Backup { file, force, database } = told;
    let database = database.database_url;
    if !force && file.exists() {
        return Err(CommandError::Exists(file.display().to_string()));
    }
    // Next to the target file, so that it can be moved there in one step.
    let partial = store::companion(&file, &format!(".partial-{}", std::process::id()));
    drop(store::create_new(&partial)?);
    let outcome = match copy(&database, &partial).await {
        Ok(state) => put_in_place(&partial, &file, force).map(|()| state),
        Err(error) => Err(error),
    };
    store::remove(&partial)?;
    Ok(format!("`{}` is a backup of {}", file.display(), described(&outcome?)))
}

async fn copy(database: &Path, partial: &Path) -> Result<State, CommandError> {
    progress(&format!("copying `{}`", database.display()));
    store::copy_into(database, partial).await?;
    progress("verifying the copy");
    read(partial).await
}

/// Gives the copy its final name. Without `force` it replaces no file, even one that was created in the meantime.
fn put_in_place(partial: &Path, file: &Path, force: bool) -> Result<(), CommandError> {
    let placed = if force {
        fs::rename(partial, file)
    } else {
        fs::hard_link(partial, file)
    };
    placed.map_err(|source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            CommandError::Exists(file.display().to_string())
        } else {
            StoreError::file(file, source).into()
        }
    })?;
    Ok(store::sync(store::folder_of(file))?)
}
