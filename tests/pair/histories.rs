//! Random histories of writes: after each history, the stream and the router agree with a simple model of the
//! configuration.

pub(crate) mod follower;
mod model;
mod plain;
mod setting;
mod writes;

use std::{collections::BTreeMap, env};

use switchboard::pb::{
    registry::{ApplyConfigRequest, ExportConfigRequest, RestoreRevisionRequest},
    router::{GetStatusRequest, ListRoutesRequest, Selection, inference_service_client::InferenceServiceClient},
    types::Cursor,
};
use tonic::transport::Channel;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Pair, infer, reason_of},
};
use follower::Follower;
use plain::{Outcome, Plain};
use writes::{FEATURES, World};

/// Number of histories that `.ci/run` plays.
const HISTORIES: u64 = 200;

/// `SWITCHBOARD_TEST_HISTORIES` sets the number of histories, `SWITCHBOARD_TEST_SEED` repeats the histories of an
/// earlier run.
async fn after_random_histories_the_stream_and_the_router_agree_with_the_model() {
    let number = |name, default| env::var_os(name).map_or(default, |text| text.to_str().unwrap().parse().unwrap());
    let histories = number("SWITCHBOARD_TEST_HISTORIES", HISTORIES);
    let seed = number("SWITCHBOARD_TEST_SEED", fastrand::u64(..));
    eprintln!("SWITCHBOARD_TEST_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);

    let pair = Pair::start().await;
    let mut upstreams = Vec::new();
    for _ in 0..3 {
        upstreams.push(FakeUpstream::always(Script::answer(["ok"])).await);
    }
    let world = World::new(upstreams.iter().map(FakeUpstream::url).collect());
    let mut plain = Plain::default();
    let mut follower = Follower::start(&pair).await;
    let mut head = follower.revision();
    let mut tally = BTreeMap::<_, (u32, u32)>::new();
    let mut past = BTreeMap::from([(head, plain.clone())]);
    for history in 0..histories {
        for _ in 0..rng.u32(4..16) {
            let write = world.any_write(&plain, &mut rng);
            let expected = plain.after(&write);
            let answer = write.send(&pair).await;
            let counted = tally.entry(write.kind()).or_default();
            match (expected, &answer) {
                (Ok(after), Ok(revision)) => {
                    if after != plain {
                        head += 1;
                        assert_eq!(*revision, head, "{write:?}");
                    }
                    plain = after;
                    past.insert(head, plain.clone());
                    counted.0 += 1;
                }
                (Err(broken), Err(_)) => {
                    let reason = reason_of(&answer).unwrap();
                    assert!(broken.is_told_by(&reason), "{write:?}: {reason}, expected {broken:?}");
                    counted.1 += 1;
                }
                (expected, answer) => panic!("history {history}, {write:?}: {answer:?}, expected {expected:?}"),
            }
        }
        if rng.u8(..4) == 0 {
            let (&revision, then) = rng.choice(&past).unwrap();
            let after = plain.gone_back(then);
            head += i64::from(after != plain);
            assert_eq!(
                restore(&pair, revision).await,
                head,
                "history {history}, restore of revision {revision}"
            );
            plain = after;
            past.insert(head, plain.clone());
        }
        assert_eq!(apply_what_is_exported(&pair).await, head, "history {history}");
        // The follower receives some histories write by write, others as one merged delta.
        if rng.bool() {
            follower.resume(&pair).await;
        }
        follower.catch_up(head).await;
        let fresh = Follower::start(&pair).await;
        assert_eq!(follower, fresh, "history {history}: deltas and snapshot differ");
        assert_eq!(follower.revision(), head, "history {history}");
        assert_eq!(
            Plain::read(follower.items()),
            plain.without_tokens(),
            "history {history}"
        );
        router_agrees(&pair, &upstreams, &plain, follower.cursor()).await;
    }
    for (kind, (accepted, refused)) in &tally {
        eprintln!("{kind}: {accepted} accepted, {refused} refused");
        assert!(
            *accepted > 0 || histories < HISTORIES,
            "no write of kind {kind} was accepted"
        );
    }
    pair.finish().await;
}

/// Restores a revision and returns the newest revision afterwards.
async fn restore(pair: &Pair, revision: i64) -> i64 {
    let request = RestoreRevisionRequest {
        revision,
        ..Default::default()
    };
    let answer = pair.config().restore_revision(request).await.unwrap();
    answer.into_inner().revision
}

/// Applies the exported configuration unchanged and returns the newest revision afterwards.
async fn apply_what_is_exported(pair: &Pair) -> i64 {
    let exported = pair.config().export_config(ExportConfigRequest {}).await.unwrap();
    let exported = exported.into_inner();
    let request = ApplyConfigRequest {
        config: exported.config,
        expected_revision: exported.revision,
        ..Default::default()
    };
    let answer = pair.config().apply_config(request).await.unwrap();
    answer.into_inner().revision
}

/// Waits until the router has applied exactly this state. Then checks its routes and its answers to calls of all
/// features.
async fn router_agrees(pair: &Pair, upstreams: &[FakeUpstream], plain: &Plain, cursor: &Cursor) {
    let (mut routing, mut client) = (pair.routing(), pair.inference());
    pair.wait_until(async || {
        let status = routing.get_status(GetStatusRequest {}).await.unwrap().into_inner();
        let place = |cursor: &Cursor| {
            (
                cursor.revision,
                cursor.chain_digest.clone(),
                cursor.state_digest.clone(),
            )
        };
        // A model is held until the router has fetched its new token.
        status.held.is_empty() && status.applied.as_ref().map(place) == Some(place(cursor))
    })
    .await;
    let routes = routing.list_routes(ListRoutesRequest {}).await.unwrap().into_inner();
    assert_eq!(routes.config_revision, cursor.revision);
    assert!(
        plain.allows_routes(&routes.routes),
        "{:#?} do not agree with {plain:#?}",
        routes.routes
    );
    for feature in FEATURES {
        let outcome = outcome(&mut client, upstreams, feature).await;
        assert!(
            plain.allows(feature, &outcome),
            "{feature}: {outcome:?} does not agree with {plain:#?}"
        );
    }
}

/// Makes a call and returns its outcome, with the token that the model server received.
async fn outcome(client: &mut InferenceServiceClient<Channel>, upstreams: &[FakeUpstream], feature: &str) -> Outcome {
    match infer(client, feature, "ping").await {
        Err(status) => Outcome::Refused(reason_of::<()>(&Err(status)).unwrap()),
        Ok(answer) => {
            let Selection {
                model,
                source_feature,
                endpoint,
                ..
            } = answer.selection;
            let upstream = upstreams
                .iter()
                .find(|upstream| upstream.url().contains(&endpoint))
                .expect("a model server of this test answers");
            let asked = upstream.requests().pop().expect("the model server was called");
            Outcome::Answered {
                model,
                source_feature,
                endpoint,
                authorization: asked.headers.get("authorization").cloned(),
            }
        }
    }
}

tests! {
    after_random_histories_the_stream_and_the_router_agree_with_the_model,
}
