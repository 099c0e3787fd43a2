//! `accept-history`: declares the content of the database the newest, as a new incarnation, or shows what that would do.

use std::path::Path;

use super::{CommandError, begin_life, read};
use crate::{
    commit::OpenError,
    config::AcceptHistory,
    control::{self, ControlReply, ControlRequest, LifeReply, PlanReply},
    domain::life::{LifeCause, Mark, NewLife},
    store::{self, StoreError},
};

pub(super) async fn run(told: AcceptHistory) -> Result<String, CommandError> {
    let AcceptHistory {
        above,
        dry_run,
        adopt_store,
        database,
    } = told;
    let database = database.database_url;
    if !database.exists() {
        return Err(CommandError::Missing(database.display().to_string()));
    }
    // A start would take an empty file as a new database, whose history nobody can mean.
    store::check_own(&database).await?;
    let above = above.unwrap_or(Mark::NONE);
    let new = NewLife {
        cause: LifeCause::AcceptHistory,
        above,
        adopt: adopt_store,
    };
    let done = if dry_run {
        plan(&database, &new).await.map(ControlReply::Planned)
    } else {
        let begun = begin_life(&database, new).await;
        begun.map(|begun| ControlReply::Begun(begun.into()))
    };
    let (reply, is_running) = match done {
        // Another process holds the database. If that is a running registry, it does this itself.
        Err(
            CommandError::Open(OpenError::Store(StoreError::Locked(_))) | CommandError::Store(StoreError::Locked(_)),
        ) => {
            let request = ControlRequest::AcceptHistory {
                above: above.to_string(),
                adopt_store: adopt_store.map(|store| store.to_string()),
                dry_run,
            };
            (control::ask(&database, &request).await?, true)
        }
        done => (done?, false),
    };
    Ok(match reply {
        ControlReply::Begun(life) => begun_text(&life, is_running),
        ControlReply::Planned(plan) => plan_text(&plan, is_running),
    })
}

/// Returns what would be done to a database that no registry runs on.
async fn plan(database: &Path, new: &NewLife) -> Result<PlanReply, CommandError> {
    // A file has one lock, even if different paths lead to the file.
    let database = database
        .canonicalize()
        .map_err(|source| StoreError::file(database, source))?;
    let _held = store::hold(&database)?;
    Ok(PlanReply::new(&read(&database).await?, new, Mark::NONE))
}

fn begun_text(life: &LifeReply, is_running: bool) -> String {
    let by = if is_running {
        "the running registry now serves"
    } else {
        "at its next start the registry serves"
    };
    format!(
        "{by} store {}, incarnation {} ({}), from revision {} on",
        life.store, life.incarnation_number, life.incarnation, life.revision
    )
}

fn plan_text(plan: &PlanReply, is_running: bool) -> String {
    let seen = match plan.seen {
        Some((number, revision)) => {
            format!("routers have reported other histories, up to incarnation {number} and revision {revision}")
        }
        None if is_running => "no router has reported another history to the running registry".to_owned(),
        None => "what routers have seen is unknown, because no registry is running".to_owned(),
    };
    format!(
        "nothing was changed: store {}, incarnation {} ({}), revision {} would become store {}, incarnation {}, from \
         revision {} on; {seen}",
        plan.store,
        plan.incarnation_number,
        plan.incarnation,
        plan.revision,
        plan.new_store,
        plan.new_incarnation_number,
        plan.new_revision
    )
}
