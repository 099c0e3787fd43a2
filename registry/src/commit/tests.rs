mod doubt;
mod history;
mod lives;
mod opening;
mod repeat;
mod restore;
mod rounds;

use std::path::PathBuf;

use sqlx::{ConnectOptions as _, Connection as _, Executor as _, sqlite::SqliteConnectOptions};
use switchboard::{
    history::View,
    names::ModelName,
    pb::{registry, types},
};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::{domain::credential::ModelCredential, store::Kind};

/// A registry's writer with its own database.
struct Running {
    folder: TempDir,
    commit: Commit,
    shutdown: CancellationToken,
    tasks: JoinSet<Result<(), WriteFailure>>,
}

impl Running {
    async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap()).await
    }

    async fn start_in(folder: TempDir) -> Self {
        Self::start_with(folder, Retention::default()).await
    }

    async fn start_with(folder: TempDir, retention: Retention) -> Self {
        let (writer, commit) = open(&database(&folder), retention).await.unwrap();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(shutdown.clone()));
        Self {
            folder,
            commit,
            shutdown,
            tasks,
        }
    }

    async fn stop(mut self) -> (TempDir, Arc<State>) {
        self.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
        (self.folder, self.commit.state())
    }

    async fn restart(self) -> Self {
        let (folder, _) = self.stop().await;
        Self::start_in(folder).await
    }
}

fn database(folder: &TempDir) -> PathBuf {
    folder.path().join("switchboard.db")
}

/// Changes a database directly while no registry holds it.
async fn tamper(folder: &TempDir, sql: &'static str) {
    let options = SqliteConnectOptions::new()
        .filename(database(folder))
        .foreign_keys(false);
    let mut connection = options.connect().await.unwrap();
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
}

/// Returns the single number of a query's result, while no registry holds the database.
async fn count(folder: &TempDir, sql: &'static str) -> i64 {
    let options = SqliteConnectOptions::new().filename(database(folder));
    let mut connection = options.connect().await.unwrap();
    let number = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    number
}

fn model(display_name: &str) -> registry::Model {
    registry::Model {
        display_name: Some(display_name.to_owned()),
        family: Some("mistral".to_owned()),
        endpoint: Some("http://gpu1:8000".to_owned()),
        ..Default::default()
    }
}

fn create(model: registry::Model) -> ParsedWrite<registry::CreateModelRequest> {
    ParsedWrite::read(registry::CreateModelRequest {
        model: Some(model),
        ..Default::default()
    })
}

fn assign(feature: &str, model: &str) -> ParsedWrite<registry::UpdateFeatureRequest> {
    ParsedWrite::read(registry::UpdateFeatureRequest {
        feature: Some(registry::Feature {
            name: format!("features/{feature}"),
            provider: Some(types::Provider::SelfHosted.into()),
            model: Some(model.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn names(state: &State) -> Vec<&str> {
    state.models.keys().map(ModelName::id).collect()
}

#[tokio::test]
async fn a_new_registry_has_the_catalogues_features_and_the_settings() {
    let running = Running::start().await;
    let state = running.commit.state();
    assert_eq!(state.items.revision().get(), 1);
    assert_eq!(state.features.len(), 21);
    assert!(!state.is_beta_enabled());
    assert_eq!(state.items.all(View::Router).count(), 22);
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let running = Running::start().await;
    let with_token = registry::Model {
        api_token: Some("canary-4f1c".to_owned()),
        ..model("Mistral")
    };
    let written = running.commit.submit(create(with_token)).await.unwrap();
    assert_eq!(written.revision.get(), 2);
    assert_eq!(
        running.commit.state().items.revision().get(),
        2,
        "a write is published before it is answered"
    );
    running.commit.submit(create(model("Other"))).await.unwrap();
    running
        .commit
        .submit(assign("duo_chat", "models/mistral"))
        .await
        .unwrap();
    let (folder, before) = running.stop().await;

    let running = Running::start_in(folder).await;
    let after = running.commit.state();
    for view in [View::Config, View::Router] {
        assert_eq!(after.items.cursor(view), before.items.cursor(view));
        assert!(after.items.all(view).eq(before.items.all(view)));
    }
    for revision in 1..=4 {
        let revision = Revision::new(revision).unwrap();
        assert_eq!(after.items.past(revision), before.items.past(revision));
        assert!(after.items.past(revision).is_some());
    }
    assert_eq!(after.models, before.models);
    assert_eq!(after.features, before.features);
    assert_eq!(after.settings, before.settings);
    assert_eq!(after.token_update_times, before.token_update_times);
    let token = |state: &State| match state.credential(&ModelName::parse("models/mistral").unwrap()) {
        ModelCredential::Set(set) => (set.id, set.origins.clone(), set.token.expose().to_owned()),
        ModelCredential::None | ModelCredential::Dropped => panic!("the token is set"),
    };
    assert_eq!(token(&after), token(&before));

    let written = running.commit.submit(create(model("Third"))).await.unwrap();
    assert_eq!(written.revision.get(), 5, "revisions continue after a restart");
}

#[tokio::test]
async fn a_second_registry_on_the_same_file_is_refused() {
    let running = Running::start().await;
    let path = database(&running.folder);
    let link = running.folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&path, &link] {
        let second = open(path, Retention::default()).await;
        assert!(
            matches!(second, Err(OpenError::Store(StoreError::Locked(_)))),
            "{path:?}"
        );
    }
    let running = running.restart().await;
    running.commit.submit(create(model("Mistral"))).await.unwrap();
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let running = Running::start().await;
    running.commit.submit(create(model("Mistral"))).await.unwrap();
    let files: Vec<_> = std::fs::read_dir(running.folder.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(files.len() >= 3, "the database, its log and the lock file");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn writes_in_one_round_see_each_other_and_a_refused_write_takes_no_revision() {
    let folder = TempDir::new().unwrap();
    let (writer, commit) = open(&database(&folder), Retention::default()).await.unwrap();
    // The writes are queued before the writer runs, so that one round takes them all.
    let mut callers = JoinSet::new();
    let queue = |callers: &mut JoinSet<_>, write| {
        let commit = commit.clone();
        callers.spawn(async move { commit.submit(write).await.map(|written| written.revision.get()) });
    };
    for display_name in ["A", "A", "B"] {
        queue(&mut callers, create(model(display_name)));
        tokio::task::yield_now().await;
    }
    let mut published = commit.published();
    published.mark_unchanged();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    writer.run(shutdown).await.unwrap();
    let mut outcomes: Vec<_> = callers.join_all().await.into_iter().map(Result::ok).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, [None, Some(2), Some(3)]);
    assert!(published.has_changed().is_err(), "the writer has ended");
    assert_eq!(names(&commit.state()), ["a", "b"]);
    let late = commit.submit(create(model("C"))).await;
    assert!(matches!(late, Err(CommitError::Ended)));
}

#[tokio::test]
async fn a_write_that_cannot_be_stored_does_not_fail_the_others() {
    let (folder, _) = Running::start().await.stop().await;
    tamper(
        &folder,
        "CREATE TRIGGER fails BEFORE INSERT ON resources WHEN NEW.name = 'models/bad'
         BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    .await;
    let (writer, commit) = open(&database(&folder), Retention::default()).await.unwrap();
    let mut callers = JoinSet::new();
    for display_name in ["A", "Bad", "C"] {
        let commit = commit.clone();
        callers.spawn(async move { (display_name, commit.submit(create(model(display_name))).await) });
        tokio::task::yield_now().await;
    }
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    writer.run(shutdown).await.unwrap();
    for (display_name, outcome) in callers.join_all().await {
        match outcome {
            Ok(_) => assert_ne!(display_name, "Bad"),
            Err(CommitError::Store(error)) => assert_eq!((display_name, error.kind()), ("Bad", Kind::Other)),
            Err(other) => panic!("{display_name}: {other:?}"),
        }
    }
    let state = commit.state();
    assert_eq!((names(&state), state.items.revision().get()), (vec!["a", "c"], 3));
    let running = Running::start_in(folder).await;
    assert_eq!(
        running.commit.state().items.cursor(View::Router),
        state.items.cursor(View::Router)
    );
}

#[tokio::test]
async fn a_write_whose_commit_is_refused_is_not_published() {
    let (folder, _) = Running::start().await.stop().await;
    // A foreign key that is only checked when the transaction commits.
    tamper(
        &folder,
        "CREATE TABLE doubt (name TEXT REFERENCES resources (name) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER doubts AFTER INSERT ON resources WHEN NEW.name = 'models/doubt'
         BEGIN INSERT INTO doubt VALUES ('nothing'); END",
    )
    .await;
    let running = Running::start_in(folder).await;
    running.commit.submit(create(model("A"))).await.unwrap();
    let outcome = running.commit.submit(create(model("Doubt"))).await;
    assert!(matches!(outcome, Err(CommitError::Store(_))), "{outcome:?}");
    assert_eq!(
        names(&running.commit.state()),
        ["a"],
        "a write that is not durable is not published"
    );
    running.commit.submit(create(model("B"))).await.unwrap();
}

#[tokio::test]
async fn the_writer_stops_if_another_process_has_written() {
    let mut running = Running::start().await;
    tamper(
        &running.folder,
        "INSERT INTO revisions SELECT 2, chain, config_state, router_state, actor, commit_time FROM revisions",
    )
    .await;
    let outcome = running.commit.submit(create(model("A"))).await;
    assert!(matches!(outcome, Err(CommitError::OutcomeUnknown)), "{outcome:?}");
    let end = running.tasks.join_next().await.unwrap().unwrap();
    assert!(matches!(end, Err(WriteFailure::ForeignWriter(_))), "{end:?}");
}

#[tokio::test]
async fn a_write_is_made_even_if_its_caller_is_dropped() {
    let folder = TempDir::new().unwrap();
    let (writer, commit) = open(&database(&folder), Retention::default()).await.unwrap();
    let mut callers = JoinSet::new();
    let caller = commit.clone();
    callers.spawn(async move { caller.submit(create(model("A"))).await.map(|_| ()) });
    tokio::task::yield_now().await;
    callers.shutdown().await;
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    writer.run(shutdown).await.unwrap();
    assert_eq!(names(&commit.state()), ["a"]);
}

#[tokio::test]
async fn a_database_that_contradicts_itself_is_refused() {
    for (sql, what) in [
        (
            "UPDATE revisions SET chain = zeroblob(32) WHERE revision = 2",
            "history up to revision 2",
        ),
        (
            "UPDATE changes SET item = zeroblob(32) WHERE revision = 1 AND name = 'settings'",
            "history up to revision 1",
        ),
        ("DELETE FROM changes WHERE revision = 2", "history up to revision 2"),
        (
            "UPDATE revisions SET router_state = zeroblob(32) WHERE revision = 2",
            "state at revision 2",
        ),
        (
            "UPDATE resources SET value = x'00' WHERE name = 'settings'",
            "`settings` differs from what was written",
        ),
        (
            "UPDATE resources SET type_url = 'x' WHERE name = 'settings'",
            "`settings`",
        ),
        ("DELETE FROM resources WHERE name = 'settings'", "`settings` is missing"),
        (
            "UPDATE revisions SET revision = 3 WHERE revision = 2",
            "revision 2 is missing",
        ),
        ("DELETE FROM revisions WHERE revision = 2", "does not exist"),
        ("UPDATE store SET incarnation_number = 2", "the life of the store"),
        ("UPDATE credentials SET token = ''", "a credential"),
    ] {
        let running = Running::start().await;
        let with_token = registry::Model {
            api_token: Some("t".to_owned()),
            ..model("Mistral")
        };
        running.commit.submit(create(with_token)).await.unwrap();
        let (folder, _) = running.stop().await;
        tamper(&folder, sql).await;
        let Err(OpenError::Store(StoreError::Damaged(message))) = open(&database(&folder), Retention::default()).await
        else {
            panic!("not detected: {sql}");
        };
        assert!(message.contains(what), "{sql}: {message}");
    }
}

#[tokio::test]
async fn a_credential_whose_id_does_not_match_its_model_is_refused() {
    let running = Running::start().await;
    let with_token = registry::Model {
        api_token: Some("t".to_owned()),
        ..model("Mistral")
    };
    running.commit.submit(create(with_token)).await.unwrap();
    let (folder, _) = running.stop().await;
    tamper(
        &folder,
        "UPDATE credentials SET credential_id = '00000000000000000000000000000000'",
    )
    .await;
    let reopened = open(&database(&folder), Retention::default()).await;
    assert!(matches!(reopened, Err(OpenError::Resource { .. })));
}

#[tokio::test]
async fn a_database_of_a_newer_registry_is_refused() {
    let (folder, _) = Running::start().await.stop().await;
    tamper(
        &folder,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', 1, x'00', 0)",
    )
    .await;
    let reopened = open(&database(&folder), Retention::default()).await;
    assert!(matches!(
        reopened,
        Err(OpenError::Store(StoreError::SchemaTooNew(9999)))
    ));
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused() {
    let folder = TempDir::new().unwrap();
    std::fs::write(
        database(&folder),
        "this is not a database, but it is long enough to be read as one",
    )
    .unwrap();
    let Err(OpenError::Store(error)) = open(&database(&folder), Retention::default()).await else {
        panic!("a text file was opened as a database");
    };
    assert_eq!(error.kind(), Kind::Corrupt);
}
