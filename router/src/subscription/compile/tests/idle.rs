//! A model that takes no calls is in force in that state: calls never return to the version before it.

use super::*;

/// Model a at another server, with token B, after `change`.
fn moved(change: impl FnOnce(&mut registry::ModelEntry)) -> prost_types::Any {
    model(|entry| {
        let model = entry.model.as_mut().unwrap();
        model.endpoints[0].uri = "http://gpu2:8000/v1".to_owned();
        let mut token = credential(CredentialState::Set, TOKEN_B);
        token.origins = vec!["http://gpu2:8000".to_owned()];
        entry.credential = Some(token);
        change(entry);
    })
}

/// Model a at its first server, with token A, after `change`.
fn at_first(change: impl FnOnce(&mut registry::ModelEntry)) -> prost_types::Any {
    model(|entry| {
        entry.credential = Some(credential(CredentialState::Set, TOKEN_A));
        change(entry);
    })
}

fn disable(entry: &mut registry::ModelEntry) {
    entry.model.as_mut().unwrap().disabled = Some(true);
}

fn refuse(entry: &mut registry::ModelEntry) {
    entry.model.as_mut().unwrap().family = None;
}

impl Case {
    /// A chat feature that was served by model a, and now is by model b, which has no token.
    fn with_chat_elsewhere() -> Self {
        let mut case = Self::with_chat();
        case.write(vec![(B, model(|_| ())), (CHAT, assigned(B))]);
        assert_eq!(case.held(), []);
        case
    }

    fn server(&self) -> Option<&str> {
        self.chat().ok().map(|model| model.spec.servers()[0].uri.as_str())
    }

    /// Fetches token B, after which the new server of model a answers the chat.
    fn comes_to_the_new_server(&mut self) {
        assert_eq!(self.wanted(), [TOKEN_B]);
        self.fetched(TOKEN_B);
        self.compile();
        assert_eq!(self.held(), []);
        assert_eq!(self.server(), Some("http://gpu2:8000/v1"));
        assert_eq!(self.chat_token().as_deref(), Some(TOKEN_B));
    }
}

#[test]
fn a_model_that_moved_while_it_was_disabled_does_not_return_to_its_old_server() {
    let mut case = Case::with_chat();
    case.write(vec![(A, at_first(disable))]);
    assert_eq!(case.used.credential_ids().len(), 1, "enabling it again needs no fetch");
    case.write(vec![(A, moved(disable))]);
    assert_eq!((case.held(), case.wanted()), (vec![], vec![]));
    assert!(matches!(case.chat(), Err(Unusable::Disabled)));
    assert!(case.used.credential_ids().is_empty(), "the old token is dropped");
    case.write(vec![(A, moved(|_| ()))]);
    assert_eq!(case.held(), held(A, "pending", 0));
    assert!(matches!(case.chat(), Err(Unusable::NotReady)));
    case.comes_to_the_new_server();
}

#[test]
fn a_disabled_model_that_is_moved_and_enabled_in_one_write_does_not_return_to_its_old_server() {
    let mut case = Case::with_chat();
    case.write(vec![(A, at_first(disable))]);
    case.write(vec![(A, moved(|_| ()))]);
    assert_eq!(case.held(), held(A, "pending", 0));
    assert!(matches!(case.chat(), Err(Unusable::NotReady)));
    assert!(case.used.credential_ids().is_empty());
    case.comes_to_the_new_server();
}

#[test]
fn a_model_that_moved_while_no_feature_named_it_does_not_return_to_its_old_server() {
    let mut case = Case::with_chat_elsewhere();
    case.write(vec![(A, moved(|_| ()))]);
    assert_eq!((case.held(), case.wanted()), (vec![], vec![]));
    assert!(case.used.credential_ids().is_empty(), "the old token is dropped");
    case.write(vec![(CHAT, assigned(A))]);
    assert_eq!(
        case.held(),
        [held(CHAT, "dependency", 3), held(A, "pending", 0)].concat()
    );
    assert_eq!(case.chat().unwrap().name.id(), "b", "model b answers until then");
    case.comes_to_the_new_server();
}

#[test]
fn a_model_that_is_moved_and_assigned_in_one_write_does_not_return_to_its_old_server() {
    let mut case = Case::with_chat_elsewhere();
    case.write(vec![(A, moved(|_| ())), (CHAT, assigned(A))]);
    assert_eq!(
        case.held(),
        [held(CHAT, "dependency", 3), held(A, "pending", 0)].concat()
    );
    assert_eq!(case.chat().unwrap().name.id(), "b");
    case.comes_to_the_new_server();
}

#[test]
fn a_model_moved_while_its_last_feature_is_reassigned_loses_its_old_version_at_once() {
    let mut case = Case::with_chat();
    case.write(vec![(A, moved(|_| ())), (B, model(|_| ())), (CHAT, assigned(B))]);
    assert_eq!((case.held(), case.wanted()), (vec![], vec![]));
    assert!(case.used.credential_ids().is_empty());
    case.write(vec![(CHAT, assigned(A))]);
    assert_eq!(case.chat().unwrap().name.id(), "b");
    case.comes_to_the_new_server();
}

#[test]
fn a_model_that_was_idle_without_a_change_returns_without_a_fetch() {
    let mut case = Case::with_chat();
    case.write(vec![(A, at_first(disable))]);
    case.write(vec![(A, at_first(|_| ()))]);
    assert_eq!((case.held(), case.wanted()), (vec![], vec![]));
    assert_eq!(case.chat_token().as_deref(), Some(TOKEN_A));

    let mut case = Case::with_chat_elsewhere();
    case.write(vec![(CHAT, assigned(A))]);
    assert_eq!((case.held(), case.wanted()), (vec![], vec![]));
    assert_eq!(case.chat_token().as_deref(), Some(TOKEN_A));
}

#[test]
fn a_model_that_is_called_by_a_held_setting_keeps_its_last_version() {
    let mut case = Case::with_chat();
    case.write(vec![(B, model_with_token(TOKEN_B)), (CHAT, assigned(B))]);
    case.write(vec![(A, moved(|_| ()))]);
    assert_eq!(case.held()[1], (A.to_owned(), "pending", 2));
    assert_eq!(case.server(), Some("http://gpu1:8000/v1"));
}

#[test]
fn a_refused_version_that_disables_the_model_ends_the_version_before() {
    let mut case = Case::with_chat();
    case.write(vec![(
        A,
        at_first(|entry| {
            refuse(entry);
            disable(entry);
        }),
    )]);
    assert_eq!(case.held(), held(A, "refused", 0));
    assert!(case.used.credential_ids().is_empty());
    case.write(vec![(A, at_first(refuse))]);
    assert_eq!(case.held(), held(A, "refused", 0));
    assert!(matches!(case.chat(), Err(Unusable::NotReady)));
}

#[test]
fn a_refused_version_keeps_the_last_good_one_even_if_no_feature_names_the_model() {
    let mut case = Case::with_chat_elsewhere();
    case.write(vec![(A, at_first(refuse))]);
    assert_eq!(case.held(), held(A, "refused", 2));
    case.write(vec![(CHAT, assigned(A))]);
    assert_eq!(case.held(), held(A, "refused", 2));
    assert_eq!(case.chat_token().as_deref(), Some(TOKEN_A));
}

#[test]
fn a_credential_given_again_is_pending_and_not_missing() {
    let dropped = || model(|entry| entry.credential = Some(credential(CredentialState::Dropped, "")));
    let mut case = Case::with_chat();
    case.write(vec![(A, dropped())]);
    assert!(matches!(case.chat(), Err(Unusable::CredentialMissing)));
    case.write(vec![(A, moved(|_| ()))]);
    assert_eq!(case.held(), held(A, "pending", 0));
    assert!(matches!(case.chat(), Err(Unusable::NotReady)));
    case.comes_to_the_new_server();

    let mut case = Case::with_chat();
    case.write(vec![(A, dropped())]);
    for payload in [at_first(disable), moved(disable), moved(|_| ())] {
        case.write(vec![(A, payload)]);
    }
    assert!(matches!(case.chat(), Err(Unusable::NotReady)));
    case.comes_to_the_new_server();
}
