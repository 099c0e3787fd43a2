//! Logs: one line for each event on standard output. The log level can be changed while the process runs.

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

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object on each line.
    Json,
}

/// The filter and the format of the logs.
#[derive(Debug)]
pub struct Logging {
    filter: EnvFilter,
    format: LogFormat,
}

impl Logging {
    /// Parses a log filter: a level such as `info`, or directives such as `info,switchboard_router=debug`.
    ///
    /// # Errors
    ///
    /// [`FilterError`] if the text is not a valid filter.
    pub fn parse(filter: &str, format: LogFormat) -> Result<Self, FilterError> {
        Ok(Self {
            filter: parse(filter)?,
            format,
        })
    }
}

/// Why a text is not a valid log filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The text contains a word that is not a level. `tracing` would take it for the name of a module, and would then
    /// log everything of that module and nothing else.
    #[error(
        "`{0}` is not a level: use error, warn, info, debug, trace, or directives such as `info,switchboard_router=debug`"
    )]
    Level(String),
    /// The text contains a malformed directive.
    #[error("expected error, warn, info, debug, trace, or directives such as `info,switchboard_router=debug`")]
    Directive(#[source] ParseError),
}

fn parse(text: &str) -> Result<EnvFilter, FilterError> {
    let mut words = text.split(',').map(str::trim).filter(|word| !word.contains(['=', '[']));
    // Checks for an empty word separately, because `LevelFilter` accepts it as a level.
    match words.find(|word| word.is_empty() || LevelFilter::from_str(word).is_err()) {
        Some(word) => Err(FilterError::Level(word.to_owned())),
        None => EnvFilter::try_new(text).map_err(FilterError::Directive),
    }
}

/// The log filter in use. Global to the process, like the subscriber that it belongs to.
static LEVEL: OnceLock<Mutex<Level>> = OnceLock::new();

struct Level {
    text: String,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Installs the subscriber of the process: logs go to standard output, and spans to `tracer`. Only the first call in a
/// process has an effect.
pub(super) fn init(logging: Logging, tracer: Option<SdkTracer>) {
    let text = logging.filter.to_string();
    // The filter applies to this layer only: spans are recorded regardless of the log level.
    let (filter, handle) = reload::Layer::new(logging.filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stdout);
    let layer = match logging.format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .with(tracer.map(export::layer));
    // A second call in a process fails here and changes nothing, as intended.
    if subscriber.try_init().is_ok() {
        drop(LEVEL.set(Mutex::new(Level { text, filter: handle })));
    }
}

/// Returns the current log filter. `None`: the logs of this process were not installed by this module.
#[must_use]
pub fn level() -> Option<String> {
    let level = LEVEL.get()?.lock();
    Some(level.text.clone())
}

/// Why the log level could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// The text is not a valid log filter.
    #[error("not a log level")]
    Malformed(#[source] FilterError),
    /// The logs of this process were not installed by this module.
    #[error("the log level of this process cannot be changed")]
    NotHere,
}

/// Changes the log filter until the process ends. `text` has the same syntax as the flag `--log-level`.
///
/// # Errors
///
/// [`LevelError`]; the filter is then unchanged.
pub fn set_level(text: &str) -> Result<(), LevelError> {
    let filter = parse(text).map_err(LevelError::Malformed)?;
    let mut level = LEVEL.get().ok_or(LevelError::NotHere)?.lock();
    let now = filter.to_string();
    // Logged before the change, because the new filter may suppress this line.
    tracing::warn!(before = level.text, now, "changing the log level");
    level.filter.reload(filter).map_err(|_gone| LevelError::NotHere)?;
    level.text = now;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_not_a_log_level_is_refused() {
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
