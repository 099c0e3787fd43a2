//! Tests of API tokens: set, kept, replaced, cleared and dropped.

use std::collections::BTreeSet;

use switchboard::{
    names::{CredentialId, ModelName},
    pb::registry,
};

use super::{World, endpoints, model, named};
use crate::domain::credential::ModelCredential;

fn with_token() -> World {
    let mut world = World::new();
    let model = registry::Model {
        api_token: Some("first".to_owned()),
        endpoints: endpoints(&[("http://gpu1:8000", None), ("http://gpu2:8000", None)]),
        endpoint: None,
        ..model("Mistral", "mistral", "")
    };
    assert!(world.create(model).unwrap().api_token_set);
    world
}

fn credential(world: &World) -> Option<(CredentialId, String, BTreeSet<String>)> {
    match world.state.credential(&ModelName::parse("models/mistral").unwrap()) {
        ModelCredential::Set(set) => Some((
            set.id,
            set.token.expose().to_owned(),
            set.origins.iter().map(ToString::to_string).collect(),
        )),
        ModelCredential::None | ModelCredential::Dropped => None,
    }
}

fn with(list: &[(&str, Option<i32>)], token: Option<&str>) -> registry::Model {
    registry::Model {
        endpoints: endpoints(list),
        api_token: token.map(str::to_owned),
        ..named("models/mistral")
    }
}

#[test]
fn a_token_is_kept_while_no_origin_is_added() {
    let mut world = with_token();
    let first = credential(&world).unwrap();
    assert_eq!(
        first.2,
        BTreeSet::from(["http://gpu1:8000".into(), "http://gpu2:8000".into()])
    );
    for list in [
        &[("http://gpu1:8000/v1", None), ("http://gpu2:8000", Some(3))][..],
        &[("http://gpu2:8000/other", None)],
        &[("http://GPU1:8000", None)],
    ] {
        let updated = world.update(with(list, None), &[]).unwrap();
        assert!(updated.api_token_set && !updated.api_token_dropped, "{list:?}");
        assert_eq!(credential(&world).as_ref(), Some(&first), "{list:?}");
    }
}

#[test]
fn a_token_is_kept_when_zones_change() {
    let mut world = with_token();
    let first = credential(&world).unwrap();
    for zone in ["a", "b", ""] {
        let mut moved = with(&[("http://gpu1:8000", None), ("http://gpu2:8000", None)], None);
        zone.clone_into(&mut moved.endpoints[0].zone);
        let updated = world.update(moved, &[]).unwrap();
        assert_eq!(updated.endpoints[0].zone, zone);
        assert_eq!(credential(&world).as_ref(), Some(&first));
    }
}

#[test]
fn a_token_for_a_platforms_own_endpoint_is_bound_to_it() {
    let mut world = World::new();
    let claude = registry::Model {
        family: Some("claude_3".to_owned()),
        identifier: Some("anthropic/claude".to_owned()),
        endpoint: None,
        api_token: Some("first".to_owned()),
        ..model("Mistral", "", "")
    };
    world.create(claude).unwrap();
    let first = credential(&world).unwrap();
    assert_eq!(first.2, BTreeSet::from(["https://api.anthropic.com:443".into()]));
    // The same origin, given explicitly.
    world
        .update(with(&[("https://api.anthropic.com/v1", None)], None), &[])
        .unwrap();
    assert_eq!(credential(&world).as_ref(), Some(&first));
    world.update(named("models/mistral"), &["endpoints"]).unwrap();
    assert_eq!(credential(&world).as_ref(), Some(&first));

    let proxy = world.update(with(&[("http://proxy", None)], None), &[]).unwrap();
    assert!(proxy.api_token_dropped);
    world.update(with(&[], Some("second")), &[]).unwrap();
    let back = world.update(named("models/mistral"), &["endpoints"]).unwrap();
    assert!(back.api_token_dropped && back.endpoints.is_empty());
}

#[test]
fn a_token_is_dropped_when_an_origin_is_added_without_a_new_token() {
    for origin in ["http://gpu3:8000", "https://gpu1:8000", "http://gpu1:8001"] {
        let mut world = with_token();
        let list = [("http://gpu1:8000", None), (origin, None)];
        let dropped = world.update(with(&list, None), &[]).unwrap();
        assert!(!dropped.api_token_set && dropped.api_token_dropped, "{origin}");
        assert_eq!(credential(&world), None);

        let back = world.update(with(&[("http://gpu1:8000", None)], None), &[]).unwrap();
        assert!(back.api_token_dropped, "a dropped token is not restored");
        let given = world.update(with(&list, Some("second")), &[]).unwrap();
        assert!(given.api_token_set && !given.api_token_dropped);
        assert!(credential(&world).unwrap().2.len() == 2);
    }
}

#[test]
fn a_token_is_replaced_cleared_and_never_returned() {
    let mut world = with_token();
    let first = credential(&world).unwrap();
    let read = world.update(with(&[], Some("second")), &[]).unwrap();
    let second = credential(&world).unwrap();
    assert_eq!(second.1, "second");
    assert_ne!(second.0, first.0, "each new token has its own id");
    assert!(!format!("{read:?}").contains("\"second\""));

    let before = world.revision();
    let again = world.update(with(&[], Some("second")), &[]).unwrap();
    assert_eq!(
        again.revision,
        before + 1,
        "setting the same text again makes a new credential"
    );
    assert_ne!(credential(&world).unwrap().0, second.0);

    let cleared = world.update(with(&[], Some("")), &[]).unwrap();
    assert!(!cleared.api_token_set && !cleared.api_token_dropped);
    assert!(cleared.api_token_update_time.is_some());
    let before = world.revision();
    world.update(with(&[], None), &["api_token"]).unwrap();
    assert_eq!(world.revision(), before, "there is no token left to clear");
    world.update(with(&[("http://new", None)], None), &[]).unwrap();
    let moved = world.update(named("models/mistral"), &["api_token"]).unwrap();
    assert!(!moved.api_token_dropped, "a model without a token drops none");
}

#[test]
fn a_mask_clears_a_token() {
    let mut world = with_token();
    assert!(
        !world
            .update(named("models/mistral"), &["api_token"])
            .unwrap()
            .api_token_set
    );
}
