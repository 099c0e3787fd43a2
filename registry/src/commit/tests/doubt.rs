//! Tests of commits that fail, and of storages that cannot be opened again at once.

use std::{collections::VecDeque, io};

use parking_lot::Mutex;

use super::*;
use crate::{
    domain::{repeat::Remembered, write::OldValue},
    store::Storage,
};

/// The behaviour of a storage at its next commit, or when it is opened again the next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The commit fails, but the batch was stored.
    Kept,
    /// The commit fails, and the batch was not stored.
    Lost,
    /// The commit fails because the disk is full, and the batch was not stored.
    Full,
    /// The file is found to be damaged.
    Corrupt,
    /// The file cannot be opened.
    Shut,
    /// The file is older than the last batch.
    Behind,
}

/// A database whose commits fail as planned, in the planned order. Without a plan, all operations succeed.
struct Faulty {
    store: Store,
    plan: Arc<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    commits: Mutex<VecDeque<Fault>>,
    reopenings: Mutex<VecDeque<Fault>>,
    /// While true, every attempt to open the storage fails.
    is_shut: watch::Sender<bool>,
}

fn next(faults: &Mutex<VecDeque<Fault>>) -> Option<Fault> {
    faults.lock().pop_front()
}

fn failing(kind: Kind) -> StoreError {
    StoreError::Sql {
        during: "commit",
        kind,
        source: sqlx::Error::Io(io::Error::other("the disk fails")),
    }
}

impl Faulty {
    async fn commit(&mut self, batch: Option<&Batch<'_>>) -> Result<(), WriteFailure> {
        let fault = next(&self.plan.commits);
        if let (None | Some(Fault::Kept), Some(batch)) = (fault, batch) {
            self.store.write(batch).await?;
        }
        match fault {
            None => Ok(()),
            Some(Fault::Full) => Err(WriteFailure::RolledBack(failing(Kind::Full))),
            Some(Fault::Corrupt) => Err(WriteFailure::RolledBack(failing(Kind::Corrupt))),
            Some(Fault::Kept | Fault::Lost | Fault::Shut | Fault::Behind) => {
                Err(WriteFailure::OutcomeUnknown(failing(Kind::Io)))
            }
        }
    }
}

impl Storage for Faulty {
    async fn write(&mut self, batch: &Batch<'_>) -> Result<(), WriteFailure> {
        self.commit(Some(batch)).await
    }

    async fn recall(&mut self, keys: &[RepeatKey]) -> Result<Vec<Remembered>, StoreError> {
        self.store.recall(keys).await
    }

    async fn values_at(&mut self, revision: Revision) -> Result<Vec<OldValue>, StoreError> {
        self.store.values_at(revision).await
    }

    async fn probe(&mut self) -> Result<(), WriteFailure> {
        self.commit(None).await
    }

    async fn reopen(&mut self) -> Result<Loaded, StoreError> {
        match next(&self.plan.reopenings) {
            _ if *self.plan.is_shut.borrow() => Err(failing(Kind::Io)),
            Some(Fault::Shut) => Err(failing(Kind::Io)),
            Some(Fault::Corrupt) => Err(failing(Kind::Corrupt)),
            Some(Fault::Behind) => Ok(Store::open(&database(&TempDir::new().unwrap())).await?.1),
            _ => self.store.reopen().await,
        }
    }

    async fn close(self) -> Result<(), StoreError> {
        self.store.close().await
    }
}

struct Bench {
    running: Running,
    plan: Arc<Plan>,
}

impl Bench {
    /// Starts with one model and the planned faults.
    async fn start(commits: &[Fault], reopenings: &[Fault]) -> Self {
        let folder = TempDir::new().unwrap();
        let (store, loaded) = Store::open(&database(&folder)).await.unwrap();
        let plan = Arc::new(Plan::default());
        let storage = Faulty {
            store,
            plan: Arc::clone(&plan),
        };
        let (writer, commit) = begin(storage, loaded, Retention::default()).await.unwrap();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(shutdown.clone()));
        let running = Running {
            folder,
            commit,
            shutdown,
            tasks,
        };
        running.commit.submit(create(model("First"))).await.unwrap();
        plan.commits.lock().extend(commits);
        plan.reopenings.lock().extend(reopenings);
        Self { running, plan }
    }

    fn commit(&self) -> &Commit {
        &self.running.commit
    }

    /// Stops the writer, and checks that a new start reads the published state.
    async fn finish(self) {
        let (folder, before) = self.running.stop().await;
        let after = Running::start_in(folder).await.commit.state();
        assert_eq!(after.items.cursor(View::Router), before.items.cursor(View::Router));
        assert_eq!(after.models, before.models);
    }
}

#[tokio::test]
async fn after_a_failed_commit_the_stored_state_decides_the_answer() {
    for (commits, reopenings) in [
        (&[Fault::Kept][..], &[][..]),
        (&[Fault::Lost], &[]),
        (&[Fault::Lost], &[Fault::Shut, Fault::Shut]),
        (&[Fault::Lost, Fault::Kept], &[]),
        (&[Fault::Lost, Fault::Lost, Fault::Lost], &[Fault::Shut]),
    ] {
        let bench = Bench::start(commits, reopenings).await;
        let written = bench.commit().submit(create(model("A"))).await.unwrap();
        assert_eq!((written.revision.get(), &*written.answer.name), (3, "models/a"));
        assert_eq!(
            names(&bench.commit().state()),
            ["a", "first"],
            "the write is made once and published"
        );
        assert!(*bench.commit().is_able().borrow());
        let next = bench.commit().submit(create(model("B"))).await.unwrap();
        assert_eq!(next.revision.get(), 4);
        bench.finish().await;
    }
}

#[tokio::test]
async fn a_refusal_because_of_a_lost_write_is_decided_again() {
    let bench = Bench::start(&[Fault::Lost], &[]).await;
    let taken = async { bench.commit().submit(create(model("A"))).await };
    let other = async { bench.commit().submit(create(model("A"))).await };
    let (one, two) = tokio::join!(taken, other);
    assert_eq!([one.is_ok(), two.is_ok()].iter().filter(|is_ok| **is_ok).count(), 1);
    assert_eq!(bench.commit().state().items.revision().get(), 3);
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_too_long_gets_outcome_unknown_and_the_writer_continues() {
    for (fault, expected) in [(Fault::Kept, vec!["a", "first"]), (Fault::Lost, vec!["first"])] {
        let bench = Bench::start(&[fault], &[]).await;
        bench.plan.is_shut.send_replace(true);
        let begun = Instant::now();
        let outcome = bench.commit().submit(create(model("A"))).await;
        assert!(matches!(outcome, Err(CommitError::OutcomeUnknown)), "{outcome:?}");
        assert_eq!(begun.elapsed().as_secs(), 5);
        let late = bench.commit().submit(create(model("B"))).await;
        assert!(matches!(late, Err(CommitError::OutcomeUnknown)), "{late:?}");
        assert_eq!(begun.elapsed().as_secs(), 5, "a new write is answered at once");
        assert_eq!(
            names(&bench.commit().state()),
            ["first"],
            "a write in doubt is not published"
        );

        let mut is_able = bench.commit().is_able();
        assert!(!*is_able.borrow_and_update());
        bench.plan.is_shut.send_replace(false);
        is_able.wait_for(|is_able| *is_able).await.unwrap();
        assert_eq!(names(&bench.commit().state()), expected);
        bench.commit().submit(create(model("C"))).await.unwrap();
        bench.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn writes_are_refused_until_a_full_disk_has_room_again() {
    // The write, and two test writes.
    let bench = Bench::start(&[Fault::Full; 3], &[]).await;
    let outcome = bench.commit().submit(create(model("A"))).await;
    let Err(CommitError::Store(error)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(error.kind(), Kind::Full);
    let mut is_able = bench.commit().is_able();
    assert!(!*is_able.borrow_and_update());
    is_able.wait_for(|is_able| *is_able).await.unwrap();
    assert!(
        bench.plan.commits.lock().is_empty(),
        "the writer detects free space without a new write"
    );
    bench.commit().submit(create(model("A"))).await.unwrap();
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_stores_nothing_does_not_prove_that_a_full_disk_has_room() {
    let bench = Bench::start(&[Fault::Full; 3], &[]).await;
    let outcome = bench.commit().submit(create(model("A"))).await;
    assert!(matches!(outcome, Err(CommitError::Store(_))), "{outcome:?}");
    let mut is_able = bench.commit().is_able();
    assert!(!*is_able.borrow_and_update());
    let refused = bench.commit().submit(create(model("First"))).await;
    assert!(matches!(refused, Err(CommitError::Refused(_))), "{refused:?}");
    assert!(!*is_able.borrow(), "nothing was written");
    is_able.wait_for(|is_able| *is_able).await.unwrap();
    bench.finish().await;
}

#[tokio::test]
async fn a_damaged_database_refuses_writes_and_still_serves_reads() {
    for (commits, reopenings) in [(&[Fault::Corrupt][..], &[][..]), (&[Fault::Lost], &[Fault::Corrupt])] {
        let bench = Bench::start(commits, reopenings).await;
        let outcome = bench.commit().submit(create(model("A"))).await;
        assert!(outcome.is_err());
        let outcome = bench.commit().submit(create(model("B"))).await;
        let Err(CommitError::Store(error)) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(!*bench.commit().is_able().borrow());
        assert_eq!(names(&bench.commit().state()), ["first"]);
        bench.finish().await;
    }
}

#[tokio::test]
async fn a_storage_older_than_the_published_state_ends_the_writer() {
    let mut bench = Bench::start(&[Fault::Lost], &[Fault::Behind]).await;
    let outcome = bench.commit().submit(create(model("A"))).await;
    assert!(matches!(outcome, Err(CommitError::OutcomeUnknown)), "{outcome:?}");
    let end = bench.running.tasks.join_next().await.unwrap().unwrap();
    assert!(matches!(end, Err(WriteFailure::ForeignWriter(_))), "{end:?}");
}

#[tokio::test]
async fn a_writer_that_is_asked_to_stop_does_not_wait_for_a_broken_disk() {
    let mut bench = Bench::start(&[Fault::Lost], &[]).await;
    bench.plan.is_shut.send_replace(true);
    let mut is_able = bench.commit().is_able();
    let commit = bench.commit().clone();
    let mut callers = JoinSet::new();
    callers.spawn(async move { commit.submit(create(model("A"))).await });
    is_able.wait_for(|is_able| !*is_able).await.unwrap();
    bench.running.shutdown.cancel();
    let outcome = callers.join_next().await.unwrap().unwrap();
    assert!(matches!(outcome, Err(CommitError::OutcomeUnknown)), "{outcome:?}");
    let end = bench.running.tasks.join_next().await.unwrap().unwrap();
    assert!(matches!(end, Err(WriteFailure::OutcomeUnknown(_))), "{end:?}");
}
