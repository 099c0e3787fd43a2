//! Processes that are suspended for a while, and wall clocks that jump.

use std::{fs, path::PathBuf, time::Duration};

use rustix::process::Signal;
use switchboard::pb::registry::{GetModelRequest, Model};
use tokio::time::{Instant, sleep};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::Pair,
    network::{Truth, Watched, applied},
    peer::{number, write_models},
    routing::Load,
    runner::Requirement,
};

const FAKETIME: Requirement = Requirement::Program {
    name: "faketime",
    remedy: "apt-get install faketime",
};

/// `SWITCHBOARD_TEST_FROZEN_MS` sets how long each process is suspended.
async fn calls_succeed_while_the_registry_is_frozen_and_a_frozen_router_catches_up() {
    let lasts = Duration::from_millis(number("SWITCHBOARD_TEST_FROZEN_MS", 1_500) as u64);
    let pair = Pair::start().await;
    let upstream = FakeUpstream::always(Script::answer(["here"])).await;
    pair.configure(&upstream.url(), None).await;
    pair.wait_until_routed("code_generations").await;
    let mut truth = Truth::start(&pair).await;

    let (load, watched) = (Load::start(&pair, 4), Watched::start(&pair.router));
    pair.registry().signal(Signal::STOP);
    let write = async {
        let revision = write_models(&pair, 0..20, 0).await;
        (revision, Instant::now())
    };
    let thaw = async {
        sleep(lasts).await;
        pair.registry().signal(Signal::CONT);
        Instant::now()
    };
    let ((head, written), thawed) = tokio::join!(write, thaw);
    assert!(written >= thawed, "a suspended process acknowledges nothing");
    truth.read_to(head).await;
    converge(&pair, &truth).await;
    let calls = load.finish().await;
    assert!(calls.len() > 50, "{} calls", calls.len());
    for call in calls {
        assert_eq!(call.result.expect("no call fails").text, "here");
    }

    let load = Load::start(&pair, 4);
    pair.router.signal(Signal::STOP);
    let began = Instant::now();
    let mut head = 0;
    let mut round = 0;
    while began.elapsed() < lasts {
        round += 1;
        head = write_models(&pair, 0..20, round).await;
    }
    pair.router.signal(Signal::CONT);
    truth.read_to(head).await;
    converge(&pair, &truth).await;
    for call in load.finish().await {
        call.result
            .expect("a call to a suspended router waits and does not fail");
    }
    assert!(truth.knows(&watched.finish().await) > 0);
    pair.finish().await;
}

async fn converge(pair: &Pair, truth: &Truth) {
    let began = Instant::now();
    pair.wait_until(async || applied(&pair.router).await.as_ref() == Some(truth.peer.cursor()))
        .await;
    eprintln!("converged after {:?}", began.elapsed());
}

async fn a_wall_clock_jump_of_a_day_has_no_effect() {
    let library = faketime();
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    fs::write(&clock, "+0d").unwrap();
    let env = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let pair = Pair::start_under(&env).await;
    let upstream = FakeUpstream::always(Script::answer(["here"])).await;
    pair.configure(&upstream.url(), None).await;
    pair.wait_until_routed("code_generations").await;
    let mut truth = Truth::start(&pair).await;
    let load = Load::start(&pair, 2);

    let mut times = Vec::new();
    for (round, offset) in ["+1d", "-1d", "+0d"].into_iter().enumerate() {
        fs::write(&clock, offset).unwrap();
        let named = Model {
            display_name: Some(format!("Mistral {round}")),
            ..Default::default()
        };
        let revision = pair.update_model(named).await.unwrap().revision;
        truth.read_to(revision).await;
        converge(&pair, &truth).await;
        let name = "models/mistral".to_owned();
        let model = pair
            .models()
            .get_model(GetModelRequest { name })
            .await
            .unwrap()
            .into_inner();
        times.push(model.update_time.unwrap().seconds);
    }
    let day = 24 * 60 * 60;
    assert!(
        times[0] - times[1] > 2 * day - 600 && times[2] - times[1] > day - 600,
        "the clock has jumped: {times:?}"
    );
    for call in load.finish().await {
        call.result.expect("no call fails");
    }
    let log = pair.router.log();
    assert_eq!(
        log.matches("lost the connection to the registry").count(),
        0,
        "the stream continues:\n{log}"
    );
    pair.finish().await;
}

/// Returns the path of the library that changes the clock of a process.
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap();
    let library = folders
        .map(|folder| folder.unwrap().path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file());
    library.expect("the package has the library")
}

tests! {
    calls_succeed_while_the_registry_is_frozen_and_a_frozen_router_catches_up,
    a_wall_clock_jump_of_a_day_has_no_effect needs FAKETIME,
}
