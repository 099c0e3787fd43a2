//! Logs: one line for each event, on standard output, of a level that can be changed while the process runs.

use std::{io, str::FromStr as _, sync::OnceLock};

use opentelemetry_sdk::trace::SdkTracer;
use parking_lot::Mutex;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::{LevelFilter, ParseError},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use super::trace::export;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

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
    pub fn parse(filter: &str, format: LogFormat) -> Result<Self, FilterError> {
        Ok(Self {
            filter: parse(filter)?,
            format,
        })
    }
}

/// Why a text does not say what is to be logged.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A word that is no level. It would be the name of a module, of which everything is logged, and of others nothing.
    #[error(
        "`{0}` is not a level: say error, warn, info, debug, trace, or directives such as `info,switchboard_router=debug`"
    )]
    Level(String),
    /// A directive that cannot be read.
    #[error("not error, warn, info, debug, trace, or directives such as `info,switchboard_router=debug`")]
    Directive(#[source] ParseError),
}

fn parse(text: &str) -> Result<EnvFilter, FilterError> {
    let mut words = text.split(',').map(str::trim).filter(|word| !word.contains(['=', '[']));
    // Nothing at all would be read as a level too.
    match words.find(|word| word.is_empty() || LevelFilter::from_str(word).is_err()) {
        Some(word) => Err(FilterError::Level(word.to_owned())),
        None => EnvFilter::try_new(text).map_err(FilterError::Directive),
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
    let level = LEVEL.get()?.lock();
    Some(level.text.clone())
}

/// Why what is logged cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// The text is no filter.
    #[error("not a log level")]
    Malformed(#[source] FilterError),
    /// The process has not set up its logs here.
    #[error("the logs of this process cannot be changed")]
    NotHere,
}

/// Changes what is logged, until the process ends. The text means what it means as a flag.
///
/// # Errors
///
/// [`LevelError`]; nothing is changed then.
pub fn set_level(text: &str) -> Result<(), LevelError> {
    let filter = parse(text).map_err(LevelError::Malformed)?;
    let mut level = LEVEL.get().ok_or(LevelError::NotHere)?.lock();
    let now = filter.to_string();
    // Told before, since it may be the last that is told.
    tracing::warn!(before = level.text, now, "the log level is changed");
    level.filter.reload(filter).map_err(|_gone| LevelError::NotHere)?;
    level.text = now;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for text in [
            "info",
            "off",
            "WARN",
            "info,switchboard_router=debug",
            "switchboard::access=off,info",
            "[call]=debug,info",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for text in ["loud", "", "info,loud", "switchboard_router=loud", "switchboard_router"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
