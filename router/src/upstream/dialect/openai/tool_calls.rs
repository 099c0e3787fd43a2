//! Assembles the tool calls of an answer from fragments, which servers number in different ways.

use std::fmt;

use serde_json::value::RawValue;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::super::{
    DialectError, ToolCallDelta,
    lenient::{Member, Number, Raw, Word, object, string},
};
use crate::{
    prompt::{Text, ToolCall},
    upstream::text::{LooseText, TextJoiner},
};

/// Maximum number of tool calls in an answer. No real answer has more, so a larger number counts as malformed.
const CALLS_MAX: usize = 1024;

object! {
    /// A tool call, or a fragment of one.
    struct WireCall<'de> {
        index: Number,
        id: Word,
        function: WireFunction<'de>,
    }
}

impl<'de> WireCall<'de> {
    /// The call of the member `function_call`, which has neither index nor id.
    pub(super) fn of_function(function: WireFunction<'de>) -> Self {
        Self {
            function: Member::Given(function),
            ..Self::default()
        }
    }
}

object! {
    struct WireFunction<'de> {
        name: Word,
        arguments: Raw<'de>,
    }
}

/// The tool calls of one answer so far.
#[derive(Debug, Default)]
pub(super) struct ToolCalls(Vec<ToolCallSoFar>);

#[derive(Debug)]
struct ToolCallSoFar {
    /// The server's index of the call. Some servers give no index, some give the same index to all calls.
    index: Option<i64>,
    id: String,
    name: Text,
    joiner: TextJoiner,
    arguments: JsonProgress,
}

impl ToolCalls {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the delta that a fragment adds, or `None` if it adds nothing.
    pub(super) fn fragment(&mut self, wire: WireCall<'_>) -> Result<Option<ToolCallDelta>, DialectError> {
        let id = word(wire.id);
        let function = wire.function.given().unwrap_or_default();
        let name = word(function.name);
        let arguments = function.arguments.given().map(arguments_text).unwrap_or_default();
        let number = wire.index.given().map(|index| index.0);
        let known = match number {
            Some(_) => self.0.iter().rposition(|known| known.index == number),
            None => self.0.len().checked_sub(1),
        };
        let meaning = known.map(|index| self.0[index].meaning(&id, &name, &arguments));
        let known = match meaning {
            Some(FragmentMeaning::Repetition) => return Ok(None),
            Some(FragmentMeaning::OtherCall) | None => None,
            Some(FragmentMeaning::Continuation) => known,
        };
        let (index, id) = match known {
            Some(index) => (index, String::new()),
            None if id.is_empty() && name.is_empty() && arguments.is_empty() => return Ok(None),
            None if self.0.len() == CALLS_MAX => return Err(DialectError::Malformed),
            None => {
                let index = self.0.len();
                let is_taken = self.0.iter().any(|known| known.id == id);
                let id = if id.is_empty() || is_taken { made_up(index) } else { id };
                self.0.push(ToolCallSoFar {
                    index: number,
                    id: id.clone(),
                    name: Text::default(),
                    joiner: TextJoiner::default(),
                    arguments: JsonProgress::default(),
                });
                (index, id)
            }
        };
        let call = &mut self.0[index];
        let name = if call.name.is_empty() { name } else { String::new() };
        call.name.append(&name.clone().into());
        let arguments = call.joiner.push(arguments);
        call.arguments.read(&arguments);
        let adds_nothing = id.is_empty() && name.is_empty() && arguments.is_empty();
        Ok((!adds_nothing).then(|| ToolCallDelta {
            index: i32::try_from(index).unwrap_or(i32::MAX),
            id,
            name,
            arguments: arguments.into(),
        }))
    }

    /// Whether a call has no name: no caller could make it.
    pub(super) fn has_nameless(&self) -> bool {
        self.0.iter().any(|call| call.name.is_empty())
    }

    /// The replacements for halves of characters that nothing has completed.
    pub(super) fn finish(&mut self) -> Vec<ToolCallDelta> {
        let calls = self.0.iter_mut().enumerate();
        calls
            .filter_map(|(index, call)| {
                let arguments = call.joiner.finish();
                (!arguments.is_empty()).then(|| ToolCallDelta {
                    index: i32::try_from(index).unwrap_or(i32::MAX),
                    id: String::new(),
                    name: String::new(),
                    arguments: arguments.into(),
                })
            })
            .collect()
    }
}

/// What a fragment says, judged by the call that has its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FragmentMeaning {
    /// The call goes on.
    Continuation,
    /// Another call begins.
    OtherCall,
    /// The call is sent once more, whole.
    Repetition,
}

impl ToolCallSoFar {
    /// Some servers repeat id and name in each fragment, some make up a new id for each, some number all calls alike, and
    /// some send each call once more at the end: only a name begins a call.
    fn meaning(&self, id: &str, name: &str, arguments: &LooseText) -> FragmentMeaning {
        if name.is_empty() || self.name.is_empty() {
            return FragmentMeaning::Continuation;
        }
        let is_same_tool = self.name.expose() == name;
        let is_whole_again = self.arguments.is_complete() && !arguments.is_empty();
        let is_other_id = !id.is_empty() && self.id != id;
        if is_other_id || (!is_same_tool && !self.arguments.is_under_way()) {
            return FragmentMeaning::OtherCall;
        }
        match is_whole_again {
            true if is_same_tool && !id.is_empty() && self.arguments.is_same(arguments) => FragmentMeaning::Repetition,
            true => FragmentMeaning::OtherCall,
            false => FragmentMeaning::Continuation,
        }
    }
}

/// How far the JSON of a call's arguments has come.
#[derive(Default)]
struct JsonProgress {
    /// The hash of all bytes so far.
    hash: Xxh3Default,
    depth: usize,
    has_begun: bool,
    is_in_string: bool,
    is_escaped: bool,
}

impl JsonProgress {
    fn read(&mut self, json: &str) {
        self.hash.update(json.as_bytes());
        for byte in json.bytes() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_in_string => self.is_escaped = true,
                b'"' => self.is_in_string = !self.is_in_string,
                _ if self.is_in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            self.has_begun |= !byte.is_ascii_whitespace();
        }
    }

    /// Whether a whole text is the same as all pieces together.
    fn is_same(&self, json: &LooseText) -> bool {
        xxh3_64(json.clone().into_lossy().as_bytes()) == self.hash.digest()
    }

    const fn is_complete(&self) -> bool {
        self.has_begun && self.depth == 0 && !self.is_in_string
    }

    const fn is_under_way(&self) -> bool {
        self.has_begun && !self.is_complete()
    }
}

impl fmt::Debug for JsonProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonProgress")
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// Decodes the tool calls of a complete answer.
///
/// # Errors
///
/// [`DialectError::Malformed`] for a call without a name, which no caller could make.
pub(super) fn whole(wire: Vec<WireCall<'_>>) -> Result<Vec<ToolCall>, DialectError> {
    let calls = wire.into_iter().enumerate();
    calls
        .map(|(index, call)| {
            let function = call.function.given().unwrap_or_default();
            let name = word(function.name);
            if name.is_empty() {
                return Err(DialectError::Malformed);
            }
            let arguments = function.arguments.given().map(arguments_text).unwrap_or_default();
            Ok(ToolCall {
                id: Some(word(call.id))
                    .filter(|id| !id.is_empty())
                    .unwrap_or_else(|| made_up(index)),
                name,
                arguments: arguments.into_lossy().into(),
            })
        })
        .collect()
}

fn word(member: Member<Word>) -> String {
    member.given().map(|word| word.0).unwrap_or_default()
}

/// Makes up an id for servers that give none: the tool's result must name its call.
fn made_up(index: usize) -> String {
    format!("call_{index}")
}

/// Reads the arguments of a call. They are JSON within a JSON string; some servers send the JSON itself.
fn arguments_text(arguments: &RawValue) -> LooseText {
    let json = arguments.get();
    if json.starts_with('"') {
        // It was read as JSON before.
        string(json).unwrap_or_default()
    } else {
        LooseText::new(json.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calls that fragments give: name and arguments of each.
    fn assembled(fragments: &[&str]) -> Vec<(String, String)> {
        let mut calls = ToolCalls::default();
        let mut seen: Vec<(String, String)> = Vec::new();
        let mut ids = Vec::new();
        for fragment in fragments {
            let wire: Member<WireCall<'_>> = serde_json::from_str(fragment).unwrap();
            let Some(delta) = calls.fragment(wire.given().unwrap()).unwrap() else {
                continue;
            };
            let index = usize::try_from(delta.index).unwrap();
            if index == seen.len() {
                seen.push(Default::default());
            }
            ids.extend(Some(delta.id).filter(|id| !id.is_empty()));
            seen[index].0.push_str(&delta.name);
            seen[index].1.push_str(delta.arguments.expose());
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), seen.len(), "each call has an id of its own");
        seen
    }

    #[test]
    fn calls_with_the_same_index_are_told_apart() {
        let call = |name: &str, arguments: &str| (name.to_owned(), arguments.to_owned());
        for (fragments, expected) in [
            (
                vec![
                    r#"{"index":0,"id":"","function":{"name":"get","arguments":"{\"x\":1}"}}"#,
                    r#"{"index":0,"id":"","function":{"name":"put","arguments":"{\"x\":2}"}}"#,
                ],
                vec![call("get", r#"{"x":1}"#), call("put", r#"{"x":2}"#)],
            ),
            // The same tool twice, without indexes.
            (
                vec![
                    r#"{"function":{"name":"get","arguments":{"x":1}}}"#,
                    r#"{"function":{"name":"get","arguments":{"x":2}}}"#,
                ],
                vec![call("get", r#"{"x":1}"#), call("get", r#"{"x":2}"#)],
            ),
            // Two tools without arguments.
            (
                vec![
                    r#"{"index":0,"function":{"name":"get","arguments":""}}"#,
                    r#"{"index":0,"function":{"name":"put","arguments":""}}"#,
                ],
                vec![call("get", ""), call("put", "")],
            ),
            // A name in each fragment of one call, and once more after its end.
            (
                vec![
                    r#"{"index":0,"id":"a","function":{"name":"get","arguments":""}}"#,
                    r#"{"index":0,"id":"a","function":{"name":"get","arguments":"{\"x\":\"}"}}"#,
                    r#"{"index":0,"id":"a","function":{"name":"get","arguments":"\"}"}}"#,
                    r#"{"index":0,"id":"a","function":{"name":"get","arguments":""}}"#,
                ],
                vec![call("get", r#"{"x":"}"}"#)],
            ),
            // The whole call once more at the end.
            (
                vec![
                    r#"{"index":0,"id":"a","function":{"name":"get","arguments":"{\"x\":"}}"#,
                    r#"{"index":0,"function":{"arguments":"1}"}}"#,
                    r#"{"index":0,"id":"a","function":{"name":"get","arguments":"{\"x\":1}"}}"#,
                ],
                vec![call("get", r#"{"x":1}"#)],
            ),
            // The same id and index for two calls.
            (
                vec![
                    r#"{"index":0,"id":"a","function":{"name":"get","arguments":"{\"x\":1}"}}"#,
                    r#"{"index":0,"id":"a","function":{"name":"get","arguments":"{\"x\":2}"}}"#,
                ],
                vec![call("get", r#"{"x":1}"#), call("get", r#"{"x":2}"#)],
            ),
            // A new id in each fragment.
            (
                vec![
                    r#"{"index":0,"id":"a","function":{"name":"get","arguments":"{"}}"#,
                    r#"{"index":0,"id":"b","function":{"arguments":"}"}}"#,
                ],
                vec![call("get", "{}")],
            ),
            // Indexes as text, and with a fraction.
            (
                vec![
                    r#"{"index":"0","function":{"name":"get","arguments":"{"}}"#,
                    r#"{"index":1.0,"function":{"name":"put","arguments":"{"}}"#,
                    r#"{"index":0,"function":{"arguments":"}"}}"#,
                    r#"{"index":1,"function":{"arguments":"}"}}"#,
                ],
                vec![call("get", "{}"), call("put", "{}")],
            ),
        ] {
            assert_eq!(assembled(&fragments), expected, "{fragments:?}");
        }
    }
}
