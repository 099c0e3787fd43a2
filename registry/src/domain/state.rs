//! The whole configuration at one revision. Readers, followers and the checks of the writer use it.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use bytes::Bytes;
use switchboard::{
    names::{FeatureName, ModelName, ResourceName, Revision},
    resource::{feature::Feature, model::Model, settings::Settings},
};

use super::{
    credential::ModelCredential,
    items::{Item, ItemChange, Items, Past, Tombstone},
    life::{Life, NewLife},
};

/// The whole configuration at one revision.
///
/// A state is published as an `Arc` and never changed. A clone becomes the working copy for the next revision, and
/// shares everything that the revision does not change with earlier states.
#[derive(Debug, Clone)]
pub struct State {
    /// The resources as they are stored, streamed and hashed.
    pub items: Items,
    /// The credential of each model.
    pub credentials: Arc<BTreeMap<ModelName, ModelCredential>>,
    /// When each credential was last set, cleared or dropped. Credentials that never were are absent.
    pub token_update_times: Arc<BTreeMap<ModelName, SystemTime>>,
    /// The models.
    pub models: Arc<BTreeMap<ModelName, Arc<Recorded<Model>>>>,
    /// The settings of the features.
    pub features: Arc<BTreeMap<FeatureName, Arc<Recorded<Feature>>>>,
    /// The settings of the instance.
    pub settings: Recorded<Settings>,
    /// The W3C trace context of the write that made this revision. `None` if the write was not traced. Not stored.
    pub traceparent: Option<Box<str>>,
}

/// A resource with its revisions and times.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded<T> {
    /// The resource.
    pub value: T,
    /// Its revisions and times.
    pub record: Record,
}

/// When a resource was created and last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The revision that created it.
    pub create_revision: Revision,
    /// The revision that last changed it.
    pub revision: Revision,
    /// When it was created. For display only.
    pub create_time: SystemTime,
    /// When it was last changed. For display only.
    pub update_time: SystemTime,
}

impl Record {
    /// Returns whether the resource has not been changed since it was created.
    #[must_use]
    pub fn is_as_created(&self) -> bool {
        self.revision == self.create_revision
    }
}

/// A created or changed resource of a revision.
#[derive(Debug, Clone)]
pub enum Change {
    /// A model.
    Model {
        /// The model.
        model: Model,
        /// The credential of the model after the change.
        credential: ModelCredential,
        /// Whether this change sets, clears or drops the credential.
        is_token_touched: bool,
    },
    /// A feature.
    Feature(Feature),
    /// The settings.
    Settings(Settings),
}

impl Change {
    /// Returns the name of the changed resource.
    #[must_use]
    pub fn name(&self) -> ResourceName {
        match self {
            Self::Model { model, .. } => model.name.clone().into(),
            Self::Feature(feature) => feature.name.clone().into(),
            Self::Settings(_) => ResourceName::Settings,
        }
    }
}

/// Everything that the store has to write for one revision.
#[derive(Debug, Clone)]
pub struct RevisionEffect {
    /// The record of the revision.
    pub past: Past,
    /// The changes of resources.
    pub changes: Vec<ItemChange>,
    /// The items that these changes replace or delete, by name.
    pub before: BTreeMap<Arc<str>, Arc<Item>>,
    /// The credentials that the revision sets, clears or drops.
    pub credentials: Vec<(ModelName, ModelCredential)>,
    /// The life that this revision begins. `None`: the current life continues.
    pub life: Option<Life>,
}

impl State {
    /// Creates a state that knows its resources only as bytes. The caller then passes each resource to
    /// [`Self::restore`].
    #[must_use]
    pub fn new(items: Items) -> Self {
        let never = Record {
            create_revision: Revision::ZERO,
            revision: Revision::ZERO,
            create_time: SystemTime::UNIX_EPOCH,
            update_time: SystemTime::UNIX_EPOCH,
        };
        Self {
            items,
            credentials: Arc::default(),
            token_update_times: Arc::default(),
            models: Arc::default(),
            features: Arc::default(),
            settings: Recorded {
                value: Settings::default(),
                record: never,
            },
            traceparent: None,
        }
    }

    /// Makes the next revision from these changes and deleted models. Each change comes with the bytes by which the
    /// resource is stored, streamed and hashed.
    pub fn apply(&mut self, changes: Vec<(Change, Bytes)>, deleted: Vec<ModelName>, now: SystemTime) -> RevisionEffect {
        // The trace context belongs to the previous revision.
        self.traceparent = None;
        let revision = self.items.revision().next();
        let mut item_changes = Vec::with_capacity(changes.len() + deleted.len());
        let mut credentials = Vec::new();
        for (change, value) in changes {
            let name = change.name();
            if let Change::Model {
                model,
                credential,
                is_token_touched: true,
            } = &change
            {
                credentials.push((model.name.clone(), credential.clone()));
            }
            let record = self.take_in(change, now);
            let url = type_url(&name);
            item_changes.push(ItemChange::Put(Item::new(
                name,
                record.create_revision,
                revision,
                url,
                value,
            )));
        }
        for name in deleted {
            self.forget(&name);
            let key = name.to_string().into();
            item_changes.push(ItemChange::Delete(Tombstone { key, revision }));
        }
        let ended = item_changes.iter().filter_map(|change| self.items.get(change.key()));
        let before = ended.map(|item| (Arc::clone(&item.key), Arc::clone(item))).collect();
        RevisionEffect {
            past: self.items.advance(item_changes.clone(), now),
            changes: item_changes,
            before,
            credentials,
            life: None,
        }
    }

    /// Makes the first revision of a new life, which changes no resource.
    pub fn begin_life(&mut self, new: &NewLife, now: SystemTime) -> RevisionEffect {
        self.traceparent = None;
        let (life, past) = self.items.begin_life(new, now);
        RevisionEffect {
            past,
            changes: Vec::new(),
            before: BTreeMap::new(),
            credentials: Vec::new(),
            life: Some(life),
        }
    }

    /// Applies changes only to what readers see, without making a revision: `items` does not change.
    pub fn preview(&mut self, changes: Vec<Change>, deleted: &[ModelName], now: SystemTime) {
        for change in changes {
            self.take_in(change, now);
        }
        deleted.iter().for_each(|name| self.forget(name));
    }

    /// Applies one change of the next revision.
    fn take_in(&mut self, change: Change, now: SystemTime) -> Record {
        let record = self.next_record(&change.name(), self.items.revision().next(), now);
        if let Change::Model {
            model,
            is_token_touched: true,
            ..
        } = &change
        {
            Arc::make_mut(&mut self.token_update_times).insert(model.name.clone(), now);
        }
        self.restore(change, record);
        record
    }

    /// Removes everything that is known about a deleted model, so that its name can be used again.
    fn forget(&mut self, name: &ModelName) {
        if self.models.contains_key(name) {
            Arc::make_mut(&mut self.models).remove(name);
        }
        if self.credentials.contains_key(name) {
            Arc::make_mut(&mut self.credentials).remove(name);
        }
        if self.token_update_times.contains_key(name) {
            Arc::make_mut(&mut self.token_update_times).remove(name);
        }
    }

    /// Adds one stored resource without making a revision.
    pub fn restore(&mut self, change: Change, record: Record) {
        match change {
            Change::Model {
                model,
                credential,
                is_token_touched,
            } => {
                let name = model.name.clone();
                if is_token_touched || !self.credentials.contains_key(&name) {
                    Arc::make_mut(&mut self.credentials).insert(name.clone(), credential);
                }
                Arc::make_mut(&mut self.models).insert(name, Arc::new(Recorded { value: model, record }));
            }
            Change::Feature(feature) => {
                let name = feature.name.clone();
                Arc::make_mut(&mut self.features).insert(name, Arc::new(Recorded { value: feature, record }));
            }
            Change::Settings(settings) => {
                self.settings = Recorded {
                    value: settings,
                    record,
                }
            }
        }
    }

    /// Returns the credential of a model.
    #[must_use]
    pub fn credential(&self, model: &ModelName) -> &ModelCredential {
        self.credentials.get(model).unwrap_or(&ModelCredential::None)
    }

    /// Returns the features that name a model, ordered by name.
    pub fn features_of<'a>(&'a self, model: &'a ModelName) -> impl Iterator<Item = &'a Feature> {
        self.features
            .values()
            .map(|feature| &feature.value)
            .filter(move |feature| feature.references().any(|named| named == model))
    }

    /// Returns how many places of a model are reserved for features.
    #[must_use]
    pub fn places_reserved_on(&self, model: &ModelName) -> i64 {
        self.features
            .values()
            .map(|feature| feature.value.places_on(model))
            .sum()
    }

    fn next_record(&self, name: &ResourceName, revision: Revision, now: SystemTime) -> Record {
        let known = match name {
            ResourceName::Model(name) => self.models.get(name).map(|model| model.record),
            ResourceName::Feature(name) => self.features.get(name).map(|feature| feature.record),
            ResourceName::Settings => {
                Some(self.settings.record).filter(|record| record.create_revision > Revision::ZERO)
            }
        };
        let created = Record {
            create_revision: revision,
            revision,
            create_time: now,
            update_time: now,
        };
        known.map_or(created, |known| Record {
            revision,
            update_time: now,
            ..known
        })
    }
}

/// Returns the type URL of the payload for resources with this name.
#[must_use]
pub const fn type_url(name: &ResourceName) -> &'static str {
    match name {
        ResourceName::Model(_) => "type.googleapis.com/switchboard.registry.v1.ModelEntry",
        ResourceName::Feature(_) => "type.googleapis.com/switchboard.registry.v1.Feature",
        ResourceName::Settings => "type.googleapis.com/switchboard.registry.v1.Settings",
    }
}
