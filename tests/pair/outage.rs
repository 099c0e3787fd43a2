//! The registry dies and comes back: calls continue, and no acknowledged write is lost.

use std::{env, time::Duration};

use switchboard::pb::registry::{GetModelRequest, Model};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{PATIENCE, Pair},
    routing::Load,
};

async fn calls_succeed_while_the_registry_is_down_and_the_router_resumes_without_a_snapshot() {
    let mut pair = Pair::start().await;
    let upstream = FakeUpstream::always(Script::answer(["still", " here"])).await;
    pair.configure(&upstream.url(), Some("sk-1")).await;
    pair.wait_until_routed("code_generations").await;

    let load = Load::start(&pair, 4);
    sleep(Duration::from_millis(200)).await;
    let addr = pair.kill_registry();
    sleep(Duration::from_millis(500)).await;
    pair.restart_registry(addr).await;
    let changed = Model {
        display_name: Some("Mistral Small".to_owned()),
        ..Default::default()
    };
    let revision = pair.update_model(changed).await.unwrap().revision;
    pair.wait_for_revision(revision).await;
    let calls = load.finish().await;

    assert!(calls.len() > 50, "{} calls", calls.len());
    for call in &calls {
        let answer = call
            .result
            .as_ref()
            .unwrap_or_else(|status| panic!("a call failed: {status:?}"));
        assert_eq!(answer.text, "still here");
    }
    let log = pair.router.log();
    assert_eq!(
        log.matches("a snapshot follows").count(),
        1,
        "one snapshot, at the start:\n{log}"
    );
    assert_eq!(
        log.matches("again: resuming at the router's revision").count(),
        1,
        "then a resume:\n{log}"
    );
    pair.finish().await;
}

/// `SWITCHBOARD_TEST_KILLS` sets the number of kills; the default is for `.ci/run`.
async fn acknowledged_writes_survive_a_kill_at_any_moment() {
    let kills: u32 = env::var_os("SWITCHBOARD_TEST_KILLS").map_or(20, |text| text.to_str().unwrap().parse().unwrap());
    let mut pair = Pair::start().await;
    pair.configure("http://127.0.0.1:9", None).await;

    let mut written = 0;
    for round in 0..kills {
        // Writes as fast as writes are acknowledged, until the kill interrupts one.
        let mut client = pair.models();
        let mut writing = JoinSet::new();
        writing.spawn(async move {
            let (mut acknowledged, mut number) = (None, written);
            loop {
                number += 1;
                let model = Model {
                    name: "models/mistral".to_owned(),
                    display_name: Some(format!("Mistral {number}")),
                    ..Default::default()
                };
                let request = switchboard::pb::registry::UpdateModelRequest {
                    model: Some(model),
                    ..Default::default()
                };
                match client.update_model(request).await {
                    Ok(answer) => acknowledged = Some((number, answer.into_inner().revision)),
                    Err(_) => return (number, acknowledged),
                }
            }
        });
        // Distributes the kills over the phases of a write.
        sleep(Duration::from_micros(u64::from(20_000 + round * 1_733 % 20_000))).await;
        let addr = pair.kill_registry();
        let (tried, acknowledged) = timeout(PATIENCE, writing.join_next()).await.unwrap().unwrap().unwrap();
        pair.restart_registry(addr).await;

        let request = GetModelRequest {
            name: "models/mistral".to_owned(),
        };
        let model = pair.models().get_model(request).await.unwrap().into_inner();
        if let Some((number, revision)) = acknowledged {
            assert!(
                model.revision >= revision,
                "revision {revision} was acknowledged, but the registry has {}",
                model.revision
            );
            let kept = [number, tried].map(|number| Some(format!("Mistral {number}")));
            assert!(
                kept.contains(&model.display_name),
                "the registry has {:?}, but {kept:?} were written",
                model.display_name
            );
        }
        written = tried;
    }
    assert!(written > kills, "{written} writes in {kills} rounds");
    pair.finish().await;
}

tests! {
    calls_succeed_while_the_registry_is_down_and_the_router_resumes_without_a_snapshot,
    acknowledged_writes_survive_a_kill_at_any_moment,
}
