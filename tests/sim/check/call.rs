//! Checks what calls use.

use std::collections::BTreeMap;

use super::Found;
use crate::{
    calls::send,
    history::{Event, History},
};

/// Everything that a call uses comes from the catalog with which it began: the decision, the models, their servers and
/// tokens, and the revision that its caller receives.
pub(super) fn isolation_12(history: &History) -> Found {
    let mut found = Found::new();
    let mut began = BTreeMap::new();
    for event in history.events() {
        match event {
            Event::Called {
                process,
                call,
                feature,
                catalog,
            } => {
                let attempts = [0, 1].map(|attempt| send(catalog, feature, attempt));
                began.insert((*process, *call), attempts);
            }
            Event::Sent { process, call, sent } => {
                let right = &began[&(*process, *call)][sent.attempt];
                if sent != right {
                    found.push(format!("{process:?} in call {call}: {sent:?} instead of {right:?}"));
                }
            }
            _ => {}
        }
    }
    found
}
