//! The measures.
//!
//! Each repetition measures the router and the server that it is compared with one right after the other, so that other
//! activity of the machine affects both.

use std::{borrow::Cow, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use switchboard_comparison::figures::{Figures, Measured, Target, percentile};
use tokio::time::sleep;

use crate::{
    Plan,
    ask::{EVENTS, TOKENS},
    bed::{Bed, Side, Telemetry},
    load::{self, Closed, Kind, Window},
    process::PinnedProcess,
};

const FLOOR: &str = "the bare relay";
/// Streams at full speed, and streams with one token per interval.
const FLAT_OUT: Kind = Kind::Stream(Duration::ZERO);
const PACED: Kind = Kind::Stream(Duration::from_millis(10));
const SLOWLY: Kind = Kind::Stream(Duration::from_millis(100));
const VERY_SLOWLY: Kind = Kind::Stream(Duration::from_secs(1));

/// The parameters of a closed loop.
#[derive(Debug, Clone, Copy)]
struct Loop {
    kind: Kind,
    lines: usize,
    connections: usize,
}

const UNARY_ONE: Loop = Loop {
    kind: Kind::Whole,
    lines: 32,
    connections: 1,
};
const UNARY_MANY: Loop = Loop {
    kind: Kind::Whole,
    lines: 64,
    connections: 16,
};
const STREAMS_FLAT: Loop = Loop {
    kind: FLAT_OUT,
    lines: 32,
    connections: 8,
};
const STREAMS_PACED: Loop = Loop {
    kind: PACED,
    lines: 64,
    connections: 8,
};

const fn measured(name: &'static str, unit: &'static str, beside: &'static str, target: Option<Target>) -> Measured {
    Measured {
        name: Cow::Borrowed(name),
        unit,
        beside,
        target,
    }
}

async fn window(bed: &Bed, side: Side<'_>, what: Loop, length: Duration) -> Result<Window> {
    let lines = bed.lines(side, what.lines, what.connections).await?;
    let mut closed = Closed::begin(lines, what.kind);
    let window = closed.window(length, bed.relay(side), &bed.model).await?;
    closed.end().await?;
    ensure!(window.tokens > 0.0 || window.answers > 0.0, "no call was answered");
    Ok(window)
}

fn events(window: &Window) -> f64 {
    window.tokens * load::count(EVENTS as u64) / load::count(TOKENS as u64)
}

fn micros_per_event(window: &Window) -> f64 {
    window.relay * 1e6 / events(window)
}

fn micros_per_call(window: &Window) -> f64 {
    window.relay * 1e6 / window.answers
}

/// Measures unary calls at full load.
pub(crate) async fn unary(plan: &Plan, bed: &Bed, figures: &mut Figures) -> Result<()> {
    let target = Some(Target::TimesAtMost(1.3));
    let per_call = measured(
        "CPU per unary call, 64 at a time on 16 connections",
        "us",
        FLOOR,
        target,
    );
    let per_call_of_one = measured(
        "CPU per unary call, 32 at a time on one connection",
        "us",
        FLOOR,
        target,
    );
    let rate = measured("unary calls, 64 at a time on 16 connections", "1/s", FLOOR, None);
    for _ in 0..plan.repetitions {
        let router = window(bed, Side::Router(&bed.router), UNARY_MANY, plan.window).await?;
        let floor = window(bed, Side::Floor, UNARY_MANY, plan.window).await?;
        figures.add_both(&per_call, micros_per_call(&router), Some(micros_per_call(&floor)));
        figures.add_both(
            &rate,
            router.answers / router.seconds,
            Some(floor.answers / floor.seconds),
        );
        shares(figures, "unary calls", &router, &floor);
        let router = window(bed, Side::Router(&bed.router), UNARY_ONE, plan.window).await?;
        let floor = window(bed, Side::Floor, UNARY_ONE, plan.window).await?;
        figures.add_both(
            &per_call_of_one,
            micros_per_call(&router),
            Some(micros_per_call(&floor)),
        );
    }
    let alone = window(bed, Side::Direct, UNARY_MANY, plan.window).await?;
    figures.note(
        "client and model server by themselves, unary",
        format!("{:.0} calls/s", alone.answers / alone.seconds),
    );
    Ok(())
}

/// Measures streams at full speed.
pub(crate) async fn flat(plan: &Plan, bed: &Bed, figures: &mut Figures) -> Result<()> {
    let target = Some(Target::TimesAtMost(1.15));
    let per_event = measured("CPU per relayed event, flat out", "us", FLOOR, target);
    let rate = measured("relayed events, flat out", "1/s", FLOOR, None);
    for _ in 0..plan.repetitions {
        let router = window(bed, Side::Router(&bed.router), STREAMS_FLAT, plan.window).await?;
        let floor = window(bed, Side::Floor, STREAMS_FLAT, plan.window).await?;
        figures.add_both(&per_event, micros_per_event(&router), Some(micros_per_event(&floor)));
        figures.add_both(
            &rate,
            events(&router) / router.seconds,
            Some(events(&floor) / floor.seconds),
        );
        shares(figures, "streams flat out", &router, &floor);
    }
    let alone = window(bed, Side::Direct, STREAMS_FLAT, plan.window).await?;
    figures.note(
        "client and model server by themselves, flat out",
        format!("{:.0} events/s", events(&alone) / alone.seconds),
    );
    Ok(())
}

/// Measures streams at the pace of a real model.
pub(crate) async fn paced(plan: &Plan, bed: &Bed, figures: &mut Figures) -> Result<()> {
    let target = Some(Target::TimesAtMost(1.15));
    let per_event = measured("CPU per relayed event, paced at 10 ms", "us", FLOOR, target);
    for _ in 0..plan.repetitions {
        let router = window(bed, Side::Router(&bed.router), STREAMS_PACED, plan.window).await?;
        let floor = window(bed, Side::Floor, STREAMS_PACED, plan.window).await?;
        figures.add_both(&per_event, micros_per_event(&router), Some(micros_per_event(&floor)));
        shares(figures, "64 streams paced at 10 ms", &router, &floor);
    }
    Ok(())
}

/// Measures the latency that a relay adds to a single call, compared with the same call directly to the model server.
pub(crate) async fn latency(plan: &Plan, bed: &Bed, figures: &mut Figures) -> Result<()> {
    const CALLS_A_SECOND: u32 = 200;
    const STREAMS_A_SECOND: u32 = 20;
    let ratio = Some(Target::TimesAtMost(1.3));
    let added = measured("latency added to one unary call, p50", "us", FLOOR, ratio);
    let quiet = measured(
        "latency added to a direct unary call, p50",
        "us",
        FLOOR,
        Some(Target::AtMost(150.0)),
    );
    let worst = measured(
        "latency added to a direct unary call, p99",
        "us",
        FLOOR,
        Some(Target::AtMost(300.0)),
    );
    let first = measured(
        "time added to the first token, p50",
        "us",
        FLOOR,
        Some(Target::TimesAtMost(1.15)),
    );
    let worst_first = measured("time added to the first token, p99", "us", FLOOR, None);
    let at = |taken: &[f64], percent| percentile(taken, percent).context("no call was answered");
    for _ in 0..plan.repetitions {
        for (kind, rate) in [(Kind::Whole, CALLS_A_SECOND), (PACED, STREAMS_A_SECOND)] {
            let [mut direct, mut floor, mut router] = [const { Vec::new() }; 3];
            let sides = [
                (Side::Direct, &mut direct),
                (Side::Floor, &mut floor),
                (Side::Router(&bed.router), &mut router),
            ];
            for (side, taken) in sides {
                *taken = load::open(bed.lines(side, 64, 1).await?, kind, rate, plan.window).await?;
            }
            let added_at = |percent| -> Result<[f64; 2]> {
                let direct = at(&direct, percent)?;
                Ok([at(&router, percent)? - direct, at(&floor, percent)? - direct])
            };
            let ([router, floor], [router_worst, floor_worst]) = (added_at(50)?, added_at(99)?);
            if kind == Kind::Whole {
                figures.add_both(&added, router, Some(floor));
                figures.add_both(&quiet, router, Some(floor));
                figures.add_both(&worst, router_worst, Some(floor_worst));
            } else {
                figures.add_both(&first, router, Some(floor));
                figures.add_both(&worst_first, router_worst, Some(floor_worst));
            }
        }
    }
    Ok(())
}

/// Measures by how much a relay widens the gaps between the events of many streams.
pub(crate) async fn gaps(plan: &Plan, bed: &Bed, figures: &mut Figures) -> Result<()> {
    let gap = measured(
        "gap added between events, p99, streams paced at 100 ms",
        "us",
        FLOOR,
        Some(Target::AtMost(50.0)),
    );
    let what = Loop {
        kind: SLOWLY,
        lines: plan.gap_streams,
        connections: plan.gap_streams.div_ceil(50),
    };
    for _ in 0..plan.repetitions {
        let [mut direct, mut floor, mut router] = [const { Window::NONE }; 3];
        let sides = [
            (Side::Direct, &mut direct),
            (Side::Floor, &mut floor),
            (Side::Router(&bed.router), &mut router),
        ];
        for (side, taken) in sides {
            let mut closed = Closed::begin(bed.lines(side, what.lines, what.connections).await?, what.kind);
            *taken = closed.window(plan.window, bed.relay(side), &bed.model).await?;
            closed.leave().await?;
        }
        let at = |window: &Window| percentile(&window.gaps, 99).context("no gap was measured");
        let base = at(&direct)?;
        figures.add_both(&gap, at(&router)? - base, Some(at(&floor)? - base));
        shares(figures, "streams paced at 100 ms", &router, &floor);
    }
    Ok(())
}

/// Measures the memory of many concurrent streams.
pub(crate) async fn streams(plan: &Plan, bed: &Bed, figures: &mut Figures) -> Result<()> {
    const LOOK_EVERY: Duration = Duration::from_millis(500);
    /// After this time idle connections to the model server are closed.
    const AFTERWARDS: Duration = Duration::from_secs(10);
    let idle = measured("memory, idle", "MiB", "", Some(Target::AtMost(20.0)));
    let peak = measured(
        "memory with 5,000 streams of an event a second each, peak",
        "MiB",
        FLOOR,
        Some(Target::AtMost(150.0)),
    );
    let growth = measured(
        "memory with 5,000 streams, at the end",
        "MiB",
        "in the middle",
        Some(Target::TimesAtMost(1.05)),
    );
    let after = measured("memory afterwards", "MiB", "idle", Some(Target::TimesAtMost(1.1)));
    let peak_of = async |side: Side<'_>, process: &PinnedProcess| -> Result<[f64; 3]> {
        let mut closed = Closed::begin(
            bed.lines(side, plan.streams, plan.streams.div_ceil(100)).await?,
            VERY_SLOWLY,
        );
        // Wait until all streams have begun and have been answered once.
        sleep(Duration::from_secs(3)).await;
        let looks = (plan.window.as_millis() * 2 / LOOK_EVERY.as_millis()).max(2);
        let mut seen = Vec::new();
        for _ in 0..looks {
            sleep(LOOK_EVERY).await;
            seen.push(process.memory()?);
        }
        closed.window(plan.window / 2, Some(process), &bed.model).await?;
        seen.push(process.memory()?);
        closed.leave().await?;
        let peak = seen.iter().copied().fold(0.0, f64::max);
        let (middle, end) = (seen.get(seen.len() / 2), seen.last());
        Ok([
            peak,
            *middle.context("no memory was measured")?,
            *end.context("no memory was measured")?,
        ])
    };
    for _ in 0..plan.repetitions {
        let router = bed.another_router(Telemetry::On).await?;
        sleep(Duration::from_secs(1)).await;
        let before = router.memory()?;
        let [highest, middle, end] = peak_of(Side::Router(&router), &router).await?;
        sleep(AFTERWARDS).await;
        let left = router.memory()?;
        router.end().await?;
        let [floor, ..] = peak_of(Side::Floor, &bed.floor).await?;
        figures.add_both(&idle, before, None);
        figures.add_both(&peak, highest, Some(floor));
        figures.add_both(&growth, end, Some(middle));
        figures.add_both(&after, left, Some(before));
    }
    Ok(())
}

/// Measures the cost of traces and access lines.
pub(crate) async fn telemetry(plan: &Plan, bed: &Bed, figures: &mut Figures) -> Result<()> {
    let target = Some(Target::TimesAtMost(1.1));
    let quiet = "without telemetry";
    let per_call = measured("CPU per unary call, with telemetry", "us", quiet, target);
    let per_event = measured("CPU per event paced at 10 ms, with telemetry", "us", quiet, target);
    let off = bed.another_router(Telemetry::Off).await?;
    for _ in 0..plan.repetitions {
        let on = window(bed, Side::Router(&bed.router), UNARY_MANY, plan.window).await?;
        let beside = window(bed, Side::Router(&off), UNARY_MANY, plan.window).await?;
        figures.add_both(&per_call, micros_per_call(&on), Some(micros_per_call(&beside)));
        let on = window(bed, Side::Router(&bed.router), STREAMS_PACED, plan.window).await?;
        let beside = window(bed, Side::Router(&off), STREAMS_PACED, plan.window).await?;
        figures.add_both(&per_event, micros_per_event(&on), Some(micros_per_event(&beside)));
    }
    off.end().await
}

/// Measures the resolution of a feature among a thousand models, in a process that counts allocations.
pub(crate) fn resolution(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let time = measured(
        "resolution of a feature at 1,000 models, p99",
        "us",
        "",
        Some(Target::AtMost(1.0)),
    );
    let allocations = measured(
        "resolution of a feature at 1,000 models, allocations",
        "",
        "",
        Some(Target::AtMost(0.0)),
    );
    for _ in 0..plan.repetitions {
        let output = Command::new(&plan.programs.resolution).output()?;
        ensure!(output.status.success(), "could not measure the resolution of a feature");
        let told: Value = serde_json::from_slice(&output.stdout)?;
        let number = |name: &str| told[name].as_f64().context("a figure is missing");
        figures.add_both(&time, number("p99_us")?, None);
        figures.add_both(&allocations, number("allocations")?, None);
    }
    Ok(())
}

/// Records the share of a core that each process used.
fn shares(figures: &mut Figures, what: &str, router: &Window, floor: &Window) {
    let share = |window: &Window| {
        let of = |seconds: f64| seconds / window.seconds;
        format!(
            "{:.2} (model server {:.2}, client {:.2})",
            of(window.relay),
            of(window.model),
            of(window.load)
        )
    };
    figures.note(
        &format!("share of a core, {what}"),
        format!("router {}, bare relay {}", share(router), share(floor)),
    );
}
