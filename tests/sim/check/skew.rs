//! Checks how routers treat resources that another build has written.

use std::collections::BTreeSet;

use switchboard::{history::Cursor, names::ResourceName, pb::registry::HeldWhy as Told};
use switchboard_registry::domain::state::State;
use switchboard_router::{
    catalog::{Catalog, ModelState},
    subscription::{
        apply::Applied,
        compile::{Held, HeldWhy},
    },
};

use super::Found;
use crate::{
    disk::skew::unreadable,
    history::{Event, History},
};

/// A resource that a router cannot read is refused and reported by its name and never used; no other resource is
/// refused. The checkers of received states verify that its bytes are present and that its digest is right.
pub(super) fn refused_by_name_20(history: &History) -> Found {
    let mut found = Found::new();
    for event in history.events() {
        match event {
            Event::InUse {
                process,
                applied,
                catalog,
            } => {
                let Some(truth) = history.truth(&catalog.cursor) else {
                    continue;
                };
                let wrong = wrong(truth, applied, catalog).into_iter();
                found.extend(wrong.map(|wrong| format!("{process:?} uses {}: {wrong}", catalog.cursor.revision)));
            }
            Event::Reported { process, report, .. } => {
                let applied = report.applied.as_ref().and_then(|wire| Cursor::try_from(wire).ok());
                let Some(truth) = applied.and_then(|at| history.truth(&at)) else {
                    continue;
                };
                let refused = report.held.iter().filter(|held| held.why() == Told::Refused);
                let told: BTreeSet<&str> = refused
                    .filter_map(|held| Some(&*held.item.as_ref()?.resource))
                    .collect();
                let right: BTreeSet<&str> = unreadable(truth).map(|item| &*item.key).collect();
                if told != right {
                    found.push(format!("{process:?} reports that it refuses {told:?}, not {right:?}"));
                }
            }
            _ => {}
        }
    }
    found
}

fn wrong(truth: &State, applied: &Applied, catalog: &Catalog) -> Found {
    let mut found = Found::new();
    for item in unreadable(truth) {
        let held = applied.held.iter().find(|held| held.name == item.name);
        if !held.is_some_and(|held| matches!(held.why, HeldWhy::Refused(_)) && held.revision == item.revision) {
            found.push(format!("{} is not refused", item.key));
        }
        if let ResourceName::Model(name) = &item.name
            && !matches!(catalog.models.get(name), Some(ModelState::NotReady))
        {
            found.push(format!("{} is used", item.key));
        }
    }
    let lasting = applied.held.iter().filter(|held| held.why.is_lasting());
    let needless = lasting.filter(|held| !unreadable(truth).any(|item| item.name == held.name));
    found.extend(needless.map(|held| format!("{} is refused: {}", held.name, held.why)));
    found
}

/// Whether a resource is held only because a router of this build cannot read it, or cannot read a model that it names.
pub(super) fn is_skew(held: &Held, truth: &State) -> bool {
    let name = match &held.why {
        HeldWhy::Refused(_) => held.name.clone(),
        HeldWhy::Dependency(model) => ResourceName::Model(model.clone()),
        HeldWhy::CapabilityMissing(_) | HeldWhy::CredentialPending => return false,
    };
    unreadable(truth).any(|item| item.name == name)
}
