//! A model in the simple description that the histories are compared with.

use std::collections::{BTreeMap, BTreeSet};

use switchboard::pb::registry::{self, CredentialState, ModelEntry};

use super::plain::Outcome;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Model {
    pub(super) display_name: String,
    pub(super) family: String,
    /// Weight and zone by URL.
    pub(super) endpoints: BTreeMap<String, (i32, String)>,
    pub(super) disabled: bool,
    pub(super) max_queue: Option<i32>,
    pub(super) max_concurrency: Option<i32>,
    pub(super) token: Token,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    NotWanted,
    Set { text: String, origins: BTreeSet<String> },
    Dropped,
}

impl Model {
    pub(super) fn read(entry: ModelEntry) -> Self {
        let model = entry.model.unwrap();
        let limits = model.limits.unwrap_or_default();
        let credential = entry.credential.unwrap();
        Self {
            token: match credential.state() {
                CredentialState::Set => Token::Set {
                    text: String::new(),
                    origins: credential.origins.into_iter().collect(),
                },
                CredentialState::Dropped => Token::Dropped,
                CredentialState::None | CredentialState::Unspecified => Token::NotWanted,
            },
            display_name: model.display_name.unwrap(),
            family: model.family.unwrap(),
            endpoints: by_url(&model.endpoints),
            disabled: model.disabled.unwrap_or(false),
            max_queue: limits.max_queue,
            max_concurrency: limits.max_concurrency,
        }
    }

    /// Sets the fields that the request has.
    pub(super) fn set(&mut self, given: &registry::Model) {
        if let Some(name) = &given.display_name {
            self.display_name.clone_from(name);
        }
        if let Some(family) = &given.family {
            self.family.clone_from(family);
        }
        if !given.endpoints.is_empty() {
            self.endpoints = by_url(&given.endpoints);
        }
        self.disabled = given.disabled.unwrap_or(self.disabled);
        let limits = given.limits.unwrap_or_default();
        self.max_queue = limits.max_queue.or(self.max_queue);
        self.max_concurrency = limits.max_concurrency.or(self.max_concurrency);
        let origins = self.origins();
        match (given.api_token.as_deref(), &self.token) {
            (Some(""), _) => self.token = Token::NotWanted,
            (Some(text), _) => {
                let text = text.to_owned();
                self.token = Token::Set { text, origins };
            }
            (None, Token::Set { origins: bound, .. }) if !origins.is_subset(bound) => self.token = Token::Dropped,
            (None, _) => {}
        }
    }

    pub(super) fn origins(&self) -> BTreeSet<String> {
        self.endpoints.keys().map(|uri| uri.replace("/v1", "")).collect()
    }

    pub(super) fn answers(&self, name: &str, source: &str, outcome: &Outcome) -> bool {
        let wanted = match &self.token {
            Token::Set { text, .. } => Some(format!("Bearer {text}")),
            Token::NotWanted | Token::Dropped => None,
        };
        match outcome {
            Outcome::Refused(_) => false,
            Outcome::Answered {
                model,
                source_feature,
                endpoint,
                authorization,
            } => {
                let is_used = |(uri, (weight, _)): (&String, &(i32, String))| *weight > 0 && uri.contains(endpoint);
                model == name
                    && source_feature == source
                    && *authorization == wanted
                    && self.endpoints.iter().any(is_used)
            }
        }
    }
}

fn by_url(endpoints: &[registry::Endpoint]) -> BTreeMap<String, (i32, String)> {
    let endpoints = endpoints.iter().map(|endpoint| {
        let facts = (endpoint.weight.unwrap_or(1), endpoint.zone.clone());
        (endpoint.uri.clone(), facts)
    });
    endpoints.collect()
}
