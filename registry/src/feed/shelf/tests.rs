use super::*;
use crate::testing::History;

const VIEW: View = View::Router;
const SECOND: Duration = Duration::from_secs(1);

fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap()
}

/// Returns a claim to a snapshot of the newest state.
fn snapshot(shelf: &Shelf, history: &History, now: Instant) -> Share {
    let state = history.state();
    shelf.snapshot(VIEW, state.items.revision(), &state, now)
}

fn claim(share: Share) -> Weak<Run> {
    match share {
        Share::Several(run) => run,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_snapshot_is_shared_with_readers_that_need_no_later_revision() {
    let history = History::with_revisions(2);
    let (shelf, now) = (Shelf::default(), Instant::now());
    let first = claim(snapshot(&shelf, &history, now));
    history.commit([("models/b", 1)]);
    let state = history.state();
    let again = claim(shelf.snapshot(VIEW, revision(2), &state, now));
    assert!(first.ptr_eq(&again));
    for (view, needed) in [(VIEW, 3), (View::Config, 2)] {
        let other = claim(shelf.snapshot(view, revision(needed), &state, now));
        assert!(!first.ptr_eq(&other));
    }
    // A snapshot below the floor cannot be followed by deltas.
    history.compact(3);
    let later = claim(shelf.snapshot(VIEW, revision(2), &history.state(), now));
    assert!(!first.ptr_eq(&later));
}

#[test]
fn few_snapshots_are_kept_and_each_for_its_full_reading_time() {
    let history = History::with_revisions(1);
    let (shelf, now) = (Shelf::default(), Instant::now());
    let mut readers: Vec<_> = (0..4)
        .map(|second| {
            history.commit([("models/a", 1)]);
            claim(snapshot(&shelf, &history, now + second * SECOND))
        })
        .collect();
    history.commit([("models/a", 1)]);
    let Share::Busy(until) = snapshot(&shelf, &history, now + 4 * SECOND) else {
        panic!("four snapshots are being read")
    };
    assert_eq!(until, now + READ_WITHIN);

    // A snapshot without readers makes room at once.
    let unread = readers.remove(2);
    drop(unread);
    readers.push(claim(snapshot(&shelf, &history, now + 4 * SECOND)));
    assert!(readers.iter().all(|reader| reader.upgrade().is_some()));

    // A snapshot whose reading time is over is dropped, even if a reader has not finished.
    history.commit([("models/a", 1)]);
    readers.push(claim(snapshot(&shelf, &history, until)));
    let lives: Vec<bool> = readers.iter().map(|reader| reader.upgrade().is_some()).collect();
    assert_eq!(lives, [false, true, true, true, true]);
}

#[test]
fn recent_deltas_are_bounded_by_count_and_by_bytes() {
    let history = History::with_revisions(1);
    let (shelf, now) = (Shelf::default(), Instant::now());
    for size in [1, 50_000] {
        for _ in 0..RECENT_MAX * 2 {
            let from = history.state().items.revision();
            history.commit([("models/a", size)]);
            let share = shelf.delta(VIEW, from, &history.state(), now);
            assert!(matches!(share, Share::Single(_)));
        }
        let kept = shelf.lock();
        let bytes: usize = kept.recent.iter().map(|recent| recent.bytes.len()).sum();
        assert_eq!(kept.recent_bytes, bytes);
        assert!(kept.recent.len() <= RECENT_MAX && bytes <= RECENT_BYTES_MAX);
        assert!(kept.recent.len() == RECENT_MAX || bytes > RECENT_BYTES_MAX / 2);
    }
}

#[tokio::test(start_paused = true)]
async fn snapshots_start_in_turns() {
    let shelf = Shelf::default();
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(shelf.start().await);
    }
    let mut next = std::pin::pin!(shelf.start());
    assert!(futures_util::poll!(&mut next).is_pending());
    starts.pop();
    assert!(futures_util::poll!(&mut next).is_ready());
    let begin = Instant::now();
    starts[0].over().await;
    assert_eq!(begin.elapsed(), READ_WITHIN);
}
