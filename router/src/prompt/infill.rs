//! Renders code completion at a cursor: with infill tokens, with a suffix, or as a chat.
//!
//! The caller's code is never truncated or changed, even if it contains an infill token of the family: people who edit
//! such a file need completions too. This is safe, because a text with infill tokens contains no instruction of the
//! router that the code could override, and the answer goes back to the caller who sent the code. At worst the
//! completion is of poor quality.

use std::borrow::Cow;

use switchboard::resource::model::InfillMode;

use super::{
    Form, InputNotSupported, PromptTarget,
    format::{ChatStyle, Format, FormatMode},
    request::{Infill, Message, Snippet},
    text::Text,
};

const ONLY_CODE: &str = "You complete code. Reply with the code that belongs at the cursor and with nothing else: no \
                         explanation, no Markdown, nothing of what already stands before or behind the cursor.";
const BY_INSTRUCTION: &str = "You write code. Reply with the code that belongs at the cursor and with nothing else: no \
                              explanation, no Markdown, nothing of what already stands before or behind the cursor. \
                              Follow the instruction below.";
const PLACEHOLDER: &str = "<<<CURSOR>>>";

/// Renders an infill as a chat or as text to complete.
pub(super) fn form<'a>(
    infill: &'a Infill,
    format: &Format,
    target: &PromptTarget,
) -> Result<Form<'a>, InputNotSupported> {
    if !infill.instruction.is_empty() {
        return Ok(user(generation(infill)));
    }
    let family = &target.family.machine_name;
    let by_tokens = || {
        let tokens = format.tokens.as_ref().ok_or(InputNotSupported::NoTokens { family })?;
        Ok(tokens.around(&with_context(infill), infill.suffix.expose()))
    };
    match (target.infill_mode, format.mode) {
        (InfillMode::Completions, _) | (InfillMode::FamilyDefault, FormatMode::Completions) => Ok(Form::Completion {
            prompt: Text::from(by_tokens()?).into(),
            suffix: None,
        }),
        (InfillMode::Suffix, _) => Ok(Form::Completion {
            prompt: Text::from(with_context(infill).into_owned()).into(),
            suffix: Some(&infill.suffix),
        }),
        (InfillMode::Chat, _) | (InfillMode::FamilyDefault, FormatMode::Chat) => Ok(match format.chat {
            ChatStyle::Tokens => Form::Chat(Cow::Owned(vec![
                Message::System(ONLY_CODE.to_owned().into()),
                Message::User(by_tokens()?.into()),
            ])),
            ChatStyle::Placeholder => user(placeholder(infill)),
            ChatStyle::Marks => user(marks(infill)),
            ChatStyle::Tags => user(format!("{ONLY_CODE}\n\n{}", tags(infill))),
        }),
    }
}

/// Puts the text into a single user message, because the templates of some families do not support system messages.
fn user(text: String) -> Form<'static> {
    Form::Chat(Cow::Owned(vec![Message::User(text.into())]))
}

/// Returns the code before the cursor, preceded by the snippets of other files. A text to continue has no other place
/// for them.
fn with_context(infill: &Infill) -> Cow<'_, str> {
    let prefix = infill.prefix.expose();
    if infill.context.is_empty() {
        return Cow::Borrowed(prefix);
    }
    let mut all = String::new();
    for Snippet { content, .. } in &infill.context {
        all.push_str(content.expose());
        all.push('\n');
    }
    all.push_str(prefix);
    Cow::Owned(all)
}

fn placeholder(infill: &Infill) -> String {
    let mut text = context(&infill.context);
    text.push_str(&facts(infill));
    text.push_str(infill.prefix.expose());
    text.push_str(PLACEHOLDER);
    text.push_str(infill.suffix.expose());
    text.push_str("\n\nWrite the code that stands in the place of ");
    text.push_str(PLACEHOLDER);
    text.push_str(". Output only this code: no explanation, no Markdown, nothing of the code around it.");
    text
}

fn marks(infill: &Infill) -> String {
    let mut text = format!("{ONLY_CODE} The cursor stands where <|suffix|> begins.\n\n");
    text.push_str(&context(&infill.context));
    text.push_str(&facts(infill));
    text.push_str("<|prefix|>");
    text.push_str(infill.prefix.expose());
    text.push_str("<|suffix|>");
    text.push_str(infill.suffix.expose());
    text
}

fn generation(infill: &Infill) -> String {
    let tags = tags(infill);
    let instruction = infill.instruction.expose();
    format!("{BY_INSTRUCTION}\n\n{tags}\n\n<instruction>\n{instruction}\n</instruction>")
}

/// Puts prefix and suffix into tags. The cursor is between the two tags.
fn tags(infill: &Infill) -> String {
    let mut text = context(&infill.context);
    text.push_str(&facts(infill));
    text.push_str("<prefix>");
    text.push_str(infill.prefix.expose());
    text.push_str("</prefix>\n<suffix>");
    text.push_str(infill.suffix.expose());
    text.push_str("</suffix>");
    text
}

fn facts(infill: &Infill) -> String {
    let mut text = String::new();
    for (fact, value) in [("Language", &infill.language), ("File", &infill.file_name)] {
        if !value.is_empty() {
            text.push_str(fact);
            text.push_str(": ");
            text.push_str(value.expose());
            text.push('\n');
        }
    }
    text
}

fn context(snippets: &[Snippet]) -> String {
    let mut text = String::new();
    for Snippet { name, content } in snippets {
        text.push_str("<context>\nFile: ");
        text.push_str(name.expose());
        text.push('\n');
        text.push_str(content.expose());
        text.push_str("\n</context>\n");
    }
    text
}
