//! The change stream as a whole in simulated time: the real writer, feed and subscription over a simulated disk and
//! network, with all that can befall them.
//!
//! A run is drawn from a seed, and the same seed gives the same run. `SWITCHBOARD_SIM_SEEDS=10000` plays more of them,
//! `SWITCHBOARD_SIM_SEED=7` plays that one and prints what everybody saw.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says on the terminal which runs fail"
)]

mod check;
mod disk;
mod history;
mod mutants;
mod network;
mod registry;
mod router;
mod surroundings;
mod time;
mod world;
mod writes;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use check::{Invariant, Violation};
use history::{Event, Outcome};
use mutants::Mutant;
use switchboard::pb::registry::subscribe_response::Kind;
use world::{Plan, play};

/// Runs that are played where nothing else is said.
const SEEDS: u64 = 200;

/// How many runs may pass before a planted defect has to be found.
const MUTANT_SEEDS: u64 = 40;

#[expect(clippy::disallowed_methods, reason = "a test has no configuration of its own")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// The violations of a run without defects.
fn violations(seed: u64) -> Vec<Violation> {
    check::all(&play(Plan { seed, mutant: None }))
}

#[test]
fn no_run_violates_an_invariant() {
    if let Some(seed) = number("SWITCHBOARD_SIM_SEED") {
        let history = play(Plan { seed, mutant: None });
        eprintln!("{}", history.text());
        let violations = check::all(&history);
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        return;
    }
    let seeds = number("SWITCHBOARD_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let bad = thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut bad = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds {
                            return bad;
                        }
                        let violations = violations(seed);
                        if !violations.is_empty() {
                            bad.push((seed, violations));
                        }
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    for (seed, violations) in &bad {
        eprintln!("seed {seed} (again with SWITCHBOARD_SIM_SEED={seed}): {violations:#?}");
    }
    assert!(bad.is_empty(), "{} of {seeds} runs violate an invariant", bad.len());
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..8 {
        let plan = Plan { seed, mutant: None };
        let (one, other) = (play(plan).text(), play(plan).text());
        let difference = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(difference, None, "seed {seed}");
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}

#[test]
fn the_runs_meet_what_they_are_for() {
    let mut met = BTreeSet::new();
    for seed in 0..MUTANT_SEEDS {
        for event in play(Plan { seed, mutant: None }).events() {
            match event {
                Event::Said { message, .. } => match &message.kind {
                    Some(Kind::Welcome(welcome)) => {
                        met.insert(format!("{:?} {:?}", welcome.mode(), welcome.reason()));
                    }
                    Some(Kind::Goodbye(goodbye)) => {
                        met.insert(format!("goodbye {:?}", goodbye.why()));
                    }
                    Some(Kind::Bookmark(bookmark)) if bookmark.stalled => {
                        met.insert("stalled".to_owned());
                    }
                    _ => {}
                },
                Event::Reported { report, .. } => {
                    met.extend(
                        report
                            .history_refusal
                            .as_ref()
                            .map(|refusal| format!("refused {:?}", refusal.why())),
                    );
                    met.extend(report.held.iter().map(|held| format!("held {:?}", held.why())));
                }
                Event::Answered { outcome, .. } => {
                    met.insert(match outcome {
                        Outcome::Written { .. } => "written".to_owned(),
                        Outcome::Refused(why) => format!("refused {why}"),
                        Outcome::Unknown => "unknown".to_owned(),
                    });
                }
                _ => {}
            }
        }
    }
    let expected = [
        "Resumed Unspecified",
        "Snapshot Compacted",
        "Snapshot First",
        "Snapshot Fork",
        "Withheld Ahead",
        "Withheld Diverged",
        "Withheld OtherStore",
        "Withheld StaleHistory",
        "goodbye Drain",
        "goodbye Rotation",
        "held CredentialPending",
        "held Dependency",
        "refused RevisionRegressed",
        "refused StoreChanged",
        "refused by its content",
        "refused by the disk",
        "stalled",
        "unknown",
        "written",
    ];
    let missing: Vec<_> = expected.into_iter().filter(|what| !met.contains(*what)).collect();
    assert!(missing.is_empty(), "no run meets {missing:?}, only {met:?}");
}

#[test]
fn each_planted_defect_is_found_by_the_checker_of_its_invariant() {
    for (mutant, invariant) in [
        (Mutant::SkippedEvent, Invariant::Atomic),
        (Mutant::Duplicate, Invariant::DenseAndTotal),
        (Mutant::Reordered, Invariant::GapFree),
        (Mutant::LostDelete, Invariant::ResumeEqualsSnapshot),
        (Mutant::FutureAccepted, Invariant::ForkDetection),
        (Mutant::EarlyBookmark, Invariant::BookmarkTruth),
        (Mutant::TornSnapshot, Invariant::ResumeEqualsSnapshot),
        (Mutant::SecretOnStream, Invariant::NoSecret),
        (Mutant::SilentStop, Invariant::Convergence),
        (Mutant::CommitWithoutSync, Invariant::DurableBeforeVisible),
        (Mutant::RequestIdForgotten, Invariant::IdempotentWrites),
        (Mutant::EtagIgnored, Invariant::Etag),
        (Mutant::AppliedEarly, Invariant::Atomic),
        (Mutant::HeldAfterDelete, Invariant::Atomic),
        (Mutant::DisabledInUse, Invariant::RightToken),
        (Mutant::CredentialByModel, Invariant::RightToken),
    ] {
        let finds = |seed| {
            let history = play(Plan {
                seed,
                mutant: Some(mutant),
            });
            check::all(&history)
                .iter()
                .any(|violation| violation.invariant == invariant)
        };
        let found = (0..MUTANT_SEEDS).find(|&seed| finds(seed));
        assert!(found.is_some(), "{mutant:?} is not found within {MUTANT_SEEDS} runs");
        eprintln!("{mutant:?} is found with seed {}", found.unwrap());
    }
}
