//! Tests of a model's places: how calls wait for them and give them back.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::*;
use crate::permits::fixture::{FLOOD, RESERVED, catalog, party};

/// Whether no call is at the model or waits for it.
fn is_idle(live: &LiveModel) -> bool {
    let gate = live.parts.gate.lock();
    (gate.taken(), gate.waiting()) == (0, 0)
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[tokio::test]
async fn a_caller_that_leaves_at_any_time_frees_its_place() {
    let (catalog, model) = catalog(1, 1, 1, 0);
    let live = LiveModels::default().of(&model);
    let enter = || live.place(&catalog, party(FLOOD), far());
    // Before it has entered.
    drop(enter());
    // While it waits.
    let inside = enter().await.unwrap();
    let mut waits = Box::pin(enter());
    assert!(waits.as_mut().now_or_never().is_none());
    drop(waits);
    // After it got a place, but before it was polled again.
    let mut waits = Box::pin(enter());
    assert!(waits.as_mut().now_or_never().is_none());
    drop(inside);
    drop(waits);
    assert!(is_idle(&live));
    assert!(enter().now_or_never().unwrap().is_ok());
}

#[tokio::test]
async fn a_call_that_is_sent_away_for_another_is_refused_at_once() {
    let (catalog, model) = catalog(1, 1, 2, 0);
    let live = LiveModels::default().of(&model);
    let enter = |name| Box::pin(live.place(&catalog, party(name), far()));
    let inside = enter(FLOOD).await.unwrap();
    let (mut first, mut second) = (enter(FLOOD), enter(FLOOD));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    let mut other = enter(RESERVED);
    assert!(other.as_mut().now_or_never().is_none());
    assert_eq!(second.as_mut().now_or_never().unwrap().unwrap_err(), Overloaded);
    drop(inside);
    let (first, other) = (first.map(|place| place.is_ok()), other.map(|place| place.is_ok()));
    assert_eq!(tokio::join!(first, other), (true, true));
    // A call that leaves before it learns that it was sent away does not free another call's place.
    let inside = enter(FLOOD).await.unwrap();
    let (mut first, mut second) = (enter(FLOOD), enter(FLOOD));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    let mut other = enter(RESERVED);
    assert!(other.as_mut().now_or_never().is_none());
    drop(inside);
    drop(second);
    let (first, other) = (first.map(|place| place.is_ok()), other.map(|place| place.is_ok()));
    assert_eq!(tokio::join!(first, other), (true, true));
    assert!(is_idle(&live));
}

#[tokio::test]
async fn a_call_gives_up_at_the_queue_timeout_or_at_its_own_deadline() {
    let (catalog, model) = catalog(1, 1, 2, 0);
    let live = LiveModels::default().of(&model);
    let _inside = live.place(&catalog, party(FLOOD), far()).await.unwrap();
    for (is_short, waited) in [(false, 200), (true, 50)] {
        let begun = Instant::now();
        let until = if is_short {
            begun + Duration::from_millis(waited)
        } else {
            far()
        };
        let refused = live.place(&catalog, party(FLOOD), until).await;
        assert_eq!(refused.unwrap_err(), Overloaded);
        let waited = Duration::from_millis(waited);
        assert!(
            (waited..waited + Duration::from_millis(140)).contains(&begun.elapsed()),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn an_older_catalog_does_not_restore_the_limits_that_a_newer_one_has_changed() {
    let (old, model) = catalog(1, 1, 1, 1);
    let (new, model_now) = catalog(2, 2, 1, 0);
    let models = LiveModels::default();
    let soon = Duration::from_millis(50);
    let in_time = |catalog, model, name| {
        let live = models.of(model);
        async move { timeout(soon, live.place(catalog, party(name), far())).await }
    };
    let _reserved = in_time(&old, &model, RESERVED).await.unwrap().unwrap();
    // No place is left for other features, however long they wait.
    assert_eq!(in_time(&old, &model, FLOOD).await.unwrap().unwrap_err(), Overloaded);
    let second = in_time(&new, &model_now, FLOOD).await.unwrap().unwrap();
    assert!(
        in_time(&old, &model, RESERVED).await.is_err(),
        "no place is reserved any more"
    );
    drop(second);
    let _second = in_time(&old, &model, FLOOD).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_state_of_a_model_is_kept_while_the_catalog_names_it_or_a_call_is_at_it() {
    let (catalog, model) = catalog(1, 1, 0, 0);
    let models = LiveModels::default();
    let without = Catalog {
        cursor: catalog.cursor,
        features: HashMap::new(),
        models: HashMap::new(),
        inference_paused: false,
    };
    let is_free = || models.of(&model).place_now(&catalog, party(FLOOD)).is_some();
    models.of(&model).refuse(401);
    models.keep(&catalog);
    assert_eq!(models.of(&model).admit(), Err(401), "the catalog names it");
    let inside = models.of(&model).place_now(&catalog, party(FLOOD)).unwrap();
    models.keep(&without);
    assert!(
        !is_free(),
        "a call still holds the only place, which must not be given to a second one"
    );
    drop(inside);
    assert!(is_free());
    assert_eq!(models.of(&model).admit(), Err(401));
    models.keep(&without);
    assert!(models.0.models.read().is_empty());
    assert_eq!(models.of(&model).admit(), Ok(()));
}

#[tokio::test]
async fn putting_a_catalog_with_more_places_in_use_admits_waiting_calls() {
    let (old, model) = catalog(1, 1, 1, 0);
    let (new, _) = catalog(2, 2, 1, 0);
    let models = LiveModels::default();
    let live = models.of(&model);
    let _inside = live.place_now(&old, party(FLOOD)).unwrap();
    let mut waits = Box::pin(live.place(&old, party(FLOOD), far()));
    assert!(waits.as_mut().now_or_never().is_none());
    models.align(&new);
    assert!(waits.as_mut().now_or_never().unwrap().is_ok());
    models.align(&old);
    assert!(
        live.place_now(&old, party(FLOOD)).is_some(),
        "an older catalog does not restore its limits"
    );
}
