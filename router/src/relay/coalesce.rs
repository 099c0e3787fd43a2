//! Decides which neighbouring pieces of an answer may be merged into one. Pure.
//!
//! The borders between pieces have no meaning to callers; the order of pieces of different kinds does.

use crate::upstream::dialect::AnswerDelta;

/// The maximum size in bytes of a merged piece. A single piece that is larger stays whole.
pub const MERGED_BYTES_MAX: usize = 64 * 1024;

/// Returns the number of content bytes in a piece.
#[must_use]
pub fn bytes(delta: &AnswerDelta) -> usize {
    match delta {
        AnswerDelta::Text(text) | AnswerDelta::Reasoning(text) => text.len(),
        AnswerDelta::Signature(signature) => signature.expose().len(),
        AnswerDelta::ToolCall(call) => call.id.len() + call.name.len() + call.arguments.len(),
    }
}

/// Appends a piece to the one before it, or returns it if the two must stay apart.
///
/// # Errors
///
/// `next` itself, if it is of another kind, begins a tool call, is a signature, or would make the merged piece too
/// large.
pub fn join(last: &mut AnswerDelta, next: AnswerDelta) -> Result<(), AnswerDelta> {
    if bytes(last) + bytes(&next) > MERGED_BYTES_MAX {
        return Err(next);
    }
    match (last, &next) {
        (AnswerDelta::Text(last), AnswerDelta::Text(next))
        | (AnswerDelta::Reasoning(last), AnswerDelta::Reasoning(next)) => last.append(next),
        (AnswerDelta::ToolCall(last), AnswerDelta::ToolCall(more))
            if last.index == more.index && more.id.is_empty() && more.name.is_empty() =>
        {
            last.arguments.append(&more.arguments);
        }
        (
            AnswerDelta::Text(_) | AnswerDelta::Reasoning(_) | AnswerDelta::Signature(_) | AnswerDelta::ToolCall(_),
            _,
        ) => return Err(next),
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        prompt::{Signature, Text},
        upstream::dialect::ToolCallDelta,
    };

    pub(in crate::relay) fn any_delta() -> impl Strategy<Value = AnswerDelta> {
        let text = || "[aä🦀]{1,3}".prop_map(Text::from);
        let named = || prop_oneof![4 => Just(""), 1 => Just("x")].prop_map(str::to_owned);
        prop_oneof![
            text().prop_map(AnswerDelta::Text),
            text().prop_map(AnswerDelta::Reasoning),
            Just(()).prop_map(|()| AnswerDelta::Signature(Signature::of(b"s".to_vec()).unwrap())),
            (0..2, named(), named(), text()).prop_map(|(index, id, name, arguments)| {
                AnswerDelta::ToolCall(ToolCallDelta {
                    index,
                    id,
                    name,
                    arguments,
                })
            }),
        ]
    }

    /// The answer without the borders between pieces: each character with the kind of its piece; ids, names and
    /// signatures stay whole.
    pub(in crate::relay) fn borderless(deltas: &[AnswerDelta]) -> Vec<String> {
        let mut all = Vec::new();
        for delta in deltas {
            let (kind, text) = match delta {
                AnswerDelta::Text(text) => ("text".to_owned(), text),
                AnswerDelta::Reasoning(text) => ("reasoning".to_owned(), text),
                AnswerDelta::Signature(signature) => {
                    all.push(format!("signature: {:?}", signature.expose()));
                    continue;
                }
                AnswerDelta::ToolCall(call) => {
                    let kind = format!("call {}", call.index);
                    if !(call.id.is_empty() && call.name.is_empty()) {
                        all.push(format!("{kind} begins: {} {}", call.id, call.name));
                    }
                    (kind, &call.arguments)
                }
            };
            all.extend(text.expose().chars().map(|character| format!("{kind}: {character}")));
        }
        all
    }

    proptest! {
        #[test]
        fn merging_any_pieces_keeps_the_content_and_its_order(
            deltas in prop::collection::vec(any_delta(), 0..24),
            merges in prop::collection::vec(any::<bool>(), 24),
        ) {
            let mut merged: Vec<AnswerDelta> = Vec::new();
            for (delta, may_merge) in deltas.iter().cloned().zip(merges) {
                let rest = match merged.last_mut().filter(|_| may_merge) {
                    Some(last) => join(last, delta).err(),
                    None => Some(delta),
                };
                merged.extend(rest);
            }
            prop_assert_eq!(borderless(&merged), borderless(&deltas));
        }
    }

    #[test]
    fn a_merged_piece_never_exceeds_the_maximum_size() {
        let text = |length| AnswerDelta::Text(Text::from("x".repeat(length)));
        let mut last = text(MERGED_BYTES_MAX - 1);
        assert_eq!(join(&mut last, text(1)), Ok(()));
        assert_eq!(join(&mut last, text(1)), Err(text(1)));
        assert_eq!(bytes(&last), MERGED_BYTES_MAX);
    }
}
