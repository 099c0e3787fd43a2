//! A call's place at a model, or its position in the queue.

use std::sync::Arc;

use super::ModelParts;
use crate::permits::{Party, places::Ticket};

/// A call's place at a model, or its position in the queue. Dropping it frees it for the next call.
#[derive(Debug)]
pub struct Slot {
    parts: Arc<ModelParts>,
    ticket: Option<Ticket<Party>>,
}

impl Slot {
    pub(super) const fn new(parts: Arc<ModelParts>, ticket: Ticket<Party>) -> Self {
        Self {
            parts,
            ticket: Some(ticket),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.parts.gate.lock().give_back(ticket);
        }
    }
}
