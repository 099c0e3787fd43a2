//! What routers receive and use.

use std::collections::BTreeMap;

use prost::Message as _;
use switchboard::{
    history::Cursor,
    names::{IncarnationId, ModelName, ResourceName, Revision},
    pb::registry::{self, CredentialState, HistoryRefusal},
};
use switchboard_registry::domain::{credential::ModelCredential, state::State};
use switchboard_router::{
    catalog::{Caller, Catalog, CompiledModel, ModelState},
    subscription::{apply::Applied, received::Received},
};

use super::{Found, difference, plain_of_received, plain_of_state, skew::is_skew};
use crate::{
    history::{Event, History, Process},
    writes::FEATURES,
};

/// The newest version of each model that was in force at a process: a life of the store, a name, the revision that
/// created it.
type InForce = BTreeMap<(Process, IncarnationId, ModelName, Revision), Revision>;

/// What a router has received is what the registry published there; what it uses is that, less what is held, each in an
/// earlier version of the same life, but none older than what was in force; and it never says to use what it does not.
pub(super) fn atomic_3(history: &History) -> Found {
    let mut found = Found::new();
    let mut had: BTreeMap<Process, Vec<&Received>> = BTreeMap::new();
    let mut in_force = InForce::new();
    for event in history.events() {
        match event {
            Event::Received { process, state } => {
                had.entry(*process).or_default().push(state);
                let Some(truth) = history.truth(state.cursor()) else {
                    found.push(format!("{process:?} has received what was never published"));
                    continue;
                };
                let names = difference(&plain_of_received(state), &plain_of_state(truth));
                if !names.is_empty() {
                    found.push(format!("{process:?} at {}: {names:?} differ", state.cursor().revision));
                }
            }
            Event::InUse {
                process,
                applied,
                catalog,
            } => {
                if let Some(truth) = history.truth(&catalog.cursor) {
                    let mut wrong = wrong_models(&had[process], truth, catalog, applied);
                    wrong.extend(left_for_older(*process, &mut in_force, truth, catalog, applied));
                    found.extend(
                        wrong
                            .into_iter()
                            .map(|wrong| format!("{process:?} uses {}: {wrong}", catalog.cursor.revision)),
                    );
                }
            }
            Event::Reported {
                process,
                report,
                in_use,
                ..
            } => {
                let applied = report.applied.as_ref().and_then(|wire| Cursor::try_from(wire).ok());
                if applied != *in_use {
                    let revisions = [applied, *in_use].map(|at| at.map(|at| at.revision));
                    found.push(format!(
                        "{process:?} reports another catalog than it uses: {revisions:?}"
                    ));
                }
            }
            _ => {}
        }
    }
    found
}

fn entry(state: &State, name: &ModelName) -> Option<registry::ModelEntry> {
    let item = state.items.get(&name.to_string())?;
    Some(registry::ModelEntry::decode(&*item.value).unwrap())
}

fn wrong_models(had: &[&Received], truth: &State, catalog: &Catalog, applied: &Applied) -> Found {
    let mut found = Found::new();
    let live: Vec<&ModelName> = truth.models.keys().collect();
    let mut used: Vec<&ModelName> = catalog.models.keys().collect();
    used.sort_unstable();
    if live != used {
        found.push(format!("models {used:?} instead of {live:?}"));
    }
    if catalog.inference_paused != truth.settings.value.inference_paused {
        found.push("the switch of inference".to_owned());
    }
    for (name, state) in &catalog.models {
        let Some(newest) = entry(truth, name) else { continue };
        if newest.model.as_ref().unwrap().disabled() != matches!(state, ModelState::Disabled) {
            found.push(format!("{name} is disabled, or not"));
        }
        let ModelState::Ready(model) = state else { continue };
        let held = applied
            .held
            .iter()
            .find(|held| held.name == ResourceName::Model(name.clone()));
        let version = match held {
            None => Some(newest),
            Some(held) => {
                let item = &truth.items.get(&name.to_string()).unwrap();
                // Of what this very router has had: a copy of the volume can have other revisions of the same number.
                let earlier = had.iter().find_map(|state| {
                    let raw = &state.resources().get(&*name.to_string())?.raw;
                    let is_it = raw.revision == held.used_revision
                        && raw.create_revision == item.create_revision
                        && state.cursor().incarnation == truth.items.incarnation();
                    is_it.then(|| registry::ModelEntry::decode(&*raw.value).unwrap())
                });
                if held.used_revision >= item.revision {
                    found.push(format!("{name} is held at its newest version"));
                }
                earlier
            }
        };
        match version {
            Some(version) if is_of(model, &version, held.is_some()) => {}
            Some(_) => found.push(format!("{name} is not as it was written, held {}", held.is_some())),
            None => found.push(format!("{name} is held at a version that was never received")),
        }
    }
    found
}

/// Models that are called in a version older than one that was in force. A version is in force once it is not held, also
/// if it takes no calls; one that disables the model is so at once.
fn left_for_older(
    process: Process,
    in_force: &mut InForce,
    truth: &State,
    catalog: &Catalog,
    applied: &Applied,
) -> Found {
    let mut found = Found::new();
    for (name, state) in &catalog.models {
        let Some(item) = truth.items.get(&name.to_string()) else {
            continue;
        };
        let mut held = applied.held.iter();
        let held = held.find(|held| held.name == ResourceName::Model(name.clone()));
        let incarnation = truth.items.incarnation().id;
        let newest = in_force
            .entry((process, incarnation, name.clone(), item.create_revision))
            .or_default();
        match (held, state) {
            (None, _) | (_, ModelState::Disabled) => *newest = item.revision,
            (Some(held), ModelState::Ready(_)) if held.used_revision < *newest => found.push(format!(
                "{name} is called as of {}, though {newest} was in force",
                held.used_revision
            )),
            _ => {}
        }
    }
    found
}

/// Whether a model in use is this version. A held one may have lost its credential since.
fn is_of(model: &CompiledModel, version: &registry::ModelEntry, is_held: bool) -> bool {
    let written = version.model.as_ref().unwrap();
    let endpoints: Vec<&str> = written.endpoints.iter().map(|endpoint| &*endpoint.uri).collect();
    let used: Vec<&str> = model
        .spec
        .servers()
        .iter()
        .map(|endpoint| endpoint.uri.as_str())
        .collect();
    let credential = version.credential.as_ref().unwrap();
    let id = model.credential.as_ref().map(|credential| credential.id.to_string());
    let wanted = (credential.state() == CredentialState::Set).then(|| credential.id.clone());
    endpoints == used && (id == wanted || is_held && id.is_none())
}

/// The same cursor is the same state, however often and by whatever way it is received.
pub(super) fn exactly_once_5(history: &History) -> Found {
    let mut found = Found::new();
    let mut known = BTreeMap::new();
    for event in history.events() {
        let Event::Received { process, state } = event else {
            continue;
        };
        let cursor = state.cursor();
        let key = (
            *process,
            cursor.incarnation.id,
            cursor.revision,
            *cursor.chain.as_bytes(),
        );
        let plain = plain_of_received(state);
        if known.insert(key, plain.clone()).is_some_and(|before| before != plain) {
            found.push(format!("{process:?} has two states of revision {}", cursor.revision));
        }
    }
    found
}

/// What a process has received never goes back, and never to another store.
pub(super) fn monotonic_9(history: &History) -> Found {
    let mut found = Found::new();
    let mut newest: BTreeMap<Process, Cursor> = BTreeMap::new();
    for event in history.events() {
        let Event::Received { process, state } = event else {
            continue;
        };
        let now = *state.cursor();
        let Some(before) = newest.insert(*process, now) else {
            continue;
        };
        let (old, new) = (before.incarnation, now.incarnation);
        let goes_on =
            before.store == now.store && (new.number > old.number || new == old && now.revision >= before.revision);
        if !goes_on {
            let (from, to) = (before.revision, now.revision);
            found.push(format!(
                "{process:?} goes from {from}@{} to {to}@{}",
                old.number, new.number
            ));
        }
    }
    found
}

/// In the end everybody has received and uses the newest revision, and holds nothing but what this build cannot read; but
/// for those whose history is another one: they have told so.
pub(super) fn convergence_10(history: &History) -> Found {
    let mut found = Found::new();
    let (mut newest, mut received, mut in_use) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut refusals = BTreeMap::new();
    for event in history.events() {
        match event {
            Event::Started { process, .. } => {
                newest.insert(process.router, *process);
            }
            Event::Received { process, state } => {
                received.insert(*process, state);
            }
            Event::InUse {
                process,
                applied,
                catalog,
            } => {
                in_use.insert(*process, (applied, catalog));
            }
            Event::Reported { process, report, .. } => {
                refusals.insert(*process, report.history_refusal.as_ref().map(HistoryRefusal::why));
            }
            Event::Stopped { head, state } => {
                for process in newest.values() {
                    let has = received.get(process);
                    let is_elsewhere = has.is_some_and(|has| !goes_on(has.cursor(), head, history));
                    if is_elsewhere && refusals[process].is_some() {
                        continue;
                    }
                    if !has.is_some_and(|has| has.cursor() == &**head) {
                        let at = has.map(|has| has.cursor().revision);
                        found.push(format!("{process:?} has received {at:?} of {}", head.revision));
                    } else if has.map(|has| plain_of_received(has)) != Some(plain_of_state(state)) {
                        found.push(format!("{process:?} has another state than the registry"));
                    }
                    let used = in_use.get(process);
                    let is_all_used = |applied: &Applied| applied.held.iter().all(|held| is_skew(held, state));
                    if !used.is_some_and(|(applied, catalog)| catalog.cursor == **head && is_all_used(applied)) {
                        let used = used.map(|(applied, catalog)| (catalog.cursor.revision, &applied.held));
                        found.push(format!("{process:?} uses {used:?} of {}", head.revision));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Whether a registry at `head` may send what comes after `own`.
fn goes_on(own: &Cursor, head: &Cursor, history: &History) -> bool {
    let is_same = own.store == head.store && own.revision <= head.revision;
    if own.incarnation != head.incarnation {
        return own.store == head.store && own.incarnation.number < head.incarnation.number;
    }
    let serving = history.events().filter_map(|event| match event {
        Event::Healed { run } => Some(*run),
        _ => None,
    });
    let serving = serving.last();
    let mut volume = None;
    let mut places = BTreeMap::new();
    for event in history.events() {
        match event {
            Event::Began { run, volume: of, .. } if Some(*run) == serving => volume = Some(*of),
            Event::Durable {
                volume, places: new, ..
            } => {
                places
                    .entry(*volume)
                    .or_insert_with(BTreeMap::new)
                    .extend(new.iter().copied());
            }
            _ => {}
        }
    }
    let places = volume.and_then(|volume| places.remove(&volume)).unwrap_or_default();
    let floor = places.keys().next();
    // Below what the volume held when it was first seen, nobody can tell.
    is_same && (places.get(&own.revision) == Some(&own.chain) || floor.is_some_and(|floor| own.revision < *floor))
}

/// A router uses only what it has received whole and found good.
pub(super) fn last_good_stays_11(history: &History) -> Found {
    let mut found = Found::new();
    let mut received: BTreeMap<Process, Vec<Cursor>> = BTreeMap::new();
    for event in history.events() {
        match event {
            Event::Received { process, state } => received.entry(*process).or_default().push(*state.cursor()),
            Event::InUse { process, catalog, .. } => {
                let has = received.get(process);
                if !has.is_some_and(|has| has.contains(&catalog.cursor)) {
                    found.push(format!(
                        "{process:?} uses {} without having it",
                        catalog.cursor.revision
                    ));
                }
            }
            _ => {}
        }
    }
    found
}

/// A call carries the token that was set under the credential's id, to its origins only, and none of a model that is
/// deleted, disabled or without its credential.
pub(super) fn right_token_23(history: &History) -> Found {
    let mut found = Found::new();
    let mut tokens = BTreeMap::new();
    for state in history.states() {
        for credential in state.credentials.values() {
            if let ModelCredential::Set(set) = credential {
                tokens.insert(set.id, set);
            }
        }
    }
    for event in history.events() {
        let Event::InUse { process, catalog, .. } = event else {
            continue;
        };
        let Some(truth) = history.truth(&catalog.cursor) else {
            continue;
        };
        for model in callable(catalog) {
            let name = &model.name;
            let mut wrong = |what: &str| {
                found.push(format!("{process:?} at {}: {name} {what}", catalog.cursor.revision));
            };
            let Some(newest) = entry(truth, name) else {
                wrong("is called though it is deleted");
                continue;
            };
            if newest.model.as_ref().unwrap().disabled() {
                wrong("is called though it is disabled");
            }
            let Some(credential) = &model.credential else { continue };
            if newest.credential.as_ref().unwrap().state() != CredentialState::Set {
                wrong("carries a token that was taken back");
            }
            match tokens.get(&credential.id) {
                Some(set) if set.token.expose() == credential.token.expose() => {
                    let mut origins = model.spec.servers().iter().map(|endpoint| endpoint.uri.origin());
                    if !origins.all(|origin| set.origins.contains(&origin)) {
                        wrong("carries its token to an origin that it is not for");
                    }
                }
                Some(_) | None => wrong("carries another token than was set"),
            }
        }
    }
    found
}

/// Every model that a call may come to.
fn callable(catalog: &Catalog) -> Vec<&CompiledModel> {
    let decisions = FEATURES
        .iter()
        .filter_map(|feature| catalog.resolve(feature, &Caller::default()).ok());
    let models = decisions.flat_map(|decision| {
        let candidates: Vec<_> = catalog.candidates(&decision).collect();
        candidates
    });
    models
        .filter_map(|candidate| candidate.model.ok())
        .map(|model| &**model)
        .collect()
}
