//! Tests of what the buffer between a model and its caller guarantees.

use proptest::prelude::*;
use tokio::time::Instant;

use super::{
    super::coalesce::tests::{any_delta, borderless},
    *,
};
use crate::prompt::Text;

const PATIENCE: Duration = Duration::from_secs(30);
/// Short enough to wait for a timeout in a test.
const SHORT: Duration = Duration::from_millis(20);

fn text(text: &str) -> AnswerDelta {
    AnswerDelta::Text(Text::from(text.to_owned()))
}

fn pool(stream: usize, process: usize) -> Pool {
    Pool::new(PendingLimits { stream, process })
}

fn used(pool: &Pool) -> usize {
    pool.used.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_caller_that_keeps_up_gets_every_piece_by_itself() {
    let (sender, mut receiver) = Pool::new(PendingLimits::default()).answer();
    for _ in 0..KEEPS_UP {
        sender.push(text("x"), PATIENCE).await.unwrap();
    }
    drop(sender);
    let mut pieces = 0;
    while let Some(piece) = receiver.recv().await {
        assert_eq!(piece, (text("x"), 1));
        pieces += 1;
    }
    assert_eq!(pieces, KEEPS_UP);
}

#[tokio::test]
async fn pieces_are_merged_if_the_caller_does_not_keep_up() {
    let (sender, mut receiver) = Pool::new(PendingLimits::default()).answer();
    for _ in 0..10_000 {
        sender.push(text("x"), PATIENCE).await.unwrap();
    }
    drop(sender);
    let (mut pieces, mut events) = (0, 0);
    while let Some((_, more)) = receiver.recv().await {
        pieces += 1;
        events += more;
    }
    assert_eq!((pieces, events), (KEEPS_UP, 10_000));
}

#[tokio::test]
async fn a_full_stream_waits_for_its_caller_and_fails_without_progress() {
    let (sender, mut receiver) = pool(2 * (PIECE_COST + 1), usize::MAX).answer();
    sender.push(text("a"), PATIENCE).await.unwrap();
    sender.push(text("b"), PATIENCE).await.unwrap();
    let (pushed, taken) = tokio::join!(sender.push(text("c"), PATIENCE), receiver.recv());
    assert_eq!((pushed, taken), (Ok(()), Some((text("a"), 1))));

    let begun = Instant::now();
    let given_up = sender.push(text("d"), SHORT).await;
    assert_eq!(given_up, Err(PendingError::TooSlow(SHORT)));
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(sender.flushed(SHORT).await, Err(PendingError::TooSlow(SHORT)));
}

#[tokio::test]
async fn slow_callers_do_not_block_quick_ones() {
    let pool = pool(usize::MAX, PIECE_COST + 1);
    let (slow, _unread) = pool.answer();
    slow.push(text("a"), PATIENCE).await.unwrap();
    let refused = slow.push(text("b"), SHORT).await;
    assert_eq!(refused, Err(PendingError::TooSlow(SHORT)));

    let (quick, mut reader) = pool.answer();
    for _ in 0..3 {
        quick.push(text("c"), SHORT).await.unwrap();
        assert_eq!(reader.recv().await, Some((text("c"), 1)));
    }
}

#[tokio::test]
async fn a_piece_larger_than_the_whole_buffer_is_still_sent() {
    let (sender, mut receiver) = pool(1, 1).answer();
    sender.push(text("large"), PATIENCE).await.unwrap();
    assert_eq!(receiver.recv().await, Some((text("large"), 1)));
}

#[tokio::test]
async fn when_the_caller_leaves_the_sender_is_notified_and_the_memory_freed() {
    let pool = Pool::new(PendingLimits::default());
    let (sender, receiver) = pool.answer();
    sender.push(text("a"), PATIENCE).await.unwrap();
    drop(receiver);
    sender.closed().await;
    assert_eq!(sender.push(text("b"), PATIENCE).await, Err(PendingError::Gone));
    assert_eq!(sender.flushed(PATIENCE).await, Err(PendingError::Gone));
    assert_eq!(used(&pool), 0);
}

#[tokio::test]
async fn discarded_pieces_free_their_memory_and_are_never_received() {
    let pool = Pool::new(PendingLimits::default());
    let (sender, mut receiver) = pool.answer();
    sender.push(text("a"), PATIENCE).await.unwrap();
    sender.discard();
    assert_eq!(used(&pool), 0);
    drop(sender);
    assert_eq!(receiver.recv().await, None);
}

proptest! {
    /// Reads and writes in any order: the output equals the input, stays within the bounds, and all memory is released.
    #[test]
    fn the_answer_is_the_same_at_any_pace_of_the_caller(
        deltas in prop::collection::vec(any_delta(), 0..200),
        takes in prop::collection::vec(prop::bool::weighted(0.2), 200),
    ) {
        const STREAM: usize = 64 * PIECE_COST;
        let pool = pool(STREAM, usize::MAX);
        let (sender, mut receiver) = pool.answer();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut out = Vec::new();
            for (delta, takes) in deltas.iter().zip(takes) {
                let mut waiting = sender.0.offer(delta.clone());
                while let Err((delta, _)) = waiting {
                    out.push(receiver.recv().await.unwrap().0);
                    waiting = sender.0.offer(delta);
                }
                prop_assert!(used(&pool) <= STREAM);
                if takes && !sender.0.queue().pieces.is_empty() {
                    out.push(receiver.recv().await.unwrap().0);
                }
            }
            drop(sender);
            while let Some((delta, _)) = receiver.recv().await {
                out.push(delta);
            }
            prop_assert_eq!(borderless(&out), borderless(&deltas));
            prop_assert_eq!(used(&pool), 0);
            Ok(())
        })?;
    }
}
