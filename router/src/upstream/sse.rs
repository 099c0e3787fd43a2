//! Incremental decoder for server-sent events. The bytes may arrive in pieces of any size.
//!
//! Pure: it does no I/O. Only complete lines are decoded as UTF-8, so a character that is split between two reads is
//! never seen in halves. Only the field `data` is used; an event that is cut off by the end of the stream is ignored.
//!
//! ```
//! use switchboard_router::upstream::sse::Decoder;
//! let mut decoder = Decoder::default();
//! decoder.push(b"data: one\ndata:two\r\n\r\nda");
//! assert_eq!(decoder.next()?.as_deref(), Some("one\ntwo"));
//! assert_eq!(decoder.next()?, None);
//! decoder.push(b"ta: three\n\n");
//! assert_eq!(decoder.next()?.as_deref(), Some("three"));
//! # Ok::<(), switchboard_router::upstream::sse::SseError>(())
//! ```

use std::fmt;

/// Maximum size of one line, and of the data of one event: 1 MiB.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Why bytes could not be decoded as an event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line or an event is larger than [`EVENT_BYTES_MAX`].
    #[error("an event is larger than {EVENT_BYTES_MAX} bytes")]
    TooLarge,
    /// A line is not valid UTF-8.
    #[error("a line is not valid UTF-8")]
    InvalidUtf8,
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
}

impl Decoder {
    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the data of the next event. `None`: more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`SseError`], after all events that preceded the error have been returned.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator ends at `None`, but this one continues after more bytes"
    )]
    pub fn next(&mut self) -> Result<Option<String>, SseError> {
        while let Some((start, end)) = self.line()? {
            let line = str::from_utf8(&self.buffer[start..end]).map_err(|_invalid| SseError::InvalidUtf8)?;
            let line = if self.is_past_mark {
                line
            } else {
                line.strip_prefix('\u{feff}').unwrap_or(line)
            };
            self.is_past_mark = true;
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Ok(Some(data));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            if field != "data" {
                continue;
            }
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
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
                    Ok(Some(event)) => events.push(event),
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
    fn a_line_that_is_not_utf8_is_an_error_after_the_events_before_it() {
        let (events, error) = decode([b"data: a\n\ndata: \xff\n\n".as_slice()]);
        assert_eq!(events, ["a"]);
        assert_eq!(error, Some(SseError::InvalidUtf8));
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
