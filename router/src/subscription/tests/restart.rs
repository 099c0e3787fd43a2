//! Tests of a router that is restarted with its snapshot file.

use std::{fs, path::Path};

use switchboard::{
    pb::registry::{CredentialState, HistoryRefusalWhy, Report},
    seal::Sealer,
};
use tempfile::TempDir;

use super::*;
use crate::subscription::fixture::credential;

/// A router with a snapshot file, which the test stops and starts again.
struct Kept {
    case: Case,
    folder: TempDir,
}

fn file_in(folder: &Path) -> SnapshotFile {
    let sealer = Sealer::parse(&format!("k1:{}", "0f".repeat(32))).unwrap();
    SnapshotFile::new(folder.join("snapshot"), Arc::new(sealer))
}

impl Kept {
    /// Starts a router that has applied `store` and has written it to disk.
    async fn following(store: &Store) -> (Self, RouterStream) {
        let folder = tempfile::tempdir().unwrap();
        let mut case = Case::start_with(Some(file_in(folder.path()))).await;
        case.registry.answer(TOKEN_A, Answer::Token("sk-a"));
        let mut stream = case.registry.accept().await;
        stream.snapshot(store).await;
        stream.report(|report| is_persisted(report, store)).await;
        (Self { case, folder }, stream)
    }

    /// Stops the router and the registry.
    async fn stop(&mut self, stream: RouterStream) {
        self.case.cancel.cancel();
        drop(stream);
        self.case.stopped().await;
        self.case.registry.stop().await;
    }

    /// Starts the router while the registry is down.
    async fn start_alone(&mut self) {
        self.case.start_router(Some(file_in(self.folder.path())));
        self.case.ready().await;
    }

    async fn registry_returns(&mut self) -> RouterStream {
        self.case.registry = Registry::start(self.case.registry.addr).await;
        self.case.registry.accept().await
    }
}

fn is_persisted(report: &Report, store: &Store) -> bool {
    report.persisted == Some((&store.cursor).into()) && report.held.is_empty()
}

fn with_chat() -> Store {
    let mut store = Store::new();
    store.write(vec![(A, model_with_token(TOKEN_A)), (CHAT, assigned(A))]);
    store
}

#[tokio::test]
async fn a_router_starts_with_its_file_and_resumes_when_the_registry_returns() {
    let mut store = with_chat();
    let (mut kept, stream) = Kept::following(&store).await;
    kept.stop(stream).await;

    kept.start_alone().await;
    assert_eq!(kept.case.chat(), with_token("sk-a"));
    assert!(
        !*kept.case.current.confirmed().borrow(),
        "no registry has confirmed the state"
    );

    let mut stream = kept.registry_returns().await;
    assert_eq!(stream.hello.resume, Some((&store.cursor).into()));
    assert!(!stream.hello.want_snapshot);
    let report = stream.applied(&store).await;
    assert_eq!(report.persisted, report.applied);
    stream.welcome(&store.cursor, Mode::Resumed).await;
    stream.bookmark(&store, 1).await;
    let mut confirmed = kept.case.current.confirmed();
    let confirmed = confirmed.wait_for(|confirmed| *confirmed);
    timeout(Duration::from_secs(4), confirmed).await.unwrap().unwrap();

    // A model that was deleted while the router was down is removed as soon as the registry reports it.
    let from = store.cursor;
    store.delete(&[A]);
    stream.delta(&from, &store).await;
    stream.report(|report| is_persisted(report, &store)).await;
    assert_eq!(kept.case.chat(), None);
    kept.stop(stream).await;
    kept.start_alone().await;
    assert_eq!(kept.case.chat(), None);
}

#[tokio::test]
async fn a_held_model_keeps_its_own_token_across_restarts_until_the_token_is_dropped() {
    let mut store = with_chat();
    let (mut kept, mut stream) = Kept::following(&store).await;
    let from = store.cursor;
    kept.case.registry.answer(TOKEN_B, Answer::Superseded);
    store.write(vec![(A, model_with_token(TOKEN_B))]);
    stream.delta(&from, &store).await;
    let cursor = Some((&store.cursor).into());
    stream
        .report(|report| report.persisted == cursor && report.held_total == 1)
        .await;
    kept.stop(stream).await;

    kept.start_alone().await;
    assert_eq!(kept.case.chat(), with_token("sk-a"));
    let mut stream = kept.registry_returns().await;
    let report = stream.applied(&store).await;
    assert_eq!(
        (report.held_total, report.held[0].used_revision),
        (1, from.revision.get())
    );
    stream.welcome(&store.cursor, Mode::Resumed).await;
    let from = store.cursor;
    let dropped = model(|entry| entry.credential = Some(credential(CredentialState::Dropped, "")));
    store.write(vec![(A, dropped)]);
    stream.delta(&from, &store).await;
    stream.report(|report| is_persisted(report, &store)).await;
    kept.stop(stream).await;

    kept.start_alone().await;
    assert_eq!(kept.case.chat(), None);
}

#[tokio::test]
async fn a_history_older_than_the_file_is_refused() {
    let mut store = with_chat();
    let older = store.clone();
    rename(&mut store, "newer");
    let (mut kept, stream) = Kept::following(&store).await;
    kept.stop(stream).await;
    kept.case.start_router(Some(file_in(kept.folder.path())));

    let stream = kept.registry_returns().await;
    stream.snapshot(&older).await;
    let mut stream = stream;
    // The refusal may be reported before the catalog from the file is in use.
    let is_told = |report: &Report| report.history_refusal.is_some() && report.applied.is_some();
    let report = stream.report(is_told).await;
    let why = report.history_refusal.as_ref().map(|refusal| refusal.why());
    assert_eq!(why, Some(HistoryRefusalWhy::RevisionRegressed));
    assert_eq!(report.applied, Some((&store.cursor).into()));
    assert_eq!(report.persisted, report.applied);
    assert_eq!(kept.case.chat(), plain("newer"));
    assert!(
        !*kept.case.current.confirmed().borrow(),
        "a refused history confirms nothing"
    );
    kept.stop(stream).await;
}

#[tokio::test]
async fn a_damaged_file_is_ignored_and_replaced_by_the_next_good_state() {
    let store = with_chat();
    let (mut kept, stream) = Kept::following(&store).await;
    kept.stop(stream).await;
    let path = kept.folder.path().join("snapshot");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();

    kept.case.start_router(Some(file_in(kept.folder.path())));
    let mut stream = kept.registry_returns().await;
    assert_eq!(stream.hello.resume, None);
    assert_eq!(fs::read(&path).unwrap(), bytes, "the damaged file is kept for analysis");
    assert!(kept.case.current.load().is_none());
    kept.case.registry.answer(TOKEN_A, Answer::Token("sk-a"));
    stream.snapshot(&store).await;
    stream.report(|report| is_persisted(report, &store)).await;
    kept.stop(stream).await;
    kept.start_alone().await;
    assert_eq!(kept.case.chat(), with_token("sk-a"));
}
