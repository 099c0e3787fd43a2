//! The load of the clients: each client calls again when it is answered (closed loop), or calls begin at a fixed rate
//! (open loop).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use switchboard_comparison::process::own_cpu;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    ask::{Question, now},
    line::Line,
    process::PinnedProcess,
};

/// How long the load runs before a window begins.
const WARM_UP: Duration = Duration::from_millis(500);
/// The largest delay of a timer that is attributed to the client's runtime and not counted. Any further delay counts as
/// waiting time of the call.
const TIMER: Duration = Duration::from_millis(2);

/// The calls that each client repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Unary calls.
    Whole,
    /// Streamed calls with one token per interval; zero means as fast as possible.
    Stream(Duration),
}

impl Kind {
    fn question(self) -> Question {
        Question::paced(match self {
            Self::Whole => Duration::ZERO,
            Self::Stream(pace) => pace,
        })
    }

    const fn pace(self) -> Duration {
        match self {
            Self::Whole => Duration::ZERO,
            Self::Stream(pace) => pace,
        }
    }
}

/// Counts of answers and tokens.
#[derive(Debug, Default)]
struct Tally {
    answers: AtomicU64,
    tokens: AtomicU64,
    stop: AtomicBool,
    /// For each pair of successive tokens, by how many microseconds the relay widened the gap between them. `None`
    /// outside a window.
    gaps: Mutex<Option<Vec<f64>>>,
}

/// The results of one window of a closed loop.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) seconds: f64,
    pub(crate) answers: f64,
    pub(crate) tokens: f64,
    /// CPU time in seconds.
    pub(crate) relay: f64,
    pub(crate) model: f64,
    pub(crate) load: f64,
    pub(crate) gaps: Vec<f64>,
}

impl Window {
    /// An empty window.
    pub(crate) const NONE: Self = Self {
        seconds: 0.0,
        answers: 0.0,
        tokens: 0.0,
        relay: 0.0,
        model: 0.0,
        load: 0.0,
        gaps: Vec::new(),
    };
}

/// A running closed loop.
#[derive(Debug)]
pub(crate) struct Closed {
    tally: Arc<Tally>,
    clients: JoinSet<Result<()>>,
}

impl Closed {
    /// Starts the loop: each line calls again as soon as it is answered. The lines begin one after the other, spread
    /// over the interval of one token.
    pub(crate) fn begin(lines: Vec<Line>, kind: Kind) -> Self {
        let tally = Arc::new(Tally::default());
        let mut clients = JoinSet::new();
        let question = Arc::new(kind.question());
        let step = kind.pace() / u32::try_from(lines.len().max(1)).unwrap_or(u32::MAX);
        let mut begin = Instant::now();
        for line in lines {
            clients.spawn(client(line, kind, begin, Arc::clone(&question), Arc::clone(&tally)));
            begin += step;
        }
        Self { tally, clients }
    }

    /// Measures one window. Returns an error if any call fails in it.
    pub(crate) async fn window(
        &mut self,
        length: Duration,
        relay: Option<&PinnedProcess>,
        model: &PinnedProcess,
    ) -> Result<Window> {
        sleep(WARM_UP).await;
        let of_relay = || relay.map(PinnedProcess::cpu).transpose().map(Option::unwrap_or_default);
        *self.tally.gaps.lock() = Some(Vec::new());
        let before = (of_relay()?, model.cpu()?, own_cpu()?, self.counts(), Instant::now());
        sleep(length).await;
        let after = (of_relay()?, model.cpu()?, own_cpu()?, self.counts(), Instant::now());
        let gaps = self.tally.gaps.lock().take();
        self.check()?;
        Ok(Window {
            seconds: (after.4 - before.4).as_secs_f64(),
            answers: count(after.3.0 - before.3.0),
            tokens: count(after.3.1 - before.3.1),
            relay: (after.0 - before.0).as_secs_f64(),
            model: (after.1 - before.1).as_secs_f64(),
            load: (after.2 - before.2).as_secs_f64(),
            gaps: gaps.unwrap_or_default(),
        })
    }

    /// Stops the clients and waits until all running calls are answered.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.tally.stop.store(true, Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Cancels all running calls.
    pub(crate) async fn leave(mut self) -> Result<()> {
        self.check()?;
        self.clients.shutdown().await;
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        while let Some(ended) = self.clients.try_join_next() {
            ended??;
        }
        Ok(())
    }

    fn counts(&self) -> (u64, u64) {
        (self.tally.answers.load(Relaxed), self.tally.tokens.load(Relaxed))
    }
}

async fn client(mut line: Line, kind: Kind, begin: Instant, question: Arc<Question>, tally: Arc<Tally>) -> Result<()> {
    sleep_until(begin).await;
    while !tally.stop.load(Relaxed) {
        match kind {
            Kind::Whole => line.whole(&question).await?,
            Kind::Stream(_) => {
                let mut before: Option<(u64, u64)> = None;
                let saw = |sent| {
                    tally.tokens.fetch_add(1, Relaxed);
                    let came = now();
                    if let Some((sent_before, came_before)) = before
                        && let Some(gaps) = &mut *tally.gaps.lock()
                    {
                        let (came_after, sent_after) = (came - came_before, sent - sent_before);
                        gaps.push(count(came_after.saturating_sub(sent_after)) / 1e3);
                    }
                    before = Some((sent, came));
                };
                line.stream(&question, saw).await?;
            }
        }
        tally.answers.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// Begins calls at a fixed rate for a while, whether or not earlier calls are answered. Returns the microseconds of
/// each call: until the answer if it is unary, or until the first token.
pub(crate) async fn open(mut idle: Vec<Line>, kind: Kind, rate: u32, length: Duration) -> Result<Vec<f64>> {
    let question = Arc::new(kind.question());
    let mut calls: JoinSet<Result<(Line, f64)>> = JoinSet::new();
    let mut taken = Vec::new();
    let begin = Instant::now() + WARM_UP;
    let planned = (length.as_secs_f64() * f64::from(rate)).round();
    let mut place = 0_u32;
    while f64::from(place) < planned {
        let due = begin + Duration::from_secs(1) * place / rate;
        sleep_until(due).await;
        while let Some(ended) = calls.try_join_next() {
            let (line, micros) = ended??;
            taken.push(micros);
            idle.push(line);
        }
        let line = idle.pop().context("all lines are busy: the rate is too high")?;
        calls.spawn(one(line, kind, Arc::clone(&question), due));
        place += 1;
    }
    while let Some(ended) = calls.join_next().await {
        taken.push(ended??.1);
    }
    Ok(taken)
}

async fn one(mut line: Line, kind: Kind, question: Arc<Question>, due: Instant) -> Result<(Line, f64)> {
    let begun = Instant::now().min(due + TIMER);
    let mut first = None;
    match kind {
        Kind::Whole => line.whole(&question).await?,
        Kind::Stream(_) => {
            line.stream(&question, |_| {
                first.get_or_insert_with(|| begun.elapsed());
            })
            .await?;
        }
    }
    let taken = first.unwrap_or_else(|| begun.elapsed());
    Ok((line, taken.as_secs_f64() * 1e6))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) const fn count(count: u64) -> f64 {
    count as f64
}
