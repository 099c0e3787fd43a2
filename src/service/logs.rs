//! Logs: one line for each event, on standard output.

use std::io;

use tracing_subscriber::{EnvFilter, filter::ParseError, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::flags::LogFormat;

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

/// Sends what is logged from now on to standard output. Only the first call of a process has an effect.
pub fn init(logging: Logging) {
    let registry = tracing_subscriber::registry().with(logging.filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stdout);
    // A second call fails, as it should: the first one's output goes on.
    drop(match logging.format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    });
}
