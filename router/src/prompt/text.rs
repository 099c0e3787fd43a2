//! Types for the text of prompts and answers, which `Debug` does not print.

use std::{borrow::Cow, fmt};

use serde_json::value::RawValue;

/// A piece of a prompt or of an answer. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text(String);

impl Text {
    /// Returns the text. Only for encoding to the wire and decoding from it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Converts into the text.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// Returns the length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the text is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends another text.
    pub fn append(&mut self, next: &Self) {
        self.0.push_str(&next.0);
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<Text> for Cow<'_, Text> {
    fn from(text: Text) -> Self {
        Cow::Owned(text)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Proof by which a server recognizes a thought of its own model. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

impl Signature {
    /// Returns the signature. Only for encoding to the wire and decoding from it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Converts into the signature's bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Creates a signature. `None`: `bytes` is empty.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self(bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A JSON object exactly as its author wrote it, because servers generate fields in the order of a schema. `Debug` does
/// not print it.
#[derive(Clone)]
pub struct JsonObject(Box<RawValue>);

/// The error for a text that is not a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a JSON object")]
pub struct NoJsonObject;

impl JsonObject {
    /// Parses a JSON object.
    ///
    /// # Errors
    ///
    /// [`NoJsonObject`] for any other text.
    pub fn parse(text: String) -> Result<Self, NoJsonObject> {
        // The object is parsed completely, so that every nesting that passes here is one that later parsers can handle.
        let object: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(&text);
        object.map_err(|_other| NoJsonObject)?;
        RawValue::from_string(text).map(Self).map_err(|_other| NoJsonObject)
    }

    /// Returns the JSON. Only for encoding to the wire.
    #[must_use]
    pub const fn expose(&self) -> &RawValue {
        &self.0
    }
}

impl PartialEq for JsonObject {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for JsonObject {}

impl fmt::Debug for JsonObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_keeps_its_spelling_and_any_other_text_is_refused() {
        let text = "{ \"b\": 1,\n \"a\": {} }";
        let object = JsonObject::parse(text.to_owned()).unwrap();
        assert_eq!(object.expose().get(), text);
        assert_eq!(format!("{object:?}"), "***");
        for other in ["", "null", "[]", "1", "{", "{}x", "\"{}\""] {
            assert_eq!(JsonObject::parse(other.to_owned()), Err(NoJsonObject), "{other}");
        }
        let deep = format!("{}{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
        assert_eq!(JsonObject::parse(deep), Err(NoJsonObject));
    }
}
