//! Everything that the two services refuse, row by row: code, reason, fields and details. A refused call changes
//! nothing.

use std::pin::Pin;

use switchboard::{
    names::{IncarnationId, StoreId},
    pb::{
        registry::{
            BatchUpdateFeaturesRequest, CreateModelRequest, DeleteModelRequest, Endpoint, Feature, GetFeatureRequest,
            GetModelCredentialRequest, GetModelRequest, ListModelsRequest, Model, Settings, UpdateFeatureRequest,
            UpdateModelRequest, UpdateSettingsRequest, WatchRequest, watch_response,
        },
        router::{
            InferRequest, ResolveFeatureRequest, infer_request::Input, routing_service_client::RoutingServiceClient,
        },
        types::{Cursor, Provider},
    },
};
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    harness::{Pair, reason_of},
    refused_requests::{RefusedRequest, refused_requests},
    refused_writes::{WriteRequest, refused_writes},
};

/// One call that is refused, and the expected status.
struct Row<'a> {
    name: &'static str,
    call: Pin<Box<dyn Future<Output = Result<(), Status>> + 'a>>,
    code: Code,
    reason: &'static str,
    fields: &'static [(&'static str, &'static str)],
    /// Whether the details have the other expected content.
    details: fn(&ErrorDetails) -> bool,
}

fn row<'a, T>(
    name: &'static str,
    call: impl Future<Output = Result<T, Status>> + 'a,
    code: Code,
    reason: &'static str,
) -> Row<'a> {
    Row {
        name,
        call: Box::pin(async { call.await.map(|_| ()) }),
        code,
        reason,
        fields: &[],
        details: |_| true,
    }
}

impl Row<'_> {
    fn fields(self, fields: &'static [(&'static str, &'static str)]) -> Self {
        Self { fields, ..self }
    }

    fn details(self, details: fn(&ErrorDetails) -> bool) -> Self {
        Self { details, ..self }
    }
}

fn metadata(details: &ErrorDetails, key: &str) -> bool {
    details.error_info().is_some_and(|info| info.metadata.contains_key(key))
}

fn has_resource(details: &ErrorDetails) -> bool {
    details
        .resource_info()
        .is_some_and(|info| !info.resource_name.is_empty())
}

fn has_precondition(details: &ErrorDetails) -> bool {
    details
        .precondition_failure()
        .is_some_and(|failure| !failure.violations.is_empty())
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn mistral(change: impl FnOnce(&mut Model)) -> UpdateModelRequest {
    let mut model = Model {
        name: "models/mistral".to_owned(),
        ..Default::default()
    };
    change(&mut model);
    UpdateModelRequest {
        model: Some(model),
        ..Default::default()
    }
}

fn assign(feature: &str, change: impl FnOnce(&mut Feature)) -> UpdateFeatureRequest {
    let mut feature = Feature {
        name: format!("features/{feature}"),
        ..Default::default()
    };
    change(&mut feature);
    UpdateFeatureRequest {
        feature: Some(feature),
        ..Default::default()
    }
}

fn provider(provider: Provider) -> impl Fn(&mut Feature) {
    move |feature| feature.provider = Some(provider.into())
}

fn create(model_id: &str, display_name: &str) -> CreateModelRequest {
    CreateModelRequest {
        model_id: model_id.to_owned(),
        model: Some(Model {
            display_name: text(display_name),
            family: text("mistral"),
            endpoint: text("http://127.0.0.1:9"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn ask(feature: &str, change: impl FnOnce(&mut InferRequest)) -> InferRequest {
    let mut request = InferRequest {
        feature: feature.to_owned(),
        input: Some(Input::Prompt("hello".to_owned())),
        ..Default::default()
    };
    change(&mut request);
    request
}

/// Starts a pair with a model on `code_generations` that has two servers and a token. `duo_chat` is unassigned.
async fn start() -> Pair {
    let pair = Pair::start().await;
    pair.configure("http://127.0.0.1:9", Some("sk-1")).await;
    let two = ["http://127.0.0.1:9", "http://127.0.0.1:9/other"];
    let endpoints = two.map(|uri| Endpoint {
        uri: uri.to_owned(),
        ..Default::default()
    });
    pair.update_model(Model {
        endpoints: endpoints.into(),
        ..Default::default()
    })
    .await
    .unwrap();
    pair
}

async fn judge(pair: &Pair, rows: Vec<Row<'_>>) {
    let before = revision(pair).await;
    for row in rows {
        let status = row.call.await.expect_err(row.name);
        let details = status.get_error_details();
        let info = details
            .error_info()
            .unwrap_or_else(|| panic!("{}: {status:?}", row.name));
        assert_eq!(
            (status.code(), info.reason.as_str()),
            (row.code, row.reason),
            "{}: {status:?}",
            row.name
        );
        assert_eq!(info.domain, "switchboard", "{}", row.name);
        check_request_id(&status);
        let fields = details
            .bad_request()
            .map(|bad| bad.field_violations.as_slice())
            .unwrap_or_default();
        let fields: Vec<_> = fields
            .iter()
            .map(|field| (field.field.as_str(), field.reason.as_str()))
            .collect();
        assert_eq!(fields, row.fields, "{}", row.name);
        assert!((row.details)(&details), "{}: {details:?}", row.name);
    }
    assert_eq!(revision(pair).await, before, "refused calls change nothing");
}

/// Checks that the details of a failure have the same request id as its headers.
fn check_request_id(status: &Status) {
    let id = status.metadata().get("x-request-id").unwrap();
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(*id, info.metadata["request_id"].as_str(), "{status:?}");
}

async fn revision(pair: &Pair) -> i64 {
    pair.models()
        .list_models(ListModelsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .revision
}

async fn the_registry_refuses_with_exact_errors_and_changes_nothing() {
    use Code::{Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfRange};
    const INVALID: &str = "VALIDATION_FAILED";

    let pair = start().await;
    let (m, f, c) = (pair.models(), pair.features(), pair.config());
    let mut models = pair.models();
    let stale = pair
        .update_model(Model {
            disabled: Some(true),
            ..Default::default()
        })
        .await
        .unwrap()
        .etag;
    pair.update_model(Model {
        disabled: Some(false),
        ..Default::default()
    })
    .await
    .unwrap();
    let once = CreateModelRequest {
        request_id: "once".to_owned(),
        ..create("other", "Other")
    };
    models.create_model(once.clone()).await.unwrap();
    let again = models.create_model(once).await.unwrap().into_inner();
    assert_eq!(again.name, "models/other", "the same content gives the same answer");
    let head = head(&pair).await;
    let cursor = |change: fn(&mut Cursor)| {
        let mut cursor = head.clone();
        change(&mut cursor);
        WatchRequest {
            resume: Some(cursor),
            include_snapshot: Some(false),
        }
    };

    macro_rules! on {
        ($client:ident . $method:ident ( $request:expr )) => {{
            let mut client = $client.clone();
            async move { client.$method($request).await }
        }};
    }
    let wrong_id = IncarnationId::random().to_string();
    for row in refused_writes() {
        let status = match row.request.clone() {
            WriteRequest::CreateModel(request) => pair.models().create_model(request).await.unwrap_err(),
            WriteRequest::UpdateModel(request) => pair.models().update_model(request).await.unwrap_err(),
            WriteRequest::UpdateFeature(request) => pair.features().update_feature(request).await.unwrap_err(),
            WriteRequest::BatchUpdateFeatures(request) => {
                pair.features().batch_update_features(request).await.unwrap_err()
            }
            WriteRequest::UpdateSettings(request) => pair.settings().update_settings(request).await.unwrap_err(),
        };
        row.check(&status);
        check_request_id(&status);
    }
    assert_eq!(revision(&pair).await, head.revision, "refused writes change nothing");

    let rows = vec![
        row(
            "a stale etag",
            on!(m.update_model(mistral(|m| {
                m.etag = stale;
                m.disabled = Some(true);
            }))),
            Aborted,
            "REVISION_CONFLICT",
        )
        .details(|details| metadata(details, "revision")),
        row(
            "a request id with other content",
            on!(m.create_model(CreateModelRequest {
                request_id: "once".to_owned(),
                ..create("third", "Third")
            })),
            AlreadyExists,
            "IDEMPOTENCY_KEY_REUSED",
        ),
        row(
            "an id that is taken",
            on!(m.create_model(create("mistral", "New"))),
            AlreadyExists,
            "MODEL_NAME_TAKEN",
        )
        .details(|details| has_resource(details) && metadata(details, "field")),
        row(
            "a model in use",
            on!(m.delete_model(DeleteModelRequest {
                name: "models/mistral".to_owned(),
                ..Default::default()
            })),
            FailedPrecondition,
            "MODEL_IN_USE",
        )
        .details(has_precondition),
        row(
            "an unknown model",
            on!(m.get_model(GetModelRequest {
                name: "models/none".to_owned()
            })),
            NotFound,
            "MODEL_NOT_FOUND",
        )
        .details(has_resource),
        row(
            "an unknown feature",
            on!(f.get_feature(GetFeatureRequest {
                name: "features/none".to_owned()
            })),
            NotFound,
            "FEATURE_NOT_FOUND",
        )
        .details(has_resource),
        row(
            "a negative page size",
            on!(m.list_models(ListModelsRequest {
                page_size: -1,
                ..Default::default()
            })),
            InvalidArgument,
            INVALID,
        )
        .fields(&[("page_size", "VALUE_OUT_OF_RANGE")]),
        row(
            "a page of another list",
            on!(m.list_models(ListModelsRequest {
                page_token: "x".to_owned(),
                ..Default::default()
            })),
            InvalidArgument,
            INVALID,
        )
        .fields(&[("page_token", "PAGE_TOKEN_INVALID")]),
        row(
            "another credential id",
            on!(c.get_model_credential(GetModelCredentialRequest {
                model: "models/mistral".to_owned(),
                credential_id: wrong_id
            })),
            FailedPrecondition,
            "CREDENTIAL_SUPERSEDED",
        )
        .details(|details| metadata(details, "credential_id")),
        row(
            "a cursor ahead of the history",
            on!(c.watch(cursor(|cursor| cursor.revision += 1000))),
            OutOfRange,
            "REVISION_IN_FUTURE",
        )
        .details(|details| metadata(details, "newest")),
        row(
            "a cursor of another store",
            on!(c.watch(cursor(|cursor| cursor.store = StoreId::random().to_string()))),
            FailedPrecondition,
            "STORE_INCARNATION_CHANGED",
        )
        .details(|details| metadata(details, "incarnation")),
        row(
            "an unreadable cursor",
            on!(c.watch(cursor(|cursor| cursor.chain_digest.clear()))),
            InvalidArgument,
            "CURSOR_INVALID",
        )
        .fields(&[("resume", "CURSOR_INVALID")]),
    ];
    judge(&pair, rows).await;

    // The id of a deleted model may be used again, for a different model: an etag of the first model does not match it.
    let first = models
        .get_model(GetModelRequest {
            name: "models/other".to_owned(),
        })
        .await
        .unwrap()
        .into_inner();
    let delete = DeleteModelRequest {
        name: first.name.clone(),
        ..Default::default()
    };
    models.delete_model(delete).await.unwrap();
    let second = models
        .create_model(create("other", "Other"))
        .await
        .unwrap()
        .into_inner();
    assert_ne!(second.etag, first.etag);
    let model = Model {
        name: first.name,
        etag: first.etag,
        disabled: Some(true),
        ..Default::default()
    };
    let request = UpdateModelRequest {
        model: Some(model),
        ..Default::default()
    };
    let refused = models.update_model(request).await;
    assert_eq!(reason_of(&refused).as_deref(), Some("REVISION_CONFLICT"));
    pair.finish().await;
}

/// Returns the current cursor of the history, as `Watch` sends it.
async fn head(pair: &Pair) -> Cursor {
    let mut stream = pair.config().watch(WatchRequest::default()).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let Some(watch_response::Kind::Welcome(welcome)) = first.kind else {
        panic!("the first message must be a welcome")
    };
    welcome.head.unwrap()
}

async fn the_router_refuses_with_exact_errors() {
    use Code::{DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Unavailable};
    const INVALID: &str = "VALIDATION_FAILED";

    let pair = start().await;
    let request = BatchUpdateFeaturesRequest {
        requests: vec![
            assign("duo_chat", provider(Provider::Disabled)),
            assign("review_merge_request", provider(Provider::Vendored)),
        ],
        ..Default::default()
    };
    let applied = pair
        .features()
        .batch_update_features(request)
        .await
        .unwrap()
        .into_inner()
        .revision;
    let mut routing = RoutingServiceClient::new(pair.router.channel());
    pair.wait_until(async || {
        let asked = ResolveFeatureRequest {
            feature: "review_merge_request".to_owned(),
            ..Default::default()
        };
        routing
            .clone()
            .resolve_feature(asked)
            .await
            .is_ok_and(|answer| answer.into_inner().reason == "FEATURE_VENDORED")
    })
    .await;
    assert!(applied > 0);

    let client = pair.inference();
    let infer = |request: InferRequest| {
        let mut client = client.clone();
        async move { client.infer(request).await }
    };
    let timed = |timeout: &'static str| {
        let mut client = client.clone();
        async move {
            let mut request = Request::new(ask("code_generations", |_| {}));
            request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
            client.infer(request).await
        }
    };
    let rows = refused_requests()
        .into_iter()
        .map(|RefusedRequest { name, request, fields }| {
            row(name, infer(request), InvalidArgument, INVALID).fields(fields)
        });
    judge(&pair, rows.collect()).await;

    let rows = vec![
        row("an unreadable deadline", timed("soon"), InvalidArgument, INVALID)
            .fields(&[("grpc-timeout", "VALUE_MALFORMED")]),
        row(
            "a deadline that is too short",
            timed("50m"),
            DeadlineExceeded,
            "DEADLINE_BUDGET_TOO_SMALL",
        ),
        row(
            "an unknown feature",
            infer(ask("telepathy", |_| {})),
            NotFound,
            "FEATURE_UNKNOWN",
        )
        .details(|details| metadata(details, "revision") && metadata(details, "config_age")),
        row(
            "a disabled feature",
            infer(ask("duo_chat", |_| {})),
            FailedPrecondition,
            "FEATURE_DISABLED",
        )
        .details(has_precondition),
        row(
            "a child of a disabled feature",
            infer(ask("duo_chat_fix_code", |_| {})),
            FailedPrecondition,
            "FEATURE_DISABLED",
        )
        .details(has_precondition),
        row(
            "a vendored feature",
            infer(ask("review_merge_request", |_| {})),
            FailedPrecondition,
            "FEATURE_VENDORED",
        )
        .details(has_precondition),
        row(
            "an unassigned feature",
            infer(ask("code_completions", |_| {})),
            FailedPrecondition,
            "FEATURE_UNASSIGNED",
        )
        .details(has_precondition),
        row(
            "a server that refuses connections",
            infer(ask("code_generations", |_| {})),
            Unavailable,
            "UPSTREAM_CONNECT_FAILED",
        )
        .details(|details| metadata(details, "attempts") && metadata(details, "model")),
    ];
    judge(&pair, rows).await;

    let settings = Some(Settings {
        inference_paused: Some(true),
        ..Default::default()
    });
    pair.settings()
        .update_settings(UpdateSettingsRequest {
            settings,
            ..Default::default()
        })
        .await
        .unwrap();
    pair.wait_until(async || {
        let refused = infer(ask("code_generations", |_| {})).await;
        reason_of(&refused).as_deref() == Some("INFERENCE_PAUSED")
    })
    .await;
    let asked = ResolveFeatureRequest {
        feature: "code_generations".to_owned(),
        ..Default::default()
    };
    let resolved = routing.resolve_feature(asked).await.unwrap().into_inner();
    assert_eq!(
        (resolved.reason.as_str(), resolved.selection),
        ("INFERENCE_PAUSED", None)
    );
    pair.finish().await;
}

tests! {
    the_registry_refuses_with_exact_errors_and_changes_nothing,
    the_router_refuses_with_exact_errors,
}
