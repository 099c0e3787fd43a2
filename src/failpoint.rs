//! Failpoints: points in the code at which a test can kill the process, make it panic, or pause a thread. Release
//! builds have none.
//!
//! The environment variable `SWITCHBOARD_FAILPOINTS` sets the actions, for example
//! `commit.before-commit=kill@3;commit.after-commit=pause:/tmp/go`. `kill` ends the process at once, as SIGKILL does.
//! `panic` panics. `pause` blocks the thread until the file exists, for at most ten seconds. `@n` triggers the action
//! only at the n-th hit of the point; the default is the first hit.

/// Marks a failpoint and runs its action if a test has set one. `name` has the form `part.when` and is used at one
/// place in the code only.
#[inline]
pub fn hit(name: &'static str) {
    #[cfg(debug_assertions)]
    active::hit(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod active {
    use std::{
        collections::HashMap,
        path::PathBuf,
        process, str,
        sync::{
            OnceLock,
            atomic::{AtomicU32, Ordering},
        },
        thread,
        time::Duration,
    };

    const VARIABLE: &str = "SWITCHBOARD_FAILPOINTS";

    /// A pause looks for its file this many times, ten milliseconds apart: for at most ten seconds.
    const LOOKS: u32 = 1000;
    const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

    #[derive(Debug, PartialEq, Eq)]
    pub(super) enum FailpointAction {
        Kill,
        Panic,
        Pause(PathBuf),
    }

    #[derive(Debug)]
    pub(super) struct Point {
        pub(super) action: FailpointAction,
        /// The number of hits until the action, including the hit that triggers it. 0: the action has already been
        /// triggered.
        pub(super) countdown: AtomicU32,
    }

    static POINTS: OnceLock<HashMap<String, Point>> = OnceLock::new();

    #[expect(
        clippy::disallowed_methods,
        reason = "not a flag, because release builds must not have it"
    )]
    pub(super) fn hit(name: &'static str) {
        let points = POINTS.get_or_init(|| {
            let text = std::env::var(VARIABLE).unwrap_or_default();
            parse(&text).unwrap_or_else(|| {
                tracing::error!("cannot parse {VARIABLE}: no failpoint is active");
                HashMap::new()
            })
        });
        let Some(point) = points.get(name) else {
            return;
        };
        let counted = point
            .countdown
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if counted == Ok(1) {
            tracing::info!(name, "failpoint triggered");
            act(name, &point.action);
        }
    }

    #[expect(clippy::panic, reason = "a test requested the panic")]
    fn act(name: &str, action: &FailpointAction) {
        match action {
            // Ends the process without unwinding, flushing or closing anything.
            FailpointAction::Kill => process::abort(),
            FailpointAction::Panic => panic!("failpoint {name}"),
            FailpointAction::Pause(until) => {
                let is_there = |_: &u32| until.exists();
                (0..LOOKS).inspect(|_| thread::sleep(BETWEEN_LOOKS)).find(is_there);
            }
        }
    }

    pub(super) fn parse(text: &str) -> Option<HashMap<String, Point>> {
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty());
        rules
            .map(|rule| {
                let (name, what) = rule.split_once('=')?;
                let (action, nth) = what.rsplit_once('@').unwrap_or((what, "1"));
                let action = match action.split_once(':') {
                    Some(("pause", file)) => FailpointAction::Pause(file.into()),
                    None if action == "kill" => FailpointAction::Kill,
                    None if action == "panic" => FailpointAction::Panic,
                    _ => return None,
                };
                let countdown = AtomicU32::new(nth.parse().ok().filter(|&nth| nth > 0)?);
                Some((name.to_owned(), Point { action, countdown }))
            })
            .collect()
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::sync::atomic::Ordering;

    use super::active::{FailpointAction, parse};

    #[test]
    fn each_failpoint_has_an_action_and_the_number_of_its_hit() {
        let points = parse("a.b=kill@3; c=panic;;d.e=pause:/tmp/x@2").unwrap();
        let of = |name: &str| (&points[name].action, points[name].countdown.load(Ordering::Relaxed));
        assert_eq!(points.len(), 3);
        assert_eq!(of("a.b"), (&FailpointAction::Kill, 3));
        assert_eq!(of("c"), (&FailpointAction::Panic, 1));
        assert_eq!(of("d.e"), (&FailpointAction::Pause("/tmp/x".into()), 2));
        for bad in ["a", "a=", "a=stop", "a=kill@0", "a=kill@x", "a=kill:x", "a=pause"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse("").unwrap().is_empty());
    }
}
