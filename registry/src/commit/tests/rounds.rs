//! A round of writes must leave the same content as the same writes made one by one.

use super::*;
use crate::domain::life::{LifeCause, Mark};

fn delete(name: &str) -> ParsedWrite<registry::DeleteModelRequest> {
    ParsedWrite::read(registry::DeleteModelRequest {
        name: name.to_owned(),
        ..Default::default()
    })
}

fn with_token(display_name: &str) -> registry::Model {
    registry::Model {
        api_token: Some("canary-4f1c".to_owned()),
        ..model(display_name)
    }
}

/// Writes that are queued before the writer runs, so that its first round takes them all.
struct Queued {
    folder: TempDir,
    writer: Writer,
    commit: Commit,
    callers: JoinSet<i64>,
}

impl Queued {
    async fn on(folder: TempDir) -> Self {
        let (writer, commit) = open(&database(&folder), Retention::default()).await.unwrap();
        Self {
            folder,
            writer,
            commit,
            callers: JoinSet::new(),
        }
    }

    async fn add<R: WriteRequest + 'static>(&mut self, asked: ParsedWrite<R>) -> &mut Self
    where
        ParsedWrite<R>: Send,
        R::Answer: Send,
    {
        let commit = self.commit.clone();
        self.callers
            .spawn(async move { commit.submit(asked).await.unwrap().revision.get() });
        tokio::task::yield_now().await;
        self
    }

    /// Returns the revisions of the writes, the state after them, and the state that is read back.
    async fn run(self) -> (Vec<i64>, Arc<State>, Arc<State>) {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        self.writer.run(shutdown).await.unwrap();
        let mut revisions = self.callers.join_all().await;
        revisions.sort_unstable();
        let left = self.commit.state();
        let read = Running::start_in(self.folder).await.commit.state();
        (revisions, left, read)
    }
}

fn assert_same(left: &State, read: &State) {
    for view in [View::Config, View::Router] {
        assert_eq!(left.items.cursor(view), read.items.cursor(view));
        assert!(left.items.all(view).eq(read.items.all(view)));
    }
    assert_eq!(left.models, read.models);
    assert_eq!(left.features, read.features);
    assert_eq!(left.token_update_times, read.token_update_times);
    for model in left.models.keys() {
        let is_set = |state: &State| matches!(state.credential(model), ModelCredential::Set(_));
        assert_eq!(is_set(left), is_set(read), "{model}");
    }
}

#[tokio::test]
async fn a_name_reused_within_a_round_keeps_nothing_of_the_deleted_model() {
    let running = Running::start().await;
    running.commit.submit(create(with_token("Old"))).await.unwrap();
    let (folder, _) = running.stop().await;
    let mut queued = Queued::on(folder).await;
    for name in ["Old", "New"] {
        if name == "New" {
            queued.add(create(with_token(name))).await;
        }
        let id = format!("models/{}", name.to_lowercase());
        queued.add(delete(&id)).await;
        queued.add(create(model(name))).await;
        queued.add(assign("duo_chat", &id)).await;
    }
    let (revisions, left, read) = queued.run().await;
    assert_eq!(revisions, [3, 4, 5, 6, 7, 8, 9]);
    assert_same(&left, &read);
    assert!(
        left.credentials
            .values()
            .all(|credential| matches!(credential, ModelCredential::None))
    );
}

#[tokio::test]
async fn a_model_created_and_deleted_in_one_round_leaves_only_a_tombstone() {
    let mut queued = Queued::on(TempDir::new().unwrap()).await;
    queued.add(create(with_token("A"))).await.add(delete("models/a")).await;
    queued.add(create(with_token("B"))).await;
    let (revisions, left, read) = queued.run().await;
    assert_eq!(revisions, [2, 3, 4]);
    assert_same(&left, &read);
    assert_eq!(names(&read), ["b"]);
    let deleted: Vec<_> = read.items.deleted_after(Revision::ZERO.next()).collect();
    assert_eq!(deleted.len(), 1);
}

#[tokio::test]
async fn a_life_that_begins_within_a_round_keeps_earlier_resources_but_not_their_history() {
    let mut queued = Queued::on(TempDir::new().unwrap()).await;
    queued.add(create(with_token("A"))).await;
    let new = NewLife {
        cause: LifeCause::AcceptHistory,
        above: Mark::new(1, 100).unwrap(),
        adopt: None,
    };
    let commit = queued.commit.clone();
    queued
        .callers
        .spawn(async move { commit.begin_life(new).await.unwrap().revision.get() });
    tokio::task::yield_now().await;
    queued.add(create(model("B"))).await;
    let (revisions, left, read) = queued.run().await;
    assert_eq!(revisions, [2, 101, 102]);
    assert_same(&left, &read);
    assert_eq!(read.items.oldest_resumable().get(), 101);
    assert_eq!(read.items.incarnation(), left.items.incarnation());
}
