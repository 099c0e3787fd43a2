//! The beginning of a new life of the store: it is queued, decided and made durable like a write.

use std::time::SystemTime;

use switchboard::{
    history::Incarnation,
    names::{Revision, StoreId},
};
use tokio::sync::oneshot;

use super::{
    CommitError,
    job::{Draft, Job},
};
use crate::domain::{life::NewLife, repeat::RepeatKey};

/// A life that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BegunLife {
    /// Id of the store.
    pub store: StoreId,
    /// Number and id of the life.
    pub incarnation: Incarnation,
    /// First revision of the life.
    pub revision: Revision,
}

/// A request for a new life, together with the caller that waits for it.
#[derive(Debug)]
pub(super) struct LifeRequest {
    new: NewLife,
    begun: Option<BegunLife>,
    reply: oneshot::Sender<Result<BegunLife, CommitError>>,
}

impl LifeRequest {
    pub(super) const fn new(new: NewLife, reply: oneshot::Sender<Result<BegunLife, CommitError>>) -> Self {
        Self {
            new,
            begun: None,
            reply,
        }
    }
}

impl Job for LifeRequest {
    fn repeat_key(&self) -> Option<&RepeatKey> {
        None
    }

    fn judge(&mut self, draft: &mut Draft, now: SystemTime) {
        draft.revisions.push(draft.state.begin_life(&self.new, now));
        let items = &draft.state.items;
        self.begun = Some(BegunLife {
            store: items.store(),
            incarnation: items.incarnation(),
            revision: items.revision(),
        });
    }

    fn answer(self: Box<Self>) {
        let _gone = self.reply.send(self.begun.ok_or(CommitError::OutcomeUnknown));
    }

    fn fail(self: Box<Self>, error: CommitError) {
        let _gone = self.reply.send(Err(error));
    }
}
