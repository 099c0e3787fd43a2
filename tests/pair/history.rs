//! History, export, apply and restore with both real services and the real grpcurl.

use std::process::Command;

use serde_json::{Value, json};
use switchboard::pb::registry::{
    ApplyConfigRequest, Change, Config, ExportConfigRequest, ListChangesRequest, Model, RestoreRevisionRequest,
    Settings, UpdateSettingsRequest,
};

use crate::{
    administrator::GRPCURL,
    harness::{Pair, infer, reason_of},
};

const CANARY: &str = "canary-4f1c";

/// Returns all pages of the history.
async fn history(pair: &Pair, request: ListChangesRequest) -> Vec<Change> {
    let (mut changes, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListChangesRequest {
            page_token,
            ..request.clone()
        };
        let page = pair.config().list_changes(request).await.unwrap().into_inner();
        assert!(prost::Message::encoded_len(&page) <= 1024 * 1024);
        changes.extend(page.changes);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return changes;
        }
    }
}

async fn changes_are_listed_restored_exported_and_applied_without_tokens() {
    let mut pair = Pair::start().await;
    pair.configure("http://127.0.0.1:9", Some(CANARY)).await;
    let limited = Model {
        display_name: Some("Renamed".to_owned()),
        ..Default::default()
    };
    let renamed = pair.update_model(limited).await.unwrap();
    let exported = pair
        .config()
        .export_config(ExportConfigRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(exported.revision, renamed.revision);

    let request = ListChangesRequest {
        page_size: 1,
        resource: "models/mistral".to_owned(),
        actor: "anonymous".to_owned(),
        ..Default::default()
    };
    let changes = history(&pair, request.clone()).await;
    let shown: Vec<_> = changes
        .iter()
        .map(|change| (change.revision, change.fields.join(",")))
        .collect();
    assert_eq!(shown, [(4, "display_name".to_owned()), (2, String::new())]);
    assert_eq!(changes[0].before, changes[1].after);
    assert!(changes[0].after.is_some() && changes[1].before.is_none());

    let mut config = exported.config.clone().unwrap();
    config.models.clear();
    config.features.clear();
    let apply = |config: &Config, expected_revision| ApplyConfigRequest {
        config: Some(config.clone()),
        expected_revision,
        ..Default::default()
    };
    let stale = pair.config().apply_config(apply(&config, 3)).await;
    assert_eq!(reason_of(&stale).as_deref(), Some("REVISION_CONFLICT"));
    let applied = pair.config().apply_config(apply(&config, 4)).await.unwrap();
    assert_eq!(applied.metadata().get("x-switchboard-revision").unwrap(), "5");
    let applied = applied.into_inner();
    assert_eq!(history(&pair, request).await[0].after, None);

    // The history survives a restart.
    let addr = pair.kill_registry();
    pair.restart_registry(addr).await;
    let back = RestoreRevisionRequest {
        revision: 4,
        ..Default::default()
    };
    let restored = pair.config().restore_revision(back).await.unwrap().into_inner();
    assert_eq!((restored.revision, restored.changes_total), (6, 2));
    assert_eq!(restored.api_tokens_dropped, ["models/mistral"]);
    let again = pair
        .config()
        .export_config(ExportConfigRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.config, exported.config);
    let unknown = RestoreRevisionRequest {
        revision: 99,
        ..Default::default()
    };
    let unknown = pair.config().restore_revision(unknown).await;
    assert_eq!(reason_of(&unknown).as_deref(), Some("REVISION_IN_FUTURE"));
    pair.wait_until(async || {
        let refused = infer(&mut pair.inference(), "code_generations", "ping").await;
        reason_of(&refused).as_deref() == Some("MODEL_CREDENTIAL_MISSING")
    })
    .await;

    let all = history(&pair, ListChangesRequest::default()).await;
    let revisions: Vec<_> = all.iter().map(|change| change.revision).collect();
    assert!(
        revisions.is_sorted_by(|a, b| a >= b) && revisions.contains(&1),
        "{revisions:?}"
    );
    for shown in [
        format!("{all:?}"),
        format!("{exported:?}"),
        format!("{applied:?}"),
        format!("{restored:?}"),
    ] {
        assert!(!shown.contains(CANARY));
    }
    for change in &all {
        let bytes = prost::Message::encode_to_vec(change);
        assert!(!String::from_utf8_lossy(&bytes).contains(CANARY), "{change:?}");
    }
    pair.finish().await;
}

async fn applying_thousands_of_models_makes_one_revision_and_a_small_answer() {
    let pair = Pair::start().await;
    let models = (0..4000).map(|number| Model {
        name: format!("models/m{number}"),
        display_name: Some(format!("Model {number}")),
        family: Some("mistral".to_owned()),
        endpoint: Some(format!("http://gpu{number}.example.com:8000/v1")),
        labels: ["a", "b"].map(|key| (key.to_owned(), "x".repeat(200))).into(),
        ..Default::default()
    });
    let config = Config {
        models: models.collect(),
        ..Default::default()
    };
    let request = ApplyConfigRequest {
        config: Some(config),
        ..Default::default()
    };
    assert!(prost::Message::encoded_len(&request) > 1024 * 1024);
    let answer = pair.config().apply_config(request).await.unwrap().into_inner();
    assert_eq!((answer.revision, answer.changes_total), (2, 4000));
    assert!((1000..4000).contains(&answer.changes.len()));
    let listed = history(
        &pair,
        ListChangesRequest {
            page_size: 1000,
            ..Default::default()
        },
    )
    .await;
    assert_eq!(listed.iter().filter(|change| change.revision == 2).count(), 4000);
    let paused = UpdateSettingsRequest {
        settings: Some(Settings {
            inference_paused: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        pair.settings()
            .update_settings(paused)
            .await
            .unwrap()
            .into_inner()
            .revision,
        3
    );
    pair.finish().await;
}

async fn history_methods_work_with_grpcurl() {
    let grpcurl = GRPCURL.path();
    let pair = Pair::start().await;
    pair.configure("http://127.0.0.1:9", Some(CANARY)).await;
    let run = |method: &str, data: Value| -> Value {
        let output = Command::new(&grpcurl)
            .args(["-plaintext", "-d", &data.to_string()])
            .arg(pair.registry().listen_addr.to_string())
            .arg(format!("switchboard.registry.v1.ConfigService/{method}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains(CANARY));
        serde_json::from_str(&text).unwrap()
    };
    let listed = run(
        "ListChanges",
        json!({"resource": "features/code_generations", "page_size": 1}),
    );
    assert_eq!(listed["changes"][0]["fields"], json!(["model", "provider"]));
    assert_eq!(listed["changes"][0]["after"]["model"], "models/mistral");
    let exported = run("ExportConfig", json!({}));
    assert_eq!(exported["config"]["models"][0]["name"], "models/mistral");
    let tried = run("ApplyConfig", json!({"config": {}, "validate_only": true}));
    assert_eq!(
        (&tried["baseRevision"], &tried["changesTotal"]),
        (&json!("3"), &json!(2))
    );
    let same = run(
        "ApplyConfig",
        json!({"config": exported["config"], "expected_revision": tried["baseRevision"]}),
    );
    assert_eq!((&same["revision"], &same["changes"]), (&json!("3"), &Value::Null));
    let restored = run("RestoreRevision", json!({"revision": 1}));
    assert_eq!(
        (&restored["revision"], &restored["changesTotal"]),
        (&json!("4"), &json!(2))
    );
    pair.finish().await;
}

tests! {
    changes_are_listed_restored_exported_and_applied_without_tokens,
    applying_thousands_of_models_makes_one_revision_and_a_small_answer,
    history_methods_work_with_grpcurl needs GRPCURL,
}
