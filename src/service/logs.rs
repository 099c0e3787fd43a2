//! Logs: one line for each event, on standard output, of a level that can be changed while the process runs.

use std::{
    io,
    sync::{Mutex, OnceLock, PoisonError},
};

use opentelemetry_sdk::trace::SdkTracer;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, filter::ParseError, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

use super::{flags::LogFormat, trace::export};

/// What is logged, and how.
#[derive(Debug)]
pub struct Logging {
    filter: EnvFilter,
    format: LogFormat,
}

impl Logging {
    /// Reads what is to be logged: `info`, or directives such as `info,switchboard_router=debug`.
    ///
    /// # Errors
    ///
    /// What was wrong with the text.
    pub fn parse(filter: &str, format: LogFormat) -> Result<Self, ParseError> {
        Ok(Self {
            filter: EnvFilter::try_new(filter)?,
            format,
        })
    }
}

/// The filter in use. Of the process, like the subscriber that it belongs to.
static LEVEL: OnceLock<Mutex<Level>> = OnceLock::new();

struct Level {
    text: String,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Sends what is logged from now on to standard output, and spans to `tracer`. Only the first call of a process has an
/// effect.
pub(super) fn init(logging: Logging, tracer: Option<SdkTracer>) {
    let text = logging.filter.to_string();
    // The filter is of this layer alone: spans are recorded whatever is logged.
    let (filter, handle) = reload::Layer::new(logging.filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stdout);
    let layer = match logging.format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .with(tracer.map(export::layer));
    // A second call fails, as it should: the first one's output goes on.
    if subscriber.try_init().is_ok() {
        drop(LEVEL.set(Mutex::new(Level { text, filter: handle })));
    }
}

/// What is logged now. `None`: the process has not set up its logs here.
#[must_use]
pub fn level() -> Option<String> {
    let level = LEVEL.get()?.lock().unwrap_or_else(PoisonError::into_inner);
    Some(level.text.clone())
}

/// Why what is logged cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// The text is no filter.
    #[error("not a log level: error, warn, info, debug, trace, or directives such as `info,switchboard_router=debug`")]
    Malformed(#[source] ParseError),
    /// The process has not set up its logs here.
    #[error("the logs of this process cannot be changed")]
    NotHere,
}

/// Changes what is logged, until the process ends. A text without directives means what it means as a flag.
///
/// # Errors
///
/// [`LevelError`]; nothing is changed then.
pub fn set_level(text: &str) -> Result<(), LevelError> {
    let filter = EnvFilter::try_new(text).map_err(LevelError::Malformed)?;
    let mut level = LEVEL
        .get()
        .ok_or(LevelError::NotHere)?
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let now = filter.to_string();
    // Told before, since it may be the last that is told.
    tracing::warn!(before = level.text, now, "the log level is changed");
    level.filter.reload(filter).map_err(|_gone| LevelError::NotHere)?;
    level.text = now;
    Ok(())
}
