//! Logs: one line for each event, on standard output.

use std::io;

use tracing_subscriber::{EnvFilter, filter::ParseError, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::flags::LogFormat;

/// A log filter that was read.
#[derive(Debug)]
pub struct LogFilter(EnvFilter);

impl LogFilter {
    /// Reads `info`, or directives such as `info,switchboard_router=debug`.
    ///
    /// # Errors
    ///
    /// What was wrong with the text.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        EnvFilter::try_new(text).map(Self)
    }
}

/// Sends what is logged from now on to standard output. Only the first call of a process has an effect.
pub fn init(filter: LogFilter, format: LogFormat) {
    let registry = tracing_subscriber::registry().with(filter.0);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stdout);
    // A second call fails, as it should: the first one's output goes on.
    drop(match format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    });
}
