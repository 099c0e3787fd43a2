//! Hands out models' API tokens, which the stream refers to but never carries.

use switchboard::names::{CredentialId, ModelName};

use crate::domain::{
    credential::{ModelCredential, SetCredential},
    state::State,
};

/// Why a credential is not handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The model does not exist.
    #[error("`{0}` does not exist")]
    UnknownModel(ModelName),
    /// The model's credential was replaced, cleared or dropped.
    #[error("the credential of `{model}` was replaced or removed")]
    Superseded {
        /// The model.
        model: ModelName,
        /// Id of its current credential. `None`: it has none.
        current: Option<CredentialId>,
    },
    /// No running check has this credential, or the credential was already fetched.
    #[error("no running check has this credential, or it was already fetched")]
    CheckOver,
}

/// Returns the credential of `model` if its id is `id`.
///
/// # Errors
///
/// [`CredentialError`] if the model does not exist or has another credential.
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
    fn only_the_current_credential_is_handed_out() {
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
