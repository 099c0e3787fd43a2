//! Tests of restoring an earlier revision, through the writer and its database.

use super::*;
use crate::domain::write::WriteError;

fn restore(revision: i64) -> registry::RestoreRevisionRequest {
    registry::RestoreRevisionRequest {
        revision,
        ..Default::default()
    }
}

async fn restored(running: &Running, revision: i64) -> registry::RestoreRevisionResponse {
    let asked = ParsedWrite::read(restore(revision));
    running.commit.submit(asked).await.unwrap().answer
}

fn update(model: registry::Model) -> ParsedWrite<registry::UpdateModelRequest> {
    ParsedWrite::read(registry::UpdateModelRequest {
        model: Some(model),
        ..Default::default()
    })
}

fn named(name: &str) -> registry::Model {
    registry::Model {
        name: name.to_owned(),
        ..Default::default()
    }
}

fn delete(name: &str) -> ParsedWrite<registry::DeleteModelRequest> {
    ParsedWrite::read(registry::DeleteModelRequest {
        name: name.to_owned(),
        ..Default::default()
    })
}

fn set_beta(is_enabled: bool) -> ParsedWrite<registry::UpdateSettingsRequest> {
    ParsedWrite::read(registry::UpdateSettingsRequest {
        settings: Some(registry::Settings {
            beta_enabled: Some(is_enabled),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// The content of a state: names and values, without the revisions that set them.
type Content = (
    Vec<switchboard::resource::model::Model>,
    Vec<switchboard::resource::feature::Feature>,
    switchboard::resource::settings::Settings,
);

fn content(state: &State) -> Content {
    (
        state.models.values().map(|model| model.value.clone()).collect(),
        state.features.values().map(|feature| feature.value.clone()).collect(),
        state.settings.value,
    )
}

/// Makes one write of a random history. Some writes are refused.
async fn write(running: &Running, rng: &mut fastrand::Rng) {
    let id = ["a", "b", "c"][rng.usize(..3)];
    let name = format!("models/{id}");
    let done = match rng.u8(..7) {
        0 | 1 => {
            let token = rng.bool().then(|| "sk-1".to_owned());
            let model = registry::Model {
                name,
                api_token: token,
                ..model(id)
            };
            running.commit.submit(create(model)).await.map(|_| ())
        }
        2 => running.commit.submit(delete(&name)).await.map(|_| ()),
        3 => running.commit.submit(set_beta(rng.bool())).await.map(|_| ()),
        4 => running.commit.submit(assign("duo_chat", &name)).await.map(|_| ()),
        5 => {
            let feature = registry::Feature {
                name: "features/duo_chat".to_owned(),
                provider: Some(types::Provider::Unassigned.into()),
                ..Default::default()
            };
            let request = registry::UpdateFeatureRequest {
                feature: Some(feature),
                ..Default::default()
            };
            running.commit.submit(ParsedWrite::read(request)).await.map(|_| ())
        }
        _ => {
            let changed = registry::Model {
                endpoint: Some(format!("http://gpu{}:8000", rng.u8(1..4))),
                limits: Some(registry::ModelLimits {
                    max_queue: Some(rng.i32(0..100)),
                    ..Default::default()
                }),
                ..named(&name)
            };
            running.commit.submit(update(changed)).await.map(|_| ())
        }
    };
    match done {
        Ok(()) | Err(CommitError::Refused(_)) => {}
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn every_kept_revision_of_a_random_history_can_be_restored() {
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut running = Running::start().await;
    let mut recorded = Vec::new();
    for _ in 0..60 {
        write(&running, &mut rng).await;
        let state = running.commit.state();
        recorded.resize(usize::try_from(state.items.revision().get()).unwrap(), None);
        *recorded.last_mut().unwrap() = Some(state);
    }
    running = running.restart().await;
    let mut head = i64::try_from(recorded.len()).unwrap();
    // Every revision was recorded, except the one that seeds the store.
    for (revision, then) in (1_i64..).zip(&recorded).skip(1) {
        let then = then.as_ref().unwrap();
        let before = running.commit.state();
        let answer = restored(&running, revision).await;
        let now = running.commit.state();
        assert_eq!(content(&now), content(then), "seed {seed}, back to {revision}");
        head += i64::from(content(&before) != content(then) || answer.revision > head);
        assert_eq!(
            (answer.revision, now.items.revision().get()),
            (head, head),
            "seed {seed}, back to {revision}"
        );
        assert_eq!(answer.changes_total, i32::try_from(answer.changes.len()).unwrap());
        for item in then.items.all(View::Config) {
            let name = &*item.key;
            let (value, token) = (&now.items.get(name).unwrap().value, name.starts_with("models/"));
            assert!(
                token || *value == item.value,
                "seed {seed}, back to {revision}: the bytes of {name}"
            );
        }
        let again = restored(&running, revision).await;
        assert_eq!(
            (again.revision, again.changes.len()),
            (head, 0),
            "seed {seed}, back to {revision}"
        );
    }
    // Everything that was written is read back, including old values.
    let (folder, before) = running.stop().await;
    let running = Running::start_in(folder).await;
    assert_eq!(content(&running.commit.state()), content(&before));
}

#[tokio::test]
async fn a_restored_model_gets_its_original_bytes() {
    let running = Running::start().await;
    let labels = [("b", "2"), ("a", "1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let full = registry::Model {
        labels: labels.into(),
        api_token: Some("canary-4f1c".to_owned()),
        ..model("A")
    };
    running.commit.submit(create(full)).await.unwrap();
    let value = |running: &Running| running.commit.state().items.get("models/a").unwrap().value.clone();
    let then = value(&running);
    let renamed = registry::Model {
        display_name: Some("B".to_owned()),
        ..named("models/a")
    };
    running.commit.submit(update(renamed)).await.unwrap();
    assert_ne!(value(&running), then);
    let answer = restored(&running, 2).await;
    assert_eq!(value(&running), then, "the original bytes, including the credential");
    assert_eq!(answer.changes[0].fields, ["display_name"]);
    assert_eq!(answer.changes[0].after.as_ref().unwrap().value, then);
    let shown = format!("{answer:?}");
    assert!(
        !shown.contains("canary")
            && !String::from_utf8_lossy(&prost::Message::encode_to_vec(&answer)).contains("canary")
    );
}

#[tokio::test]
async fn a_token_is_kept_for_its_origins_and_dropped_for_others() {
    let running = Running::start().await;
    let given = |id: &str, host: &str, token: Option<&str>| registry::Model {
        name: format!("models/{id}"),
        endpoint: Some(format!("http://{host}:8000")),
        api_token: token.map(str::to_owned),
        ..model(id)
    };
    for (id, token) in [
        ("stays", Some("t")),
        ("moved", Some("t")),
        ("gone", Some("t")),
        ("plain", None),
        ("cleared", Some("t")),
    ] {
        running.commit.submit(create(given(id, "gpu1", token))).await.unwrap();
    }
    let revision = running.commit.state().items.revision().get();
    let rotated = |id: &str, host: &str, token: &str| registry::Model {
        name: format!("models/{id}"),
        endpoint: Some(format!("http://{host}:8000")),
        api_token: Some(token.to_owned()),
        ..Default::default()
    };
    running
        .commit
        .submit(update(rotated("stays", "gpu1", "t2")))
        .await
        .unwrap();
    running
        .commit
        .submit(update(rotated("moved", "gpu2", "t2")))
        .await
        .unwrap();
    running
        .commit
        .submit(update(rotated("cleared", "gpu2", "")))
        .await
        .unwrap();
    running.commit.submit(delete("models/gone")).await.unwrap();
    running.commit.submit(delete("models/plain")).await.unwrap();
    let now = running.commit.state();

    let mut tried = restore(revision);
    tried.validate_only = true;
    let tried = running.commit.submit(ParsedWrite::read(tried)).await.unwrap().answer;
    let answer = restored(&running, revision).await;
    assert_eq!(answer.api_tokens_dropped, ["models/gone", "models/moved"]);
    assert_eq!((tried.revision, tried.changes[0].revision), (0, 0));
    assert_eq!(tried.api_tokens_dropped, answer.api_tokens_dropped);
    let shown = |answer: &registry::RestoreRevisionResponse| -> Vec<_> {
        let changes = answer.changes.iter();
        changes
            .map(|change| (change.resource.clone(), change.fields.clone(), change.after.clone()))
            .collect()
    };
    assert_eq!(shown(&tried), shown(&answer));

    let after = running.commit.state();
    let credential = |state: &State, id: &str| {
        state
            .credential(&ModelName::parse(&format!("models/{id}")).unwrap())
            .clone()
    };
    let id = |credential| match credential {
        ModelCredential::Set(set) => set.id,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        id(credential(&after, "stays")),
        id(credential(&now, "stays")),
        "the current token is kept"
    );
    assert!(matches!(credential(&after, "moved"), ModelCredential::Dropped));
    assert!(matches!(credential(&after, "gone"), ModelCredential::Dropped));
    assert!(matches!(credential(&after, "plain"), ModelCredential::None));
    assert!(matches!(credential(&after, "cleared"), ModelCredential::None));
    let (folder, before) = running.stop().await;
    let running = Running::start_in(folder).await;
    assert_eq!(running.commit.state().token_update_times, before.token_update_times);
}

#[tokio::test]
async fn a_revision_that_cannot_be_restored_is_refused() {
    let short = Retention {
        revisions: 2,
        ..Retention::default()
    };
    let running = Running::start_with(TempDir::new().unwrap(), short).await;
    for name in ["A", "B", "C", "D"] {
        running.commit.submit(create(model(name))).await.unwrap();
    }
    let refused = async |revision| match running.commit.submit(ParsedWrite::read(restore(revision))).await {
        Err(CommitError::Refused(error)) => error,
        other => panic!("{other:?}"),
    };
    let at = |number| Revision::new(number).unwrap();
    let (oldest, newest) = (at(3), at(5));
    assert_eq!(refused(6).await, WriteError::InFuture { oldest, newest });
    assert_eq!(refused(2).await, WriteError::Compacted { oldest, newest });
    for bad in [0, -1] {
        assert!(matches!(refused(bad).await, WriteError::Invalid(_)), "{bad}");
    }
    assert_eq!(restored(&running, 3).await.changes.len(), 2);
    assert_eq!(names(&running.commit.state()), ["a", "b"]);
}

#[tokio::test]
async fn a_restore_also_reverts_earlier_writes_of_its_round() {
    let running = Running::start().await;
    running.commit.submit(create(model("A"))).await.unwrap();
    // All writes are queued before the writer runs, so that one round takes them.
    let (first, second, back) = tokio::join!(
        running.commit.submit(create(model("B"))),
        running.commit.submit(delete("models/a")),
        running.commit.submit(ParsedWrite::read(restore(2))),
    );
    assert_eq!((first.unwrap().revision.get(), second.unwrap().revision.get()), (3, 4));
    assert_eq!(back.unwrap().answer.revision, 5);
    assert_eq!(names(&running.commit.state()), ["a"]);
}

#[tokio::test]
async fn a_restore_does_not_check_beta_and_its_repeat_changes_nothing() {
    let running = Running::start().await;
    running.commit.submit(set_beta(true)).await.unwrap();
    let qwen = registry::Model {
        family: Some("qwen".to_owned()),
        ..model("Q")
    };
    running.commit.submit(create(qwen)).await.unwrap();
    running.commit.submit(set_beta(false)).await.unwrap();
    running.commit.submit(delete("models/q")).await.unwrap();
    let mut request = restore(4);
    request.request_id = "once".to_owned();
    let first = running
        .commit
        .submit(ParsedWrite::read(request.clone()))
        .await
        .unwrap()
        .answer;
    assert_eq!(first.revision, 6);
    let name = ModelName::parse("models/q").unwrap();
    assert!(running.commit.state().model(&name).unwrap().is_kept_without_beta);
    running.commit.submit(delete("models/q")).await.unwrap();
    let again = running.commit.submit(ParsedWrite::read(request)).await.unwrap().answer;
    assert_eq!(again, first);
    assert!(names(&running.commit.state()).is_empty());
}
