//! What a write asks of a model's fields, and the model that it makes.

use switchboard::{
    catalogue::Family,
    endpoint::EndpointUri,
    names::{CredentialId, ModelName},
    reason::FieldReason,
    secret::ApiToken,
    violation::Violations,
};

use crate::domain::{
    credential::{Credential, SetCredential},
    model::{
        CaCertificates, Count, DisplayName, Endpoints, Identifier, InfillMode, Labels, Limits, Model, Platform,
        Positive, Prefix, ServerName, Timeout, Tls,
    },
    write::Edit,
};

/// What a write asks of a model's fields.
#[derive(Debug, Default)]
pub struct ModelPatch {
    /// `display_name`.
    pub display_name: Edit<DisplayName>,
    /// `family`.
    pub family: Edit<&'static Family>,
    /// `platform`. Its default on create is what the identifier tells.
    pub platform: Edit<Platform>,
    /// The paths of the leaves of `platform_options` that are given.
    pub platform_options: Vec<&'static str>,
    /// `endpoints` and `endpoint`.
    pub endpoints: Edit<GivenEndpoints>,
    /// `identifier`.
    pub identifier: Edit<Identifier>,
    /// `limits`.
    pub limits: LimitsPatch,
    /// `infill_mode`. Its default is the family's.
    pub infill_mode: Edit<InfillMode>,
    /// `tls`.
    pub tls: TlsPatch,
    /// `disabled`.
    pub disabled: Edit<bool>,
    /// `labels`.
    pub labels: Edit<Labels>,
    /// `api_token`. Every token that is given is a new credential, even if the text is the same.
    pub token: Edit<ApiToken>,
}

/// What a write asks of the leaves of `limits`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LimitsPatch {
    /// `limits.max_concurrency`.
    pub max_concurrency: Edit<Positive>,
    /// `limits.max_queue`.
    pub max_queue: Edit<Count<0, 10_000>>,
    /// `limits.queue_timeout`.
    pub queue_timeout: Edit<Timeout<300>>,
    /// `limits.connect_timeout`.
    pub connect_timeout: Edit<Timeout<60>>,
    /// `limits.first_token_timeout`.
    pub first_token_timeout: Edit<Timeout<900>>,
    /// `limits.idle_timeout`.
    pub idle_timeout: Edit<Timeout<900>>,
    /// `limits.total_timeout`.
    pub total_timeout: Edit<Timeout<900>>,
    /// `limits.max_output_tokens`.
    pub max_output_tokens: Edit<Positive>,
    /// `limits.context_tokens`.
    pub context_tokens: Edit<Positive>,
}

impl LimitsPatch {
    fn over(&self, stored: &Limits) -> Limits {
        Limits {
            max_concurrency: self.max_concurrency.over(stored.max_concurrency),
            max_queue: self.max_queue.over(stored.max_queue),
            queue_timeout: self.queue_timeout.over(stored.queue_timeout),
            connect_timeout: self.connect_timeout.over(stored.connect_timeout),
            first_token_timeout: self.first_token_timeout.over(stored.first_token_timeout),
            idle_timeout: self.idle_timeout.over(stored.idle_timeout),
            total_timeout: self.total_timeout.over(stored.total_timeout),
            max_output_tokens: self.max_output_tokens.over(stored.max_output_tokens),
            context_tokens: self.context_tokens.over(stored.context_tokens),
        }
    }
}

/// What a write asks of the leaves of `tls`.
#[derive(Debug, Clone, Default)]
pub struct TlsPatch {
    /// `tls.ca_pem`.
    pub ca: Edit<CaCertificates>,
    /// `tls.server_name`.
    pub server_name: Edit<ServerName>,
}

/// The endpoints, in the form in which they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenEndpoints {
    /// As `endpoints`.
    List(Endpoints),
    /// As `endpoint`.
    One(EndpointUri),
}

/// A model that has no name yet.
pub(in crate::domain::write) struct Parts {
    pub(super) display_name: DisplayName,
    family: &'static Family,
    platform: Platform,
    endpoints: Endpoints,
    identifier: Option<Identifier>,
    limits: Box<Limits>,
    infill_mode: InfillMode,
    tls: Tls,
    disabled: bool,
    labels: Labels,
}

impl Parts {
    pub(in crate::domain::write) fn into_model(self, name: ModelName) -> Model {
        Model {
            name,
            display_name: self.display_name,
            family: self.family,
            platform: self.platform,
            endpoints: self.endpoints,
            identifier: self.identifier,
            limits: self.limits,
            infill_mode: self.infill_mode,
            tls: self.tls,
            disabled: self.disabled,
            labels: self.labels,
        }
    }
}

impl ModelPatch {
    /// The model that the patch alone makes.
    ///
    /// # Errors
    ///
    /// Violations for required fields that are not set.
    pub fn into_model(self, name: ModelName) -> Result<Model, Violations> {
        let mut violations = Violations::new();
        match self.merged(None, &mut violations) {
            Some(parts) if violations.is_empty() => Ok(parts.into_model(name)),
            _ => Err(violations),
        }
    }

    /// Lays the patch over the stored model; without one, over nothing.
    pub(in crate::domain::write) fn merged(
        &self,
        stored: Option<&Model>,
        violations: &mut Violations,
    ) -> Option<Parts> {
        let display_name = self.display_name.required(
            stored.map(|model| &model.display_name),
            "model.display_name",
            violations,
        );
        let family = self
            .family
            .required(stored.map(|model| &model.family), "model.family", violations);
        let given = stored.map(|model| GivenEndpoints::List(model.endpoints.clone()));
        let endpoints = self.endpoints.required(given.as_ref(), "model.endpoints", violations);
        if matches!(endpoints, Some(GivenEndpoints::One(_)))
            && let Some(model) = stored
            && model.endpoints.as_slice().len() > 1
        {
            violations.push(
                "model.endpoint",
                FieldReason::EndpointAmbiguous,
                "stands for the only endpoint, but the model has several; give the whole list as `endpoints`",
            );
        }
        let identifier = self.identifier.over(stored.and_then(|model| model.identifier.clone()));
        let platform = self.platform(stored, identifier.as_ref(), violations);
        let infill_mode = self.infill_mode.or_default(
            stored.map_or_else(InfillMode::default, |model| model.infill_mode),
            InfillMode::default(),
        );
        if let Some(family) = family {
            self.check_infill(infill_mode, family, violations);
        }
        let (limits, tls, labels) = stored
            .map(|model| (model.limits.clone(), model.tls.clone(), model.labels.clone()))
            .unwrap_or_default();
        Some(Parts {
            display_name: display_name?,
            family: family?,
            platform,
            endpoints: match endpoints? {
                GivenEndpoints::List(list) => list,
                GivenEndpoints::One(uri) => Endpoints::one(uri),
            },
            identifier,
            limits: Box::new(self.limits.over(&limits)),
            infill_mode,
            tls: Tls {
                ca: self.tls.ca.over(tls.ca),
                server_name: self.tls.server_name.over(tls.server_name),
            },
            disabled: self
                .disabled
                .or_default(stored.is_some_and(|model| model.disabled), false),
            labels: self.labels.or_default(labels, Labels::default()),
        })
    }

    /// The platform after this write: given, kept, or told by the identifier of a new model.
    fn platform(
        &self,
        stored: Option<&Model>,
        identifier: Option<&Identifier>,
        violations: &mut Violations,
    ) -> Platform {
        let told = identifier.and_then(Identifier::prefix);
        let platform = match (self.platform, stored) {
            (Edit::Set(platform), _) => platform,
            (Edit::Clear, _) => Platform::default(),
            (Edit::Keep, Some(model)) => model.platform,
            (Edit::Keep, None) => told.map_or_else(Platform::default, |prefix| prefix.platform),
            // What contradicts it cannot be said.
            (Edit::Bad, _) => return Platform::default(),
        };
        if !platform.is_supported() {
            let description = match (self.platform, told) {
                (Edit::Keep, Some(prefix)) => unsupported_prefix(prefix),
                _ => format!(
                    "{} is not supported in this version; only {} is",
                    platform.as_str(),
                    Platform::default().as_str()
                ),
            };
            violations.push("model.platform", FieldReason::PlatformNotSupported, description);
        }
        if let Edit::Set(identifier) = &self.identifier
            && let Some(description) = identifier.contradiction(platform)
        {
            violations.push("model.identifier", FieldReason::IdentifierPlatformMismatch, description);
        }
        if platform == Platform::OpenAiCompatible {
            for path in &self.platform_options {
                violations.push(
                    format!("model.{path}"),
                    FieldReason::PlatformMismatch,
                    format!("must be left out: {} has no such option", platform.as_str()),
                );
            }
        }
        platform
    }

    /// A mode has to be one that the family can do, whichever of the two this write gives.
    fn check_infill(&self, mode: InfillMode, family: &Family, violations: &mut Violations) {
        let Some(obstacle) = mode.obstacle(family) else {
            return;
        };
        let (field, description) = if matches!(self.infill_mode, Edit::Set(_)) {
            ("model.infill_mode", obstacle)
        } else {
            (
                "model.family",
                format!("does not go with the model's `infill_mode`: {obstacle}"),
            )
        };
        violations.push(field, FieldReason::InfillModeNotSupported, description);
    }

    /// The credential that `model` has after this write, and whether the write set, cleared or dropped it.
    pub(in crate::domain::write) fn credential(
        &self,
        stored: &Credential,
        model: &Model,
        fresh: CredentialId,
    ) -> (Credential, bool) {
        let origins = model.endpoints.origins();
        match (&self.token, stored) {
            (Edit::Set(token), _) => {
                let set = SetCredential {
                    id: fresh,
                    origins,
                    token: token.clone(),
                };
                (Credential::Set(set), true)
            }
            (Edit::Clear, Credential::None) => (Credential::None, false),
            (Edit::Clear, Credential::Set(_) | Credential::Dropped) => (Credential::None, true),
            // A token goes only where its giver saw it going.
            (Edit::Keep | Edit::Bad, Credential::Set(set)) if !origins.is_subset(&set.origins) => {
                (Credential::Dropped, true)
            }
            (Edit::Keep | Edit::Bad, kept) => (kept.clone(), false),
        }
    }
}

fn unsupported_prefix(prefix: Prefix) -> String {
    format!(
        "`identifier` begins with `{}`, which tells {}, and that is not supported in this version; write `{}{}…` for an \
         OpenAI-compatible server whose own names begin like that",
        prefix.text,
        prefix.platform.as_str(),
        Prefix::PLAIN,
        prefix.text
    )
}
