//! The contract as generated code. Use it qualified, `registry::Model`, so that wire types are told from domain types.
//!
//! The `.proto` files are its manual. What is written here by hand is only `Debug` of the messages that carry a secret, a
//! prompt or an answer.

use std::fmt;

pub use generated::{registry::v1 as registry, router::v1 as router, r#type::v1 as types};

/// `ConfigService` for a server whose streams carry messages that were encoded before, each as an
/// [`Encoded`](crate::encoded::Encoded).
#[expect(warnings, clippy::all, clippy::allow_attributes, reason = "generated")]
pub mod shared {
    include!(concat!(env!("OUT_DIR"), "/shared/switchboard.registry.v1.rs"));
}

/// The packages as the generator nests them.
#[expect(warnings, clippy::all, clippy::allow_attributes, reason = "generated")]
mod generated {
    pub mod r#type {
        pub mod v1 {
            tonic::include_proto!("switchboard.r#type.v1");
        }
    }
    pub mod registry {
        pub mod v1 {
            tonic::include_proto!("switchboard.registry.v1");
        }
    }
    pub mod router {
        pub mod v1 {
            tonic::include_proto!("switchboard.router.v1");
        }
    }
}

/// The whole contract as an encoded `FileDescriptorSet`, comments included: what reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract.binpb"));

/// Shows that a text is there, never the text.
struct Withheld;

impl fmt::Debug for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for registry::Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.name)
            .field("display_name", &self.display_name)
            .field("family", &self.family)
            .field("endpoints", &self.endpoints)
            .field("endpoint", &self.endpoint)
            .field("identifier", &self.identifier)
            .field("api_token", &self.api_token.as_ref().map(|_| Withheld))
            .field("disabled", &self.disabled)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for registry::GetModelCredentialResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetModelCredentialResponse")
            .field("credential_id", &self.credential_id)
            .field("origins", &self.origins)
            .field("api_token", &Withheld)
            .finish()
    }
}

impl fmt::Debug for router::InferRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InferRequest")
            .field("feature", &self.feature)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for router::infer_request::Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chat(chat) => f.debug_struct("Chat").field("messages", &chat.messages.len()).finish(),
            Self::Infill(_) => f.debug_tuple("Infill").field(&Withheld).finish(),
            Self::Prompt(_) => f.debug_tuple("Prompt").field(&Withheld).finish(),
        }
    }
}

impl fmt::Debug for router::InferOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InferOptions")
            .field("max_output_tokens", &self.max_output_tokens)
            .field("temperature", &self.temperature)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for router::Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("kind", &self.kind).finish()
    }
}

impl fmt::Debug for router::part::Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Text(_) => "Text",
            Self::ToolCall(_) => "ToolCall",
            Self::ToolResult(_) => "ToolResult",
            Self::Reasoning(_) => "Reasoning",
        };
        f.debug_tuple(name).field(&Withheld).finish()
    }
}

impl fmt::Debug for router::Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delta").field("kind", &self.kind).finish()
    }
}

impl fmt::Debug for router::delta::Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Text(_) => "Text",
            Self::Reasoning(_) => "Reasoning",
            Self::ToolCall(_) => "ToolCall",
            Self::ReasoningSignature(_) => "ReasoningSignature",
        };
        f.debug_tuple(name).field(&Withheld).finish()
    }
}

impl fmt::Debug for router::ToolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolCall")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for router::ToolResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolResult")
            .field("tool_call_id", &self.tool_call_id)
            .field("is_error", &self.is_error)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for router::Reasoning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reasoning").finish_non_exhaustive()
    }
}

impl fmt::Debug for router::InfillInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InfillInput")
            .field("language", &self.language)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for router::InfillContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InfillContext").finish_non_exhaustive()
    }
}

impl fmt::Debug for router::Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for router::ResponseFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFormat")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for router::ToolCallDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolCallDelta")
            .field("index", &self.index)
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_prints_a_token_a_prompt_or_an_answer() {
        const CANARY: &str = "canary-4f1c";
        let text = || CANARY.to_owned();
        let shown = [
            format!(
                "{:?}",
                registry::CreateModelRequest {
                    model: Some(registry::Model {
                        api_token: Some(text()),
                        ..Default::default()
                    }),
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                registry::GetModelCredentialResponse {
                    api_token: text(),
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                router::InferRequest {
                    input: Some(router::infer_request::Input::Prompt(text())),
                    ..Default::default()
                }
            ),
            format!("{:?}", router::infer_request::Input::Prompt(text())),
            format!(
                "{:?}",
                router::Message {
                    parts: vec![router::Part {
                        kind: Some(router::part::Kind::Text(text()))
                    }],
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                router::InferOptions {
                    stop: vec![text()],
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                router::Delta {
                    kind: Some(router::delta::Kind::Text(text()))
                }
            ),
            format!(
                "{:?}",
                router::Delta {
                    kind: Some(router::delta::Kind::Reasoning(text()))
                }
            ),
        ];
        for shown in shown {
            assert!(!shown.contains(CANARY), "{shown}");
        }
    }
}
