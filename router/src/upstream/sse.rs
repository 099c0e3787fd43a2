//! Incremental decoder for server-sent events. The bytes may arrive in pieces of any size.
//!
//! Pure: it does no I/O. Only complete lines are decoded as UTF-8, so a character that is split between two reads is
//! never seen in halves. Only the field `data` is used; an event that is cut off by the end of the stream is ignored.
//! Comments, and events without data, are heartbeats: they show that the server is at work.
//!
//! ```
//! use switchboard_router::upstream::sse::{Decoder, SseEvent};
//! let mut decoder = Decoder::default();
//! decoder.push(b"data: one\ndata:two\r\n\r\n: wait\nda");
//! assert_eq!(decoder.next()?, Some(SseEvent::data("one\ntwo")));
//! assert_eq!(decoder.next()?, Some(SseEvent::Heartbeat));
//! assert_eq!(decoder.next()?, None);
//! decoder.push(b"ta: three\n\n");
//! assert_eq!(decoder.next()?, Some(SseEvent::data("three")));
//! # Ok::<(), switchboard_router::upstream::sse::SseError>(())
//! ```

use std::{borrow::Cow, fmt};

use super::text::escape;

/// Maximum size of one line, and of the data of one event: 1 MiB.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Why bytes could not be decoded as an event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line or an event is larger than [`EVENT_BYTES_MAX`].
    #[error("an event is larger than {EVENT_BYTES_MAX} bytes")]
    TooLarge,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SseEvent {
    /// An event with data.
    Data {
        /// The data. Bytes that are not UTF-8 are written as JSON escapes of lone surrogates.
        text: String,
        /// Whether all bytes were UTF-8.
        is_utf8: bool,
    },
    /// A comment, or an event without data.
    Heartbeat,
}

impl SseEvent {
    /// Creates an event with data that is UTF-8.
    #[must_use]
    pub fn data(text: &str) -> Self {
        Self::Data {
            text: text.to_owned(),
            is_utf8: true,
        }
    }
}

/// Decodes bytes into the data of events. It must not be used again after an error.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Index in `buffer` at which the current line begins.
    start: usize,
    /// Index in `buffer` up to which no line end was found.
    scanned: usize,
    /// Whether the last line ended with CR, so that an LF which follows belongs to the same line end.
    skips_lf: bool,
    /// Whether the first line has been read. Only the first line may begin with a byte order mark.
    is_past_mark: bool,
    /// The data of the current event. `None`: no `data` line has been read yet.
    data: Option<String>,
    /// Whether the current event has had bytes that are not UTF-8.
    has_invalid_utf8: bool,
}

impl Decoder {
    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next event. `None`: more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`SseError`], after all events that preceded the error have been returned.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator ends at `None`, but this one continues after more bytes"
    )]
    pub fn next(&mut self) -> Result<Option<SseEvent>, SseError> {
        while let Some((start, end)) = self.line()? {
            let line = escape(&self.buffer[start..end]);
            let is_utf8 = matches!(line, Cow::Borrowed(_));
            let line = if self.is_past_mark {
                &*line
            } else {
                line.strip_prefix('\u{feff}').unwrap_or(&line)
            };
            self.is_past_mark = true;
            if line.is_empty() {
                let has_invalid_utf8 = std::mem::take(&mut self.has_invalid_utf8);
                return Ok(Some(self.data.take().map_or(SseEvent::Heartbeat, |text| {
                    SseEvent::Data {
                        text,
                        is_utf8: !has_invalid_utf8,
                    }
                })));
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            if field.is_empty() {
                return Ok(Some(SseEvent::Heartbeat));
            }
            if field != "data" {
                continue;
            }
            let value = value.strip_prefix(' ').unwrap_or(value);
            self.has_invalid_utf8 |= !is_utf8;
            match &mut self.data {
                None if value.len() > EVENT_BYTES_MAX => return Err(SseError::TooLarge),
                None => self.data = Some(value.to_owned()),
                Some(data) => {
                    if data.len() + 1 + value.len() > EVENT_BYTES_MAX {
                        return Err(SseError::TooLarge);
                    }
                    data.push('\n');
                    data.push_str(value);
                }
            }
        }
        Ok(None)
    }

    /// Returns the start and end of the next complete line in the buffer, without its line end.
    fn line(&mut self) -> Result<Option<(usize, usize)>, SseError> {
        if self.skips_lf && self.start < self.buffer.len() {
            if self.buffer[self.start] == b'\n' {
                self.start += 1;
                self.scanned = self.start;
            }
            self.skips_lf = false;
        }
        let found = self.buffer[self.scanned..]
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'))
            .map(|index| self.scanned + index);
        let end = found.unwrap_or(self.buffer.len());
        if end - self.start > EVENT_BYTES_MAX {
            return Err(SseError::TooLarge);
        }
        let start = self.start;
        if found.is_none() {
            self.scanned = end;
            return Ok(None);
        }
        self.skips_lf = self.buffer[end] == b'\r';
        self.start = end + 1;
        self.scanned = self.start;
        Ok(Some((start, end)))
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes the pieces and returns all events, with the error that ended decoding, if any.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Option<SseError>) {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next() {
                    Ok(Some(SseEvent::Data { text, .. })) => events.push(text),
                    Ok(Some(SseEvent::Heartbeat)) => {}
                    Ok(None) => break,
                    Err(error) => return (events, Some(error)),
                }
            }
        }
        (events, None)
    }

    #[test]
    fn all_common_variants_of_the_format_are_decoded() {
        for (bytes, expected) in [
            ("data: a\n\n", vec!["a"]),
            ("data:a\r\n\r\n", vec!["a"]),
            ("data: a\r\rdata: b\r\r", vec!["a", "b"]),
            ("\u{feff}data: a\n\n", vec!["a"]),
            (": comment\n\n:\ndata: a\n: more\n\n", vec!["a"]),
            ("data: a\ndata:  b\n\n", vec!["a\n b"]),
            ("event: x\nid: 1\nretry: 5\ndata: a\n\n", vec!["a"]),
            ("data\n\n", vec![""]),
            ("datax: a\n\n", vec![]),
            ("data: a\n", vec![]),
            ("data: a\n\ndata: cut", vec!["a"]),
        ] {
            let (events, error) = decode([bytes.as_bytes()]);
            assert_eq!(events, expected, "{bytes:?}");
            assert_eq!(error, None, "{bytes:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_removed_only_at_the_beginning_of_the_stream() {
        let (events, _) = decode(["data: a\n\n\u{feff}data: b\n\n".as_bytes()]);
        assert_eq!(events, ["a"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_escaped_and_marked() {
        let mut decoder = Decoder::default();
        decoder.push(b"data: a\n\ndata: \"\xff\"\n\ndata: b\n\n");
        assert_eq!(decoder.next(), Ok(Some(SseEvent::data("a"))));
        let escaped = SseEvent::Data {
            text: r#""\udcff""#.to_owned(),
            is_utf8: false,
        };
        assert_eq!(decoder.next(), Ok(Some(escaped)));
        assert_eq!(decoder.next(), Ok(Some(SseEvent::data("b"))));
    }

    #[test]
    fn a_comment_and_an_event_without_data_are_heartbeats() {
        let mut decoder = Decoder::default();
        decoder.push(b": keep-alive\n\nevent: ping\n\n\ndata: a\n\n");
        for expected in [true, true, true, true, false] {
            let event = decoder.next().unwrap().unwrap();
            assert_eq!(event == SseEvent::Heartbeat, expected, "{event:?}");
        }
    }

    #[test]
    fn a_line_or_an_event_that_is_too_large_is_an_error() {
        let line = vec![b'x'; EVENT_BYTES_MAX + 1];
        assert_eq!(decode([line.as_slice()]).1, Some(SseError::TooLarge));
        let row = format!("data: {}\n", "x".repeat(1000));
        let many = row.repeat(EVENT_BYTES_MAX / 1000 + 1);
        assert_eq!(decode([many.as_bytes()]).1, Some(SseError::TooLarge));
        let just_fits = format!("data: {}\n\n", "x".repeat(EVENT_BYTES_MAX - 6));
        assert_eq!(decode([just_fits.as_bytes()]).0[0].len(), EVENT_BYTES_MAX - 6);
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_decodes_to_the_same_events(
            lines in prop::collection::vec(
                prop_oneof![
                    Just("data: a".as_bytes().to_vec()),
                    Just("data:äöü€🦀".as_bytes().to_vec()),
                    Just(": c".as_bytes().to_vec()),
                    Just("\u{feff}data: x".as_bytes().to_vec()),
                    Just(Vec::new()),
                    Just(Vec::new()),
                    prop::collection::vec(any::<u8>(), 0..8),
                ],
                0..12,
            ),
            ends in prop::collection::vec(prop_oneof![Just("\n"), Just("\r\n"), Just("\r")], 12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut bytes = Vec::new();
            for (line, end) in lines.iter().zip(&ends) {
                bytes.extend_from_slice(line);
                bytes.extend_from_slice(end.as_bytes());
            }
            let mut cut_points: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cut_points.extend([0, bytes.len()]);
            cut_points.sort_unstable();
            let whole = decode([bytes.as_slice()]);
            let pieces = cut_points.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(&decode(pieces), &whole);
            prop_assert_eq!(&decode(bytes.chunks(1)), &whole);
        }
    }
}
