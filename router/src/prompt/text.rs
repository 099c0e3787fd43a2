//! Text of prompts and answers, which is never printed.

use std::{borrow::Cow, fmt};

use serde_json::value::RawValue;

/// A piece of a prompt or of an answer: never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text(String);

impl Text {
    /// The text itself. Only for the wire, in either direction.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text itself, given away.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes on with another text.
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

/// By what a server knows a thought of its model again. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

impl Signature {
    /// The signature itself. Only for the wire, in either direction.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The signature itself, given away.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A signature, unless it is empty.
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

/// A JSON object as its author wrote it: order and spelling stay, since servers generate in the order of a schema. Never
/// printed.
#[derive(Clone)]
pub struct JsonObject(Box<RawValue>);

/// The text is no JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a JSON object")]
pub struct NoJsonObject;

impl JsonObject {
    /// Reads an object.
    ///
    /// # Errors
    ///
    /// [`NoJsonObject`] for any other text.
    pub fn parse(text: String) -> Result<Self, NoJsonObject> {
        // Read whole, so that no parser behind us meets a nesting that ours does not bear.
        let object: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(&text);
        object.map_err(|_other| NoJsonObject)?;
        RawValue::from_string(text).map(Self).map_err(|_other| NoJsonObject)
    }

    /// The JSON itself. Only for the wire.
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
    fn an_object_stays_as_it_was_written_and_nothing_else_is_one() {
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
