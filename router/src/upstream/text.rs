//! Text that arrives in pieces which may be cut within a character.
//!
//! Two things cut characters: servers that write each UTF-16 half of an emoji as a JSON escape of its own event, and
//! servers that cut a token's UTF-8 bytes. Both become the same here: [`escape`] writes each byte that is not UTF-8 as the
//! escape of a lone surrogate, U+DC80 to U+DCFF, before the JSON is read (as Python's `surrogateescape` does), and
//! [`TextJoiner`] joins halves and bytes across pieces.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

/// What stands for a half, or for bytes, that nothing completes.
const REPLACEMENT: &str = "\u{fffd}";

/// Text of a JSON string: UTF-8, in which lone surrogates may stand as three bytes each.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct LooseText(Vec<u8>);

impl fmt::Debug for LooseText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LooseText({} bytes)", self.0.len())
    }
}

impl LooseText {
    pub(super) const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds another text.
    pub(super) fn append(&mut self, more: &Self) {
        self.0.extend_from_slice(&more.0);
    }

    /// The text by itself: what is incomplete becomes U+FFFD.
    pub(super) fn into_lossy(self) -> String {
        let mut joiner = TextJoiner::default();
        let mut text = joiner.push(self);
        text.push_str(&joiner.finish());
        text
    }
}

/// Writes bytes that are not UTF-8 as JSON escapes of lone surrogates. Within a JSON string they keep their meaning;
/// elsewhere they make the JSON malformed, as the bytes did.
pub(super) fn escape(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\udc{byte:02x}");
        }
    }
    Cow::Owned(text)
}

/// Replaces the JSON escape of each lone surrogate by that of U+FFFD. `None`: the text has none.
pub(super) fn without_lone_surrogates(json: &str) -> Option<String> {
    let mut text = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = json.get(at..).and_then(|rest| rest.find('\\')) {
        let begin = at + found;
        at = match escaped_unit(json, begin) {
            Some(0xd800..=0xdbff) if matches!(escaped_unit(json, begin + 6), Some(0xdc00..=0xdfff)) => begin + 12,
            Some(0xd800..=0xdfff) => {
                text.push_str(&json[copied..begin]);
                text.push_str("\\ufffd");
                copied = begin + 6;
                copied
            }
            Some(_) => begin + 6,
            // The character after a backslash is not one that begins an escape.
            None => begin + 1 + json[begin + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    (copied > 0).then(|| text + &json[copied..])
}

/// The UTF-16 unit whose `\\u` escape begins at a byte of the text. `None`: none does.
fn escaped_unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Joins the pieces of one text.
#[derive(Default)]
pub(super) struct TextJoiner {
    /// The end of the piece before, which the next piece may complete: a high surrogate, or at most three bytes of a
    /// character, each as the surrogate that stands for it.
    pending: Vec<u16>,
}

impl fmt::Debug for TextJoiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextJoiner({} pending)", self.pending.len())
    }
}

impl TextJoiner {
    /// The text that is complete after another piece.
    pub(super) fn push(&mut self, piece: LooseText) -> String {
        if self.pending.is_empty() {
            match String::from_utf8(piece.0) {
                Ok(text) => return text,
                Err(error) => return self.join(error.as_bytes()),
            }
        }
        if piece.is_empty() {
            return String::new();
        }
        self.join(&piece.0)
    }

    /// The replacement for what nothing has completed. Empty: everything is complete.
    pub(super) fn finish(&mut self) -> String {
        let mut text = String::new();
        self.flush(&mut text, true);
        text
    }

    fn join(&mut self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len() + 4);
        let mut rest = bytes;
        while !rest.is_empty() {
            match split_surrogate(rest) {
                Some((surrogate, after)) => {
                    self.surrogate(surrogate, &mut text);
                    rest = after;
                }
                None => {
                    self.flush(&mut text, true);
                    let end = (1..rest.len()).find(|&at| split_surrogate(&rest[at..]).is_some());
                    let (plain, after) = rest.split_at(end.unwrap_or(rest.len()));
                    // All else that JSON strings hold is UTF-8.
                    text.push_str(&String::from_utf8_lossy(plain));
                    rest = after;
                }
            }
        }
        self.flush(&mut text, false);
        text
    }

    fn surrogate(&mut self, surrogate: u16, text: &mut String) {
        if let [high @ 0xd800..=0xdbff] = *self.pending.as_slice()
            && let 0xdc00..=0xdfff = surrogate
        {
            self.pending.clear();
            text.extend(char::decode_utf16([high, surrogate]).flatten());
            return;
        }
        match surrogate {
            // A byte: the bytes before it are looked at again with it.
            0xdc80..=0xdcff if !matches!(self.pending.as_slice(), [0xd800..=0xdbff]) => {
                self.pending.push(surrogate);
                self.flush(text, false);
            }
            0xd800..=0xdbff => {
                self.flush(text, true);
                self.pending.push(surrogate);
            }
            _ => {
                self.flush(text, true);
                text.push_str(REPLACEMENT);
            }
        }
    }

    /// Writes what is pending as far as it can still be completed, or with `all`, all of it.
    fn flush(&mut self, text: &mut String, all: bool) {
        if let [0xd800..=0xdbff] = *self.pending.as_slice() {
            if all {
                self.pending.clear();
                text.push_str(REPLACEMENT);
            }
            return;
        }
        let bytes: Vec<u8> = self
            .pending
            .iter()
            .map(|surrogate| surrogate.to_le_bytes()[0])
            .collect();
        let mut kept = 0;
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            kept = chunk.invalid().len();
            let is_cut = str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
            // Only bytes at the very end can be completed.
            let is_last = std::ptr::eq(chunk.invalid().as_ptr_range().end, bytes.as_ptr_range().end);
            if kept > 0 && (all || !is_cut || !is_last) {
                text.push_str(REPLACEMENT);
                kept = 0;
            }
        }
        self.pending.drain(..self.pending.len() - kept);
    }
}

/// The surrogate that the bytes begin with, and what follows it. `None`: they begin with anything else.
fn split_surrogate(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, rest @ ..] = bytes else {
        return None;
    };
    let surrogate = 0xd000 | (u16::from(second & 0x3f) << 6) | u16::from(third & 0x3f);
    Some((surrogate, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::dialect::lenient::string, *};

    /// Joins JSON strings, each without its quotes.
    fn join(pieces: &[&[u8]]) -> Vec<String> {
        let mut joiner = TextJoiner::default();
        let mut texts: Vec<String> = pieces
            .iter()
            .map(|piece| {
                let quoted = [b"\"", *piece, b"\""].concat();
                joiner.push(string(&escape(&quoted)).unwrap())
            })
            .collect();
        texts.push(joiner.finish());
        texts
    }

    #[test]
    fn halves_of_a_character_are_joined() {
        for (pieces, expected) in [
            (vec![&br"ok \ud83d"[..], br"\ude00"], vec!["ok ", "\u{1f600}", ""]),
            (vec![br"\ud83d\ude00"], vec!["\u{1f600}", ""]),
            (vec![br"\ud83d", b"", br"\ude00"], vec!["", "", "\u{1f600}", ""]),
            (vec![br"\ud83d", b"x"], vec!["", "\u{fffd}x", ""]),
            (vec![br"\ud83d"], vec!["", "\u{fffd}"]),
            (vec![br"\ude00x"], vec!["\u{fffd}x", ""]),
            (vec![br"\ud83d\ud83d", br"\ude00"], vec!["\u{fffd}", "\u{1f600}", ""]),
            // A low half in the range that also stands for bytes.
            (vec![br"\ud83d", br"\udc8b"], vec!["", "\u{1f48b}", ""]),
            (vec![b"\xe2\x82", b"\xac!"], vec!["", "\u{20ac}!", ""]),
            (
                vec![b"\xf0", b"\x9f", b"\x98", b"\x80"],
                vec!["", "", "", "\u{1f600}", ""],
            ),
            (vec![b"a\xf0\x9f", b"b"], vec!["a", "\u{fffd}b", ""]),
            (vec![b"\xff"], vec!["\u{fffd}", ""]),
            (vec![b"\xe2\x82"], vec!["", "\u{fffd}"]),
        ] {
            assert_eq!(join(&pieces), expected, "{pieces:?}");
        }
    }

    #[test]
    fn lone_surrogates_are_replaced_and_others_kept() {
        for (json, expected) in [
            (r#"["\ud83d"]"#, Some(r#"["\ufffd"]"#)),
            (
                r#"["\ude00\ud83d\ude00\uD83Dx"]"#,
                Some(r#"["\ufffd\ud83d\ude00\ufffdx"]"#),
            ),
            (r#"["\ud83d\ude00"]"#, None),
            (r#"["\\ud83d"]"#, None),
            (r#"["\u00e4\n"]"#, None),
            (r#"["\ud83"#, None),
            ("\\", None),
        ] {
            assert_eq!(without_lone_surrogates(json).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn bytes_outside_a_string_stay_an_error() {
        assert!(serde_json::from_str::<serde_json::Value>(&escape(b"{\xff}")).is_err());
    }

    proptest! {
        /// However a text's bytes are cut into pieces, the joined text is the same.
        #[test]
        fn a_text_cut_anywhere_is_joined_again(
            text in "[a-z\u{e4}\u{20ac}\u{1f600}]{0,12}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = text.as_bytes();
            let mut cut_points: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cut_points.extend([0, bytes.len()]);
            cut_points.sort_unstable();
            let pieces: Vec<&[u8]> = cut_points.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(join(&pieces).concat(), text);
        }

        /// What a whole JSON reader makes of a string is what the joiner makes of it.
        #[test]
        fn valid_text_passes_unchanged(text in any::<String>()) {
            let quoted = serde_json::to_string(&text).unwrap();
            let mut joiner = TextJoiner::default();
            prop_assert_eq!(joiner.push(string(&quoted).unwrap()), text);
            prop_assert_eq!(joiner.finish(), "");
        }
    }
}
