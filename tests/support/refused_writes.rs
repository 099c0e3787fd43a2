//! Writes that the registry refuses because of their content: one row each, with the whole error that the caller
//! receives.
//!
//! The tests of the domain rules, the handlers and the registry's port use the same rows. They run on a configuration
//! that has `models/mistral` with two servers, where `duo_chat` is unassigned and beta is off.

use prost_types::FieldMask;
use switchboard::pb::{
    registry::{
        BatchUpdateFeaturesRequest, CreateModelRequest, Endpoint, Feature, Model, Settings, UpdateFeatureRequest,
        UpdateModelRequest, UpdateSettingsRequest,
    },
    types::Provider,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Part of every token in the rows, so that a test can check that no answer contains it.
const CANARY: &str = "canary";

/// A request that the registry refuses.
#[derive(Debug, Clone)]
pub(crate) enum WriteRequest {
    CreateModel(CreateModelRequest),
    UpdateModel(UpdateModelRequest),
    UpdateFeature(UpdateFeatureRequest),
    BatchUpdateFeatures(BatchUpdateFeaturesRequest),
    UpdateSettings(UpdateSettingsRequest),
}

/// One row.
#[derive(Debug)]
pub(crate) struct RefusedWrite {
    /// A short description of the error in the request.
    name: &'static str,
    pub(crate) request: WriteRequest,
    code: Code,
    reason: &'static str,
    /// The bad fields with their reasons, in order.
    fields: Vec<(&'static str, &'static str)>,
    /// Metadata that the reason in the answer must have.
    metadata: &'static [(&'static str, &'static str)],
}

impl RefusedWrite {
    /// Compares the row with the status that a caller received.
    pub(crate) fn check(&self, status: &Status) {
        let Self { name, .. } = self;
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("{name}: {status:?}"));
        assert_eq!(
            (status.code(), info.reason.as_str()),
            (self.code, self.reason),
            "{name}: {status:?}"
        );
        assert_eq!(info.domain, "switchboard", "{name}");
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice());
        let fields = violations.unwrap_or_default().iter();
        let fields: Vec<_> = fields.map(|bad| (bad.field.as_str(), bad.reason.as_str())).collect();
        assert_eq!(fields, self.fields, "{name}");
        for &(key, value) in self.metadata {
            assert_eq!(info.metadata.get(key).map(String::as_str), Some(value), "{name}");
        }
        assert!(
            !format!("{status:?}").contains(CANARY),
            "{name}: the status contains the token"
        );
    }

    fn metadata(self, metadata: &'static [(&'static str, &'static str)]) -> Self {
        Self { metadata, ..self }
    }
}

fn refused(
    name: &'static str,
    request: WriteRequest,
    (code, reason): (Code, &'static str),
    fields: &[(&'static str, &'static str)],
) -> RefusedWrite {
    RefusedWrite {
        name,
        request,
        code,
        reason,
        fields: fields.to_vec(),
        metadata: &[],
    }
}

/// Builds a row for a request whose only errors are bad fields.
fn invalid(name: &'static str, request: WriteRequest, fields: &[(&'static str, &'static str)]) -> RefusedWrite {
    refused(name, request, (Code::InvalidArgument, "VALIDATION_FAILED"), fields)
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn endpoints<const N: usize>(list: [(&str, Option<i32>); N]) -> Vec<Endpoint> {
    let endpoint = |(uri, weight): (&str, _)| Endpoint {
        uri: uri.to_owned(),
        weight,
        ..Default::default()
    };
    list.map(endpoint).into()
}

/// Builds a request that creates a model which is valid except for the change.
fn create(change: impl FnOnce(&mut Model)) -> WriteRequest {
    create_as("", change)
}

fn create_as(id: &str, change: impl FnOnce(&mut Model)) -> WriteRequest {
    let mut model = Model {
        display_name: text("Second"),
        family: text("mistral"),
        endpoint: text("http://gpu1:8000"),
        ..Default::default()
    };
    change(&mut model);
    WriteRequest::CreateModel(CreateModelRequest {
        model: Some(model),
        model_id: id.to_owned(),
        ..Default::default()
    })
}

fn with_endpoint(uri: &str) -> WriteRequest {
    create(|model| model.endpoint = text(uri))
}

/// Builds a request that updates the existing model.
fn update(mask: &[&str], change: impl FnOnce(&mut Model)) -> WriteRequest {
    let mut model = Model {
        name: "models/mistral".to_owned(),
        ..Default::default()
    };
    change(&mut model);
    WriteRequest::UpdateModel(UpdateModelRequest {
        model: Some(model),
        update_mask: paths(mask),
        ..Default::default()
    })
}

fn paths(mask: &[&str]) -> Option<FieldMask> {
    (!mask.is_empty()).then(|| FieldMask {
        paths: mask.iter().map(|&path| path.to_owned()).collect(),
    })
}

fn setting(feature: &str, provider: Option<Provider>, model: Option<&str>) -> UpdateFeatureRequest {
    UpdateFeatureRequest {
        feature: Some(Feature {
            name: format!("features/{feature}"),
            provider: provider.map(Into::into),
            model: model.and_then(text),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn batch(requests: Vec<UpdateFeatureRequest>) -> WriteRequest {
    WriteRequest::BatchUpdateFeatures(BatchUpdateFeaturesRequest {
        requests,
        ..Default::default()
    })
}

fn update_settings(settings: Option<Settings>) -> WriteRequest {
    WriteRequest::UpdateSettings(UpdateSettingsRequest {
        settings,
        ..Default::default()
    })
}

/// All rows.
pub(crate) fn refused_writes() -> Vec<RefusedWrite> {
    [new_models(), new_endpoints(), model_updates(), features(), settings()]
        .into_iter()
        .flatten()
        .collect()
}

fn new_models() -> Vec<RefusedWrite> {
    const FAMILY_UNKNOWN: (Code, &str) = (Code::InvalidArgument, "FAMILY_UNKNOWN");
    const NAME_TAKEN: (Code, &str) = (Code::AlreadyExists, "MODEL_NAME_TAKEN");
    vec![
        invalid(
            "no model",
            WriteRequest::CreateModel(CreateModelRequest::default()),
            &[("model", "FIELD_REQUIRED")],
        ),
        invalid(
            "a model without any field",
            create(|model| *model = Model::default()),
            &[
                ("model.display_name", "FIELD_REQUIRED"),
                ("model.family", "FIELD_REQUIRED"),
                ("model.endpoints", "FIELD_REQUIRED"),
            ],
        ),
        invalid(
            "everything at once",
            create_as("A", |model| {
                *model = Model {
                    display_name: text(" "),
                    family: text("mistrel"),
                    endpoints: endpoints([
                        ("http://a?x", Some(1)),
                        ("", None),
                        ("http://b", Some(1001)),
                        ("ftp://no", Some(5000)),
                    ]),
                    identifier: text("bedrock/gpt"),
                    api_token: text("canary b"),
                    ..Default::default()
                };
            }),
            &[
                ("model_id", "VALUE_MALFORMED"),
                ("model.display_name", "FIELD_REQUIRED"),
                ("model.family", "FAMILY_UNKNOWN"),
                ("model.endpoints[0].uri", "ENDPOINT_HAS_QUERY"),
                ("model.endpoints[1].uri", "FIELD_REQUIRED"),
                ("model.endpoints[2].weight", "VALUE_OUT_OF_RANGE"),
                ("model.endpoints[3].uri", "ENDPOINT_SCHEME_UNSUPPORTED"),
                ("model.endpoints[3].weight", "VALUE_OUT_OF_RANGE"),
                ("model.api_token", "CREDENTIAL_NOT_ASCII"),
                ("model.platform", "PLATFORM_NOT_SUPPORTED"),
            ],
        ),
        refused(
            "an unknown family",
            create(|model| model.family = text("llama9")),
            FAMILY_UNKNOWN,
            &[("model.family", "FAMILY_UNKNOWN")],
        ),
        refused(
            "a family in beta",
            create(|model| model.family = text("codegemma")),
            (Code::FailedPrecondition, "BETA_NOT_ENABLED"),
            &[],
        ),
        invalid(
            "a token that no header can carry",
            create(|model| model.api_token = text("canary-1\nx")),
            &[("model.api_token", "CREDENTIAL_NOT_ASCII")],
        ),
        invalid(
            "an empty display name and an unsupported platform",
            create(|model| {
                model.display_name = text("");
                model.identifier = text("vertex_ai/gemini");
            }),
            &[
                ("model.display_name", "FIELD_REQUIRED"),
                ("model.platform", "PLATFORM_NOT_SUPPORTED"),
            ],
        ),
        refused(
            "a display name that differs only in case and surrounding spaces",
            create(|model| model.display_name = text(" MISTRAL ")),
            NAME_TAKEN,
            &[],
        )
        .metadata(&[("field", "model.display_name")]),
        refused("an id that is taken", create_as("mistral", |_| {}), NAME_TAKEN, &[])
            .metadata(&[("field", "model_id")]),
        refused(
            "a name that is taken",
            create(|model| model.name = "models/mistral".to_owned()),
            NAME_TAKEN,
            &[],
        )
        .metadata(&[("field", "model.name")]),
        invalid(
            "a name that contradicts the id",
            create_as("yours", |model| model.name = "models/mine".to_owned()),
            &[("model.name", "VALUE_MALFORMED")],
        ),
        invalid(
            "a name that is too long",
            create(|model| model.name = format!("models/{}", "m".repeat(64))),
            &[("model.name", "NAME_TOO_LONG")],
        ),
        invalid(
            "an id with a capital letter",
            create_as("Mine", |_| {}),
            &[("model_id", "VALUE_MALFORMED")],
        ),
        invalid(
            "an id that is too long",
            create_as(&"x".repeat(70), |_| {}),
            &[("model_id", "NAME_TOO_LONG")],
        ),
    ]
}

fn new_endpoints() -> Vec<RefusedWrite> {
    const ENDPOINT: &str = "model.endpoint";
    const GPU1: &str = "http://gpu1:8000/v1";
    let long = format!("http://h/{}", "a".repeat(3000 - 9));
    let several = |endpoints: Vec<Endpoint>| {
        create(|model| {
            model.endpoint = None;
            model.endpoints = endpoints;
        })
    };
    let many = (0..1000).flat_map(|port| endpoints([(&*format!("http://h:{}", port + 1), None)]));
    vec![
        invalid(
            "an endpoint without a scheme, with a port",
            with_endpoint("gpu1:8000"),
            &[(ENDPOINT, "ENDPOINT_SCHEME_UNSUPPORTED")],
        ),
        invalid(
            "an endpoint without a scheme",
            with_endpoint("gpu1"),
            &[(ENDPOINT, "ENDPOINT_SCHEME_UNSUPPORTED")],
        ),
        invalid(
            "an endpoint with a user and a password",
            with_endpoint("http://user:pw@gpu1"),
            &[(ENDPOINT, "ENDPOINT_HAS_USERINFO")],
        ),
        invalid(
            "an endpoint with a user",
            with_endpoint("http://u@h"),
            &[(ENDPOINT, "ENDPOINT_HAS_USERINFO")],
        ),
        invalid(
            "an endpoint with a query",
            with_endpoint("http://gpu1?key=1"),
            &[(ENDPOINT, "ENDPOINT_HAS_QUERY")],
        ),
        invalid(
            "an endpoint with a fragment",
            with_endpoint("http://gpu1/v1#top"),
            &[(ENDPOINT, "ENDPOINT_HAS_FRAGMENT")],
        ),
        invalid(
            "an endpoint with a space",
            with_endpoint("http://gpu 1"),
            &[(ENDPOINT, "ENDPOINT_MALFORMED")],
        ),
        invalid(
            "an endpoint that is too long",
            with_endpoint(&long),
            &[(ENDPOINT, "VALUE_OUT_OF_RANGE")],
        ),
        invalid(
            "both forms of endpoints",
            create(|model| model.endpoints = endpoints([("http://gpu2:8000", None)])),
            &[(ENDPOINT, "ENDPOINT_AMBIGUOUS")],
        ),
        invalid(
            "the same endpoint twice",
            several(endpoints([("http://gpu1:8000", None), ("http://gpu1:8000", None)])),
            &[("model.endpoints[1].uri", "VALUE_REPEATED")],
        ),
        invalid(
            "the same endpoint twice, once with its path",
            several(endpoints([(GPU1, None), ("http://gpu1:8000", None)])),
            &[("model.endpoints[1].uri", "VALUE_REPEATED")],
        ),
        invalid(
            "endpoints that all have weight 0",
            several(endpoints([(GPU1, Some(0))])),
            &[("model.endpoints", "VALUE_OUT_OF_RANGE")],
        ),
        invalid(
            "too many endpoints",
            several(many.collect()),
            &[("model.endpoints", "VALUE_OUT_OF_RANGE")],
        ),
    ]
}

fn model_updates() -> Vec<RefusedWrite> {
    const MASK: &str = "update_mask";
    vec![
        invalid(
            "an update without any field",
            update(&[], |_| {}),
            &[(MASK, "UPDATE_EMPTY")],
        ),
        invalid(
            "an update with only output-only fields",
            update(&[], |model| {
                model.revision = 9;
                model.etag = String::new();
            }),
            &[(MASK, "UPDATE_EMPTY")],
        ),
        invalid(
            "an output-only field in a mask",
            update(&["etag"], |_| {}),
            &[(MASK, "FIELD_OUTPUT_ONLY")],
        ),
        invalid(
            "an unknown field in a mask",
            update(&["colour"], |_| {}),
            &[(MASK, "FIELD_UNKNOWN")],
        ),
        invalid(
            "a mask with several bad fields, some of them required and cleared",
            update(&["display_name", "features", "x", "endpoints.uri", "family"], |_| {}),
            &[
                (MASK, "FIELD_OUTPUT_ONLY"),
                (MASK, "FIELD_UNKNOWN"),
                (MASK, "FIELD_UNKNOWN"),
                ("model.display_name", "FIELD_REQUIRED"),
                ("model.family", "FIELD_REQUIRED"),
            ],
        ),
        invalid(
            "endpoints that are cleared",
            update(&["endpoint"], |_| {}),
            &[("model.endpoints", "FIELD_REQUIRED")],
        ),
        invalid(
            "a model without a name",
            update(&[], |model| {
                *model = Model {
                    disabled: Some(true),
                    ..Default::default()
                };
            }),
            &[("model.name", "FIELD_REQUIRED")],
        ),
        invalid(
            "a mask without a model",
            WriteRequest::UpdateModel(UpdateModelRequest {
                update_mask: paths(&["x"]),
                ..Default::default()
            }),
            &[(MASK, "FIELD_UNKNOWN"), ("model", "FIELD_REQUIRED")],
        ),
        refused(
            "a model that does not exist",
            update(&[], |model| {
                model.name = "models/nothing".to_owned();
                model.disabled = Some(true);
            }),
            (Code::NotFound, "MODEL_NOT_FOUND"),
            &[],
        )
        .metadata(&[("model", "models/nothing")]),
        invalid(
            "one endpoint for a model that has two",
            update(&[], |model| model.endpoint = text("http://h")),
            &[("model.endpoint", "ENDPOINT_AMBIGUOUS")],
        ),
        invalid(
            "an identifier prefix that contradicts the platform",
            update(&[], |model| model.identifier = text("azure/gpt")),
            &[("model.identifier", "IDENTIFIER_PLATFORM_MISMATCH")],
        ),
        invalid(
            "one endpoint and an identifier prefix that contradicts the platform",
            update(&[], |model| {
                model.endpoint = text("http://gpu3");
                model.identifier = text("bedrock/x");
            }),
            &[
                ("model.identifier", "IDENTIFIER_PLATFORM_MISMATCH"),
                ("model.endpoint", "ENDPOINT_AMBIGUOUS"),
            ],
        ),
    ]
}

fn features() -> Vec<RefusedWrite> {
    use Provider::{SelfHosted, Vendored};
    let on = |feature: &str, model: &str| setting(feature, Some(SelfHosted), Some(model));
    let with_fields_of_its_own = UpdateFeatureRequest {
        request_id: "x".to_owned(),
        validate_only: true,
        ..on("duo_chat", "models/none")
    };
    let unknown = (Code::NotFound, "FEATURE_NOT_FOUND");
    vec![
        invalid(
            "a model on an unassigned feature",
            WriteRequest::UpdateFeature(setting("duo_chat", None, Some("models/mistral"))),
            &[("feature.model", "PROVIDER_MISMATCH")],
        ),
        invalid(
            "an update of a feature without any field",
            WriteRequest::UpdateFeature(setting("duo_chat", None, None)),
            &[("update_mask", "UPDATE_EMPTY")],
        ),
        invalid(
            "no feature",
            WriteRequest::UpdateFeature(UpdateFeatureRequest::default()),
            &[("feature", "FIELD_REQUIRED")],
        ),
        refused(
            "a feature that does not exist",
            WriteRequest::UpdateFeature(setting("no_such_feature", Some(Provider::Disabled), None)),
            unknown,
            &[],
        )
        .metadata(&[("feature", "features/no_such_feature")]),
        refused(
            "a batch with one bad item",
            batch(vec![
                setting("duo_chat", Some(Vendored), None),
                on("code_completions", "models/none"),
            ]),
            (Code::InvalidArgument, "MODEL_NOT_FOUND"),
            &[("requests[1].feature.model", "MODEL_NOT_FOUND")],
        ),
        invalid(
            "a batch with many errors",
            batch(vec![
                on("code_generations", "models/mistral"),
                with_fields_of_its_own,
                on("code_generations", "models/mistral"),
                UpdateFeatureRequest::default(),
            ]),
            &[
                ("requests[1].request_id", "FIELD_UNKNOWN"),
                ("requests[1].validate_only", "FIELD_UNKNOWN"),
                ("requests[2].feature.name", "VALUE_REPEATED"),
                ("requests[1].feature.model", "MODEL_NOT_FOUND"),
                ("requests[3].feature", "FIELD_REQUIRED"),
            ],
        ),
        invalid("an empty batch", batch(Vec::new()), &[("requests", "FIELD_REQUIRED")]),
        refused(
            "a batch with a feature that does not exist",
            batch(vec![on("duo_chat", "models/mistral"), on("nothing", "models/mistral")]),
            unknown,
            &[],
        ),
    ]
}

fn settings() -> Vec<RefusedWrite> {
    let misnamed = Settings {
        name: "setting".to_owned(),
        ..Default::default()
    };
    vec![
        invalid(
            "settings with a wrong name",
            update_settings(Some(misnamed)),
            &[("settings.name", "VALUE_MALFORMED"), ("update_mask", "UPDATE_EMPTY")],
        ),
        invalid("no settings", update_settings(None), &[("settings", "FIELD_REQUIRED")]),
    ]
}
