use std::sync::Arc;

use switchboard::pb::{
    registry::{
        self, feature_service_server::FeatureService as _, model_service_server::ModelService as _,
        settings_service_server::SettingsService as _,
    },
    types,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use super::{feature::FeatureApi, model::ModelApi, settings::SettingsApi};
use crate::{
    commit::{self, Commit},
    domain::items::Retention,
    refused_writes::{WriteRequest, refused_writes},
};

/// The handlers, with a writer that runs until the test ends.
struct Running {
    _folder: TempDir,
    _tasks: JoinSet<()>,
    commit: Commit,
}

impl Running {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let (writer, commit) = commit::open(&folder.path().join("switchboard.db"), Retention::default())
            .await
            .unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { writer.run(CancellationToken::new()).await.unwrap() });
        Self {
            _folder: folder,
            _tasks: tasks,
            commit,
        }
    }

    fn models(&self) -> ModelApi {
        ModelApi::new(self.commit.clone(), Arc::default())
    }

    fn features(&self) -> FeatureApi {
        FeatureApi::new(self.commit.clone())
    }

    async fn create(&self, display_name: &str) -> tonic::Response<registry::Model> {
        let request = registry::CreateModelRequest {
            model: Some(registry::Model {
                display_name: Some(display_name.to_owned()),
                family: Some("mistral".to_owned()),
                endpoint: Some("http://gpu1:8000".to_owned()),
                api_token: Some("canary-4f1c".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.models().create_model(Request::new(request)).await.unwrap()
    }
}

#[tokio::test]
async fn a_write_returns_its_revision_and_incarnation() {
    let running = Running::start().await;
    let created = running.create("Mistral").await;
    let metadata = created.metadata();
    assert_eq!(metadata.get("x-switchboard-revision").unwrap(), "2");
    let incarnation = running.commit.state().items.incarnation().id.to_string();
    assert_eq!(metadata.get("x-switchboard-incarnation").unwrap(), incarnation.as_str());
    assert_eq!(created.get_ref().revision, 2);
}

#[tokio::test]
async fn a_model_is_read_as_it_was_written_and_without_its_token() {
    let running = Running::start().await;
    let created = running.create("Mistral").await.into_inner();
    let get = |name: &str| registry::GetModelRequest { name: name.to_owned() };
    let read = running
        .models()
        .get_model(Request::new(get("models/mistral")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(read, created);
    assert!(read.api_token_set && read.api_token.is_none());

    for (name, code, reason) in [
        ("models/other", Code::NotFound, "MODEL_NOT_FOUND"),
        ("mistral", Code::InvalidArgument, "VALIDATION_FAILED"),
        ("", Code::InvalidArgument, "VALIDATION_FAILED"),
    ] {
        let status = running.models().get_model(Request::new(get(name))).await.unwrap_err();
        assert_eq!(status.code(), code, "{name}");
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            reason,
            "{name}"
        );
    }
}

#[tokio::test]
async fn models_are_listed_by_name_page_by_page() {
    let running = Running::start().await;
    for display_name in ["C", "A", "B"] {
        running.create(display_name).await;
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    for _page in 0..2 {
        let request = registry::ListModelsRequest {
            page_size: 2,
            page_token: page_token.clone(),
        };
        let page = running
            .models()
            .list_models(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        assert_eq!((page.total_size, page.revision), (3, 4));
        names.extend(page.models.into_iter().map(|model| model.name));
        page_token = page.next_page_token;
    }
    assert_eq!(names, ["models/a", "models/b", "models/c"]);
    assert_eq!(page_token, "");
}

#[tokio::test]
async fn features_are_filtered_by_provider_and_by_model() {
    let running = Running::start().await;
    running.create("Mistral").await;
    running.create("Other").await;
    let set = async |feature: &str, provider: types::Provider, model: Option<&str>, fallbacks: &[&str]| {
        let feature = registry::Feature {
            name: format!("features/{feature}"),
            provider: Some(provider.into()),
            model: model.map(str::to_owned),
            fallback_models: fallbacks.iter().map(|&name| name.to_owned()).collect(),
            ..Default::default()
        };
        let request = registry::UpdateFeatureRequest {
            feature: Some(feature),
            ..Default::default()
        };
        running.features().update_feature(Request::new(request)).await.unwrap();
    };
    set("duo_chat", types::Provider::SelfHosted, Some("models/mistral"), &[]).await;
    set(
        "code_generations",
        types::Provider::SelfHosted,
        Some("models/other"),
        &["models/mistral"],
    )
    .await;
    set("code_completions", types::Provider::Vendored, None, &[]).await;

    let list = async |provider: i32, model: &str, page_token: &str| {
        let request = registry::ListFeaturesRequest {
            page_size: 1,
            page_token: page_token.to_owned(),
            provider,
            model: model.to_owned(),
        };
        running.features().list_features(Request::new(request)).await
    };
    let all = async |provider: types::Provider, model: &str| {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let page = list(provider.into(), model, &token).await.unwrap().into_inner();
            names.extend(
                page.features
                    .iter()
                    .map(|feature| feature.name["features/".len()..].to_owned()),
            );
            if page.next_page_token.is_empty() {
                assert_eq!(page.total_size, i32::try_from(names.len()).unwrap());
                return names;
            }
            token = page.next_page_token;
        }
    };
    assert_eq!(
        all(types::Provider::SelfHosted, "").await,
        ["code_generations", "duo_chat"]
    );
    assert_eq!(all(types::Provider::Vendored, "").await, ["code_completions"]);
    assert_eq!(
        all(types::Provider::Unspecified, "models/mistral").await,
        ["code_generations", "duo_chat"]
    );
    assert_eq!(
        all(types::Provider::SelfHosted, "models/other").await,
        ["code_generations"]
    );
    assert!(all(types::Provider::Vendored, "models/other").await.is_empty());

    let status = list(77, "mistral", "").await.unwrap_err();
    let violations = status
        .get_error_details()
        .bad_request()
        .unwrap()
        .field_violations
        .clone();
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["provider", "model"]);
}

#[tokio::test]
async fn families_and_features_are_listed_in_the_catalogues_order() {
    let running = Running::start().await;
    let request = registry::ListModelFamiliesRequest::default();
    let families = running
        .models()
        .list_model_families(Request::new(request))
        .await
        .unwrap()
        .into_inner()
        .families;
    assert_eq!((families.len(), families[0].family.as_str()), (13, "mistral"));
    assert!(families[0].assignable && families[0].features.contains(&"features/duo_chat".to_owned()));
    assert!(families.iter().any(|family| !family.assignable), "beta is off");

    let first = registry::ListFeaturesRequest {
        page_size: 20,
        ..Default::default()
    };
    let first = running
        .features()
        .list_features(Request::new(first))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((first.features.len(), first.total_size), (20, 21));
    assert_eq!(first.features[0].name, "features/code_generations");
    let rest = registry::ListFeaturesRequest {
        page_size: 20,
        page_token: first.next_page_token.clone(),
        ..Default::default()
    };
    let rest = running
        .features()
        .list_features(Request::new(rest))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((rest.features.len(), rest.next_page_token.as_str()), (1, ""));

    let elsewhere = registry::ListModelsRequest {
        page_size: 20,
        page_token: first.next_page_token,
    };
    let status = running.models().list_models(Request::new(elsewhere)).await.unwrap_err();
    let fields = status
        .get_error_details()
        .bad_request()
        .unwrap()
        .field_violations
        .clone();
    assert_eq!(fields[0].reason, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn a_refused_write_names_every_invalid_field_and_changes_nothing() {
    let running = Running::start().await;
    let mut model = running.create("Mistral").await.into_inner();
    model.endpoints.push(registry::Endpoint {
        uri: "http://gpu2:8000".to_owned(),
        ..Default::default()
    });
    let request = registry::UpdateModelRequest {
        model: Some(model),
        ..Default::default()
    };
    running.models().update_model(Request::new(request)).await.unwrap();
    let before = running.commit.state().items.revision();
    let (models, features) = (running.models(), running.features());
    let settings = SettingsApi::new(running.commit.clone());
    for row in refused_writes() {
        let status = match row.request.clone() {
            WriteRequest::CreateModel(request) => models.create_model(Request::new(request)).await.unwrap_err(),
            WriteRequest::UpdateModel(request) => models.update_model(Request::new(request)).await.unwrap_err(),
            WriteRequest::UpdateFeature(request) => features.update_feature(Request::new(request)).await.unwrap_err(),
            WriteRequest::BatchUpdateFeatures(request) => {
                features.batch_update_features(Request::new(request)).await.unwrap_err()
            }
            WriteRequest::UpdateSettings(request) => settings.update_settings(Request::new(request)).await.unwrap_err(),
        };
        row.check(&status);
        assert_eq!(running.commit.state().items.revision(), before, "{row:?}");
    }
}

#[tokio::test]
async fn settings_are_read_as_they_were_written() {
    let running = Running::start().await;
    let api = SettingsApi::new(running.commit.clone());
    let request = registry::UpdateSettingsRequest {
        settings: Some(registry::Settings {
            beta_enabled: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    };
    let written = api.update_settings(Request::new(request)).await.unwrap();
    assert_eq!(written.metadata().get("x-switchboard-revision").unwrap(), "2");
    let read = api
        .get_settings(Request::new(registry::GetSettingsRequest {}))
        .await
        .unwrap();
    assert_eq!(read.get_ref(), written.get_ref());
    assert_eq!(read.get_ref().beta_enabled, Some(true));
}

#[tokio::test]
async fn every_write_returns_its_revision_and_a_check_returns_none() {
    let running = Running::start().await;
    running.create("Mistral").await;
    let revision = |metadata: &tonic::metadata::MetadataMap| {
        assert!(metadata.contains_key("x-switchboard-incarnation"));
        metadata
            .get("x-switchboard-revision")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let assign = |validate_only| registry::BatchUpdateFeaturesRequest {
        requests: vec![registry::UpdateFeatureRequest {
            feature: Some(registry::Feature {
                name: "features/duo_chat".to_owned(),
                provider: Some(types::Provider::SelfHosted.into()),
                model: Some("models/mistral".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        }],
        request_id: "r1".to_owned(),
        validate_only,
    };
    let features = running.features();
    let checked = features
        .batch_update_features(Request::new(assign(true)))
        .await
        .unwrap();
    assert_eq!(
        (revision(checked.metadata()).as_str(), checked.get_ref().revision),
        ("0", 0)
    );
    for _ in 0..2 {
        let written = features
            .batch_update_features(Request::new(assign(false)))
            .await
            .unwrap();
        assert_eq!(
            (revision(written.metadata()).as_str(), written.get_ref().revision),
            ("3", 3)
        );
    }

    let delete = registry::DeleteModelRequest {
        name: "models/mistral".to_owned(),
        ..Default::default()
    };
    let refused = running
        .models()
        .delete_model(Request::new(delete.clone()))
        .await
        .unwrap_err();
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "MODEL_IN_USE");
    let unassign = registry::UpdateFeatureRequest {
        feature: Some(registry::Feature {
            name: "features/duo_chat".to_owned(),
            provider: Some(types::Provider::Unassigned.into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    features.update_feature(Request::new(unassign)).await.unwrap();
    let deleted = running.models().delete_model(Request::new(delete)).await.unwrap();
    assert_eq!(
        (revision(deleted.metadata()).as_str(), deleted.get_ref().revision),
        ("5", 5)
    );
}

#[tokio::test]
async fn a_feature_is_read_by_its_name() {
    let running = Running::start().await;
    let get = |name: &str| Request::new(registry::GetFeatureRequest { name: name.to_owned() });
    let feature = running
        .features()
        .get_feature(get("features/duo_chat"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(feature.name, "features/duo_chat");
    assert!(!feature.compatible_families.is_empty());
    for (name, code) in [
        ("features/none", Code::NotFound),
        ("duo_chat", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        let status = running.features().get_feature(get(name)).await.unwrap_err();
        assert_eq!(status.code(), code, "{name}");
    }
}
