//! Builds the state from a stored configuration, and adds the resources that every store must have.

use std::sync::Arc;

use bytes::Bytes;
use switchboard::{
    catalogue::Catalogue,
    history::View,
    names::ResourceName,
    resource::{feature::Feature, settings::Settings},
};

use super::OpenError;
use crate::{
    domain::{
        credential::ModelCredential,
        state::{Change, State},
    },
    store::Loaded,
    wire::stored,
};

/// Decodes the stored bytes of all resources.
pub(crate) fn state(loaded: Loaded) -> Result<State, OpenError> {
    let mut state = State::new(loaded.items.clone());
    for item in loaded.items.all(View::Router) {
        let stored = match &item.name {
            ResourceName::Model(name) => loaded.credentials.get(name),
            ResourceName::Feature(_) | ResourceName::Settings => None,
        };
        let credential = stored.map_or(&ModelCredential::None, |stored| &stored.credential);
        let change = stored::decode(&item.name, &item.value, credential).map_err(|source| OpenError::Resource {
            name: item.name.to_string(),
            source,
        })?;
        if let Some(record) = loaded.records.get(&item.name) {
            state.restore(change, *record);
        }
    }
    let update_times = loaded.credentials.into_iter();
    let update_times = update_times.map(|(name, stored)| (name, stored.update_time));
    state.token_update_times = Arc::new(update_times.collect());
    Ok(state)
}

/// Returns the resources that every registry must have and this one lacks: the settings, and the catalogue's features.
///
/// The features are unassigned. A new store lacks all of these resources; an existing one lacks the features that a new
/// release has added.
pub(crate) fn seed(state: &State) -> Vec<(Change, Bytes)> {
    let features = Catalogue::get().features().iter();
    let features = features.map(|facts| Change::Feature(Feature::unset(facts.name.clone())));
    features
        .chain([Change::Settings(Settings::default())])
        .filter(|change| state.items.get(&change.name().to_string()).is_none())
        .map(|change| {
            let value = stored::encode(&change);
            (change, value)
        })
        .collect()
}
