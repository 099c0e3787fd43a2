//! Reads the body of a response, as events or as a whole.

use std::{collections::VecDeque, error::Error as StdError, fmt, io, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    UpstreamError,
    dialect::{Decoder, DialectError, Event},
    oddities::OddityReporter,
    sse::{self, SseEvent},
};

/// Maximum size of a streamed answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum size of a whole answer, in bytes: the size that a gRPC client accepts in one message.
const WHOLE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A streamed answer that is being read. Dropping it before its end closes the connection.
pub struct Answer {
    body: Incoming,
    received: usize,
    lines: sse::Decoder,
    dialect: Decoder,
    reporter: OddityReporter,
    events: VecDeque<Event>,
}

impl Answer {
    pub(super) fn new(response: Response<Incoming>, dialect: Decoder, reporter: OddityReporter) -> Self {
        Self {
            body: response.into_body(),
            received: 0,
            lines: sse::Decoder::default(),
            dialect,
            reporter,
            events: VecDeque::new(),
        }
    }

    /// Returns the next event, or [`Event::Alive`] for a heartbeat and for an event without content. `None`: the body has
    /// ended, whether or not the answer was complete.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`], after all events that preceded the error have been returned. After an error the answer must
    /// not be read again.
    ///
    /// # Cancel safety
    ///
    /// Cancelling the future loses no event.
    pub async fn next(&mut self) -> Result<Option<Event>, UpstreamError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.lines.next()? {
                Some(SseEvent::Data { text, is_utf8 }) => {
                    let decoded = self.dialect.decode(&text);
                    self.reporter.report(self.dialect.oddities());
                    self.events.extend(decoded.map_err(|error| match error {
                        DialectError::Malformed if !is_utf8 => DialectError::InvalidUtf8,
                        error => error,
                    })?);
                    if self.events.is_empty() {
                        return Ok(Some(Event::Alive));
                    }
                }
                Some(SseEvent::Heartbeat) => return Ok(Some(Event::Alive)),
                None => match self.chunk().await? {
                    Some(bytes) => self.lines.push(&bytes),
                    None => return Ok(None),
                },
            }
        }
    }

    /// Reads to the end of the body, so that the connection can be reused for another call. Gives up after `limit`.
    pub async fn drain(mut self, limit: Duration) {
        let rest = async { while let Ok(Some(_)) = self.chunk().await {} };
        // The result does not matter: the answer is already complete, and at worst the connection is closed.
        tokio::time::timeout(limit, rest).await.ok();
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| body_error(&error))?;
            // Trailers contain nothing that the router uses.
            let Ok(bytes) = frame.into_data() else { continue };
            self.received += bytes.len();
            if self.received > ANSWER_BYTES_MAX {
                return Err(UpstreamError::TooLarge(ANSWER_BYTES_MAX));
            }
            return Ok(Some(bytes));
        }
        Ok(None)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

/// Reads a complete body of at most [`WHOLE_BYTES_MAX`].
pub(super) async fn whole(mut body: Incoming) -> Result<Vec<u8>, UpstreamError> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| body_error(&error))?;
        let Ok(bytes) = frame.into_data() else { continue };
        if whole.len() + bytes.len() > WHOLE_BYTES_MAX {
            return Err(UpstreamError::TooLarge(WHOLE_BYTES_MAX));
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

/// Reads at most the first `bytes_max` bytes of a body, and only those that arrive within `limit`.
pub(super) async fn beginning(mut body: Incoming, bytes_max: usize, limit: Duration) -> Vec<u8> {
    let mut beginning = Vec::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await
            && beginning.len() < bytes_max
        {
            if let Ok(bytes) = frame.into_data() {
                let room = bytes_max - beginning.len();
                beginning.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
        }
    };
    // The bytes that arrived in time are enough.
    tokio::time::timeout(limit, reading).await.ok();
    beginning
}

/// Tells a body that violates HTTP's framing apart from a connection that closed early.
fn body_error(error: &hyper::Error) -> UpstreamError {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => UpstreamError::Protocol,
        _ => UpstreamError::Truncated,
    }
}
