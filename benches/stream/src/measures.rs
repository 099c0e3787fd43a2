//! The measures. Each starts its own servers in a temporary folder and measures the two alternately.

use std::time::Duration;

use anyhow::Result;
use switchboard_comparison::figures::{Figures, Measured, Target, percentile};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    Plan,
    call::connected,
    followers::{Followers, Then},
    peer::{From, SIDES, Server, Side},
    writers::{Work, floor, rate},
};

/// How long a server may settle before its memory is measured.
const REST: Duration = Duration::from_secs(2);

/// Size of a typical value in bytes.
const VALUE_BYTES: usize = 320;

/// Number of keys for the measures of changes.
const KEYS: usize = 100;

/// Size of a value in bytes for the snapshot measure, which needs more data.
const SNAPSHOT_VALUE_BYTES: usize = 1600;

/// Number of writers that make a burst.
const BURST_WRITERS: usize = 64;

/// A server with its workload.
struct Bench {
    server: Server,
    work: Work,
    folder: TempDir,
}

/// Starts both servers and fills them with the same data.
async fn both(plan: &Plan, keys: usize, bytes: usize) -> Result<Vec<Bench>> {
    let mut both = Vec::new();
    for side in SIDES {
        let folder = tempfile::Builder::new()
            .prefix("stream-benchmark-")
            .tempdir_in(&plan.folder)?;
        let server = Server::start(side, &plan.programs, folder.path()).await?;
        let work = Work::new(keys, bytes);
        work.fill(&server).await?;
        both.push(Bench { server, work, folder });
    }
    Ok(both)
}

/// Records the value of one repetition.
fn record(figures: &mut Figures, side: Side, name: &str, unit: &'static str, target: Option<Target>, value: f64) {
    let measured = Measured {
        name: name.to_owned().into(),
        unit,
        beside: "",
        target,
    };
    figures.add(&measured, side.column(), value);
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Makes one write at a time, which all followers await.
pub(crate) async fn follow(plan: &Plan, figures: &mut Figures) -> Result<()> {
    for &count in &plan.followers {
        let benches = both(plan, KEYS, VALUE_BYTES).await?;
        let mut following = Vec::new();
        for bench in &benches {
            let from = From::Place(bench.server.place().await?);
            following.push(Followers::connect(&bench.server, count, &from, Then::Reads).await?);
        }
        for _ in 0..plan.repetitions {
            for (bench, followers) in benches.iter().zip(&mut following) {
                rounds(plan, bench, followers, count, figures).await?;
            }
        }
    }
    Ok(())
}

async fn rounds(
    plan: &Plan,
    bench: &Bench,
    followers: &mut Followers,
    count: usize,
    figures: &mut Figures,
) -> Result<()> {
    let Bench { server, work, .. } = bench;
    let (mut writes, mut each, mut last) = (Vec::new(), Vec::new(), Vec::new());
    let mut revision = server.place().await?.revision;
    let (cpu, messages) = (server.process.cpu()?, followers.messages());
    connected(server.addr, None, async |caller| {
        for _ in 0..plan.rounds {
            revision += 1;
            followers.expect(revision);
            let sent = Instant::now();
            work.change(server, &caller).await?;
            writes.push(millis(sent.elapsed()));
            let arrived = followers.arrived(sent).await?;
            last.extend(arrived.iter().max().copied().map(millis));
            each.extend(arrived.into_iter().map(millis));
        }
        Ok(())
    })
    .await?;
    let cpu = server.process.cpu()?.saturating_sub(cpu);
    let messages = followers.messages() - messages;

    let at_thousand = |target| (count >= 1000).then_some(target);
    let mut add = |what: &str, unit, target, value: Option<f64>| {
        if let Some(value) = value {
            record(
                figures,
                server.side,
                &format!("{count} followers: {what}"),
                unit,
                target,
                value,
            );
        }
    };
    add("write sent to follower, p50", "ms", None, percentile(&each, 50));
    let target = at_thousand(Target::TimesAtMost(0.6));
    add("write sent to last follower, p50", "ms", target, percentile(&last, 50));
    add("write sent to last follower, p99", "ms", target, percentile(&last, 99));
    let target = at_thousand(Target::TimesAtMost(0.2));
    add("write answered, p50", "ms", target, percentile(&writes, 50));
    add("write answered, p99", "ms", None, percentile(&writes, 99));
    let per_message = cpu.as_secs_f64() * 1e6 / messages as f64;
    add(
        "server CPU per delta",
        "us",
        at_thousand(Target::AtMost(15.0)),
        Some(per_message),
    );
    Ok(())
}

/// Measures the memory of followers that have nothing to read, and of followers that do not read.
pub(crate) async fn memory(plan: &Plan, figures: &mut Figures) -> Result<()> {
    for then in [Then::Reads, Then::Stalls] {
        for bench in both(plan, KEYS, VALUE_BYTES).await? {
            let Bench { server, work, .. } = &bench;
            sleep(REST).await;
            let before = server.process.memory()?;
            let from = From::Place(server.place().await?);
            let _followers = Followers::connect(server, plan.storm, &from, then).await?;
            let (name, target) = match then {
                Then::Reads => ("memory per idle follower", Some(Target::AtMost(20.0))),
                Then::Stalls => {
                    // Four times the window of a stream.
                    work.changes(server, 16, 256 * 1024 / VALUE_BYTES).await?;
                    ("memory per stalled follower", None)
                }
            };
            sleep(REST).await;
            let grown = server.process.memory()?.saturating_sub(before);
            record(
                figures,
                server.side,
                name,
                "KiB",
                target,
                grown as f64 / 1024.0 / plan.storm as f64,
            );
        }
    }
    Ok(())
}

/// Measures writes at full speed, without followers.
pub(crate) async fn writes(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let benches = both(plan, KEYS, VALUE_BYTES).await?;
    for &writers in &plan.writers {
        let count = plan.writes * writers.min(8);
        for _ in 0..plan.repetitions {
            for Bench { server, work, folder } in &benches {
                let seconds = work.changes(server, writers, count).await?;
                let target = (writers == 16).then_some(Target::TimesAtLeast(2.5));
                let name = format!("{writers} writers: writes");
                record(figures, server.side, &name, "1/s", target, rate(count, seconds));
                if writers == 1 {
                    let floor = floor(folder.path(), plan.writes, VALUE_BYTES).await?;
                    record(
                        figures,
                        server.side,
                        "bare SQLite commits for comparison",
                        "1/s",
                        None,
                        floor,
                    );
                }
            }
        }
    }
    Ok(())
}

/// Measures many commits at once, until all followers have the last one.
pub(crate) async fn burst(plan: &Plan, figures: &mut Figures) -> Result<()> {
    for Bench { server, work, .. } in &both(plan, KEYS, VALUE_BYTES).await? {
        let from = From::Place(server.place().await?);
        let mut followers = Followers::connect(server, plan.storm, &from, Then::Reads).await?;
        let cpu = server.process.cpu()?;
        let begun = Instant::now();
        followers.expect(server.place().await?.revision + i64::try_from(plan.burst)?);
        work.changes(server, BURST_WRITERS, plan.burst).await?;
        let written = begun.elapsed();
        let arrived = followers.arrived(begun).await?;
        let last = arrived.into_iter().max().unwrap_or_default();
        let cpu = server.process.cpu()?.saturating_sub(cpu);
        let name = |what: &str| format!("burst of {}: {what}", plan.burst);
        let mut add = |what, unit, target, value| record(figures, server.side, &name(what), unit, target, value);
        let after = last.saturating_sub(written).as_secs_f64();
        add("last answer to last follower", "s", Some(Target::AtMost(1.0)), after);
        add("first write to last follower", "s", None, last.as_secs_f64());
        add("server CPU", "s", None, cpu.as_secs_f64());
        add(
            "messages per follower",
            "1",
            None,
            followers.messages() as f64 / plan.storm as f64,
        );
    }
    Ok(())
}

/// Measures all followers resuming at a server that has just started.
pub(crate) async fn resume(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let mut benches = both(plan, KEYS, VALUE_BYTES).await?;
    for _ in 0..plan.repetitions {
        let mut restarted = Vec::new();
        for Bench { server, work, folder } in benches {
            let place = server.place().await?;
            let server = server.restart().await?;
            let name = format!("{} resumes after a restart", plan.storm);
            let target = Some(Target::AtMost(1.0));
            storm(plan, &server, &From::Place(place), &name, target, figures).await?;
            restarted.push(Bench { server, work, folder });
        }
        benches = restarted;
    }
    Ok(())
}

/// Measures all followers starting without any state.
pub(crate) async fn snapshot(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let benches = both(plan, plan.snapshot_bytes / SNAPSHOT_VALUE_BYTES, SNAPSHOT_VALUE_BYTES).await?;
    for _ in 0..plan.repetitions {
        for Bench { server, .. } in &benches {
            let name = format!("{} cold snapshots of {} KiB", plan.storm, plan.snapshot_bytes / 1024);
            storm(plan, server, &From::Nothing, &name, None, figures).await?;
        }
    }
    Ok(())
}

async fn storm(
    plan: &Plan,
    server: &Server,
    from: &From,
    name: &str,
    target: Option<Target>,
    figures: &mut Figures,
) -> Result<()> {
    let cpu = server.process.cpu()?;
    let begun = Instant::now();
    let followers = Followers::connect(server, plan.storm, from, Then::Reads).await?;
    let wall = begun.elapsed().as_secs_f64();
    let cpu = server.process.cpu()?.saturating_sub(cpu).as_secs_f64();
    record(
        figures,
        server.side,
        &format!("{name}: until all have caught up"),
        "s",
        None,
        wall,
    );
    record(figures, server.side, &format!("{name}: server CPU"), "s", target, cpu);
    drop(followers);
    sleep(REST / 4).await;
    Ok(())
}
