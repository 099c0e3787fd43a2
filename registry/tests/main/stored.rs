//! Values that earlier builds stored: this build reads each value and writes the same bytes, so that digests do not
//! change.
//!
//! The registry of 2026-12-01 wrote `stored/rows.jsonl` and `stored/switchboard.db` through its port: every field by
//! itself, then random combinations of fields, in creates and updates.

use std::collections::BTreeSet;

use serde_json::Value;
use switchboard::{
    digest::{ItemDigest, ItemParts},
    endpoint::Origin,
    history::View,
    names::{CredentialId, ResourceName, Revision},
    secret::ApiToken,
};
use switchboard_registry::{
    domain::credential::{ModelCredential, SetCredential},
    store::Store,
    wire::stored::{decode, encode},
};
use tempfile::TempDir;

const ROWS: &str = include_str!("../stored/rows.jsonl");
const DATABASE: &[u8] = include_bytes!("../stored/switchboard.db");

fn bytes(hex: &Value) -> Vec<u8> {
    let (pairs, _) = hex.as_str().unwrap().as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(byte).collect()
}

fn credential(row: &Value) -> ModelCredential {
    let text = |key: &str| row["credential"][key].as_str().unwrap_or_default();
    match text("state") {
        "set" => ModelCredential::Set(SetCredential {
            id: CredentialId::parse(text("id")).unwrap(),
            origins: text("origins")
                .split(' ')
                .map(|origin| Origin::parse(origin).unwrap())
                .collect::<BTreeSet<_>>(),
            token: ApiToken::parse(text("token").to_owned()).unwrap(),
        }),
        "dropped" => ModelCredential::Dropped,
        _ => ModelCredential::None,
    }
}

#[test]
fn every_stored_row_is_written_back_byte_for_byte_with_its_digest() {
    let mut count = 0;
    for row in ROWS.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let name = row["name"].as_str().unwrap();
        let value = bytes(&row["value"]);
        let change = decode(&ResourceName::parse(name).unwrap(), &value, &credential(&row)).unwrap();
        let written = encode(&change);
        assert_eq!(written, value, "{name}: {change:?}");
        let revision = |key: &str| Revision::new(row[key].as_i64().unwrap()).unwrap();
        let digest = ItemDigest::of(&ItemParts {
            name,
            create_revision: revision("create_revision"),
            revision: revision("revision"),
            type_url: row["type_url"].as_str().unwrap(),
            value: &written,
            requires: &[],
        });
        assert_eq!(digest.as_bytes()[..], bytes(&row["item"]), "{name}");
        count += 1;
    }
    assert!(count > 300, "{count}");
}

#[tokio::test]
async fn a_stored_database_is_read_completely_and_written_back_byte_for_byte() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("switchboard.db");
    std::fs::write(&path, DATABASE).unwrap();
    // Opening the database computes every digest of its history again.
    let (store, loaded) = Store::open(&path).await.unwrap();
    let mut count = 0;
    for item in loaded.items.all(View::Router) {
        let stored = match &item.name {
            ResourceName::Model(name) => loaded.credentials.get(name),
            ResourceName::Feature(_) | ResourceName::Settings => None,
        };
        let credential = stored.map_or(ModelCredential::None, |stored| stored.credential.clone());
        let change = decode(&item.name, &item.value, &credential).unwrap();
        assert_eq!(encode(&change), item.value, "{}", item.key);
        count += 1;
    }
    assert!(count > 100, "{count}");
    drop(store);
}
