//! `verify`: checks that a database or a backup is whole.

use switchboard::history::View;

use super::{CommandError, described, progress, read};
use crate::{config::Verify, domain::credential::ModelCredential};

pub(super) async fn run(told: Verify) -> Result<String, CommandError> {
    let file = told.file.unwrap_or(told.database.database_url);
    progress(&format!("verifying `{}`", file.display()));
    let state = read(&file).await?;
    let is_set = |credential: &&ModelCredential| matches!(credential, ModelCredential::Set(_));
    Ok(format!(
        "`{}` is whole: {}; checked the file, the history from revision {} on, the state of {} resources and {} API tokens",
        file.display(),
        described(&state),
        state.items.oldest_resumable(),
        state.items.all(View::Router).count(),
        state.credentials.values().filter(is_set).count(),
    ))
}
