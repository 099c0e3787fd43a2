//! A caller behind a proxy whose HTTP/2 library counts small unread frames, and ends the whole connection if there are
//! too many of them.
#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its measurements"
)]

use std::time::Duration;

use switchboard::pb::router::{delta::Kind, stream_infer_response::Event};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, number, percentile, prompt},
    peer::{Method, Peer, Stream},
};

/// The streams of one connection, some of which stop reading.
#[derive(Debug, Clone, Copy)]
struct Load {
    streams: usize,
    stalled: usize,
    /// Interval between two pieces, for streams that are read and for streams that are not.
    pace: (Duration, Duration),
    length: Duration,
    pads: bool,
}

impl Load {
    /// A thousand pieces per second in total for the readers, no padding, and one stalled stream.
    fn new(streams: usize, length: Duration) -> Self {
        let pace = Duration::from_millis(1) * u32::try_from(streams).unwrap();
        Self {
            streams,
            stalled: 1,
            pace: (pace, Duration::from_millis(1)),
            length,
            pads: false,
        }
    }
}

/// A piece as short as models send them: the shorter the pieces, the more of them are unread before back-pressure
/// begins.
fn piece(number: usize) -> String {
    format!("piece {number:>8} ")
}

fn count(length: Duration, every: Duration) -> usize {
    usize::try_from(length.as_micros() / every.as_micros()).unwrap()
}

/// Reads an answer to its end. Returns its text and adds the time between messages to `gaps`.
async fn read(stream: &mut Stream, gaps: &mut Vec<Duration>) -> Result<String, h2::Error> {
    let mut text = String::new();
    let mut last = Instant::now();
    while let Some(message) = stream.message().await? {
        match message.event.unwrap() {
            Event::Delta(delta) => {
                if let Some(Kind::Text(piece)) = delta.kind {
                    text.push_str(&piece);
                }
            }
            Event::Selection(_) | Event::Completion(_) => {}
        }
        let now = Instant::now();
        gaps.push(now - last);
        last = now;
    }
    Ok(text)
}

/// Plays a load and returns the times between messages of the readers. Checks every text, in the end also of stalled
/// streams.
async fn play(load: Load) -> Result<Vec<Duration>, h2::Error> {
    let script = |every| {
        let begun = Script::stream().pieces(piece, count(load.length, every), every);
        begun.finish("stop").usage(3, 2).done().end()
    };
    let text = |every| -> String { (0..count(load.length, every)).map(piece).collect() };
    let (read_pace, stalled_pace) = load.pace;
    let upstream = FakeUpstream::always(script(read_pace)).await;
    let router = Setup::at(upstream.url())
        .limits(|limits| limits.patience.slow_caller = Duration::from_secs(600))
        .padding(load.pads)
        .start()
        .await;
    let mut peer = Peer::connect(router.address).await;
    let mut unread = Vec::new();
    for _ in 0..load.stalled {
        upstream.then(script(stalled_pace));
        unread.push(peer.call(Method::StreamInfer, &prompt("hi")).await.begun().await?);
    }
    let mut readers = JoinSet::new();
    for _ in load.stalled..load.streams {
        let call = peer.call(Method::StreamInfer, &prompt("hi")).await;
        readers.spawn(async move {
            let mut gaps = Vec::new();
            let text = read(&mut call.begun().await?, &mut gaps).await?;
            Ok::<_, h2::Error>((text, gaps))
        });
    }
    let mut gaps = Vec::new();
    for ended in readers.join_all().await {
        let (read, some) = ended?;
        assert!(read == text(read_pace), "the text of a reader is byte-exact");
        gaps.extend(some);
    }
    for mut stream in unread {
        let read = read(&mut stream, &mut Vec::new()).await?;
        assert!(read == text(stalled_pace), "the text of a stalled stream is byte-exact");
    }
    peer.ended().map_or(Ok(()), Err)?;
    router.settled().await;
    Ok(gaps)
}

/// One stalled stream among many: `SWITCHBOARD_TEST_STALL_SECS` sets how long it stalls, `SWITCHBOARD_TEST_STREAMS` the
/// number of streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_barely_slows_the_other_streams_of_its_connection() {
    let length = Duration::from_secs(number("SWITCHBOARD_TEST_STALL_SECS", 5));
    let streams = number("SWITCHBOARD_TEST_STREAMS", 20);
    let load = Load {
        pads: true,
        ..Load::new(streams, length)
    };
    let alone = Load {
        stalled: 0,
        length: length / 2,
        ..load
    };
    let before = percentile(&play(alone).await.unwrap(), 99);
    let beside = percentile(&play(load).await.unwrap(), 99);
    eprintln!("p99 between two pieces: {before:?} without a stalled stream, {beside:?} with one of {streams} stalled");
    assert!(beside < before + Duration::from_millis(200), "{beside:?}, {before:?}");
}

/// The failure that padding prevents.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_padding_small_unread_messages_end_the_connection() {
    let load = Load {
        stalled: 4,
        ..Load::new(8, Duration::from_secs(10))
    };
    let begun = Instant::now();
    let error = play(load).await.unwrap_err();
    eprintln!(
        "without padding the connection ends after {:?}: {error}",
        begun.elapsed()
    );
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
}
