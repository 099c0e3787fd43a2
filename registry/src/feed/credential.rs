//! Hands out what the stream names but never carries: a model's API token.

use switchboard::names::{CredentialId, ModelName};

use crate::domain::{
    credential::{ModelCredential, SetCredential},
    state::State,
};

/// Why a credential is not handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is no such model.
    #[error("`{0}` does not exist")]
    UnknownModel(ModelName),
    /// The model's credential is another one by now, or none.
    #[error("the credential of `{model}` is another one by now")]
    Superseded {
        /// The model.
        model: ModelName,
        /// Its credential, if it has one.
        current: Option<CredentialId>,
    },
    /// No check under way has this credential, or its own was fetched already.
    #[error("no check that is under way has this credential any longer")]
    CheckOver,
}

/// The credential of `model`, if it is exactly `id`.
///
/// # Errors
///
/// [`CredentialError`] when there is no such model, or its credential is another one.
pub fn find<'a>(state: &'a State, model: &ModelName, id: CredentialId) -> Result<&'a SetCredential, CredentialError> {
    if state.items.get(&model.to_string()).is_none() {
        return Err(CredentialError::UnknownModel(model.clone()));
    }
    let current = match state.credentials.get(model) {
        Some(ModelCredential::Set(set)) if set.id == id => return Ok(set),
        Some(ModelCredential::Set(set)) => Some(set.id),
        Some(ModelCredential::None | ModelCredential::Dropped) | None => None,
    };
    Err(CredentialError::Superseded {
        model: model.clone(),
        current,
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use switchboard::secret::ApiToken;

    use super::*;
    use crate::testing::History;

    #[test]
    fn only_exactly_the_credential_that_is_asked_for_is_handed_out() {
        let history = History::with_revisions(1);
        let mut state = (*history.state()).clone();
        let model = ModelName::parse("models/a").unwrap();
        let (id, other) = (CredentialId::random(), CredentialId::random());
        let superseded = |current| CredentialError::Superseded {
            model: model.clone(),
            current,
        };

        assert_eq!(find(&state, &model, id).unwrap_err(), superseded(None));
        Arc::make_mut(&mut state.credentials).insert(model.clone(), ModelCredential::Dropped);
        assert_eq!(find(&state, &model, id).unwrap_err(), superseded(None));
        let set = SetCredential {
            id,
            origins: BTreeSet::new(),
            token: ApiToken::parse("sk-1".to_owned()).unwrap(),
        };
        Arc::make_mut(&mut state.credentials).insert(model.clone(), ModelCredential::Set(set));
        assert_eq!(find(&state, &model, id).unwrap().token.expose(), "sk-1");
        assert_eq!(find(&state, &model, other).unwrap_err(), superseded(Some(id)));

        let unknown = ModelName::parse("models/b").unwrap();
        assert_eq!(
            find(&state, &unknown, id).unwrap_err(),
            CredentialError::UnknownModel(unknown)
        );
    }
}
