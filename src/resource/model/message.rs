//! Models as messages, in both directions.

use super::{
    super::fields::{Field, Fields, Flaw, Given},
    ApiVersion, DisplayName, Endpoints, Identifier, InfillMode, Labels, Limits, Model, ModelSpec, Platform, Prefix,
    Tls, Weight, endpoints, platform,
};
use crate::{
    catalogue::{Catalogue, Family},
    pb::registry::{self, Platform as Kind},
    reason::FieldReason,
    resource::Source,
    secret::ApiToken,
    violation::Violations,
};

const API_VERSION: &str = "platform_options.api_version";

/// A model that was read, and what the message says of its API token, which is no part of it.
#[derive(Debug)]
pub struct ReadModel {
    /// The model, less its name.
    pub spec: ModelSpec,
    /// Its API token.
    pub token: GivenToken,
}

/// What a message says of a model's API token.
#[derive(Debug, Clone)]
pub enum GivenToken {
    /// Nothing.
    Kept,
    /// There shall be none.
    Cleared,
    /// This one. Every token that is given is a new credential, even if the text is the same.
    Set(ApiToken),
}

impl ModelSpec {
    /// Reads a message that is the whole model.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn whole(message: registry::Model) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        match Self::read(message, &Given::Whole, &mut violations) {
            Some(read) if violations.is_empty() => Ok(read.spec),
            Some(_) | None => Err(violations),
        }
    }

    /// Reads a model, but for its name. What is output only is not looked at.
    ///
    /// Everything that is wrong with its fields, each by itself and together, is added to `violations`. What is read is the
    /// model only if there is nothing; otherwise it is good for finding more that is wrong. `None`: not even that.
    pub fn read(message: registry::Model, given: &Given, violations: &mut Violations) -> Option<ReadModel> {
        let registry::Model {
            name: _,
            display_name,
            family,
            platform,
            endpoints,
            endpoint,
            identifier,
            api_token,
            limits,
            infill_mode,
            tls,
            disabled,
            labels,
            platform_options,
            etag: _,
            api_token_set: _,
            api_token_dropped: _,
            api_token_update_time: _,
            features: _,
            release_stage: _,
            health: _,
            revision: _,
            create_time: _,
            update_time: _,
            kept_without_beta: _,
        } = message;
        let mut fields = Fields::new("model", given, violations);
        let display_name = fields.read("display_name", display_name, |text| DisplayName::parse(&text));
        let family = fields.read("family", family, |text| known_family(&text));
        let kind = fields.read("platform", platform, read_kind);
        let options = PlatformFields::read(platform_options.unwrap_or_default(), &mut fields);
        let endpoints = endpoints::read(endpoints, endpoint, &mut fields);
        let identifier = fields.read("identifier", identifier, |text| Identifier::parse(&text));
        let identifier = identifier.flattened();
        let limits = Limits::read(limits.unwrap_or_default(), &mut fields);
        let infill_mode = fields.read("infill_mode", infill_mode, read_infill_mode);
        let tls = Tls::read(tls.unwrap_or_default(), &mut fields);
        let labels = Some(labels).filter(|map| !map.is_empty());
        let labels = fields.read("labels", labels, Labels::new);
        let token = read_token(api_token, &mut fields);
        if fields.are_alone() {
            return None;
        }

        let display_name = fields.required("display_name", display_name);
        let is_family_given = family.is_given();
        let family = fields.required("family", family);
        let kind = chosen_kind(&kind, &identifier, &mut fields);
        let platform = kind.and_then(|kind| options.platform(kind, &mut fields));
        let endpoints = named_endpoints(kind, endpoints, &mut fields);
        let is_mode_given = infill_mode.is_given();
        let infill_mode = infill_mode.value.unwrap_or_default();
        if let Some(family) = family {
            check_infill(infill_mode, is_mode_given, family, &mut fields);
            if let Some(kind) = kind.filter(|kind| platform::is_chat_only(*kind)) {
                check_mode_of_chats(kind, infill_mode, is_mode_given, &mut fields);
                check_family_of_chats(kind, family, is_family_given, &mut fields);
            }
        }
        let spec = Self {
            display_name: display_name?,
            family: family?,
            platform: platform?,
            endpoints: endpoints?,
            identifier: identifier.value,
            limits: Box::new(limits),
            infill_mode,
            tls,
            disabled: disabled.unwrap_or(false),
            labels: labels.value.unwrap_or_default(),
        };
        Some(ReadModel { spec, token })
    }
}

impl Model {
    /// The model with everything that it is, defaults too: as it is answered, and as a write is laid over it.
    #[must_use]
    pub fn to_message(&self) -> registry::Model {
        let Self {
            name,
            spec:
                ModelSpec {
                    display_name,
                    family,
                    platform,
                    endpoints,
                    identifier,
                    limits,
                    infill_mode,
                    tls,
                    disabled,
                    labels,
                },
        } = self;
        registry::Model {
            name: name.to_string(),
            display_name: Some(display_name.as_str().to_owned()),
            family: Some(family.machine_name.clone()),
            platform: Some(platform.kind().into()),
            endpoints: endpoints.to_messages(),
            endpoint: None,
            identifier: identifier.as_ref().map(|identifier| identifier.as_str().to_owned()),
            api_token: None,
            limits: limits.to_message(),
            infill_mode: Some(registry::InfillMode::from(*infill_mode).into()),
            tls: tls.to_message(),
            disabled: Some(*disabled),
            labels: labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            platform_options: platform.api_version().map(|version| registry::PlatformOptions {
                api_version: Some(version.as_str().to_owned()),
                region: None,
                project: None,
            }),
            etag: String::new(),
            api_token_set: false,
            api_token_dropped: false,
            api_token_update_time: None,
            features: Vec::new(),
            release_stage: registry::ReleaseStage::Unspecified.into(),
            health: Vec::new(),
            revision: 0,
            create_time: None,
            update_time: None,
            kept_without_beta: false,
        }
    }

    /// The model as it is stored, streamed and hashed: only what somebody has set.
    #[must_use]
    pub fn to_stored(&self) -> registry::Model {
        let full = self.to_message();
        let endpoints = full.endpoints.into_iter().map(|endpoint| registry::Endpoint {
            weight: endpoint.weight.filter(|&weight| weight != Weight::default().get()),
            ..endpoint
        });
        registry::Model {
            platform: full
                .platform
                .filter(|_| self.spec.platform.kind() != Platform::default().kind()),
            endpoints: endpoints.collect(),
            infill_mode: full
                .infill_mode
                .filter(|_| self.spec.infill_mode != InfillMode::default()),
            disabled: full.disabled.filter(|&disabled| disabled),
            ..full
        }
    }
}

impl From<InfillMode> for registry::InfillMode {
    fn from(mode: InfillMode) -> Self {
        match mode {
            InfillMode::FamilyDefault => Self::FamilyDefault,
            InfillMode::Completions => Self::Completions,
            InfillMode::Suffix => Self::Suffix,
            InfillMode::Chat => Self::Chat,
        }
    }
}

fn known_family(text: &str) -> Result<&'static Family, Flaw> {
    let catalogue = Catalogue::get();
    catalogue.family(text).ok_or_else(|| {
        let known = catalogue.families().iter().map(|family| family.machine_name.as_str());
        let known: Vec<_> = known.collect();
        let description = format!("is not in the catalogue; the families are {}", known.join(", "));
        Flaw::new(FieldReason::FamilyUnknown, description)
    })
}

fn read_kind(number: i32) -> Result<Kind, Flaw> {
    let kind = Kind::try_from(number).ok().filter(|kind| *kind != Kind::Unspecified);
    kind.ok_or_else(|| {
        let description = format!("must be one of {}, or be left out", platform::supported());
        Flaw::new(FieldReason::ValueUnknown, description)
    })
}

fn read_infill_mode(number: i32) -> Result<InfillMode, Flaw> {
    match registry::InfillMode::try_from(number) {
        Ok(registry::InfillMode::FamilyDefault) => Ok(InfillMode::FamilyDefault),
        Ok(registry::InfillMode::Completions) => Ok(InfillMode::Completions),
        Ok(registry::InfillMode::Suffix) => Ok(InfillMode::Suffix),
        Ok(registry::InfillMode::Chat) => Ok(InfillMode::Chat),
        Ok(registry::InfillMode::Unspecified) | Err(_) => Err(Flaw::new(
            FieldReason::ValueUnknown,
            "must be INFILL_MODE_FAMILY_DEFAULT, INFILL_MODE_COMPLETIONS, INFILL_MODE_SUFFIX or INFILL_MODE_CHAT",
        )),
    }
}

/// A bad token is a violation by now.
fn read_token(text: Option<String>, fields: &mut Fields<'_>) -> GivenToken {
    const TOKEN: &str = "api_token";
    let source = fields.source(TOKEN, text.is_some());
    let text = text.filter(|text| !text.is_empty());
    match (source, text) {
        (Source::Kept, _) => GivenToken::Kept,
        (Source::Set | Source::Cleared, None) => GivenToken::Cleared,
        (Source::Set | Source::Cleared, Some(text)) => fields
            .part(TOKEN, ApiToken::parse(text))
            .map_or(GivenToken::Kept, GivenToken::Set),
    }
}

/// What the platform needs.
struct PlatformFields {
    api_version: Field<ApiVersion>,
    /// The paths of the options that are given and that no platform of this build has.
    foreign: Vec<&'static str>,
}

impl PlatformFields {
    fn read(wire: registry::PlatformOptions, fields: &mut Fields<'_>) -> Self {
        let registry::PlatformOptions {
            api_version,
            region,
            project,
        } = wire;
        let foreign = [
            ("platform_options.region", region),
            ("platform_options.project", project),
        ];
        let foreign = foreign.into_iter().filter_map(|(path, value)| {
            // An empty one asks for nothing.
            let value = value.filter(|text| !text.is_empty());
            (value.is_some() && fields.source(path, true) == Source::Set).then_some(path)
        });
        let foreign = foreign.collect();
        let api_version = fields.read(API_VERSION, api_version, |text| ApiVersion::parse(&text));
        Self {
            api_version: api_version.flattened(),
            foreign,
        }
    }

    /// The platform of this kind with its options. An option of another platform is refused; one that was given for the
    /// platform before goes with it. `None`: an option is missing, which is a violation by now.
    fn platform(self, kind: Kind, fields: &mut Fields<'_>) -> Option<Platform> {
        let has_version = kind == Kind::AzureOpenai;
        let is_foreign = !has_version && self.api_version.is_given();
        for path in is_foreign.then_some(API_VERSION).into_iter().chain(self.foreign) {
            let description = format!("must be left out: {} has no such option", kind.as_str_name());
            fields.push(path, FieldReason::PlatformMismatch, description);
        }
        match kind {
            Kind::OpenaiCompatible => Some(Platform::OpenAiCompatible),
            Kind::Anthropic => Some(Platform::Anthropic),
            Kind::AzureOpenai => {
                if self.api_version.value.is_none() && !self.api_version.is_bad {
                    let description = format!(
                        "must be given: {} wants the version of its API, for example `2024-10-21`",
                        kind.as_str_name()
                    );
                    fields.push(API_VERSION, FieldReason::FieldRequired, description);
                }
                let api_version = self.api_version.value?;
                Some(Platform::AzureOpenAi { api_version })
            }
            Kind::Unspecified | Kind::Bedrock | Kind::VertexAi => None,
        }
    }
}

/// The kind of platform: given or, as the default is, told by the identifier. `None`: this build does not speak to it, which
/// is a violation by now.
fn chosen_kind(kind: &Field<Kind>, identifier: &Field<Identifier>, fields: &mut Fields<'_>) -> Option<Kind> {
    const PLATFORM: &str = "platform";
    if kind.is_bad {
        return None;
    }
    let told = identifier.value.as_ref().and_then(Identifier::prefix);
    let chosen = kind
        .value
        .unwrap_or_else(|| told.map_or_else(|| Platform::default().kind(), |prefix| prefix.platform));
    if !platform::is_supported(chosen) {
        let description = match (kind.value, told) {
            (None, Some(prefix)) => unsupported_prefix(prefix),
            _ => format!(
                "{} is not supported in this version; {} are",
                chosen.as_str_name(),
                platform::supported()
            ),
        };
        fields.push(PLATFORM, FieldReason::PlatformNotSupported, description);
    }
    let contradiction = identifier.value.as_ref();
    if let Some(contradiction) = contradiction.and_then(|identifier| identifier.contradiction(chosen)) {
        let (path, description) = if identifier.is_given() {
            ("identifier", contradiction)
        } else {
            let description = format!("does not go with the model's `identifier`, which {contradiction}");
            (PLATFORM, description)
        };
        fields.push(path, FieldReason::IdentifierPlatformMismatch, description);
    }
    Some(chosen).filter(|kind| platform::is_supported(*kind))
}

fn unsupported_prefix(prefix: Prefix) -> String {
    format!(
        "`identifier` begins with `{}`, which tells {}, and that is not supported in this version; write `{}{}…` for an \
         OpenAI-compatible server whose own names begin like that",
        prefix.text,
        prefix.platform.as_str_name(),
        Prefix::PLAIN,
        prefix.text
    )
}

/// The servers that the model names. `None`: none where some have to be, which is a violation by now. What a platform needs
/// that is not known cannot be said.
fn named_endpoints(kind: Option<Kind>, endpoints: Field<Endpoints>, fields: &mut Fields<'_>) -> Option<Endpoints> {
    if kind.is_some_and(|kind| platform::own_endpoint(kind).is_none()) {
        fields.required("endpoints", endpoints)
    } else {
        Some(endpoints.value.unwrap_or_default())
    }
}

/// A mode has to be one that the family can do, whichever of the two was given.
fn check_infill(mode: InfillMode, is_given: bool, family: &Family, fields: &mut Fields<'_>) {
    let Some(obstacle) = mode.obstacle(family) else { return };
    let (path, description) = if is_given {
        ("infill_mode", obstacle)
    } else {
        let description = format!("does not go with the model's `infill_mode`: {obstacle}");
        ("family", description)
    };
    fields.push(path, FieldReason::InfillModeNotSupported, description);
}

/// Where there are only chats, code is completed by one.
fn check_mode_of_chats(kind: Kind, mode: InfillMode, is_given: bool, fields: &mut Fields<'_>) {
    let platform = kind.as_str_name();
    if !matches!(mode, InfillMode::Completions | InfillMode::Suffix) {
        return;
    }
    let (path, description) = if is_given {
        let description = format!("must be INFILL_MODE_CHAT or be left out: {platform} takes chats only");
        ("infill_mode", description)
    } else {
        let description = format!("does not go with the model's `infill_mode`: {platform} takes chats only");
        ("platform", description)
    };
    fields.push(path, FieldReason::InfillModeNotSupported, description);
}

/// Where there are only chats, the family has to take them.
fn check_family_of_chats(kind: Kind, family: &Family, is_given: bool, fields: &mut Fields<'_>) {
    if family.chat {
        return;
    }
    let path = if is_given { "family" } else { "platform" };
    let (platform, family) = (kind.as_str_name(), &family.machine_name);
    let description = format!("{platform} takes chats only, and family `{family}` takes none");
    fields.push(path, FieldReason::PlatformMismatch, description);
}
