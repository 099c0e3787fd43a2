//! How features share a model: reserved places, and the maximum number of concurrent calls of a feature.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use switchboard::pb::{
    registry::{Feature, FeatureLimits, Model, ModelLimits},
    router::stream_infer_response::Event,
};
use tokio::{task::JoinSet, time::Instant};
use tonic::Code;

use crate::{
    data_plane::model,
    fake_upstream::{FakeUpstream, Script},
    harness::{Pair, asking, infer, reason_of},
};

/// A feature with reserved places, and a feature that uses all the places it can get.
const FAVOURED: &str = "code_completions";
const GREEDY: &str = "duo_chat";
const PLACES: i32 = 5;
const RESERVED: i32 = 3;
/// One fewer than the reserved places, because a place becomes free a moment after its answer.
const FAVOURED_CALLERS: usize = 2;
const GREEDY_CALLERS: usize = 16;
/// Number of calls of both features together.
const CALLS: usize = 200;

/// Starts callers that make calls without pauses until `stop` is set. Each returns the duration of its calls.
fn callers(pair: &Pair, feature: &'static str, count: usize, stop: &Arc<AtomicBool>) -> JoinSet<Vec<Duration>> {
    let mut callers = JoinSet::new();
    for _ in 0..count {
        let (mut client, stop) = (pair.inference(), Arc::clone(stop));
        callers.spawn(async move {
            let mut took = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                infer(&mut client, feature, "hello").await.unwrap();
                took.push(began.elapsed());
            }
            took
        });
    }
    callers
}

async fn median(callers: JoinSet<Vec<Duration>>) -> Duration {
    let mut took = callers.join_all().await.concat();
    took.sort_unstable();
    took[took.len() / 2]
}

async fn a_feature_with_reserved_places_does_not_wait_for_another_feature() {
    let answer = Script::stream().pause(Duration::from_millis(30)).text("hello");
    let upstream = FakeUpstream::always(answer.finish("stop").done().end()).await;
    let pair = Pair::start().await;
    let limits = ModelLimits {
        max_concurrency: Some(PLACES),
        max_queue: Some(100),
        queue_timeout: Some(Duration::from_secs(60).try_into().unwrap()),
        ..Default::default()
    };
    let limited = Model {
        limits: Some(limits),
        ..model(&[&upstream])
    };
    let name = pair.add(limited).await;
    let reserved = Feature {
        limits: Some(FeatureLimits {
            reserved_concurrency: Some(RESERVED),
            ..Default::default()
        }),
        ..Default::default()
    };
    pair.route(FAVOURED, &name, reserved).await;
    pair.route(GREEDY, &name, Feature::default()).await;

    let stop = Arc::new(AtomicBool::new(false));
    let greedy = callers(&pair, GREEDY, GREEDY_CALLERS, &stop);
    upstream.request(2 * GREEDY_CALLERS).await;
    assert_eq!(
        upstream.calls_at_once(),
        usize::try_from(PLACES - RESERVED).unwrap(),
        "reserved places stay free"
    );
    let favoured = callers(&pair, FAVOURED, FAVOURED_CALLERS, &stop);
    let before = upstream.requests().len();
    pair.wait_until(async || upstream.requests().len() >= before + CALLS)
        .await;
    stop.store(true, Ordering::Relaxed);
    let (favoured, greedy) = (median(favoured).await, median(greedy).await);
    eprintln!("{favoured:?} for the favoured feature, {greedy:?} for the greedy one");
    // Eight greedy callers compete for each place that is not reserved.
    assert!(3 * favoured < greedy, "{favoured:?}, {greedy:?}");
    assert!(upstream.calls_at_once() <= usize::try_from(PLACES).unwrap());
    pair.finish().await;
}

async fn a_feature_at_its_limit_is_refused_another_call_at_once() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::stream().text("one").hang());
    let pair = Pair::start().await;
    let name = pair.add(model(&[&upstream])).await;
    let limited = Feature {
        limits: Some(FeatureLimits {
            max_concurrency: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    };
    pair.route(GREEDY, &name, limited).await;
    pair.route(FAVOURED, &name, Feature::default()).await;

    let mut held = pair
        .inference()
        .stream_infer(asking(GREEDY, "hello"))
        .await
        .unwrap()
        .into_inner();
    let first = held.message().await.unwrap().unwrap().event.unwrap();
    assert!(matches!(first, Event::Selection(_)));
    let refused = infer(&mut pair.inference(), GREEDY, "hello").await;
    assert_eq!(reason_of(&refused).unwrap(), "QUOTA_EXCEEDED");
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(upstream.requests().len(), 1, "the refused call reaches no server");
    let other = infer(&mut pair.inference(), FAVOURED, "hello").await.unwrap();
    assert_eq!(other.text, "hello", "other features are not affected");

    drop(held);
    upstream.closed(0).await;
    pair.wait_until(async || infer(&mut pair.inference(), GREEDY, "hello").await.is_ok())
        .await;
    pair.finish().await;
}

tests! {
    a_feature_with_reserved_places_does_not_wait_for_another_feature,
    a_feature_at_its_limit_is_refused_another_call_at_once,
}
