//! Conversion of models from and to the contract's messages.

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

/// The result of reading a model: its configuration, and the change to its API token, which is stored separately.
#[derive(Debug)]
pub struct ReadModel {
    /// The configuration of the model, without its name.
    pub spec: ModelSpec,
    /// The change to the model's API token.
    pub token: GivenToken,
}

/// The change that a message makes to a model's API token.
#[derive(Debug, Clone)]
pub enum GivenToken {
    /// The message does not mention the token: it is kept.
    Kept,
    /// The token is removed.
    Cleared,
    /// The token is set. Every token that is set is a new credential, even if its text is the same as before.
    Set(ApiToken),
}

impl ModelSpec {
    /// Reads a message that is a complete model.
    ///
    /// # Errors
    ///
    /// All violations that [`Self::read`] finds.
    pub fn whole(message: registry::Model) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        match Self::read(message, &Given::Whole, &mut violations) {
            Some(read) if violations.is_empty() => Ok(read.spec),
            Some(_) | None => Err(violations),
        }
    }

    /// Reads a model from a message, without its name. Output-only fields are ignored.
    ///
    /// Adds all violations, of single fields and of fields together, to `violations`. The result is a valid model only
    /// if there are no violations; otherwise the caller may use it only to look for more violations. `None`: not enough
    /// of the message is valid for such a result, or `given` is [`Given::Alone`].
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
    /// Converts the model to a message with all values, including defaults. The registry returns this message to
    /// callers and merges writes into it.
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

    /// Converts the model to the message that is stored, streamed and hashed. It contains only values that differ from
    /// the default.
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

/// Reads the API token. For an invalid token, it adds a violation and returns [`GivenToken::Kept`].
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

/// The fields with options of the platform.
struct PlatformFields {
    api_version: Field<ApiVersion>,
    /// Paths of the options that were set and that no platform of this build has.
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
            // An empty option counts as not set.
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

    /// Creates the platform of this kind with its options. An option of another platform is refused if the write sets
    /// it, and dropped if it was stored for the model's previous platform. `None`: the kind is not supported, or a
    /// required option is missing or invalid; a violation was added.
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
                        "must be given: {} requires an API version, for example `2024-10-21`",
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

/// Determines the kind of platform: the configured one, or the one that the identifier's prefix selects, or the
/// default. `None`: the kind is invalid or not supported by this build, and a violation was added.
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
                "{} is not supported in this version; the supported platforms are {}",
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
            let description = format!("does not match the model's `identifier`, which {contradiction}");
            (PLATFORM, description)
        };
        fields.push(path, FieldReason::IdentifierPlatformMismatch, description);
    }
    Some(chosen).filter(|kind| platform::is_supported(*kind))
}

fn unsupported_prefix(prefix: Prefix) -> String {
    format!(
        "`identifier` begins with `{}`, which selects {}, and that is not supported in this version; write `{}{}...` \
         if this is an OpenAI-compatible server whose own model names begin like that",
        prefix.text,
        prefix.platform.as_str_name(),
        Prefix::PLAIN,
        prefix.text
    )
}

/// Returns the configured endpoints. `None`: endpoints are required but missing or invalid, and a violation was added.
/// If the platform is not known, endpoints are not required.
fn named_endpoints(kind: Option<Kind>, endpoints: Field<Endpoints>, fields: &mut Fields<'_>) -> Option<Endpoints> {
    if kind.is_some_and(|kind| platform::own_endpoint(kind).is_none()) {
        fields.required("endpoints", endpoints)
    } else {
        Some(endpoints.value.unwrap_or_default())
    }
}

/// Adds a violation if the family does not support the infill mode. It names the field that the write has set.
fn check_infill(mode: InfillMode, is_given: bool, family: &Family, fields: &mut Fields<'_>) {
    let Some(obstacle) = mode.obstacle(family) else { return };
    let (path, description) = if is_given {
        ("infill_mode", obstacle)
    } else {
        let description = format!("does not match the model's `infill_mode`: {obstacle}");
        ("family", description)
    };
    fields.push(path, FieldReason::InfillModeNotSupported, description);
}

/// Adds a violation if a platform with only chat has another infill mode.
fn check_mode_of_chats(kind: Kind, mode: InfillMode, is_given: bool, fields: &mut Fields<'_>) {
    let platform = kind.as_str_name();
    if !matches!(mode, InfillMode::Completions | InfillMode::Suffix) {
        return;
    }
    let (path, description) = if is_given {
        let description = format!("must be INFILL_MODE_CHAT or be left out: {platform} supports only chat");
        ("infill_mode", description)
    } else {
        let description = format!("does not match the model's `infill_mode`: {platform} supports only chat");
        ("platform", description)
    };
    fields.push(path, FieldReason::InfillModeNotSupported, description);
}

/// Adds a violation if a platform with only chat has a family that does not support chat.
fn check_family_of_chats(kind: Kind, family: &Family, is_given: bool, fields: &mut Fields<'_>) {
    if family.chat {
        return;
    }
    let path = if is_given { "family" } else { "platform" };
    let (platform, family) = (kind.as_str_name(), &family.machine_name);
    let description = format!("{platform} supports only chat, and family `{family}` does not support chat");
    fields.push(path, FieldReason::PlatformMismatch, description);
}
