//! Points at which a test has the process die, panic or stand still. In release builds there are none.
//!
//! `SWITCHBOARD_FAILPOINTS="commit.before-commit=kill@3;commit.after-commit=pause:/tmp/go"` says what happens where: `kill`
//! ends the process at once, as SIGKILL does, `panic` panics, and `pause` holds the thread up until the file is there, for
//! ten seconds at most. `@n` means the n-th time that the point is come to, by default the first, and no other time.

/// Comes to a point. Its name is `part.when`, and stands in one place of the code.
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

    /// How long a pause lasts at most: looked for a thousand times, each ten milliseconds apart.
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
        /// The hits that are still to come, that which acts included.
        pub(super) countdown: AtomicU32,
    }

    static POINTS: OnceLock<HashMap<String, Point>> = OnceLock::new();

    #[expect(clippy::disallowed_methods, reason = "no flag: a release build must not know it")]
    pub(super) fn hit(name: &'static str) {
        let points = POINTS.get_or_init(|| {
            let text = std::env::var(VARIABLE).unwrap_or_default();
            parse(&text).unwrap_or_else(|| {
                tracing::error!("{VARIABLE} is not understood: no point acts");
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
            tracing::info!(name, "a failpoint acts");
            act(name, &point.action);
        }
    }

    #[expect(clippy::panic, reason = "a test asked for it")]
    fn act(name: &str, action: &FailpointAction) {
        match action {
            // Nothing is unwound, flushed or closed.
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
    fn each_point_has_an_action_and_a_turn() {
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
