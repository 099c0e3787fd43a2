//! Requests for API tokens in the contract.

use switchboard::{
    names::{CheckId, CredentialId, ModelName},
    pb::registry,
    reason::FieldReason,
    violation::Violations,
};

use crate::domain::credential::SetCredential;

/// Identifies the requested credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialKey {
    /// The owner of the credential.
    pub owner: CredentialOwner,
    /// Id of the credential.
    pub id: CredentialId,
}

/// The owner of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialOwner {
    /// A registered model.
    Model(ModelName),
    /// A running check.
    Check(CheckId),
}

impl CredentialOwner {
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("checks/") {
            Some(id) => CheckId::parse(id).map(Self::Check).map_err(|error| error.to_string()),
            None => ModelName::parse(text)
                .map(Self::Model)
                .map_err(|error| error.to_string()),
        }
    }
}

impl TryFrom<&registry::GetModelCredentialRequest> for CredentialKey {
    type Error = Violations;

    fn try_from(wire: &registry::GetModelCredentialRequest) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        let owner = required(&wire.model, "model", CredentialOwner::parse, &mut violations);
        let id = required(
            &wire.credential_id,
            "credential_id",
            CredentialId::parse,
            &mut violations,
        );
        match (owner, id) {
            (Some(owner), Some(id)) => Ok(Self { owner, id }),
            _ => Err(violations),
        }
    }
}

/// Returns the answer, which contains the token.
#[must_use]
pub fn response(credential: &SetCredential) -> registry::GetModelCredentialResponse {
    registry::GetModelCredentialResponse {
        credential_id: credential.id.to_string(),
        origins: sorted(&credential.origins),
        api_token: credential.token.expose().to_owned(),
    }
}

/// Returns the origins as sorted texts. The order of the texts differs from the order of the values.
fn sorted<'a>(origins: impl IntoIterator<Item = &'a switchboard::endpoint::Origin>) -> Vec<String> {
    let mut texts: Vec<String> = origins.into_iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    texts
}

fn required<T, E: std::fmt::Display>(
    text: &str,
    field: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
    violations: &mut Violations,
) -> Option<T> {
    if text.is_empty() {
        violations.push(field, FieldReason::FieldRequired, "is required");
        return None;
    }
    match parse(text) {
        Ok(value) => Some(value),
        Err(error) => {
            violations.push(field, FieldReason::ValueMalformed, error.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use switchboard::{endpoint::Origin, secret::ApiToken};

    use super::*;

    #[test]
    fn all_violations_are_reported_at_once() {
        let reasons = |model: &str, id: &str| -> Vec<(String, FieldReason)> {
            let request = registry::GetModelCredentialRequest {
                model: model.to_owned(),
                credential_id: id.to_owned(),
            };
            let violations = CredentialKey::try_from(&request).unwrap_err();
            let bad = violations.as_slice().iter();
            bad.map(|bad| (bad.field.clone(), bad.reason)).collect()
        };
        let (model, id) = ("model".to_owned(), "credential_id".to_owned());
        assert_eq!(
            reasons("", "x"),
            [
                (model.clone(), FieldReason::FieldRequired),
                (id.clone(), FieldReason::ValueMalformed)
            ]
        );
        assert_eq!(
            reasons("mistral", ""),
            [(model, FieldReason::ValueMalformed), (id, FieldReason::FieldRequired)]
        );
    }

    #[test]
    fn origins_are_sorted_as_text() {
        let texts = ["http://b:9", "http://b:10", "https://a:443"];
        let origins: BTreeSet<Origin> = texts.iter().map(|text| Origin::parse(text).unwrap()).collect();
        let credential = SetCredential {
            id: CredentialId::random(),
            origins,
            token: ApiToken::parse("sk-1".to_owned()).unwrap(),
        };
        let response = response(&credential);
        assert_eq!(response.origins, ["http://b:10", "http://b:9", "https://a:443"]);
        assert_eq!(response.api_token, "sk-1");
    }
}
