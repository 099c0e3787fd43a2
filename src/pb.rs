//! The contract as generated code. Use it qualified, `registry::Model`, so that wire types are told from domain types.
//!
//! The `.proto` files are its manual. A field that carries a secret, a prompt or an answer has the option `debug_redact`
//! there, and `Debug` does not print its value.

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

/// `Debug` of the messages that have a field with the option `debug_redact`, as `build.rs` generates it.
mod redacted {
    use std::fmt::{Debug, Formatter, Result};

    /// Stands for the value of a field that must not be printed.
    struct Redacted;

    impl Debug for Redacted {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            f.write_str("***")
        }
    }

    include!(concat!(env!("OUT_DIR"), "/debug.rs"));
}

#[cfg(test)]
mod tests {
    use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, Value};

    use super::*;

    const CANARY: &str = "canary-4f1c";

    fn canary(field: &FieldDescriptor) -> Value {
        let value = match field.kind() {
            Kind::String => Value::String(CANARY.to_owned()),
            Kind::Bytes => Value::Bytes(CANARY.into()),
            kind => panic!("{}: no canary for a field of kind {kind:?}", field.full_name()),
        };
        if field.is_list() {
            Value::List(vec![value])
        } else {
            value
        }
    }

    #[test]
    fn a_field_with_the_option_debug_redact_is_not_printed() {
        let bytes = format!("{:?}", CANARY.as_bytes());
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        let fields = pool
            .all_messages()
            .flat_map(|message| message.fields().collect::<Vec<_>>());
        let is_redacted = |field: &FieldDescriptor| {
            let options = field.options();
            let option = options.get_field_by_name("debug_redact");
            option.is_some_and(|option| option.as_bool() == Some(true))
        };
        let redacted: Vec<_> = fields.filter(is_redacted).collect();
        assert!(!redacted.is_empty());
        for field in redacted {
            let message = field.parent_message();
            let mut filled = DynamicMessage::new(message.clone());
            filled.set_field(&field, canary(&field));
            let shown = redacted::debug_of(message.full_name(), &prost::Message::encode_to_vec(&filled)).unwrap();
            assert!(
                !shown.contains(CANARY) && !shown.contains(&bytes),
                "{}: {shown}",
                field.full_name()
            );
            assert!(shown.contains("***"), "{}: {shown}", field.full_name());
        }
    }

    #[test]
    fn no_message_prints_a_token_a_prompt_or_an_answer() {
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
