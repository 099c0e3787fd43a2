//! The buffer between a model and its caller: large enough for most whole answers, with a fixed upper bound.
//!
//! The router reads eagerly from the model server into the buffer, so that a slow caller does not occupy the model.
//! While the caller keeps up, each piece is sent separately; if the caller falls behind, neighbouring pieces of one
//! kind are merged.
//!
//! The one hard idea: all buffers together have a memory bound of their own, but a stream with an empty buffer may
//! always add one piece, whatever the other streams hold. So a slow caller cannot block a quick one, and a stream waits
//! only for its own caller.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::timeout};

use super::coalesce;
use crate::upstream::dialect::AnswerDelta;

/// A caller keeps up if fewer pieces than this are pending: one read from the network delivers about as many.
const KEEPS_UP: usize = 32;
/// Fixed cost in bytes that is charged for each piece in addition to its content, so that tiny pieces cannot fill the
/// memory.
const PIECE_COST: usize = 256;

/// Upper bounds for the bytes of pending pieces.
#[derive(Debug, Clone, Copy)]
pub struct PendingLimits {
    /// For one answer.
    pub stream: usize,
    /// For all answers of the process.
    pub process: usize,
}

impl Default for PendingLimits {
    fn default() -> Self {
        Self {
            stream: 256 * 1024,
            process: 256 * 1024 * 1024,
        }
    }
}

/// Why a piece could not be added to the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingError {
    /// The caller cancelled the call or disconnected.
    Gone,
    /// The caller read nothing for this long.
    TooSlow(Duration),
}

/// Accounts for the memory of all pending pieces in the process.
#[derive(Debug, Clone)]
pub struct Pool {
    limits: PendingLimits,
    used: Arc<AtomicUsize>,
}

impl Pool {
    /// Creates a pool that holds nothing.
    #[must_use]
    pub fn new(limits: PendingLimits) -> Self {
        Self {
            limits,
            used: Arc::default(),
        }
    }

    /// Creates a buffer for one answer and returns its two ends.
    #[must_use]
    pub fn answer(&self) -> (Sender, Receiver) {
        let shared = Arc::new(SharedBuffer {
            pool: self.clone(),
            queue: Mutex::default(),
            readable: Notify::new(),
            taken: Notify::new(),
            gone: Notify::new(),
        });
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }

    fn charge(&self, cost: usize) {
        self.used.fetch_add(cost, Ordering::Relaxed);
    }

    fn has_room(&self, cost: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(cost) <= self.limits.process
    }

    fn release(&self, cost: usize) {
        self.used.fetch_sub(cost, Ordering::Relaxed);
    }
}

struct SharedBuffer {
    pool: Pool,
    queue: Mutex<Queue>,
    /// Signals that a piece is pending, or that no more pieces will come.
    readable: Notify,
    /// Signals that the caller has taken a piece.
    taken: Notify,
    /// Signals that the caller is gone.
    gone: Notify,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<PendingPiece>,
    charged: usize,
    /// Whether the sender was dropped: no more pieces will come.
    is_ended: bool,
    /// Whether the receiver was dropped: no more pieces will be taken.
    is_gone: bool,
}

struct PendingPiece {
    delta: AnswerDelta,
    /// Number of model events that were merged into the piece.
    events: u64,
    charged: usize,
}

impl SharedBuffer {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    fn clear(&self) {
        let mut queue = self.queue();
        self.pool.release(queue.charged);
        queue.charged = 0;
        queue.pieces.clear();
    }

    /// Adds a piece, or returns it if there is no room at the moment. The flag is true if the caller is gone.
    fn offer(&self, delta: AnswerDelta) -> Result<(), (AnswerDelta, bool)> {
        let mut queue = self.queue();
        if queue.is_gone {
            return Err((delta, true));
        }
        let bytes = coalesce::bytes(&delta);
        let has_room = |queue: &Queue, cost| {
            queue.pieces.is_empty() || (queue.charged + cost <= self.pool.limits.stream && self.pool.has_room(cost))
        };
        let mut delta = delta;
        if queue.pieces.len() >= KEEPS_UP
            && has_room(&queue, bytes)
            && let Some(last) = queue.pieces.back_mut()
        {
            match coalesce::join(&mut last.delta, delta) {
                Ok(()) => {
                    last.events += 1;
                    last.charged += bytes;
                    queue.charged += bytes;
                    self.pool.charge(bytes);
                    return Ok(());
                }
                Err(apart) => delta = apart,
            }
        }
        let cost = bytes + PIECE_COST;
        if !has_room(&queue, cost) {
            return Err((delta, false));
        }
        queue.pieces.push_back(PendingPiece {
            delta,
            events: 1,
            charged: cost,
        });
        queue.charged += cost;
        self.pool.charge(cost);
        drop(queue);
        self.readable.notify_one();
        Ok(())
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuffer").finish_non_exhaustive()
    }
}

/// The model's end of a buffer. Dropping it ends the answer: no more pieces come.
#[derive(Debug)]
pub struct Sender(Arc<SharedBuffer>);

impl Sender {
    /// Adds a piece. If there is no room, waits for it, as long as the caller takes at least one piece per `patience`.
    ///
    /// # Errors
    ///
    /// [`PendingError`]; the piece is lost.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it completes, the piece is lost.
    pub async fn push(&self, delta: AnswerDelta, patience: Duration) -> Result<(), PendingError> {
        let mut offered = self.0.offer(delta);
        loop {
            match offered {
                Ok(()) => return Ok(()),
                Err((_, true)) => return Err(PendingError::Gone),
                Err((delta, false)) => {
                    self.taken(patience).await?;
                    offered = self.0.offer(delta);
                }
            }
        }
    }

    /// Waits until the caller has taken every piece, as long as it takes at least one piece per `patience`.
    ///
    /// # Errors
    ///
    /// [`PendingError`] if the caller is gone or too slow.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn flushed(&self, patience: Duration) -> Result<(), PendingError> {
        loop {
            {
                let queue = self.0.queue();
                if queue.is_gone {
                    return Err(PendingError::Gone);
                }
                if queue.pieces.is_empty() {
                    return Ok(());
                }
            }
            self.taken(patience).await?;
        }
    }

    /// Waits until the caller is gone.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn closed(&self) {
        while !self.0.queue().is_gone {
            self.0.gone.notified().await;
        }
    }

    /// Discards the pending pieces, because the caller does not take them in time.
    pub fn discard(&self) {
        self.0.clear();
    }

    async fn taken(&self, patience: Duration) -> Result<(), PendingError> {
        timeout(patience, self.0.taken.notified())
            .await
            .map_err(|_elapsed| PendingError::TooSlow(patience))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.queue().is_ended = true;
        self.0.readable.notify_one();
    }
}

/// The caller's end of a buffer. Dropping it means that the caller is gone.
#[derive(Debug)]
pub struct Receiver(Arc<SharedBuffer>);

impl Receiver {
    /// Returns the next piece and the number of model events in it. `None`: no more pieces will come.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn recv(&mut self) -> Option<(AnswerDelta, u64)> {
        loop {
            {
                let mut queue = self.0.queue();
                if let Some(piece) = queue.pieces.pop_front() {
                    queue.charged -= piece.charged;
                    drop(queue);
                    self.0.pool.release(piece.charged);
                    self.0.taken.notify_one();
                    return Some((piece.delta, piece.events));
                }
                if queue.is_ended {
                    return None;
                }
            }
            self.0.readable.notified().await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.queue().is_gone = true;
        self.0.clear();
        self.0.gone.notify_one();
        self.0.taken.notify_one();
    }
}

#[cfg(test)]
mod tests;
