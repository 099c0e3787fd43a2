//! What of an answer waits for its caller: so much that most whole answers fit, and no more.
//!
//! The model's server is read eagerly into it, so that a slow caller does not hold a place on the GPU. While the caller
//! keeps up each piece goes out by itself; behind a caller that does not, neighbours of one kind grow together.
//!
//! The one hard idea: the memory of all answers has a bound of its own, and a stream whose caller has taken everything may
//! go on whatever the others hold. So slow callers cannot stop quick ones, and nobody waits for anybody but his own caller.

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

/// A caller with fewer pieces than this before it keeps up: about as many come with one read of the network.
const KEEPS_UP: usize = 32;
/// What a piece costs beside its bytes, so that tiny ones cannot fill the memory.
const PIECE_COST: usize = 256;

/// How many bytes wait for callers.
#[derive(Debug, Clone, Copy)]
pub struct PendingLimits {
    /// Of one answer.
    pub stream: usize,
    /// Of all answers of the process.
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

/// Why a piece was not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingError {
    /// The caller is gone.
    Gone,
    /// The caller took nothing for this long.
    TooSlow(Duration),
}

/// The memory of all answers that wait.
#[derive(Debug, Clone)]
pub struct Pool {
    limits: PendingLimits,
    used: Arc<AtomicUsize>,
}

impl Pool {
    /// A pool in which nothing waits.
    #[must_use]
    pub fn new(limits: PendingLimits) -> Self {
        Self {
            limits,
            used: Arc::default(),
        }
    }

    /// The two ends of one answer.
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
    /// There is something to take, or nothing will come.
    readable: Notify,
    /// Something was taken.
    taken: Notify,
    /// The caller is gone.
    gone: Notify,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<PendingPiece>,
    charged: usize,
    /// Nothing will come.
    is_ended: bool,
    /// Nobody will take anything.
    is_gone: bool,
}

struct PendingPiece {
    delta: AnswerDelta,
    /// How many events of the model are in it.
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

    /// Takes a piece over, or gives it back where there is no room now.
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

/// The model's end of an answer. Dropped, nothing more comes.
#[derive(Debug)]
pub struct Sender(Arc<SharedBuffer>);

impl Sender {
    /// Hands a piece over, and waits for room as long as the caller takes something within `patience`.
    ///
    /// # Errors
    ///
    /// [`PendingError`]; the piece is lost.
    ///
    /// # Cancel safety
    ///
    /// The piece is lost unless it was handed over.
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

    /// Waits until the caller has taken everything, as long as it takes something within `patience`.
    ///
    /// # Errors
    ///
    /// [`PendingError`].
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

    /// Throws away what waits: nobody takes it in time.
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

/// The caller's end of an answer. Dropped, the caller is gone.
#[derive(Debug)]
pub struct Receiver(Arc<SharedBuffer>);

impl Receiver {
    /// The next piece, and how many events of the model are in it. `None`: nothing more comes.
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
