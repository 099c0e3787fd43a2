//! Writers, each on a connection of its own, and the lower bound for a write: one synced SQLite transaction.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    call::{Caller, connected},
    peer::Server,
};

/// Changes to a set of keys, each different from all earlier ones.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    serial: Arc<AtomicUsize>,
    pub(crate) keys: usize,
    pub(crate) bytes: usize,
}

impl Work {
    pub(crate) fn new(keys: usize, bytes: usize) -> Self {
        Self {
            serial: Arc::new(AtomicUsize::new(1)),
            keys,
            bytes,
        }
    }

    /// Creates all keys.
    pub(crate) async fn fill(&self, server: &Server) -> Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let (keys, bytes, side) = (self.keys, self.bytes, server.side);
        together(server, 16, move |caller| {
            let next = Arc::clone(&next);
            async move {
                loop {
                    let key = next.fetch_add(1, Ordering::Relaxed);
                    if key >= keys {
                        return Ok(());
                    }
                    caller.unary(side.create(key, bytes)).await?;
                }
            }
        })
        .await
    }

    /// Makes one change.
    pub(crate) async fn change(&self, server: &Server, caller: &Caller) -> Result<()> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let call = server.side.change(serial % self.keys, serial, self.bytes);
        caller.unary(call).await.map(drop)
    }

    /// Makes `count` changes with this many writers, and returns the duration in seconds.
    pub(crate) async fn changes(&self, server: &Server, writers: usize, count: usize) -> Result<f64> {
        let left = Arc::new(AtomicUsize::new(count));
        let begun = Instant::now();
        let (work, side) = (self.clone(), server.side);
        together(server, writers, move |caller| {
            let (left, work) = (Arc::clone(&left), work.clone());
            async move {
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    let serial = work.serial.fetch_add(1, Ordering::Relaxed);
                    caller
                        .unary(side.change(serial % work.keys, serial, work.bytes))
                        .await?;
                }
                Ok(())
            }
        })
        .await?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

async fn together<Script>(
    server: &Server,
    count: usize,
    script: impl Fn(Caller) -> Script + Clone + Send + 'static,
) -> Result<()>
where
    Script: Future<Output = Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        tasks.spawn(connected(server.addr, None, script.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Returns how many transactions of one row SQLite makes durable per second, without anything else.
pub(crate) async fn floor(folder: &Path, count: usize, bytes: usize) -> Result<f64> {
    let mut database = SqliteConnectOptions::new()
        .filename(folder.join("floor.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
        .connect()
        .await?;
    database
        .execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT")
        .await?;
    let value = vec![b'x'; bytes];
    let begun = Instant::now();
    for _ in 0..count {
        sqlx::query("INSERT INTO rows (value) VALUES (?)")
            .bind(&value)
            .execute(&mut database)
            .await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    database.close().await?;
    Ok(rate(count, seconds))
}

pub(crate) fn rate(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}
