//! Renders a request as the prompt for one model.
//!
//! Pure: no I/O, no clock. This module knows families, not servers: encoding the prompt as JSON is the task of the
//! dialect.

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

/// The feature that generates code from an instruction in every call.
const CODE_GENERATIONS: &str = "code_generations";

/// The model for which a prompt is rendered.
#[derive(Debug, Clone, Copy)]
pub struct PromptTarget {
    /// The model's family.
    pub family: &'static Family,
    /// How the model completes code.
    pub infill_mode: InfillMode,
    /// Maximum number of tokens of the model's answers. `None`: the family's maximum.
    pub max_output_tokens: Option<i32>,
}

/// A prompt for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt<'a> {
    /// The messages to answer, or the text to continue.
    pub form: Form<'a>,
    /// Functions that the model may request to call.
    pub tools: &'a Tools,
    /// The required format of the answer. `None`: plain text.
    pub response_format: Option<&'a ResponseFormat>,
    /// The caller's options, with the family's defaults for those that the caller left out.
    pub options: Options,
    /// The caller's options without defaults.
    pub asked: &'a Options,
}

/// The two forms that a prompt can have on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form<'a> {
    /// Messages, for models that support chat.
    Chat(Cow<'a, [Message]>),
    /// Text to continue.
    Completion {
        /// The text to continue.
        prompt: Cow<'a, Text>,
        /// The text that follows the answer, for servers that insert the model's infill tokens themselves. `None`: the
        /// text has no suffix, or `prompt` contains it.
        suffix: Option<&'a Text>,
    },
}

/// Why the model does not support the input of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputNotSupported {
    /// A chat for a family that only completes text.
    #[error("family `{family}` only completes text; give a `prompt`, or an `infill` without `instruction`")]
    Chat {
        /// Machine name of the family.
        family: &'static str,
    },
    /// An infill with infill tokens for a family that has none.
    #[error("family `{family}` has no infill tokens; choose another infill mode for the model")]
    NoTokens {
        /// Machine name of the family.
        family: &'static str,
    },
    /// Tools for an input that is not sent as a chat.
    #[error("family `{family}` gets this input as text to complete, which does not support `tools`")]
    Tools {
        /// Machine name of the family.
        family: &'static str,
    },
    /// A response format for an input that is not sent as a chat.
    #[error("family `{family}` gets this input as text to complete, which does not support `response_format`")]
    ResponseFormat {
        /// Machine name of the family.
        family: &'static str,
    },
    /// Text to complete for a platform that only supports chat.
    #[error("{platform} supports only chat; set the model's infill mode to CHAT, or give another input")]
    CompletionOnPlatform {
        /// The platform's name for people.
        platform: &'static str,
    },
    /// A response format for a platform that does not support one.
    #[error("{platform} does not support `response_format`")]
    ResponseFormatOnPlatform {
        /// The platform's name for people.
        platform: &'static str,
    },
}

/// Renders the prompt for a call of `feature` to one model.
///
/// # Errors
///
/// [`InputNotSupported`] if the model does not support the input.
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

/// Returns the caller's options. Missing options get the default of the kind of task, or else of the family. The token
/// limit is never above the model's maximum.
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
