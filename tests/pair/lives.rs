//! Databases that are restored, swapped by hand, lost or declared the newest, while a router follows.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use switchboard::pb::{
    registry::{GetModelRequest, Model, WatchRequest, watch_response::Kind},
    router::GetStatusRequest,
    types::Cursor,
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Pair, binary, infer, reason_of},
};

const OLD: &str = "sk-old-51c7";
const NEW: &str = "sk-new-90ab";

fn database(pair: &Pair) -> PathBuf {
    pair.folder.path().join("switchboard.db")
}

/// Runs a subcommand on the pair's database. It must succeed.
fn command(pair: &Pair, args: &[&str]) -> String {
    let output = Command::new(binary("switchboard-registry"))
        .args(args)
        .arg(format!("--database-url=sqlite://{}", database(pair).display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Copies a database that no registry has open, with its log, and replaces any existing database.
fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let named = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        drop(fs::remove_file(named(to)));
        if suffix != "-shm" && named(from).exists() {
            fs::copy(named(from), named(to)).unwrap();
        }
    }
}

fn remove(database: &Path) {
    copy(Path::new("/nowhere"), database);
}

/// Returns the registry's current cursor.
async fn head(pair: &Pair) -> Cursor {
    let request = WatchRequest {
        include_snapshot: Some(false),
        ..Default::default()
    };
    let mut watch = pair.config().watch(request).await.unwrap().into_inner();
    let Some(Kind::Welcome(welcome)) = watch.message().await.unwrap().unwrap().kind else {
        panic!("the first message must be a welcome");
    };
    welcome.head.unwrap()
}

/// Returns the cursor of the router's catalog.
async fn applied(pair: &Pair) -> Cursor {
    let status = pair.routing().get_status(GetStatusRequest {}).await.unwrap();
    status.into_inner().applied.unwrap()
}

/// Returns the position of a cursor without its view.
fn place(cursor: &Cursor) -> (&str, i64, &str, i64, &[u8], &[u8]) {
    (
        &cursor.store,
        cursor.incarnation_number,
        &cursor.incarnation,
        cursor.revision,
        &cursor.chain_digest,
        &cursor.state_digest,
    )
}

/// Waits until the router uses exactly the registry's current state, and returns its cursor.
async fn converged(pair: &Pair) -> Cursor {
    let head = head(pair).await;
    pair.wait_until(async || {
        let status = pair
            .routing()
            .get_status(GetStatusRequest {})
            .await
            .unwrap()
            .into_inner();
        // A model is held until the router has fetched its new token.
        status.held.is_empty() && place(&status.applied.unwrap()) == place(&head)
    })
    .await;
    assert_eq!(history(pair).await, ServingStatus::Serving);
    head
}

/// Waits until the registry withholds its history from the router and logs this reason. The router must keep its state.
async fn withheld(pair: &Pair, reason: &str, refusal: &str) {
    let before = applied(pair).await;
    pair.wait_until(async || history(pair).await == ServingStatus::NotServing)
        .await;
    let told = format!("reason={reason}");
    pair.wait_until(async || {
        let log = pair.registry().log();
        let newest = log.rfind("starting").map_or("", |start| &log[start..]);
        newest.contains(&told) && newest.contains(refusal)
    })
    .await;
    assert!(
        pair.registry().log().contains("accept-history"),
        "the log names the remedy"
    );
    assert_eq!(
        place(&applied(pair).await),
        place(&before),
        "the router keeps its last good state"
    );
}

/// Returns the health status of the history.
async fn history(pair: &Pair) -> ServingStatus {
    let request = HealthCheckRequest {
        service: "history".to_owned(),
    };
    let answer = HealthClient::new(pair.registry().channel()).check(request).await;
    answer.unwrap().into_inner().status()
}

async fn rename(pair: &Pair, display_name: &str) -> Model {
    let renamed = Model {
        display_name: Some(display_name.to_owned()),
        ..Default::default()
    };
    pair.update_model(renamed).await.unwrap()
}

/// Moves the model to another server with a token of its own.
async fn move_to(pair: &Pair, upstream: &FakeUpstream, token: &str) {
    let moved = Model {
        endpoint: Some(upstream.url()),
        api_token: Some(token.to_owned()),
        ..Default::default()
    };
    pair.update_model(moved).await.unwrap();
}

/// Returns every token that a model server received.
fn tokens(upstream: &FakeUpstream) -> Vec<String> {
    let mut sent: Vec<String> = upstream
        .requests()
        .iter()
        .map(|request| request.headers.get("authorization").cloned().unwrap_or_default())
        .collect();
    sent.dedup();
    sent
}

async fn answer(pair: &Pair) -> String {
    infer(&mut pair.inference(), "code_generations", "ping")
        .await
        .unwrap()
        .text
}

/// Starts a pair with a configured model, waits until the router follows, and returns it with its model server.
async fn configured() -> (Pair, FakeUpstream) {
    let pair = Pair::start().await;
    let upstream = FakeUpstream::always(Script::answer(["old"])).await;
    pair.configure(&upstream.url(), Some(OLD)).await;
    pair.wait_until_routed("code_generations").await;
    converged(&pair).await;
    (pair, upstream)
}

fn stop(pair: &mut Pair) -> SocketAddr {
    pair.kill_registry()
}

async fn a_router_follows_a_restored_backup_and_uses_its_tokens() {
    let (mut pair, old) = configured().await;
    let new = FakeUpstream::always(Script::answer(["new"])).await;
    let backup = pair.folder.path().join("backup.db").display().to_string();
    command(&pair, &["backup", &backup]);
    let first = head(&pair).await;

    move_to(&pair, &new, NEW).await;
    let renamed = rename(&pair, "Renamed").await;
    let past = converged(&pair).await;
    assert_eq!(answer(&pair).await, "new");

    let mut lives = vec![past.incarnation_number];
    for _ in 0..2 {
        let addr = stop(&mut pair);
        command(&pair, &["restore", &backup]);
        pair.restart_registry(addr).await;
        let restored = converged(&pair).await;
        assert_eq!(restored.store, first.store);
        assert_eq!(
            restored.state_digest, first.state_digest,
            "the restored state equals the backup"
        );
        assert!(restored.revision > past.revision);
        lives.push(restored.incarnation_number);
        assert_eq!(answer(&pair).await, "old");

        let stale = Model {
            display_name: Some("Stale".to_owned()),
            etag: renamed.etag.clone(),
            ..Default::default()
        };
        let refused = pair.update_model(stale).await;
        assert_eq!(reason_of(&refused).as_deref(), Some("REVISION_CONFLICT"));
        assert_eq!(refused.unwrap_err().code(), Code::Aborted);
        rename(&pair, "Past the old head").await;
        converged(&pair).await;
    }
    assert_eq!(lives, [1, 2, 3], "each restore is a life of its own");
    assert_eq!(tokens(&old), [format!("Bearer {OLD}")]);
    assert_eq!(tokens(&new), [format!("Bearer {NEW}")]);
    pair.finish().await;
}

async fn a_router_refuses_a_swapped_database_until_it_is_accepted() {
    let (mut pair, old) = configured().await;
    let (kept, new) = (
        pair.folder.path().join("kept.db"),
        FakeUpstream::always(Script::answer(["new"])).await,
    );
    let addr = stop(&mut pair);
    copy(&database(&pair), &kept);
    pair.restart_registry(addr).await;
    move_to(&pair, &new, NEW).await;
    let newest = rename(&pair, "Newest").await;
    converged(&pair).await;
    let asked = old.requests().len();

    let addr = stop(&mut pair);
    copy(&kept, &database(&pair));
    pair.restart_registry(addr).await;
    withheld(&pair, "Ahead", "RevisionRegressed").await;
    assert_eq!(answer(&pair).await, "new");

    // Continues on another branch until it is past the router's revision.
    while rename(&pair, &format!("Branch {}", fastrand::u32(..))).await.revision <= newest.revision {}
    let addr = stop(&mut pair);
    pair.restart_registry(addr).await;
    withheld(&pair, "Diverged", "RevisionRegressed").await;
    assert_eq!(answer(&pair).await, "new");
    assert_eq!(old.requests().len(), asked, "the old server gets no calls");

    let (diverged, seen) = (head(&pair).await, applied(&pair).await);
    let told = command(&pair, &["accept-history", "--dry-run"]);
    let reported = format!(
        "incarnation 2, from revision {} on; routers have reported other histories, up to incarnation 1 and revision {}",
        diverged.revision + 1,
        seen.revision
    );
    assert!(told.contains(&reported), "{told}");
    assert_eq!(place(&head(&pair).await), place(&diverged), "nothing has changed");
    assert_eq!(history(&pair).await, ServingStatus::NotServing);

    let told = command(&pair, &["accept-history"]);
    assert!(told.contains("incarnation 2 ("), "{told}");
    converged(&pair).await;
    assert_eq!(answer(&pair).await, "old");
    assert!(
        pair.router
            .log()
            .contains("a new incarnation of the registry's store has begun")
    );
    pair.finish().await;
}

async fn an_empty_database_does_not_empty_a_router() {
    let (mut pair, _old) = configured().await;
    let backup = pair.folder.path().join("backup.db").display().to_string();
    command(&pair, &["backup", &backup]);
    let before = head(&pair).await;

    let addr = stop(&mut pair);
    remove(&database(&pair));
    pair.restart_registry(addr).await;
    withheld(&pair, "OtherStore", "StoreChanged").await;
    assert_eq!(answer(&pair).await, "old");
    let addr = stop(&mut pair);
    command(&pair, &["restore", &backup]);
    pair.restart_registry(addr).await;
    let restored = converged(&pair).await;
    assert_eq!(
        (&restored.store, &restored.state_digest),
        (&before.store, &before.state_digest)
    );
    assert_eq!(answer(&pair).await, "old");

    let addr = stop(&mut pair);
    remove(&database(&pair));
    pair.restart_registry(addr).await;
    withheld(&pair, "OtherStore", "StoreChanged").await;
    let told = command(&pair, &["accept-history", "--adopt-store", &before.store]);
    assert!(told.contains(&before.store), "{told}");
    let adopted = converged(&pair).await;
    assert!(adopted.incarnation_number > restored.incarnation_number);
    let refused = infer(&mut pair.inference(), "code_generations", "ping").await;
    assert_eq!(reason_of(&refused).as_deref(), Some("FEATURE_UNASSIGNED"));
    let gone = GetModelRequest {
        name: "models/mistral".to_owned(),
    };
    assert_eq!(pair.models().get_model(gone).await.unwrap_err().code(), Code::NotFound);
    pair.finish().await;
}

async fn a_router_does_not_follow_an_older_life_at_the_same_address() {
    let (mut pair, _old) = configured().await;
    let kept = pair.folder.path().join("kept.db");
    let addr = stop(&mut pair);
    copy(&database(&pair), &kept);
    pair.restart_registry(addr).await;
    command(&pair, &["accept-history"]);
    let second = converged(&pair).await;
    assert_eq!(second.incarnation_number, 2);

    let addr = stop(&mut pair);
    copy(&kept, &database(&pair));
    pair.restart_registry(addr).await;
    withheld(&pair, "StaleHistory", "RevisionRegressed").await;
    // However many revisions the older life adds.
    while rename(&pair, &format!("Branch {}", fastrand::u32(..))).await.revision <= second.revision {}
    assert_eq!(place(&applied(&pair).await), place(&second));

    command(&pair, &["accept-history"]);
    assert_eq!(converged(&pair).await.incarnation_number, 3);
    pair.finish().await;
}

tests! {
    a_router_follows_a_restored_backup_and_uses_its_tokens,
    a_router_refuses_a_swapped_database_until_it_is_accepted,
    an_empty_database_does_not_empty_a_router,
    a_router_does_not_follow_an_older_life_at_the_same_address,
}
