//! Hedging: a second attempt in parallel with the first, for calls whose caller waits after every keystroke.

use std::time::Duration;

use switchboard::service::request_id::RequestId;

use super::{ATTEMPTS_MAX, Walk};
use crate::{
    call::{Calls, attempt::Attempt},
    live::Slot,
    permits::Party,
    prompt::Input,
};

/// The maximum size in bytes of a request that is hedged. Requests to complete code have no such limit.
const SHORT: usize = 4096;

/// A second attempt in parallel with the current one, and its place at the model.
#[derive(Debug)]
pub(in crate::call) struct Hedge<'a> {
    pub(in crate::call) attempt: Attempt<'a>,
    pub(in crate::call) slot: Slot,
}

impl Walk {
    /// Returns the delay after which a second attempt may begin in parallel with the one that has just begun. `None`:
    /// there is no second attempt.
    pub(in crate::call) fn hedge_delay(&self) -> Option<Duration> {
        let delay = self.catalog.hedge_delay(&self.decision)?;
        let stop = self.stop.as_ref()?;
        let is_short = matches!(self.request.input, Input::Infill(_)) || stop.post.bytes() <= SHORT;
        let may_hedge = self.attempts < ATTEMPTS_MAX && self.request.tools.list.is_empty() && is_short;
        may_hedge.then_some(delay)
    }

    /// Begins a second attempt at another server of the current model, if the model has a free place that is not
    /// reserved, and the hedge budget of the model that the call was resolved to allows it.
    pub(in crate::call) fn hedge<'a>(&mut self, calls: &'a Calls, request_id: &'a RequestId) -> Option<Hedge<'a>> {
        let catalog = &self.catalog;
        let party = Party {
            feature: self.decision.source_feature,
            has_reservation: false,
        };
        let slot = self.stop.as_ref()?.live.place_now(catalog, party)?;
        let server = self.next_server()?;
        if !self.retries.as_ref()?.hedge() {
            return None;
        }
        let attempt = self.begin(calls, request_id, server)?;
        Some(Hedge { attempt, slot })
    }

    /// Keeps the place of the attempt that answers. `hedge` is the place of the second attempt, if that one answers.
    pub(in crate::call) fn settle(&mut self, attempt: &mut Attempt<'_>, hedge: Option<Slot>) {
        attempt.selected.attempts = self.attempts;
        if let (Some(stop), Some(slot)) = (&mut self.stop, hedge) {
            stop._slot = slot;
        }
    }
}
