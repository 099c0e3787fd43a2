//! What keeps calls together that share a beginning, so that a server which has read it once need not read it again: pure.

use xxhash_rust::xxh3::Xxh3;

use crate::{
    catalog::Scope,
    prompt::{Input, Message, Request},
};

/// The caller's own key. Else, for a chat that has an answer in it, its user and its beginning up to the first of the
/// user's messages; for infill, its user and the file. Never a system prompt alone: it is the same for all, and would send
/// all to one server.
pub(super) fn key(request: &Request, scope: &Scope<'_>) -> Option<u64> {
    let user = scope.global_user_id.or(scope.user_id);
    match (&request.affinity_key, &request.input) {
        (Some(key), _) => Some(hash(["key", key.expose()])),
        (None, Input::Chat(messages)) => {
            let has_answer = messages.iter().any(|message| matches!(message, Message::Assistant(_)));
            let first = messages
                .iter()
                .position(|message| matches!(message, Message::User(_)))?;
            let beginning = messages.iter().take(first + 1).map(text);
            has_answer.then(|| hash(["chat", user.unwrap_or_default()].into_iter().chain(beginning)))
        }
        (None, Input::Infill(infill)) if !infill.file_name.is_empty() => {
            user.map(|user| hash(["infill", user, infill.file_name.expose()]))
        }
        (None, Input::Infill(_) | Input::Prompt(_)) => None,
    }
}

fn text(message: &Message) -> &str {
    match message {
        Message::System(text) | Message::User(text) => text.expose(),
        Message::Assistant(turn) => turn.text.expose(),
        Message::Tool(result) => result.content.expose(),
    }
}

fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hash = Xxh3::new();
    for part in parts {
        // The length first, so that no two lists of parts are the same bytes.
        hash.update(&part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::{Infill, Options, Text, Tools, Turn};

    fn of(input: Input, affinity_key: Option<&str>, user: Option<&str>) -> Option<u64> {
        let request = Request {
            feature: "duo_chat".to_owned(),
            input,
            tools: Tools::default(),
            response_format: None,
            options: Options::default(),
            affinity_key: affinity_key.map(|key| Text::from(key.to_owned())),
        };
        let scope = Scope {
            global_user_id: user,
            ..Scope::default()
        };
        key(&request, &scope)
    }

    fn said(text: &str) -> Text {
        Text::from(text.to_owned())
    }

    fn chat(system: &str, question: &str, has_answer: bool, more: &str) -> Input {
        let mut messages = vec![Message::System(said(system)), Message::User(said(question))];
        if has_answer {
            messages.push(Message::Assistant(Turn::default()));
            messages.push(Message::User(said(more)));
        }
        Input::Chat(messages)
    }

    fn infill(file: &str) -> Input {
        Input::Infill(Infill {
            file_name: said(file),
            ..Infill::default()
        })
    }

    #[test]
    fn a_conversation_keeps_its_key_while_it_grows_and_shares_it_with_no_other() {
        let first = of(chat("s", "q", true, "and?"), None, Some("u"));
        assert!(first.is_some());
        assert_eq!(first, of(chat("s", "q", true, "why?"), None, Some("u")));
        assert_ne!(first, of(chat("s", "q", true, "and?"), None, Some("v")));
        assert_ne!(first, of(chat("s", "r", true, "and?"), None, Some("u")));
        assert_ne!(first, of(chat("sq", "", true, "and?"), None, Some("u")));
    }

    #[test]
    fn what_is_the_same_for_all_is_no_key() {
        assert_eq!(
            of(chat("s", "q", false, ""), None, Some("u")),
            None,
            "nothing was read yet"
        );
        let unasked = vec![Message::System(said("s")), Message::Assistant(Turn::default())];
        assert_eq!(of(Input::Chat(unasked), None, Some("u")), None, "a system prompt alone");
        assert_eq!(of(infill("README.md"), None, None), None, "anybody's file");
        assert_eq!(of(infill(""), None, Some("u")), None);
        assert_eq!(of(Input::Prompt(said("p")), None, Some("u")), None);
    }

    #[test]
    fn a_file_and_the_callers_own_key_are_keys() {
        let file = of(infill("a.rs"), None, Some("u"));
        assert!(file.is_some());
        assert_ne!(file, of(infill("b.rs"), None, Some("u")));
        let own = of(infill("a.rs"), Some("k"), Some("u"));
        assert_eq!(own, of(Input::Prompt(said("p")), Some("k"), None));
        assert_ne!(own, file);
    }
}
