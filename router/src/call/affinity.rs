//! Computes a call's affinity key. Calls that begin with the same text share a key and prefer one server, which need
//! not process that text again. Pure.

use xxhash_rust::xxh3::Xxh3;

use crate::{
    catalog::Scope,
    prompt::{Input, Message, Request},
};

/// Returns the affinity key of a call. `None`: no server is preferred.
///
/// A key that the caller gave is used first. Otherwise, the key of a chat that contains an answer is made from its user
/// and its messages up to the first one of the user; that of infill from its user and the file name. A system prompt
/// alone gives no key: it is the same for all users, and would send all calls to one server.
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
        // The length comes first, so that two different lists of parts never give the same bytes.
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
    fn input_that_is_not_specific_to_a_user_or_was_not_processed_yet_gives_no_key() {
        assert_eq!(
            of(chat("s", "q", false, ""), None, Some("u")),
            None,
            "no server has processed this chat yet"
        );
        let unasked = vec![Message::System(said("s")), Message::Assistant(Turn::default())];
        assert_eq!(of(Input::Chat(unasked), None, Some("u")), None, "a system prompt alone");
        assert_eq!(of(infill("README.md"), None, None), None, "the user is unknown");
        assert_eq!(of(infill(""), None, Some("u")), None);
        assert_eq!(of(Input::Prompt(said("p")), None, Some("u")), None);
    }

    #[test]
    fn a_users_file_or_the_callers_own_key_gives_a_key() {
        let file = of(infill("a.rs"), None, Some("u"));
        assert!(file.is_some());
        assert_ne!(file, of(infill("b.rs"), None, Some("u")));
        let own = of(infill("a.rs"), Some("k"), Some("u"));
        assert_eq!(own, of(Input::Prompt(said("p")), Some("k"), None));
        assert_ne!(own, file);
    }
}
