//! `accept-history`: declares the content of the database the newest, as a new incarnation.

use super::{CommandError, begin_life};
use crate::{
    commit::OpenError,
    config::AcceptHistory,
    control::{self, ControlRequest},
    domain::life::{LifeCause, Mark, NewLife},
    store::{self, StoreError},
};

pub(super) async fn run(told: AcceptHistory) -> Result<String, CommandError> {
    let AcceptHistory {
        above,
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
    let (begun, by) = match begin_life(&database, new).await {
        // Another process holds the database. If that is a running registry, it does this itself.
        Err(CommandError::Open(OpenError::Store(StoreError::Locked(_)))) => {
            let request = ControlRequest::AcceptHistory {
                above: above.to_string(),
                adopt_store: adopt_store.map(|store| store.to_string()),
            };
            let answer = control::ask(&database, &request).await?;
            (answer, "the running registry now serves")
        }
        begun => (begun?.into(), "at its next start the registry serves"),
    };
    Ok(format!(
        "{by} store {}, incarnation {} ({}), from revision {} on",
        begun.store, begun.incarnation_number, begun.incarnation, begun.revision
    ))
}
