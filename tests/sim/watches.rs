//! A watcher that follows a registry for a while, resumes from its cursor later, and sometimes accepts a snapshot.

use fastrand::Rng;
use futures_util::StreamExt as _;
use prost::Message as _;
use switchboard::{
    history::Cursor,
    pb::registry::{self, subscribe_response::Kind},
    stream::Resume,
};
use switchboard_registry::feed::{FeedError, stream::Frames};

use crate::{
    history::{Actor, Event},
    mutants::Mutant,
    network::Network,
    registry::RunLink,
    time::between,
};

/// The actor class of the watcher.
const CLASS: u64 = 3;

/// Follows one registry after the other until it is dropped.
pub(crate) async fn keep_watching(network: Network, seed: u64) {
    let mut random = Rng::with_seed(seed);
    let mut resume: Option<Cursor> = None;
    let mut takes_snapshot = false;
    loop {
        network.clock.pause(CLASS, between(&mut random, 50, 3_000)).await;
        let address = usize::from(random.u8(..4) == 0);
        let run = network.at(address).filter(|run| !run.dead.is_cancelled());
        let Some(run) = run else { continue };
        if random.u8(..6) == 0 {
            resume = None;
        }
        let include_snapshot = takes_snapshot || random.bool();
        let stream = network.next_stream();
        let event = Event::Watched {
            stream,
            run: run.number,
            resume,
            include_snapshot,
        };
        network.log.write(Actor::Down(stream), event);
        let frames = watch(&run, resume, include_snapshot, network.mutant);
        // A watcher that is refused without a snapshot asks for one next time.
        takes_snapshot = frames.is_err();
        let why = match frames {
            Ok(frames) => {
                let most = random.u64(1_000..30_000);
                let dead = run.dead.clone();
                tokio::select! {
                    biased;
                    () = dead.cancelled() => "reset",
                    () = network.clock.pause(CLASS, between(&mut random, 0, most)) => "by the watcher",
                    () = follow(&network, &run, stream, frames, seed ^ most, &mut resume) => "cleanly",
                }
            }
            Err(_refused) => "refused",
        };
        network.log.write(Actor::Down(stream), Event::Closed { stream, why });
    }
}

fn watch(
    run: &RunLink,
    resume: Option<Cursor>,
    include_snapshot: bool,
    mutant: Option<Mutant>,
) -> Result<Frames, FeedError> {
    if mutant == Some(Mutant::WatchedFromNow) && resume.is_some() {
        return run.feed.watch(Resume::Nothing, false);
    }
    run.feed
        .watch(resume.map_or(Resume::Nothing, Resume::At), include_snapshot)
}

/// Reads the stream, mostly without delay, and records its position.
async fn follow(
    network: &Network,
    run: &RunLink,
    stream: usize,
    mut frames: Frames,
    seed: u64,
    resume: &mut Option<Cursor>,
) {
    let mut random = Rng::with_seed(seed);
    while let Some(Ok(frame)) = frames.next().await {
        // The kinds of a watcher's messages have the same field numbers as those of a router's messages.
        let message = registry::SubscribeResponse::decode(frame.encode()).unwrap();
        let at = match &message.kind {
            Some(Kind::SnapshotEnd(end)) => end.at.as_ref(),
            Some(Kind::Delta(delta)) if !delta.more => delta.to.as_ref(),
            Some(Kind::Bookmark(bookmark)) => bookmark.at.as_ref(),
            _ => None,
        };
        if let Some(at) = at {
            *resume = Some(Cursor::try_from(at).unwrap());
        }
        let said = Event::Said {
            stream,
            run: run.number,
            message,
        };
        network.log.write(Actor::Down(stream), said);
        let most = if random.u8(..8) == 0 { 4_000 } else { 20 };
        network.clock.pause(CLASS, between(&mut random, 1, most)).await;
    }
}
