//! Tests of writes with a request id, and of writes that are only checked.

use super::*;

fn with_id(id: &str, model: registry::Model) -> ParsedWrite<registry::CreateModelRequest> {
    ParsedWrite::read(registry::CreateModelRequest {
        model: Some(model),
        request_id: id.to_owned(),
        ..Default::default()
    })
}

fn disable(id: &str, name: &str, disabled: bool) -> ParsedWrite<registry::UpdateModelRequest> {
    ParsedWrite::read(registry::UpdateModelRequest {
        model: Some(registry::Model {
            name: name.to_owned(),
            disabled: Some(disabled),
            ..Default::default()
        }),
        request_id: id.to_owned(),
        ..Default::default()
    })
}

fn head(running: &Running) -> i64 {
    running.commit.state().items.revision().get()
}

#[tokio::test]
async fn a_repeated_write_gets_the_same_answer_and_is_not_made_again() {
    let mut running = Running::start().await;
    let first = running.commit.submit(with_id("r1", model("A"))).await.unwrap();
    running.commit.submit(create(model("B"))).await.unwrap();
    for is_restarted in [false, true] {
        if is_restarted {
            running = running.restart().await;
        }
        let again = running.commit.submit(with_id("r1", model("A"))).await.unwrap();
        assert_eq!(again.answer, first.answer);
        assert_eq!((again.revision, again.incarnation), (first.revision, first.incarnation));
        assert_eq!(head(&running), 3);
        let other = running.commit.submit(with_id("r1", model("C"))).await;
        assert!(matches!(other, Err(CommitError::RequestIdReused)), "{other:?}");
    }
    let other_method = running.commit.submit(disable("r1", "models/b", true)).await.unwrap();
    assert_eq!(
        other_method.revision.get(),
        4,
        "the same id can be used with another method"
    );
}

#[tokio::test]
async fn a_write_that_is_repeated_within_one_round_is_made_once() {
    let folder = TempDir::new().unwrap();
    let (writer, commit) = open(&database(&folder), Retention::default()).await.unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..2 {
        let commit = commit.clone();
        callers.spawn(async move { commit.submit(with_id("r1", model("A"))).await });
        tokio::task::yield_now().await;
    }
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    writer.run(shutdown).await.unwrap();
    for outcome in callers.join_all().await {
        let written = outcome.unwrap();
        assert_eq!((written.revision.get(), &*written.answer.name), (2, "models/a"));
    }
    assert_eq!(commit.state().items.revision().get(), 2);
}

#[tokio::test]
async fn only_writes_that_were_made_are_remembered() {
    let running = Running::start().await;
    let refused = running.commit.submit(disable("r1", "models/a", true)).await;
    assert!(matches!(refused, Err(CommitError::Refused(WriteError::NotFound(_)))));
    let checked = registry::CreateModelRequest {
        model: Some(model("Other")),
        request_id: "r2".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    running.commit.submit(ParsedWrite::read(checked)).await.unwrap();
    running.commit.submit(with_id("r2", model("A"))).await.unwrap();
    let made = running.commit.submit(disable("r1", "models/a", true)).await.unwrap();
    assert_eq!(made.revision.get(), 3);

    // A write that changes nothing is remembered as well: its repeat must not undo a later write.
    running.commit.submit(disable("r3", "models/a", true)).await.unwrap();
    running.commit.submit(disable("", "models/a", false)).await.unwrap();
    let again = running.commit.submit(disable("r3", "models/a", true)).await.unwrap();
    assert_eq!((again.revision.get(), again.answer.disabled), (3, Some(true)));
    assert_eq!(head(&running), 4);
}

#[tokio::test]
async fn the_newest_answers_are_kept_without_tokens() {
    let retention = Retention {
        answers: 2,
        ..Retention::default()
    };
    let running = Running::start_with(TempDir::new().unwrap(), retention).await;
    for id in ["A", "B", "C"] {
        let with_token = registry::Model {
            api_token: Some("canary-4f1c".to_owned()),
            ..model(id)
        };
        running.commit.submit(with_id(id, with_token)).await.unwrap();
    }
    let forgotten = running.commit.submit(with_id("A", model("D"))).await.unwrap();
    assert_eq!(forgotten.revision.get(), 5, "the id can be used again");
    let (folder, _) = running.stop().await;
    assert_eq!(count(&folder, "SELECT COUNT(*) FROM requests").await, 2);
    let leaks = "SELECT COUNT(*) FROM requests WHERE instr(answer, CAST('canary' AS BLOB)) > 0
                 OR instr(content, CAST('canary' AS BLOB)) > 0";
    assert_eq!(count(&folder, leaks).await, 0);
}

#[tokio::test]
async fn a_write_that_changes_nothing_does_not_cut_the_history() {
    let running = Running::start().await;
    for name in ["A", "B", "C"] {
        running.commit.submit(create(model(name))).await.unwrap();
    }
    let (folder, _) = running.stop().await;
    let short = Retention {
        revisions: 1,
        ..Retention::default()
    };
    let running = Running::start_with(folder, short).await;
    running.commit.submit(disable("r1", "models/a", false)).await.unwrap();
    let items = &running.commit.state().items;
    assert!(
        items.past(items.oldest_resumable()).is_some(),
        "the oldest resumable revision is kept"
    );

    running.commit.submit(disable("r2", "models/a", true)).await.unwrap();
    let items = &running.commit.state().items;
    assert_eq!(items.oldest_resumable().get(), 4);
    assert!(items.past(items.oldest_resumable()).is_some());
    running.stop().await;
}

#[tokio::test]
async fn an_invalid_request_id_is_reported_with_the_other_violations() {
    let running = Running::start().await;
    let outcome = running.commit.submit(disable("with blank", "mistral", true)).await;
    let Err(CommitError::Refused(WriteError::Invalid(violations))) = outcome else {
        panic!("{outcome:?}");
    };
    let fields: Vec<_> = violations.as_slice().iter().map(|bad| bad.field.as_str()).collect();
    assert_eq!(fields, ["model.name", "request_id"]);
}

#[tokio::test]
async fn a_check_answers_as_the_write_would_and_changes_nothing() {
    let running = Running::start().await;
    let request = |validate_only| {
        ParsedWrite::read(registry::CreateModelRequest {
            model: Some(model("Mistral")),
            validate_only,
            ..Default::default()
        })
    };
    let before = running.commit.state().items.cursor(View::Router);
    let checked = running.commit.submit(request(true)).await.unwrap();
    assert_eq!((checked.revision, checked.answer.revision), (Revision::ZERO, 0));
    assert_eq!(checked.answer.etag, "");
    assert_eq!(running.commit.state().items.cursor(View::Router), before);
    let written = running.commit.submit(request(false)).await.unwrap();
    assert_eq!(checked.answer.name, written.answer.name);
    let refused = running.commit.submit(request(true)).await;
    assert!(matches!(
        refused,
        Err(CommitError::Refused(WriteError::NameTaken { .. }))
    ));
    let delete = registry::DeleteModelRequest {
        name: "models/mistral".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    let deleted = running.commit.submit(ParsedWrite::read(delete)).await.unwrap();
    assert_eq!(deleted.answer.revision, 0);
    assert_eq!(names(&running.commit.state()), ["mistral"]);
}
