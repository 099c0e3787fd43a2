//! What clients do: as much as is answered (closed loop), or so much a second whatever is answered (open loop).

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

/// Before a window begins, the load runs for as long.
const WARM_UP: Duration = Duration::from_millis(500);
/// A timer may be as late as this. What is later is the client's own fault, and counts as waited.
const TIMER: Duration = Duration::from_millis(2);

/// What each client does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It asks for whole answers.
    Whole,
    /// It asks for answers with a token each so often; zero is as fast as it goes.
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

/// What was answered.
#[derive(Debug, Default)]
struct Tally {
    answers: AtomicU64,
    tokens: AtomicU64,
    stop: AtomicBool,
    /// By how many microseconds a token came later after the one before than it was sent after it.
    gaps: Mutex<Option<Vec<f64>>>,
}

/// One window of a closed loop.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) seconds: f64,
    pub(crate) answers: f64,
    pub(crate) tokens: f64,
    /// Seconds on a core.
    pub(crate) relay: f64,
    pub(crate) model: f64,
    pub(crate) load: f64,
    pub(crate) gaps: Vec<f64>,
}

impl Window {
    /// Nothing was measured.
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

/// A closed loop that runs.
#[derive(Debug)]
pub(crate) struct Closed {
    tally: Arc<Tally>,
    clients: JoinSet<Result<()>>,
}

impl Closed {
    /// Each line asks again as soon as it is answered. They begin one after the other, over the time of one token.
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

    /// Measures for a while. A window in which anything failed is none.
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

    /// No client asks again; waits until all are answered.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.tally.stop.store(true, Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// All clients leave where they are.
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

/// Begins so many calls a second for a while, whatever is answered, and gives the microseconds of each: to the whole answer,
/// or to the first token.
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
        let line = idle.pop().context("too many calls wait: the rate is too high")?;
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
