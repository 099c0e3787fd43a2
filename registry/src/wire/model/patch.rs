//! What the fields of a request ask of a model.

use switchboard::{
    catalogue::{Catalogue, Family},
    endpoint::EndpointUri,
    pb::registry,
    reason::FieldReason,
    secret::ApiToken,
    violation::Violations,
};

use super::{
    super::{Flaw, mask::Mask},
    part,
};
use crate::domain::{
    model::{
        ApiVersion, CaCertificates, Count, DisplayName, Endpoint, Endpoints, Identifier, Labels, ModelPartError,
        ServerName, Weight, Zone,
    },
    write::{Edit, GivenEndpoints, LimitsPatch, ModelPatch, TlsPatch},
};

/// What the fields of a model ask for, by a mask.
pub(in crate::wire) fn patch(model: registry::Model, mask: &Mask, violations: &mut Violations) -> ModelPatch {
    let mut fields = Fields { mask, violations };
    let options = model.platform_options.unwrap_or_default();
    let token = mask.edit("api_token", model.api_token);
    // A full replacement that is silent about the token keeps it: nobody can read it and send it back.
    let token = if *mask == Mask::All && token == Edit::Clear {
        Edit::Keep
    } else {
        token
    };
    ModelPatch {
        display_name: fields.read("display_name", model.display_name, |text| DisplayName::parse(&text)),
        family: fields.read("family", model.family, |text| known_family(&text)),
        platform: fields.read("platform", model.platform, part::platform),
        foreign_options: foreign_options(mask, &options),
        api_version: fields
            .read("platform_options.api_version", options.api_version, |text| {
                ApiVersion::parse(&text)
            })
            .or_clear(|version| version),
        endpoints: given_endpoints(
            mask.edit("endpoints", Some(model.endpoints).filter(|list| !list.is_empty())),
            mask.edit("endpoint", model.endpoint),
            fields.violations,
        ),
        identifier: fields
            .read("identifier", model.identifier, |text| Identifier::parse(&text))
            .or_clear(|identifier| identifier),
        limits: limits(model.limits.unwrap_or_default(), &mut fields),
        infill_mode: fields.read("infill_mode", model.infill_mode, part::infill_mode),
        tls: tls(model.tls.unwrap_or_default(), &mut fields),
        disabled: mask.edit("disabled", model.disabled),
        labels: fields.read("labels", Some(model.labels).filter(|map| !map.is_empty()), Labels::new),
        token: token
            .or_clear(|text| Some(text).filter(|text| !text.is_empty()))
            .parsed("model.api_token", fields.violations, ApiToken::parse),
    }
}

/// The fields that are read, and what is wrong with them.
struct Fields<'a> {
    mask: &'a Mask,
    violations: &'a mut Violations,
}

impl Fields<'_> {
    /// What the request asks of one field, whose value is absent or present.
    fn read<T, U, E: Into<Flaw>>(
        &mut self,
        path: &'static str,
        value: Option<T>,
        parse: impl FnOnce(T) -> Result<U, E>,
    ) -> Edit<U> {
        let edit = self.mask.edit(path, value);
        edit.parsed(&format!("model.{path}"), self.violations, parse)
    }
}

fn limits(limits: registry::ModelLimits, fields: &mut Fields<'_>) -> LimitsPatch {
    LimitsPatch {
        max_concurrency: fields.read("limits.max_concurrency", limits.max_concurrency, Count::parse),
        max_queue: fields.read("limits.max_queue", limits.max_queue, Count::parse),
        queue_timeout: fields.read("limits.queue_timeout", limits.queue_timeout, part::timeout),
        connect_timeout: fields.read("limits.connect_timeout", limits.connect_timeout, part::timeout),
        first_token_timeout: fields.read("limits.first_token_timeout", limits.first_token_timeout, part::timeout),
        idle_timeout: fields.read("limits.idle_timeout", limits.idle_timeout, part::timeout),
        total_timeout: fields.read("limits.total_timeout", limits.total_timeout, part::timeout),
        max_output_tokens: fields.read("limits.max_output_tokens", limits.max_output_tokens, Count::parse),
        context_tokens: fields.read("limits.context_tokens", limits.context_tokens, Count::parse),
    }
}

fn tls(tls: registry::Tls, fields: &mut Fields<'_>) -> TlsPatch {
    TlsPatch {
        ca: fields
            .read("tls.ca_pem", tls.ca_pem, |text| CaCertificates::parse(&text))
            .or_clear(|ca| ca),
        server_name: fields
            .read("tls.server_name", tls.server_name, |text| ServerName::parse(&text))
            .or_clear(|name| name),
    }
}

/// The leaves that are to have a value; an empty one asks for nothing.
fn foreign_options(mask: &Mask, options: &registry::PlatformOptions) -> Vec<&'static str> {
    [
        ("platform_options.region", &options.region),
        ("platform_options.project", &options.project),
    ]
    .into_iter()
    .filter(|(path, value)| matches!(mask.edit(path, value.as_deref()), Edit::Set(text) if !text.is_empty()))
    .map(|(path, _)| path)
    .collect()
}

/// Of a request without a body: there is nothing more to say about its required fields.
pub(super) fn bad_patch() -> ModelPatch {
    ModelPatch {
        display_name: Edit::Bad,
        family: Edit::Bad,
        endpoints: Edit::Bad,
        ..Default::default()
    }
}

/// Whether a field is present that can be set.
pub(super) fn has_any_field(model: &registry::Model) -> bool {
    model.display_name.is_some()
        || model.family.is_some()
        || model.platform.is_some()
        || !model.endpoints.is_empty()
        || model.endpoint.is_some()
        || model.identifier.is_some()
        || model.api_token.is_some()
        || model
            .limits
            .is_some_and(|limits| limits != registry::ModelLimits::default())
        || model.infill_mode.is_some()
        || model.tls.as_ref().is_some_and(|tls| *tls != registry::Tls::default())
        || model.disabled.is_some()
        || !model.labels.is_empty()
        || model
            .platform_options
            .as_ref()
            .is_some_and(|options| *options != registry::PlatformOptions::default())
}

fn known_family(text: &str) -> Result<&'static Family, Flaw> {
    let catalogue = Catalogue::get();
    catalogue.family(text).ok_or_else(|| {
        let known: Vec<_> = catalogue
            .families()
            .iter()
            .map(|family| family.machine_name.as_str())
            .collect();
        let description = format!("is not in the catalogue; the families are {}", known.join(", "));
        Flaw::new(FieldReason::FamilyUnknown, description)
    })
}

fn given_endpoints(
    list: Edit<Vec<registry::Endpoint>>,
    one: Edit<String>,
    violations: &mut Violations,
) -> Edit<GivenEndpoints> {
    let is_both = matches!((&list, &one), (Edit::Set(_), Edit::Set(_)));
    let list = match list {
        Edit::Set(list) => parse_endpoints(&list, violations),
        Edit::Keep => Edit::Keep,
        Edit::Clear => Edit::Clear,
        Edit::Bad => Edit::Bad,
    };
    let one = one.parsed("model.endpoint", violations, |text| EndpointUri::parse(&text));
    if is_both {
        violations.push(
            "model.endpoint",
            FieldReason::EndpointAmbiguous,
            "must not be given beside `endpoints`, of which it is the short form",
        );
        return Edit::Bad;
    }
    match (list, one) {
        (Edit::Set(list), _) => Edit::Set(GivenEndpoints::List(list)),
        (_, Edit::Set(uri)) => Edit::Set(GivenEndpoints::One(uri)),
        (Edit::Bad, _) | (_, Edit::Bad) => Edit::Bad,
        (Edit::Clear, _) | (_, Edit::Clear) => Edit::Clear,
        (Edit::Keep, Edit::Keep) => Edit::Keep,
    }
}

fn parse_endpoints(list: &[registry::Endpoint], violations: &mut Violations) -> Edit<Endpoints> {
    let before = violations.as_slice().len();
    let mut endpoints = Vec::with_capacity(list.len());
    // One entry too many is a violation; a thousand of them need no thousand violations.
    for (index, endpoint) in list.iter().enumerate().take(Endpoints::COUNT_MAX + 1) {
        let path = |part| format!("model.endpoints[{index}].{part}");
        let uri = Edit::Set(&endpoint.uri).parsed(&path("uri"), violations, |text| match text.as_str() {
            "" => Err(Flaw::new(FieldReason::FieldRequired, "must be given")),
            text => EndpointUri::parse(text).map_err(Flaw::from),
        });
        let weight = endpoint.weight.unwrap_or_else(|| Weight::default().get());
        let weight = Edit::Set(weight).parsed(&path("weight"), violations, Weight::parse);
        let zone = Edit::Set(&endpoint.zone).parsed(&path("zone"), violations, |text| Zone::parse(text));
        if let (Edit::Set(uri), Edit::Set(weight), Edit::Set(zone)) = (uri, weight, zone) {
            endpoints.push(Endpoint { uri, weight, zone });
        }
    }
    // The places in the list are those of the request only while no entry is left out.
    if violations.as_slice().len() > before {
        return Edit::Bad;
    }
    match Endpoints::new(endpoints) {
        Ok(endpoints) => Edit::Set(endpoints),
        Err(errors) => {
            for error in errors {
                let field = match error {
                    ModelPartError::EndpointRepeated { index } => format!("model.endpoints[{index}].uri"),
                    _ => "model.endpoints".to_owned(),
                };
                violations.push(field, error.reason(), error.to_string());
            }
            Edit::Bad
        }
    }
}
