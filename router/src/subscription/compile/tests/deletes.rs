//! A deleted resource is removed at once, with every version and credential that was kept of it.

use super::*;

/// A chat feature whose model is held at its last version, because the newest version is refused.
fn with_held_chat() -> Case {
    let mut case = Case::with_chat();
    let refused = model(|entry| entry.model.as_mut().unwrap().family = None);
    case.write(vec![(A, refused)]);
    assert_eq!(case.held(), held(A, "refused", 2));
    assert!(case.chat().is_ok());
    case
}

#[test]
fn a_deleted_model_is_removed_with_its_held_version_and_its_credential() {
    for mut case in [Case::with_chat(), with_held_chat()] {
        case.store.delete(&[A]);
        case.compile();
        assert!(case.held().iter().all(|(name, ..)| name != A));
        assert!(case.chat().is_err());
        assert!(!case.last().catalog.models.contains_key(&ModelName::parse(A).unwrap()));
        assert!(case.used.credential_ids().is_empty());
    }
}

#[test]
fn the_credential_of_a_deleted_model_is_no_longer_wanted() {
    let mut case = Case::with_chat();
    case.write(vec![(A, model_with_token(TOKEN_B))]);
    assert_eq!(case.wanted(), [TOKEN_B]);
    case.store.delete(&[A]);
    case.compile();
    assert!(case.wanted().is_empty());
    assert!(case.used.credential_ids().is_empty());
}

#[test]
fn a_recreated_model_inherits_nothing_even_if_its_deletion_was_not_compiled() {
    for next in [
        model(|entry| entry.model.as_mut().unwrap().family = None),
        model_with_token(TOKEN_B),
    ] {
        let mut case = Case::with_chat();
        case.store.delete(&[A]);
        case.store.write(vec![(A, next)]);
        case.compile();
        let [(name, _, used)] = &case.held()[..] else {
            panic!("{:?}", case.held());
        };
        assert_eq!((name.as_str(), *used), (A, 0));
        assert!(matches!(case.chat(), Err(Unusable::NotReady)));
        assert!(case.used.credential_ids().is_empty());
    }
}

#[test]
fn a_feature_does_not_keep_its_setting_with_a_deleted_model() {
    let mut case = Case::with_chat();
    case.store.delete(&[A]);
    case.store
        .write(vec![(B, model_with_token(TOKEN_B)), (CHAT, assigned(B))]);
    case.compile();
    assert_eq!(case.held(), held(B, "pending", 0));
    assert!(matches!(case.chat(), Err(Unusable::NotReady)));
}
