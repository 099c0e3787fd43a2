//! What is sent to a model: a request and the model that answers it, made into one prompt.
//!
//! Pure: no I/O, no clock. It knows families, not servers: how a prompt is spelled as JSON is the dialect's business.

mod format;
mod infill;
mod request;
mod text;

use std::borrow::Cow;

use switchboard::{catalogue::Family, names::FeatureName, resource::model::InfillMode};

use self::format::{Defaults, Format};
pub use self::{
    request::{
        Infill, Input, Message, Options, ReasoningEffort, Request, ResponseFormat, Snippet, Thought, Tool, ToolCall,
        ToolChoice, ToolResult, Tools, Turn,
    },
    text::{JsonObject, NoJsonObject, Signature, Text},
};

/// The feature whose every call writes code by instruction.
const CODE_GENERATIONS: &str = "code_generations";

/// For which model a prompt is made.
#[derive(Debug, Clone, Copy)]
pub struct PromptTarget {
    /// Its family.
    pub family: &'static Family,
    /// How it completes code.
    pub infill_mode: InfillMode,
    /// The most tokens that its answers may have. `None`: the family's.
    pub max_output_tokens: Option<i32>,
}

/// What is sent to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt<'a> {
    /// What is gone on from.
    pub form: Form<'a>,
    /// Functions that the model may ask to be called.
    pub tools: &'a Tools,
    /// What form the answer has. `None`: text.
    pub response_format: Option<&'a ResponseFormat>,
    /// The caller's options, filled up with the family's.
    pub options: Options,
    /// The caller's options alone.
    pub asked: &'a Options,
}

/// The two shapes that a prompt has on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form<'a> {
    /// Messages, for models that chat.
    Chat(Cow<'a, [Message]>),
    /// Text to go on from.
    Completion {
        /// The text.
        prompt: Cow<'a, Text>,
        /// What follows the answer, for servers that put in the model's marks themselves.
        suffix: Option<&'a Text>,
    },
}

/// The model cannot take what the call brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputNotSupported {
    /// A chat to a family that only completes text.
    #[error("family `{family}` only completes text; give a `prompt`, or an `infill` without `instruction`")]
    Chat {
        /// Machine name of the family.
        family: &'static str,
    },
    /// A completion by marks to a family that has none.
    #[error("family `{family}` has no infill tokens; choose another infill mode for the model")]
    NoTokens {
        /// Machine name of the family.
        family: &'static str,
    },
    /// Tools without a chat.
    #[error("this input is sent to family `{family}` as text to complete, which takes no `tools`")]
    Tools {
        /// Machine name of the family.
        family: &'static str,
    },
    /// A response format without a chat.
    #[error("this input is sent to family `{family}` as text to complete, which takes no `response_format`")]
    ResponseFormat {
        /// Machine name of the family.
        family: &'static str,
    },
    /// Text to complete for servers that only chat.
    #[error("{platform} only chats; set the model's infill mode to CHAT, or give another input")]
    CompletionOnPlatform {
        /// The platform, as people call it.
        platform: &'static str,
    },
    /// A response format for servers that know none.
    #[error("{platform} takes no `response_format`")]
    ResponseFormatOnPlatform {
        /// The platform, as people call it.
        platform: &'static str,
    },
}

/// Makes the prompt of a call of `feature` for one model.
///
/// # Errors
///
/// [`InputNotSupported`] for what this model cannot take.
pub fn render<'a>(
    request: &'a Request,
    feature: &FeatureName,
    target: &PromptTarget,
) -> Result<Prompt<'a>, InputNotSupported> {
    let family = &target.family.machine_name;
    let format = Format::of(target.family);
    let form = match &request.input {
        Input::Chat(messages) => Form::Chat(Cow::Borrowed(messages)),
        Input::Prompt(text) if target.family.chat => Form::Chat(Cow::Owned(vec![Message::User(text.clone())])),
        Input::Prompt(text) => Form::Completion {
            prompt: Cow::Borrowed(text),
            suffix: None,
        },
        Input::Infill(infill) => infill::form(infill, format, target)?,
    };
    match form {
        Form::Chat(_) if !target.family.chat => return Err(InputNotSupported::Chat { family }),
        Form::Completion { .. } if !request.tools.list.is_empty() => return Err(InputNotSupported::Tools { family }),
        Form::Completion { .. } if request.response_format.is_some() => {
            return Err(InputNotSupported::ResponseFormat { family });
        }
        Form::Chat(_) | Form::Completion { .. } => {}
    }
    Ok(Prompt {
        form,
        tools: &request.tools,
        response_format: request.response_format.as_ref(),
        options: options(request, feature, format, target),
        asked: &request.options,
    })
}

/// The caller's options, else those of the kind of task, else the family's; never more tokens than the model may write.
fn options(request: &Request, feature: &FeatureName, format: &Format, target: &PromptTarget) -> Options {
    let is_completion = matches!(&request.input, Input::Infill(infill) if infill.instruction.is_empty());
    let is_generation =
        !is_completion && (feature.id() == CODE_GENERATIONS || matches!(request.input, Input::Infill(_)));
    let task = if is_completion {
        format.infill
    } else if is_generation {
        format.generation
    } else {
        Defaults::default()
    };
    let mut options = request.options.clone();
    let most = target.max_output_tokens.or(target.family.max_output_tokens);
    let tokens = options.max_output_tokens.or(task.max_output_tokens).or(most);
    options.max_output_tokens = tokens.map(|tokens| most.map_or(tokens, |most| tokens.min(most)));
    options.temperature = options.temperature.or(task.temperature).or(target.family.temperature);
    if is_completion {
        for stop in &format.stop {
            let stop = Text::from(stop.clone());
            if !options.stop.contains(&stop) {
                options.stop.push(stop);
            }
        }
    }
    options
}

#[cfg(test)]
mod tests;
