//! A small history of a store for the tests of this module: states, cursors and resources with matching digests.

use std::{collections::BTreeMap, sync::Arc};

use switchboard::{
    digest::{ChainDigest, StateDigest},
    history::{Cursor, Incarnation, View},
    names::{IncarnationId, Revision, StoreId},
    pb::{registry, types},
    stream::Deleted,
};

use super::{received::Received, resource::Resource};

pub(crate) const MODEL_URL: &str = "type.googleapis.com/switchboard.registry.v1.ModelEntry";
pub(crate) const FEATURE_URL: &str = "type.googleapis.com/switchboard.registry.v1.Feature";
pub(crate) const TOKEN_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const TOKEN_B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

pub(crate) fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap()
}

pub(crate) fn incarnation(number: i64) -> Incarnation {
    Incarnation {
        number,
        id: IncarnationId::parse(&format!("{number:032x}")).unwrap(),
    }
}

/// The resources of a store as the registry sends them, revision by revision.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) cursor: Cursor,
    pub(crate) resources: BTreeMap<String, registry::Resource>,
    /// Names of deleted resources, with the revision that deleted each.
    pub(crate) deleted: BTreeMap<String, i64>,
}

impl Store {
    /// Creates a store at revision 1, without resources.
    pub(crate) fn new() -> Self {
        Self {
            cursor: Cursor {
                store: StoreId::parse(&"5".repeat(32)).unwrap(),
                incarnation: incarnation(1),
                revision: revision(1),
                chain: ChainDigest::NONE,
                view: View::Router,
                state: StateDigest::EMPTY,
            },
            resources: BTreeMap::new(),
            deleted: BTreeMap::new(),
        }
    }

    /// Makes the next revision, which creates or changes each named resource.
    pub(crate) fn write(&mut self, changes: Vec<(&str, prost_types::Any)>) {
        let next = self.cursor.revision.next();
        for (name, payload) in changes {
            let create_revision = self
                .resources
                .get(name)
                .map_or_else(|| next.get(), |old| old.create_revision);
            let resource = registry::Resource {
                name: name.to_owned(),
                create_revision,
                revision: next.get(),
                payload: Some(payload),
                requires: Vec::new(),
            };
            self.deleted.remove(name);
            self.resources.insert(name.to_owned(), resource);
        }
        self.cursor.revision = next;
        self.seal();
    }

    /// Makes the next revision, which deletes each named resource.
    pub(crate) fn delete(&mut self, names: &[&str]) {
        let next = self.cursor.revision.next();
        for &name in names {
            self.resources.remove(name);
            self.deleted.insert(name.to_owned(), next.get());
        }
        self.cursor.revision = next;
        self.seal();
    }

    /// Changes one resource in place, without a new revision.
    pub(crate) fn spoil(&mut self, name: &str, change: impl FnOnce(&mut registry::Resource)) {
        change(self.resources.get_mut(name).unwrap());
        self.seal();
    }

    /// Begins a new incarnation of the store.
    pub(crate) fn restore(&mut self) {
        self.cursor.incarnation = incarnation(self.cursor.incarnation.number + 1);
        self.cursor.revision = self.cursor.revision.next();
    }

    pub(crate) fn all(&self) -> Vec<Resource> {
        let read = self.resources.values().cloned().map(Resource::try_from);
        read.collect::<Result<_, _>>().unwrap()
    }

    pub(crate) fn changed_after(&self, from: Revision) -> Vec<Resource> {
        let all = self.all().into_iter();
        all.filter(|resource| resource.raw.revision > from).collect()
    }

    pub(crate) fn deleted_after(&self, from: Revision) -> Vec<Deleted> {
        let deleted = self.deleted.iter().map(|(name, number)| Deleted {
            name: name.as_str().into(),
            revision: revision(*number),
        });
        deleted.filter(|deleted| deleted.revision > from).collect()
    }

    pub(crate) fn received(&self) -> Received {
        let all = self.all().into_iter().map(Arc::new);
        let resources = all.map(|resource| (Arc::clone(&resource.raw.name), resource));
        Received::from_snapshot(self.cursor, resources.collect()).unwrap()
    }

    fn seal(&mut self) {
        let all = self.all();
        self.cursor.state = all
            .iter()
            .fold(StateDigest::EMPTY, |state, resource| state.plus(resource.digest));
    }
}

fn any(type_url: &str, message: &impl prost::Message) -> prost_types::Any {
    prost_types::Any {
        type_url: type_url.to_owned(),
        value: message.encode_to_vec(),
    }
}

/// A model with one server, after `change`.
pub(crate) fn model(change: impl FnOnce(&mut registry::ModelEntry)) -> prost_types::Any {
    let mut entry = registry::ModelEntry {
        model: Some(registry::Model {
            display_name: Some("Model".to_owned()),
            family: Some("llama3".to_owned()),
            endpoints: vec![registry::Endpoint {
                uri: "http://gpu1:8000/v1".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        credential: Some(credential(registry::CredentialState::None, "")),
    };
    change(&mut entry);
    any(MODEL_URL, &entry)
}

/// A model whose API token has this id.
pub(crate) fn model_with_token(id: &str) -> prost_types::Any {
    model(|entry| entry.credential = Some(credential(registry::CredentialState::Set, id)))
}

pub(crate) fn credential(state: registry::CredentialState, id: &str) -> registry::CredentialRef {
    let is_set = state == registry::CredentialState::Set;
    registry::CredentialRef {
        id: id.to_owned(),
        state: state.into(),
        origins: if is_set {
            vec!["http://gpu1:8000".to_owned()]
        } else {
            Vec::new()
        },
    }
}

pub(crate) fn feature(provider: types::Provider, model: Option<&str>) -> prost_types::Any {
    let feature = registry::Feature {
        provider: Some(provider.into()),
        model: model.map(str::to_owned),
        ..Default::default()
    };
    any(FEATURE_URL, &feature)
}

/// A feature that is assigned to a model.
pub(crate) fn assigned(model: &str) -> prost_types::Any {
    feature(types::Provider::SelfHosted, Some(model))
}
