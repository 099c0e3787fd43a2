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
        ApiVersion, CaCertificates, Count, DisplayName, Endpoints, Identifier, InfillMode, Labels, Limits, Model,
        Platform, Positive, Prefix, ServerName, Timeout, Tls,
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
    /// `platform_options.api_version`.
    pub api_version: Edit<ApiVersion>,
    /// The paths of the leaves of `platform_options` that are given and that no platform of this version has.
    pub foreign_options: Vec<&'static str>,
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
    api_version: Option<ApiVersion>,
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
            api_version: self.api_version,
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
        let identifier = self.identifier.over(stored.and_then(|model| model.identifier.clone()));
        let platform = self.platform(stored, identifier.as_ref(), violations);
        let api_version = platform.and_then(|platform| self.api_version(platform, stored, violations));
        let endpoints = self.endpoints(platform, stored, violations);
        let infill_mode = self.infill_mode.or_default(
            stored.map_or_else(InfillMode::default, |model| model.infill_mode),
            InfillMode::default(),
        );
        if let Some(family) = family {
            self.check_infill(infill_mode, family, violations);
            if let Some(platform) = platform.filter(|platform| platform.is_chat_only()) {
                self.check_chat(platform, infill_mode, family, violations);
            }
        }
        let (limits, tls, labels) = stored
            .map(|model| (model.limits.clone(), model.tls.clone(), model.labels.clone()))
            .unwrap_or_default();
        Some(Parts {
            display_name: display_name?,
            family: family?,
            platform: platform?,
            api_version,
            endpoints: endpoints?,
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

    /// The servers after this write. `None`: none are named where some have to be, which is a violation by now.
    fn endpoints(
        &self,
        platform: Option<Platform>,
        stored: Option<&Model>,
        violations: &mut Violations,
    ) -> Option<Endpoints> {
        let kept = stored.map(|model| &model.endpoints);
        if matches!(self.endpoints, Edit::Set(GivenEndpoints::One(_)))
            && kept.is_some_and(|kept| kept.as_slice().len() > 1)
        {
            violations.push(
                "model.endpoint",
                FieldReason::EndpointAmbiguous,
                "stands for the only endpoint, but the model has several; give the whole list as `endpoints`",
            );
        }
        let kept = kept.filter(|kept| !kept.as_slice().is_empty());
        let kept = kept.map(|kept| GivenEndpoints::List(kept.clone()));
        // What a platform needs that cannot be told, or is not spoken to, cannot be said.
        let must_be_named = platform.is_some_and(|platform| platform.own_endpoint().is_none());
        let given = if must_be_named {
            self.endpoints.required(kept.as_ref(), "model.endpoints", violations)?
        } else {
            let none = GivenEndpoints::List(Endpoints::default());
            self.endpoints.or_default(kept.unwrap_or_else(|| none.clone()), none)
        };
        Some(match given {
            GivenEndpoints::List(list) => list,
            GivenEndpoints::One(uri) => Endpoints::one(uri),
        })
    }

    /// The platform after this write: given, kept, or, as the default is, told by the identifier. `None`: it cannot be
    /// used, which is a violation by now.
    fn platform(
        &self,
        stored: Option<&Model>,
        identifier: Option<&Identifier>,
        violations: &mut Violations,
    ) -> Option<Platform> {
        let told = identifier.and_then(Identifier::prefix);
        let platform = match (self.platform, stored) {
            (Edit::Set(platform), _) => platform,
            (Edit::Keep, Some(model)) => model.platform,
            (Edit::Clear, _) | (Edit::Keep, None) => told.map_or_else(Platform::default, |prefix| prefix.platform),
            (Edit::Bad, _) => return None,
        };
        if !platform.is_supported() {
            let description = match (self.platform, told) {
                (Edit::Keep | Edit::Clear, Some(prefix)) => unsupported_prefix(prefix),
                _ => format!(
                    "{} is not supported in this version; {} are",
                    platform.as_str(),
                    Platform::supported()
                ),
            };
            violations.push("model.platform", FieldReason::PlatformNotSupported, description);
        }
        if let Some(contradiction) = identifier.and_then(|identifier| identifier.contradiction(platform)) {
            let (field, description) = if matches!(self.identifier, Edit::Set(_)) {
                ("model.identifier", contradiction)
            } else {
                (
                    "model.platform",
                    format!("does not go with the model's `identifier`, which {contradiction}"),
                )
            };
            violations.push(field, FieldReason::IdentifierPlatformMismatch, description);
        }
        Some(platform).filter(|platform| platform.is_supported())
    }

    /// The version of the platform's API after this write. An option of another platform is refused; one that was given
    /// for the platform before goes with it.
    fn api_version(
        &self,
        platform: Platform,
        stored: Option<&Model>,
        violations: &mut Violations,
    ) -> Option<ApiVersion> {
        const FIELD: &str = "platform_options.api_version";
        let is_foreign = !platform.has_api_version() && matches!(self.api_version, Edit::Set(_));
        for path in is_foreign.then_some(&FIELD).into_iter().chain(&self.foreign_options) {
            violations.push(
                format!("model.{path}"),
                FieldReason::PlatformMismatch,
                format!("must be left out: {} has no such option", platform.as_str()),
            );
        }
        if !platform.has_api_version() {
            return None;
        }
        let version = self
            .api_version
            .over(stored.and_then(|model| model.api_version.clone()));
        if version.is_none() && !matches!(self.api_version, Edit::Bad) {
            violations.push(
                format!("model.{FIELD}"),
                FieldReason::FieldRequired,
                format!(
                    "must be given: {} wants the version of its API, for example `2024-10-21`",
                    platform.as_str()
                ),
            );
        }
        version
    }

    /// Where there are only chats, code is completed by one, and the family has to take them.
    fn check_chat(&self, platform: Platform, mode: InfillMode, family: &Family, violations: &mut Violations) {
        let platform = platform.as_str();
        if matches!(mode, InfillMode::Completions | InfillMode::Suffix) {
            let (field, description) = if matches!(self.infill_mode, Edit::Set(_)) {
                (
                    "model.infill_mode",
                    format!("must be INFILL_MODE_CHAT or be left out: {platform} takes chats only"),
                )
            } else {
                (
                    "model.platform",
                    format!("does not go with the model's `infill_mode`: {platform} takes chats only"),
                )
            };
            violations.push(field, FieldReason::InfillModeNotSupported, description);
        }
        if !family.chat {
            let field = if matches!(self.family, Edit::Set(_)) {
                "model.family"
            } else {
                "model.platform"
            };
            let description = format!(
                "{platform} takes chats only, and family `{}` takes none",
                family.machine_name
            );
            violations.push(field, FieldReason::PlatformMismatch, description);
        }
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
        let origins = model.origins();
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
