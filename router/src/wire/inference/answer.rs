//! Conversions of answers into the messages for callers.

use switchboard::pb::router::{self, part, stream_infer_response::Event};

use crate::{
    call::{Answered, Completion, Selected},
    prompt::{Signature, Thought},
    upstream::dialect::{AnswerDelta, FinishReason, Usage, Whole},
};

impl From<&Selected> for router::StreamInferResponse {
    fn from(selected: &Selected) -> Self {
        Self {
            event: Some(Event::Selection(selected.into())),
            ..Self::default()
        }
    }
}

impl From<AnswerDelta> for router::StreamInferResponse {
    fn from(delta: AnswerDelta) -> Self {
        use router::delta::Kind;
        let kind = match delta {
            AnswerDelta::Text(text) => Kind::Text(text.into_string()),
            AnswerDelta::Reasoning(text) => Kind::Reasoning(text.into_string()),
            AnswerDelta::Signature(signature) => Kind::ReasoningSignature(signature.into_bytes()),
            AnswerDelta::ToolCall(call) => Kind::ToolCall(router::ToolCallDelta {
                index: call.index,
                id: call.id,
                name: call.name,
                arguments_json: call.arguments.into_string(),
            }),
        };
        Self {
            event: Some(Event::Delta(router::Delta { kind: Some(kind) })),
            ..Self::default()
        }
    }
}

impl From<Completion> for router::Completion {
    fn from(completion: Completion) -> Self {
        let reason = match completion.finish {
            FinishReason::Stop => router::FinishReason::Stop,
            FinishReason::Length => router::FinishReason::Length,
            FinishReason::ToolCalls => router::FinishReason::ToolCalls,
            FinishReason::ContentFilter => router::FinishReason::ContentFilter,
            FinishReason::Other => router::FinishReason::Other,
        };
        let usage = completion.usage.map(|usage| {
            let Usage {
                input,
                output,
                cached_input,
                reasoning,
            } = usage;
            router::Usage {
                input_tokens: input,
                output_tokens: output,
                cached_input_tokens: cached_input,
                reasoning_tokens: reasoning,
            }
        });
        Self {
            finish_reason: reason.into(),
            usage,
        }
    }
}

impl From<Completion> for router::StreamInferResponse {
    fn from(completion: Completion) -> Self {
        Self {
            event: Some(Event::Completion(completion.into())),
            ..Self::default()
        }
    }
}

impl From<Answered> for router::InferResponse {
    fn from(Answered { selected, whole }: Answered) -> Self {
        let Whole {
            thoughts,
            text,
            tool_calls,
            finish,
            usage,
        } = whole;
        let thoughts = thoughts.into_iter().map(|Thought { text, signature }| {
            part::Kind::Reasoning(router::Reasoning {
                text: text.into_string(),
                signature: signature.map(Signature::into_bytes).unwrap_or_default(),
            })
        });
        let mut kinds: Vec<part::Kind> = thoughts.collect();
        // A message has at least one part, even if the model wrote nothing.
        if !text.is_empty() || (kinds.is_empty() && tool_calls.is_empty()) {
            kinds.push(part::Kind::Text(text.into_string()));
        }
        kinds.extend(tool_calls.into_iter().map(|call| {
            part::Kind::ToolCall(router::ToolCall {
                id: call.id,
                name: call.name,
                arguments_json: call.arguments.into_string(),
            })
        }));
        let part = |kind| router::Part { kind: Some(kind) };
        Self {
            selection: Some((&selected).into()),
            message: Some(router::Message {
                role: router::Role::Assistant.into(),
                parts: kinds.into_iter().map(part).collect(),
            }),
            completion: Some(Completion { finish, usage }.into()),
        }
    }
}
