//! The whole configuration at one revision: what readers, followers and the writer's checks go by.

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
/// Published as an `Arc` and never changed: a clone is the working copy of the next revision. What a revision leaves as it
/// is, it shares with those before.
#[derive(Debug, Clone)]
pub struct State {
    /// The resources as they are stored, streamed and hashed.
    pub items: Items,
    /// The credential of each model.
    pub credentials: Arc<BTreeMap<ModelName, ModelCredential>>,
    /// When each credential was set, cleared or dropped last. Absent: never.
    pub token_update_times: Arc<BTreeMap<ModelName, SystemTime>>,
    /// The models.
    pub models: Arc<BTreeMap<ModelName, Arc<Recorded<Model>>>>,
    /// The settings of the features.
    pub features: Arc<BTreeMap<FeatureName, Arc<Recorded<Feature>>>>,
    /// The settings of the instance.
    pub settings: Recorded<Settings>,
    /// The W3C trace context of the write that made this revision, if it was traced. Not stored.
    pub traceparent: Option<Box<str>>,
}

/// A resource with what is recorded of its life.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded<T> {
    /// What it is.
    pub value: T,
    /// What is recorded of it.
    pub record: Record,
}

/// When a resource came to be and was changed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The revision at which it was created.
    pub create_revision: Revision,
    /// The revision that last changed it.
    pub revision: Revision,
    /// When it was created. For people.
    pub create_time: SystemTime,
    /// When it was changed last. For people.
    pub update_time: SystemTime,
}

impl Record {
    /// Whether nobody has changed it since it was created.
    #[must_use]
    pub fn is_as_created(&self) -> bool {
        self.revision == self.create_revision
    }
}

/// One resource as a revision leaves it.
#[derive(Debug, Clone)]
pub enum Change {
    /// A model.
    Model {
        /// The model.
        model: Model,
        /// The credential that it has now.
        credential: ModelCredential,
        /// Whether the credential was set, cleared or dropped by this change.
        is_token_touched: bool,
    },
    /// A feature.
    Feature(Feature),
    /// The settings.
    Settings(Settings),
}

impl Change {
    /// The resource that it is about.
    #[must_use]
    pub fn name(&self) -> ResourceName {
        match self {
            Self::Model { model, .. } => model.name.clone().into(),
            Self::Feature(feature) => feature.name.clone().into(),
            Self::Settings(_) => ResourceName::Settings,
        }
    }
}

/// What a revision did, for the store to keep.
#[derive(Debug, Clone)]
pub struct RevisionEffect {
    /// What is remembered of the revision.
    pub past: Past,
    /// What it did to each resource.
    pub changes: Vec<ItemChange>,
    /// The items that these changes ended, by name: what was there before.
    pub before: BTreeMap<Arc<str>, Arc<Item>>,
    /// The credentials that it set, cleared or dropped.
    pub credentials: Vec<(ModelName, ModelCredential)>,
    /// The life of the store that it begins. `None`: it goes on with the present one.
    pub life: Option<Life>,
}

impl State {
    /// A state without any resource known but as bytes; they are then given by [`Self::restore`].
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

    /// Makes the next revision: these changes, each with the bytes by which it is stored, streamed and hashed, and these
    /// models deleted.
    pub fn apply(&mut self, changes: Vec<(Change, Bytes)>, deleted: Vec<ModelName>, now: SystemTime) -> RevisionEffect {
        // That of the revision before is not this one's.
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

    /// Makes the first revision of a new life, which leaves every resource as it is.
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

    /// Shows what the next revision would look like to readers, without making it: the items stay as they are.
    pub fn preview(&mut self, changes: Vec<Change>, deleted: &[ModelName], now: SystemTime) {
        for change in changes {
            self.take_in(change, now);
        }
        deleted.iter().for_each(|name| self.forget(name));
    }

    /// Takes in one resource as the next revision leaves it.
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

    /// Nothing of a deleted model is left, so that its name can be used again.
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

    /// Takes in one resource as it stands, without making a revision.
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

    /// The credential of a model.
    #[must_use]
    pub fn credential(&self, model: &ModelName) -> &ModelCredential {
        self.credentials.get(model).unwrap_or(&ModelCredential::None)
    }

    /// The features that name a model, in the order of their names.
    pub fn features_of<'a>(&'a self, model: &'a ModelName) -> impl Iterator<Item = &'a Feature> {
        self.features
            .values()
            .map(|feature| &feature.value)
            .filter(move |feature| feature.references().any(|named| named == model))
    }

    /// How many places of a model are kept for features.
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

/// The type URL of the payload that a resource of this name has.
#[must_use]
pub const fn type_url(name: &ResourceName) -> &'static str {
    match name {
        ResourceName::Model(_) => "type.googleapis.com/switchboard.registry.v1.ModelEntry",
        ResourceName::Feature(_) => "type.googleapis.com/switchboard.registry.v1.Feature",
        ResourceName::Settings => "type.googleapis.com/switchboard.registry.v1.Settings",
    }
}
