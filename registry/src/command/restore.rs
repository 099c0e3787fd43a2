//! `restore`: replaces the database with a backup, as a new incarnation above everything that is known.
//!
//! All work is done on a copy next to the database. Once the copy is complete, it replaces the database in one step;
//! until then nothing has changed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{CommandError, begin_life, described, progress, read};
use crate::{
    config::Restore,
    domain::{
        life::{LifeCause, Mark, NewLife},
        state::State,
    },
    store::{self, Kind, StoreError},
};

/// What is known about the database that is replaced.
enum Replaced {
    Nothing,
    Known(Mark),
    Unreadable(StoreError),
}

pub(super) async fn run(told: Restore) -> Result<String, CommandError> {
    let Restore { file, above, database } = told;
    // A file has one lock, even if different paths lead to the file.
    let database = resolved(&database.database_url)?;
    let file = resolved(&file)?;
    if file == database {
        return Err(CommandError::Itself(file.display().to_string()));
    }
    let _held = store::hold(&database)?;
    // If a registry ran on the file, the copy could contain half a write.
    let is_database = store::companion(&file, ".lock").exists();
    let _held_too = is_database.then(|| store::hold(&file)).transpose()?;
    let copy = store::companion(&database, ".restoring");
    discard(&copy)?;
    let prepared = prepare(&file, &copy, &database, above).await;
    let swapped = match prepared {
        Ok((state, note)) => store::swap_in(&copy, &database)
            .map(|kept| (state, note, kept))
            .map_err(CommandError::from),
        Err(error) => Err(error),
    };
    discard(&copy)?;
    let (state, note, kept) = swapped?;
    let kept = kept.map_or_else(
        || "there was no database before".to_owned(),
        |kept| format!("the replaced database is kept as `{}`", kept.display()),
    );
    Ok(format!(
        "`{}` is restored to `{}`: {}; {kept}{note}",
        file.display(),
        database.display(),
        described(&state)
    ))
}

/// Creates and verifies the copy that will replace the database. Returns its state and a remark for the result line.
async fn prepare(
    file: &Path,
    copy: &Path,
    database: &Path,
    above: Option<Mark>,
) -> Result<(State, &'static str), CommandError> {
    progress(&format!("copying and verifying `{}`", file.display()));
    duplicate(file, copy)?;
    let backup = store::settle(copy).await.map_err(|error| error.of_original(file))?;
    let replaced = replaced(database).await?;
    let (known, note) = match (replaced, above) {
        (Replaced::Known(mark), above) => (mark.or_higher(above.unwrap_or(Mark::NONE)), ""),
        (Replaced::Nothing | Replaced::Unreadable(_), Some(above)) => (above, ""),
        (Replaced::Nothing, None) => (
            Mark::NONE,
            "; it is unknown what routers have seen: if they refuse to follow, use `accept-history`",
        ),
        (Replaced::Unreadable(why), None) => {
            return Err(CommandError::AboveUnknown {
                database: database.display().to_string(),
                why: why.to_string(),
            });
        }
    };
    let new = NewLife {
        cause: LifeCause::Restore,
        above: known.or_higher(backup.mark),
        adopt: None,
    };
    begin_life(copy, new).await?;
    progress("verifying the new database");
    Ok((read(copy).await?, note))
}

async fn replaced(database: &Path) -> Result<Replaced, StoreError> {
    if !database.exists() {
        return Ok(Replaced::Nothing);
    }
    match store::settle(database).await {
        Ok(identity) => Ok(Replaced::Known(identity.mark)),
        Err(StoreError::Empty(_)) => Ok(Replaced::Nothing),
        // Another program would lose its database, even though the file is kept.
        Err(error @ StoreError::Foreign(_)) => Err(error),
        Err(error) if error.kind() == Kind::Busy => Err(error),
        Err(error) => Ok(Replaced::Unreadable(error)),
    }
}

/// Copies a database with its write-ahead log, if it has one: a backup has none, but a file that was copied by hand
/// may.
fn duplicate(file: &Path, copy: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal"] {
        let from = store::companion(file, suffix);
        let mut source = match File::open(&from) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => continue,
            Err(source) => return Err(StoreError::file(&from, source)),
        };
        let to = store::companion(copy, suffix);
        let mut target = store::create_new(&to)?;
        io::copy(&mut source, &mut target).map_err(|source| StoreError::file(&to, source))?;
    }
    Ok(())
}

/// Removes the copy and the files that belong to it, left by this run or by an interrupted one.
fn discard(copy: &Path) -> Result<(), StoreError> {
    ["", "-wal", "-shm", "-journal", ".lock"]
        .iter()
        .try_for_each(|suffix| store::remove(&store::companion(copy, suffix)))
}

/// Returns the canonical path of a file, which need not exist.
fn resolved(path: &Path) -> Result<PathBuf, StoreError> {
    let found = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::canonicalize(store::folder_of(path)).map(|folder| folder.join(path.file_name().unwrap_or_default()))
        }
        found => found,
    };
    found.map_err(|source| StoreError::file(path, source))
}
