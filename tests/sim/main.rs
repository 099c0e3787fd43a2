//! Simulates the whole change stream in simulated time: the real writer, feed and subscription run on a simulated disk
//! and network, with every fault that can happen to them.
//!
//! A seed determines a run, and the same seed always gives the same run. `cargo test --test sim -- --seed 7` plays that
//! run and prints its history, `-- --seeds 10000` plays many runs; without either option the tests below run.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints its result on the terminal"
)]

mod calls;
mod check;
mod disk;
mod history;
mod mutants;
mod network;
mod registry;
mod router;
mod seeds;
mod surroundings;
mod time;
mod waits;
mod watches;
mod world;
mod writes;

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    process::ExitCode,
};

use check::Invariant;
use clap::Parser;
use history::{Event, Outcome};
use libtest_mimic::Trial;
use mutants::Mutant;
use switchboard::pb::registry::subscribe_response::Kind;
use world::Plan;

/// Number of runs if the command line does not set one.
const SEEDS: u64 = 200;

/// Number of runs within which a planted defect has to be found.
const MUTANT_SEEDS: u64 = 40;

/// The options of every test binary, and the runs to play.
#[derive(Debug, Parser)]
struct CommandLine {
    /// Play only the run with this seed, and print its history.
    #[arg(long)]
    seed: Option<u64>,
    /// Play this many runs, and no other test.
    #[arg(long)]
    seeds: Option<u64>,
    #[command(flatten)]
    tests: libtest_mimic::Arguments,
}

fn main() -> ExitCode {
    let arguments = CommandLine::parse();
    seeds::count_panics();
    let tests = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => return replay(seed),
        (None, Some(count)) => vec![test("no_run_violates_an_invariant", move || {
            no_run_violates_an_invariant(count);
        })],
        (None, None) => vec![
            test("no_run_violates_an_invariant", || no_run_violates_an_invariant(SEEDS)),
            test(
                "the_same_seed_gives_the_same_history",
                the_same_seed_gives_the_same_history,
            ),
            test(
                "the_runs_cover_every_expected_event",
                the_runs_cover_every_expected_event,
            ),
            test(
                "each_planted_defect_is_found_by_the_checker_of_its_invariant",
                each_planted_defect_is_found_by_the_checker_of_its_invariant,
            ),
        ],
    };
    libtest_mimic::run(&arguments.tests, tests).exit_code()
}

/// Creates a test that fails by panicking.
fn test(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, || {
        run();
        Ok(())
    })
}

/// Plays one run and prints its history and its violations.
fn replay(seed: u64) -> ExitCode {
    let Some(history) = seeds::run(Plan { seed, mutant: None }) else {
        println!("seed {seed}: a part of the run has panicked");
        return ExitCode::FAILURE;
    };
    let violations = check::all(&history);
    let count = violations.len();
    // A write error only means that the reader has closed the pipe.
    let _gone = writeln!(
        io::stdout(),
        "{}\nseed {seed}: {count} violations {violations:#?}",
        history.text()
    );
    if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn no_run_violates_an_invariant(count: u64) {
    let bad = seeds::each(count, |seed| {
        let what = seeds::judge(seed)?;
        // Printed at once, because many runs take long.
        eprintln!("seed {seed} (play it again with --seed {seed}): {what}");
        Some(())
    });
    assert!(bad.is_empty(), "{} of {count} runs violate an invariant", bad.len());
}

fn the_same_seed_gives_the_same_history() {
    for seed in 0..8 {
        let plan = Plan { seed, mutant: None };
        let text = || seeds::run(plan).unwrap().text();
        let (one, other) = (text(), text());
        let difference = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(difference, None, "seed {seed}");
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}

fn the_runs_cover_every_expected_event() {
    let mut met = BTreeSet::new();
    for seed in 0..MUTANT_SEEDS {
        let mut watched = BTreeSet::new();
        for event in seeds::run(Plan { seed, mutant: None }).unwrap().events() {
            match event {
                Event::Watched { stream, .. } => {
                    watched.insert(*stream);
                }
                Event::Closed { why: "refused", .. } => {
                    met.insert("watcher refused".to_owned());
                }
                Event::Said { stream, message, .. } => match &message.kind {
                    Some(Kind::Welcome(welcome)) => {
                        let watcher = if watched.contains(stream) { "watcher " } else { "" };
                        met.insert(format!("{watcher}{:?} {:?}", welcome.mode(), welcome.reason()));
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
        "goodbye Moved",
        "goodbye Rotation",
        "goodbye TooSlow",
        "held CredentialPending",
        "held Dependency",
        "held Refused",
        "refused RevisionRegressed",
        "refused StoreChanged",
        "refused because of its content",
        "refused because of the disk",
        "stalled",
        "unknown",
        "watcher Resumed Unspecified",
        "watcher Snapshot Ahead",
        "watcher Snapshot Compacted",
        "watcher Snapshot First",
        "watcher Snapshot Fork",
        "watcher refused",
        "written",
    ];
    let missing: Vec<_> = expected.into_iter().filter(|what| !met.contains(*what)).collect();
    assert!(missing.is_empty(), "no run has {missing:?}, the runs only have {met:?}");
}

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
        (Mutant::ReplacedInUse, Invariant::Atomic),
        (Mutant::CredentialByModel, Invariant::RightToken),
        (Mutant::LoadedAgain, Invariant::CallIsolation),
        (Mutant::RefusedInUse, Invariant::VersionSkew),
        (Mutant::RefusalUntold, Invariant::VersionSkew),
        (Mutant::WatchedFromNow, Invariant::GapFree),
    ] {
        let finds = |seed| {
            let plan = Plan {
                seed,
                mutant: Some(mutant),
            };
            check::all(&world::play(plan))
                .iter()
                .any(|violation| violation.invariant == invariant)
        };
        let found = (0..MUTANT_SEEDS).find(|&seed| finds(seed));
        assert!(found.is_some(), "{mutant:?} is not found within {MUTANT_SEEDS} runs");
        eprintln!("{mutant:?} is found with seed {}", found.unwrap());
    }
}
