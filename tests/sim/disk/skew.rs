//! Resources that a registry of another build has left on a volume, of which this build can only keep the bytes.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use prost::Message as _;
use switchboard::{
    history::View,
    names::ResourceName,
    pb::{
        registry::{CredentialRef, CredentialState, Endpoint, Feature, Model, ModelEntry},
        types::Provider,
    },
};
use switchboard_registry::domain::{
    items::{Item, ItemChange, Items},
    state::{Record, State, type_url},
};

use super::Content;

/// The model that no router of this build can read.
const MODEL: &str = "models/tomorrow";

/// An encoded field that no message of this build has.
const UNKNOWN_FIELD: [u8; 3] = [0xc0, 0x3e, 1];

impl Content {
    /// A store whose first revision was written by another build: a model of an unknown type, a feature that names this
    /// model, and a feature that is not in the catalogue. Both features also have an unknown field.
    pub(crate) fn of_another_build() -> Self {
        let model = ModelEntry {
            model: Some(Model {
                name: MODEL.to_owned(),
                display_name: Some("Tomorrow".to_owned()),
                family: Some("mistral".to_owned()),
                endpoints: vec![Endpoint {
                    uri: "http://gpu4:8000".to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            credential: Some(CredentialRef {
                state: CredentialState::None.into(),
                ..Default::default()
            }),
        };
        let assigned = |name: &str| {
            let feature = Feature {
                name: name.to_owned(),
                provider: Some(Provider::SelfHosted.into()),
                model: Some(MODEL.to_owned()),
                ..Default::default()
            };
            (
                name.to_owned(),
                [feature.encode_to_vec(), UNKNOWN_FIELD.to_vec()].concat(),
            )
        };
        Self::empty().with([
            (MODEL.to_owned(), model.encode_to_vec()),
            assigned("features/duo_chat"),
            assigned("features/of_tomorrow"),
        ])
    }

    fn with(mut self, resources: [(String, Vec<u8>); 3]) -> Self {
        let (mut items, time) = (Items::empty(self.store, self.incarnation), SystemTime::UNIX_EPOCH);
        let revision = items.revision().next();
        let items_of_it = resources.map(|(name, value)| {
            let name = ResourceName::parse(&name).unwrap();
            let url = match &name {
                ResourceName::Model(_) => "type.googleapis.com/switchboard.registry.v2.ModelEntry",
                known => type_url(known),
            };
            Item::new(name, revision, revision, url, Bytes::from(value))
        });
        let changes = items_of_it.iter().cloned().map(ItemChange::Put).collect();
        self.past.push(items.advance(changes, time));
        let record = Record {
            create_revision: revision,
            revision,
            create_time: time,
            update_time: time,
        };
        self.live
            .extend(items_of_it.map(|item| (Arc::clone(&item.key), (item, record))));
        self
    }
}

/// Returns the resources of a state that no router of this build can read.
pub(crate) fn unreadable(state: &State) -> impl Iterator<Item = &Arc<Item>> {
    let items = state.items.all(View::Router);
    items.filter(|item| item.type_url != type_url(&item.name))
}
