//! Checks what routers receive and use.

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

/// The newest version of each model that was in force at a process, by process, life of the store, model name and
/// create revision.
type InForce = BTreeMap<(Process, IncarnationId, ModelName, Revision), Revision>;

/// The state that a router has received is the state that the registry published at that cursor. Its catalog is that
/// state, except that a held model is in an earlier version of the same life, which is not older than a version that
/// was in force. A router never reports a catalog that it does not use.
pub(super) fn atomic_3(history: &History) -> Found {
    let mut found = Found::new();
    let mut had: BTreeMap<Process, Vec<&Received>> = BTreeMap::new();
    let mut in_force = InForce::new();
    for event in history.events() {
        match event {
            Event::Received { process, state } => {
                had.entry(*process).or_default().push(state);
                let Some(truth) = history.truth(state.cursor()) else {
                    found.push(format!("{process:?} has received a state that was never published"));
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
                        "{process:?} reports a catalog that it does not use: {revisions:?}"
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
        found.push("`inference_paused` differs".to_owned());
    }
    for (name, state) in &catalog.models {
        let Some(newest) = entry(truth, name) else { continue };
        if newest.model.as_ref().unwrap().disabled() != matches!(state, ModelState::Disabled) {
            found.push(format!("{name} is disabled in only one of registry and router"));
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
                // Only states that this router received count: a copy of the volume can have different revisions with
                // the same number.
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
            Some(_) => found.push(format!(
                "{name} differs from the version that was written, held {}",
                held.is_some()
            )),
            None => found.push(format!("{name} is held at a version that was never received")),
        }
    }
    found
}

/// Finds models that take calls in a version older than one that was in force. A version is in force once it is not
/// held, even if it takes no calls; a version that disables the model is in force immediately.
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
                "{name} is called in version {}, although {newest} was in force",
                held.used_revision
            )),
            _ => {}
        }
    }
    found
}

/// Whether a model in use is this version. A held model may have lost its credential since.
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

/// The same cursor always has the same state, however often and in whatever way a router receives it.
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

/// The state that a process has received never goes back, and never changes to another store.
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

/// In the end every router has received and uses the newest revision, and holds only resources that this build cannot
/// read. The exception are routers that follow another history: they must have reported that.
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
                        found.push(format!("{process:?} has received {at:?} instead of {}", head.revision));
                    } else if has.map(|has| plain_of_received(has)) != Some(plain_of_state(state)) {
                        found.push(format!("{process:?} has a different state than the registry"));
                    }
                    let used = in_use.get(process);
                    let is_all_used = |applied: &Applied| applied.held.iter().all(|held| is_skew(held, state));
                    if !used.is_some_and(|(applied, catalog)| catalog.cursor == **head && is_all_used(applied)) {
                        let used = used.map(|(applied, catalog)| (catalog.cursor.revision, &applied.held));
                        found.push(format!("{process:?} uses {used:?} instead of {}", head.revision));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Whether a registry at `head` may send the changes after `own`.
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
    // Nothing is known about revisions below those that the volume held when it was first logged.
    is_same && (places.get(&own.revision) == Some(&own.chain) || floor.is_some_and(|floor| own.revision < *floor))
}

/// A router uses only states that it has received completely and verified.
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
                        "{process:?} uses {} without having received it",
                        catalog.cursor.revision
                    ));
                }
            }
            _ => {}
        }
    }
    found
}

/// A call carries the token that was set under the credential's id, and only to the token's origins. No call carries a
/// token of a model that is deleted, disabled or without a credential.
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
                wrong("is called although it is deleted");
                continue;
            };
            if newest.model.as_ref().unwrap().disabled() {
                wrong("is called although it is disabled");
            }
            let Some(credential) = &model.credential else { continue };
            if newest.credential.as_ref().unwrap().state() != CredentialState::Set {
                wrong("carries a token that was removed");
            }
            match tokens.get(&credential.id) {
                Some(set) if set.token.expose() == credential.token.expose() => {
                    let mut origins = model.spec.servers().iter().map(|endpoint| endpoint.uri.origin());
                    if !origins.all(|origin| set.origins.contains(&origin)) {
                        wrong("sends its token to an origin that the token is not bound to");
                    }
                }
                Some(_) | None => wrong("carries a token other than the one that was set"),
            }
        }
    }
    found
}

/// Returns every model that a call can be sent to.
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
