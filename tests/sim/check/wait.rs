//! Checks the results of waits for a revision.

use std::collections::BTreeMap;

use switchboard::history::Cursor;
use switchboard_registry::fleet::wait::WaitError;
use switchboard_router::subscription::apply::Applied;

use super::Found;
use crate::{
    disk::skew::unreadable,
    history::{Event, History, Process},
};

/// If the registry reports a revision as in force, every router that was connected when the wait began uses it and
/// holds nothing back. After all faults are over, the registry reports a router as lacking the revision only if it does
/// lack it.
pub(super) fn in_force(history: &History) -> Found {
    let mut found = Found::new();
    let (mut processes, mut live) = (BTreeMap::new(), BTreeMap::new());
    let mut used: BTreeMap<Process, Vec<(Cursor, &Applied)>> = BTreeMap::new();
    let mut refuses = BTreeMap::new();
    let mut waiting = None;
    let mut head = None;
    for event in history.events() {
        match event {
            Event::Started { process, instance } => {
                processes.insert(*instance, *process);
                live.insert(process.router, *process);
            }
            Event::InUse {
                process,
                applied,
                catalog,
            } => used.entry(*process).or_default().push((catalog.cursor, applied)),
            Event::Reported { process, report, .. } => {
                refuses.insert(*process, report.history_refusal.is_some());
            }
            Event::Stopped { head: at, .. } => head = Some(**at),
            Event::Waiting {
                wait,
                revision,
                connected,
            } => waiting = Some((*wait, *revision, connected)),
            Event::Waited { wait, result: Ok(done) } => {
                let Some((number, revision, connected)) = waiting.take() else {
                    continue;
                };
                if number != *wait || revision != done.revision {
                    found.push(format!(
                        "wait {wait} for {revision} gets the result for {}",
                        done.revision
                    ));
                }
                let is_in_force = |process: &Process| {
                    let mut used = used.get(process).into_iter().flatten();
                    used.any(|(cursor, applied): &(Cursor, &Applied)| {
                        let mut held = applied.held.iter();
                        cursor.incarnation == done.incarnation
                            && cursor.revision >= revision
                            && held.all(|held| held.used_revision >= revision || held.revision > revision)
                    })
                };
                let connected = connected.iter().map(|instance| processes[instance]);
                for process in connected.filter(|process| live[&process.router] == *process) {
                    // If two processes share an id and one is lost, the registry considers it replaced by the other.
                    let mut same = live.values().filter(|other| other.id() == process.id());
                    let is_listed = done.routers.iter().any(|router| router.to_string() == process.id());
                    if !is_listed || !same.any(is_in_force) {
                        found.push(format!(
                            "wait {wait}: {revision} is reported as in force, but {process:?} does not use it"
                        ));
                    }
                }
            }
            Event::Waited {
                wait,
                result: Err(error),
            } => match (error, head) {
                (WaitError::NotApplied { routers, .. }, Some(head)) => {
                    let uses = |process: &&Process| {
                        let newest = used.get(process).and_then(|used| used.last());
                        // A router that refuses this history may have reached an equal cursor through another history
                        // with the same writes.
                        let is_refused = refuses.get(process) == Some(&true);
                        !is_refused && newest.is_some_and(|(cursor, _)| *cursor == head)
                    };
                    for router in routers {
                        let mut lacking = live
                            .values()
                            .filter(|process| process.id() == router.to_string() && !uses(process));
                        if lacking.next().is_none() {
                            found.push(format!(
                                "wait {wait}: `{router}` is reported to lack {} but uses it",
                                head.revision
                            ));
                        }
                    }
                }
                (WaitError::Refused(refused), _) => {
                    let is_unreadable = |name: &str| {
                        let mut states = history.states();
                        states.any(|state| unreadable(state).any(|item| &*item.key == name))
                    };
                    let needless = refused.iter().filter(|refused| !is_unreadable(&refused.held.resource));
                    found.extend(
                        needless.map(|refused| format!("wait {wait}: {refused:?}, although the resource can be read")),
                    );
                }
                (WaitError::NotApplied { .. } | WaitError::OtherIncarnation { .. } | WaitError::Draining, None) => {}
                (error, _) => found.push(format!("wait {wait} fails: {error}")),
            },
            _ => {}
        }
    }
    found
}
