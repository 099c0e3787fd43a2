use std::time::UNIX_EPOCH;

use bytes::Bytes;
use prost::Message as _;
use switchboard::{
    history::Incarnation,
    names::{IncarnationId, StoreId},
};

use super::*;
use crate::merge::Editable as _;

fn items() -> Items {
    let incarnation = Incarnation {
        number: 1,
        id: IncarnationId::random(),
    };
    let mut items = Items::empty(StoreId::random(), incarnation);
    for _ in 0..9 {
        items.advance(Vec::new(), UNIX_EPOCH);
    }
    items
}

fn request(page_token: &str) -> registry::ListChangesRequest {
    registry::ListChangesRequest {
        page_size: 2,
        page_token: page_token.to_owned(),
        resource: "models/gone".to_owned(),
        actor: "anonymous".to_owned(),
    }
}

fn past(revision: i64, bytes: usize) -> PastChange {
    PastChange {
        revision: Revision::new(revision).unwrap(),
        commit_time: UNIX_EPOCH,
        actor: "anonymous".to_owned(),
        name: ResourceName::parse("models/gone").unwrap(),
        before: Some(Bytes::from(vec![0; bytes])),
        after: None,
    }
}

fn changes(changes: Vec<PastChange>, is_cut: bool) -> PastChanges {
    PastChanges {
        changes,
        is_cut,
        oldest: Revision::new(3),
    }
}

#[test]
fn a_page_continues_after_the_previous_one_and_shows_nothing_newer() {
    let mut items = items();
    let first = list(&request(""), &items).unwrap();
    assert_eq!(
        (first.query.head.get(), first.query.count, &first.query.after),
        (9, 2, &None)
    );
    let answer = page(&first, changes(vec![past(9, 1), past(7, 1)], true), &items);
    assert_eq!((answer.revision, answer.oldest_revision), (9, 3));

    items.advance(Vec::new(), UNIX_EPOCH);
    let second = list(&request(&answer.next_page_token), &items).unwrap();
    let after = Some((Revision::new(7).unwrap(), ResourceName::parse("models/gone").unwrap()));
    assert_eq!((second.query.head.get(), &second.query.after), (9, &after));
    let last = page(&second, changes(vec![past(4, 1)], false), &items);
    assert_eq!(last.next_page_token, "");
}

#[test]
fn a_page_token_is_only_valid_with_its_filters_and_its_incarnation() {
    let items = items();
    let listing = list(&request(""), &items).unwrap();
    let token = page(&listing, changes(vec![past(9, 1)], true), &items).next_page_token;
    let other_filters = [
        registry::ListChangesRequest {
            resource: String::new(),
            ..request(&token)
        },
        registry::ListChangesRequest {
            actor: "system".to_owned(),
            ..request(&token)
        },
    ];
    for request in other_filters {
        let reason = list(&request, &items).unwrap_err().as_slice()[0].reason;
        assert_eq!(reason, FieldReason::PageTokenInvalid);
    }
    assert!(list(&request(&token), &self::items()).is_err(), "another incarnation");
    assert!(list(&request(&token), &items).is_ok());
}

#[test]
fn all_invalid_fields_of_a_listing_are_reported_at_once() {
    for bad in ["model/a", "features/", "tokens/1", "models/A", "x"] {
        let request = registry::ListChangesRequest {
            page_size: -1,
            page_token: "x".to_owned(),
            resource: bad.to_owned(),
            ..Default::default()
        };
        let violations = list(&request, &items()).unwrap_err();
        let fields: Vec<_> = violations.as_slice().iter().map(|bad| &*bad.field).collect();
        assert_eq!(fields, ["resource", "page_size", "page_token"], "{bad}");
    }
}

#[test]
fn a_page_ends_before_it_becomes_too_large() {
    let items = items();
    let listing = list(&request(""), &items).unwrap();
    let answer = page(
        &listing,
        changes(vec![past(9, 600_000), past(8, 600_000)], false),
        &items,
    );
    assert_eq!(answer.changes.len(), 1);
    let next = list(&request(&answer.next_page_token), &items).unwrap();
    assert_eq!(next.query.after.unwrap().0.get(), 9);
    let one = page(&listing, changes(vec![past(9, 2_000_000)], false), &items);
    assert_eq!((one.changes.len(), one.next_page_token.as_str()), (1, ""));
}

#[test]
fn differing_fields_are_listed_with_the_paths_of_a_mask() {
    let model = |change: fn(&mut registry::ModelEntry, &mut registry::Model)| {
        let (mut entry, mut model) = (registry::ModelEntry::default(), registry::Model::default());
        change(&mut entry, &mut model);
        entry.model = Some(model);
        entry.encode_to_vec()
    };
    let name = ResourceName::parse("models/a").unwrap();
    let plain = model(|_, _| {});
    let full = model(|entry, model| {
        entry.credential = Some(registry::CredentialRef::default());
        *model = registry::Model {
            display_name: Some("A".to_owned()),
            family: Some("mistral".to_owned()),
            platform: Some(2),
            endpoints: vec![registry::Endpoint::default()],
            identifier: Some("x".to_owned()),
            limits: Some(registry::ModelLimits {
                max_concurrency: Some(1),
                max_queue: Some(1),
                queue_timeout: Some(prost_types::Duration::default()),
                connect_timeout: Some(prost_types::Duration::default()),
                first_token_timeout: Some(prost_types::Duration::default()),
                idle_timeout: Some(prost_types::Duration::default()),
                total_timeout: Some(prost_types::Duration::default()),
                max_output_tokens: Some(1),
                context_tokens: Some(1),
            }),
            infill_mode: Some(2),
            tls: Some(registry::Tls {
                ca_pem: Some("x".to_owned()),
                server_name: Some("x".to_owned()),
            }),
            disabled: Some(true),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            platform_options: Some(registry::PlatformOptions {
                api_version: Some("x".to_owned()),
                region: Some("x".to_owned()),
                project: Some("x".to_owned()),
            }),
            ..Default::default()
        };
    });
    // Every leaf that can be set, except the short form of a single endpoint.
    let settable = registry::Model::layout().leaves();
    let mut expected: Vec<_> = settable.filter(|path| *path != "endpoint").collect();
    expected.sort_unstable();
    assert_eq!(fields(&name, Some(&plain), Some(&full)), expected);
    assert!(fields(&name, Some(&plain), Some(&plain)).is_empty());
    assert!(fields(&name, None, Some(&full)).is_empty());

    let feature = ResourceName::parse("features/duo_chat").unwrap();
    let set = registry::Feature {
        provider: Some(4),
        model: Some("models/a".to_owned()),
        fallback_models: vec!["models/b".to_owned()],
        rules: vec![registry::FeatureRule::default()],
        limits: Some(registry::FeatureLimits {
            max_concurrency: Some(1),
            reserved_concurrency: Some(0),
        }),
        hedge_delay: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let found = fields(&feature, Some(&[]), Some(&set.encode_to_vec()));
    let mut expected: Vec<_> = registry::Feature::layout().leaves().collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let set = registry::Settings {
        beta_enabled: Some(true),
        inference_paused: Some(true),
        ..Default::default()
    };
    let found = fields(&ResourceName::Settings, Some(&[]), Some(&set.encode_to_vec()));
    assert_eq!(found, ["beta_enabled", "inference_paused"]);
}
