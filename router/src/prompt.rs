//! What is sent to a model: a request and the family of the model that answers it, made into one prompt.
//!
//! Pure: no I/O, no clock. It knows families, not servers: how a prompt is spelled as JSON is the dialect's business.

use std::fmt;

use switchboard::catalogue::Family;

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
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One call of a feature, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The feature, as the caller named it.
    pub feature: String,
    /// What to answer.
    pub input: Input,
    /// How to answer.
    pub options: Options,
}

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A conversation, oldest message first.
    Chat(Vec<Message>),
    /// Plain text.
    Prompt(Text),
}

impl Input {
    /// The field of a request that holds this kind of input.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Chat(_) => "chat.messages",
            Self::Prompt(_) => "prompt",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub text: Text,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions to the model.
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
}

/// How to answer. What is `None` or empty is left to the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// The most tokens that the answer may have.
    pub max_output_tokens: Option<i32>,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// Nucleus sampling, above 0, up to 1.
    pub top_p: Option<f64>,
    /// Texts at which the answer ends.
    pub stop: Vec<Text>,
    /// Makes sampling repeatable.
    pub seed: Option<i64>,
    /// Lowers the chance of tokens that have appeared, -2 to 2.
    pub presence_penalty: Option<f64>,
    /// Lowers the chance of tokens by how often they have appeared, -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Samples from this many of the likeliest tokens.
    pub top_k: Option<i32>,
}

/// What is sent to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// The text.
    pub form: Form,
    /// The caller's options, filled up with the family's.
    pub options: Options,
}

/// The two shapes that a prompt has on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Messages, for models that chat.
    Chat(Vec<Message>),
    /// Text to go on from, for models that only complete.
    Completion(Text),
}

/// The family cannot take this kind of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("family `{family}` only completes text; give a `prompt` instead of a chat")]
pub struct InputNotSupported {
    /// Machine name of the family.
    pub family: &'static str,
}

/// Makes the prompt for a model of `family` whose answers have at most `tokens_max` tokens. `None`: as many as the family's.
///
/// # Errors
///
/// [`InputNotSupported`] for a chat to a family that only completes text.
pub fn render(
    input: Input,
    mut options: Options,
    family: &'static Family,
    tokens_max: Option<i32>,
) -> Result<Prompt, InputNotSupported> {
    let asked = options.max_output_tokens.or(family.max_output_tokens);
    options.max_output_tokens = match (asked, tokens_max.or(family.max_output_tokens)) {
        (Some(asked), Some(most)) => Some(asked.min(most)),
        (asked, most) => asked.or(most),
    };
    options.temperature = options.temperature.or(family.temperature);
    let form = match input {
        Input::Chat(messages) if family.chat => Form::Chat(messages),
        Input::Chat(_) => {
            return Err(InputNotSupported {
                family: &family.machine_name,
            });
        }
        Input::Prompt(text) if family.chat => Form::Chat(vec![Message { role: Role::User, text }]),
        Input::Prompt(text) => Form::Completion(text),
    };
    Ok(Prompt { form, options })
}

#[cfg(test)]
mod tests {
    use switchboard::catalogue::Catalogue;

    use super::*;

    fn family(name: &str) -> &'static Family {
        Catalogue::get().family(name).unwrap()
    }

    fn text(text: &str) -> Text {
        Text::from(text.to_owned())
    }

    #[test]
    fn a_prompt_is_one_user_message_to_a_family_that_chats() {
        let prompt = render(Input::Prompt(text("hi")), Options::default(), family("mistral"), None).unwrap();
        let only = Message {
            role: Role::User,
            text: text("hi"),
        };
        assert_eq!(prompt.form, Form::Chat(vec![only]));
    }

    #[test]
    fn a_family_that_only_completes_gets_text_and_no_chat() {
        let starcoder = family("starcoder");
        let prompt = render(Input::Prompt(text("def f")), Options::default(), starcoder, None).unwrap();
        assert_eq!(prompt.form, Form::Completion(text("def f")));
        let refused = render(Input::Chat(Vec::new()), Options::default(), starcoder, None);
        assert_eq!(refused, Err(InputNotSupported { family: "starcoder" }));
    }

    #[test]
    fn the_callers_options_win_over_the_familys() {
        let rendered = |options, name| {
            let prompt = render(Input::Prompt(text("x")), options, family(name), None).unwrap();
            (prompt.options.max_output_tokens, prompt.options.temperature)
        };
        let asked = |tokens, temperature| Options {
            max_output_tokens: tokens,
            temperature,
            ..Options::default()
        };
        assert_eq!(rendered(asked(None, None), "mistral"), (Some(4096), Some(0.0)));
        assert_eq!(rendered(asked(Some(7), Some(1.5)), "mistral"), (Some(7), Some(1.5)));
        assert_eq!(
            rendered(asked(Some(5000), Some(0.0)), "gemini"),
            (Some(5000), Some(0.0))
        );
        assert_eq!(rendered(asked(Some(5000), None), "mistral"), (Some(4096), Some(0.0)));
        assert_eq!(rendered(asked(None, None), "gpt"), (None, None));
    }

    #[test]
    fn a_request_prints_nothing_of_its_text() {
        let request = Request {
            feature: "duo_chat".to_owned(),
            input: Input::Prompt(text("canary")),
            options: Options {
                stop: vec![text("canary")],
                ..Options::default()
            },
        };
        assert!(!format!("{request:?}").contains("canary"));
    }
}
