//! Assembles the tool calls of an answer from fragments, which servers number in different ways.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{DialectError, ToolCallDelta};
use crate::prompt::{Text, ToolCall};

/// Maximum number of tool calls in an answer. No real answer has more, so a larger number counts as malformed.
const CALLS_MAX: usize = 1024;

/// A tool call, or a fragment of one.
#[derive(Deserialize)]
pub(super) struct WireCall {
    index: Option<i64>,
    id: Option<String>,
    function: Option<WireFunction>,
}

#[derive(Deserialize)]
struct WireFunction {
    name: Option<String>,
    arguments: Option<Box<RawValue>>,
}

/// The tool calls of one answer so far.
#[derive(Debug, Default)]
pub(super) struct ToolCalls(Vec<ToolCallSoFar>);

#[derive(Debug)]
struct ToolCallSoFar {
    /// The server's index of the call. Some servers give no index, some give the same index to all calls.
    index: Option<i64>,
    id: String,
    is_named: bool,
}

impl ToolCalls {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the delta that a fragment adds, or `None` if it adds nothing.
    pub(super) fn fragment(&mut self, wire: WireCall) -> Result<Option<ToolCallDelta>, DialectError> {
        let id = wire.id.unwrap_or_default();
        let function = wire.function;
        let (name, arguments) = function.map_or((None, None), |function| (function.name, function.arguments));
        let name = name.unwrap_or_default();
        let arguments = text(arguments)?;
        let known = match wire.index {
            Some(_) => self.0.iter().rposition(|known| known.index == wire.index),
            None => self.0.len().checked_sub(1),
        };
        // Servers with wrong indexes still begin each call with a new id and a name.
        let known = known.filter(|&index| name.is_empty() || id.is_empty() || self.0[index].id == id);
        let (index, id) = match known {
            Some(index) => (index, String::new()),
            None if self.0.len() == CALLS_MAX => return Err(DialectError::Malformed),
            None => {
                let index = self.0.len();
                let id = if id.is_empty() { made_up(index) } else { id };
                self.0.push(ToolCallSoFar {
                    index: wire.index,
                    id: id.clone(),
                    is_named: false,
                });
                (index, id)
            }
        };
        let is_named = &mut self.0[index].is_named;
        let name = if *is_named { String::new() } else { name };
        *is_named |= !name.is_empty();
        let says_nothing = id.is_empty() && name.is_empty() && arguments.is_empty();
        Ok((!says_nothing).then(|| ToolCallDelta {
            index: i32::try_from(index).unwrap_or(i32::MAX),
            id,
            name,
            arguments,
        }))
    }
}

/// Converts the tool calls of a complete answer.
pub(super) fn whole(wire: Vec<WireCall>) -> Result<Vec<ToolCall>, DialectError> {
    wire.into_iter()
        .enumerate()
        .map(|(index, call)| {
            let (name, arguments) = call
                .function
                .map_or((None, None), |function| (function.name, function.arguments));
            Ok(ToolCall {
                id: call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| made_up(index)),
                name: name.unwrap_or_default(),
                arguments: text(arguments)?,
            })
        })
        .collect()
}

/// Makes an id for a call to which the server gave none, because a tool result must name its call.
fn made_up(index: usize) -> String {
    format!("call_{index}")
}

/// Returns the arguments as text. The dialect sends JSON inside a string; some servers send the JSON itself.
fn text(arguments: Option<Box<RawValue>>) -> Result<Text, DialectError> {
    let Some(arguments) = arguments else {
        return Ok(Text::default());
    };
    let json = arguments.get();
    let text = if json.starts_with('"') {
        serde_json::from_str(json).map_err(|_malformed| DialectError::Malformed)?
    } else {
        json.to_owned()
    };
    Ok(text.into())
}
