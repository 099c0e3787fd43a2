//! Tests of the rules of writes, from the request to the answer, without a store.

mod apply;
mod batch;
mod delete;
mod feature;
mod fields;
mod limits;
mod model;
mod platform;
mod route;
mod token;

use std::time::SystemTime;

use switchboard::{
    failure::Failure,
    history::Incarnation,
    names::{CredentialId, IncarnationId, StoreId},
    pb::{registry, types},
};

use crate::{
    commit::load,
    domain::{
        items::Items,
        state::State,
        write::{Revise, WriteError},
    },
    refused_writes::{WriteRequest, refused_writes},
    wire::{batch as batch_wire, feature as feature_wire, model as model_wire, settings as settings_wire, stored},
};

/// A configuration in memory that applies writes as the writer does.
pub(super) struct World {
    pub(super) state: State,
}

impl World {
    pub(super) fn new() -> Self {
        let incarnation = Incarnation {
            number: 1,
            id: IncarnationId::random(),
        };
        let mut state = State::new(Items::empty(StoreId::random(), incarnation));
        let seed = load::seed(&state);
        state.apply(seed, Vec::new(), SystemTime::UNIX_EPOCH);
        Self { state }
    }

    /// Creates a world with the model `models/{id}` of each family, whether or not the family is in beta.
    pub(super) fn with_models(families: &[&str]) -> Self {
        let mut world = Self::new();
        world.set_beta(true);
        for family in families {
            world.create(model(family, family, "http://gpu1:8000")).unwrap();
        }
        world.set_beta(false);
        world
    }

    pub(super) fn write<W: Revise>(&mut self, write: &W) -> Result<W::View, WriteError> {
        let plan = write.plan(&self.state, CredentialId::random())?;
        if !plan.is_empty() {
            let encoded = plan.changes.into_iter().map(|change| {
                let value = stored::encode(&change);
                (change, value)
            });
            self.state
                .apply(encoded.collect(), plan.deleted, SystemTime::UNIX_EPOCH);
        }
        Ok(W::outcome(&self.state, &plan.subject).unwrap())
    }

    pub(super) fn create(&mut self, model: registry::Model) -> Result<registry::Model, WriteError> {
        self.create_as("", model)
    }

    pub(super) fn create_as(&mut self, id: &str, model: registry::Model) -> Result<registry::Model, WriteError> {
        let request = registry::CreateModelRequest {
            model: Some(model),
            model_id: id.to_owned(),
            ..Default::default()
        };
        self.write(&model_wire::create(request))
            .map(|view| model_wire::answer(&view))
    }

    pub(super) fn update(&mut self, model: registry::Model, mask: &[&str]) -> Result<registry::Model, WriteError> {
        let request = registry::UpdateModelRequest {
            model: Some(model),
            update_mask: paths(mask),
            ..Default::default()
        };
        self.write(&model_wire::update(request))
            .map(|view| model_wire::answer(&view))
    }

    pub(super) fn update_feature(
        &mut self,
        feature: registry::Feature,
        mask: &[&str],
    ) -> Result<registry::Feature, WriteError> {
        let request = registry::UpdateFeatureRequest {
            feature: Some(feature),
            update_mask: paths(mask),
            ..Default::default()
        };
        self.write(&feature_wire::update(request))
            .map(|view| feature_wire::answer(&view))
    }

    pub(super) fn assign(&mut self, feature: &str, model: &str) -> Result<registry::Feature, WriteError> {
        let provider = Some(types::Provider::SelfHosted.into());
        self.update_feature(setting(feature, provider, Some(model)), &[])
    }

    pub(super) fn update_settings(
        &mut self,
        settings: registry::Settings,
        mask: &[&str],
    ) -> Result<registry::Settings, WriteError> {
        let request = registry::UpdateSettingsRequest {
            settings: Some(settings),
            update_mask: paths(mask),
            ..Default::default()
        };
        self.write(&settings_wire::update(request))
            .map(|view| settings_wire::answer(&view))
    }

    pub(super) fn set_beta(&mut self, is_enabled: bool) {
        let settings = registry::Settings {
            beta_enabled: Some(is_enabled),
            ..Default::default()
        };
        self.update_settings(settings, &[]).unwrap();
    }

    pub(super) fn revision(&self) -> i64 {
        self.state.items.revision().get()
    }
}

pub(super) fn model(display_name: &str, family: &str, endpoint: &str) -> registry::Model {
    registry::Model {
        display_name: Some(display_name.to_owned()),
        family: Some(family.to_owned()),
        endpoint: Some(endpoint.to_owned()),
        ..Default::default()
    }
}

pub(super) fn named(name: &str) -> registry::Model {
    registry::Model {
        name: name.to_owned(),
        ..Default::default()
    }
}

pub(super) fn setting(feature: &str, provider: Option<i32>, model: Option<&str>) -> registry::Feature {
    registry::Feature {
        name: format!("features/{feature}"),
        provider,
        model: model.map(str::to_owned),
        ..Default::default()
    }
}

pub(super) fn endpoints(list: &[(&str, Option<i32>)]) -> Vec<registry::Endpoint> {
    list.iter()
        .map(|&(uri, weight)| registry::Endpoint {
            uri: uri.to_owned(),
            weight,
            ..Default::default()
        })
        .collect()
}

pub(super) fn paths(mask: &[&str]) -> Option<prost_types::FieldMask> {
    (!mask.is_empty()).then(|| prost_types::FieldMask {
        paths: mask.iter().map(|&path| path.to_owned()).collect(),
    })
}

/// Returns the invalid fields of a refused write, as `field REASON`.
pub(super) fn bad_fields<T: std::fmt::Debug>(outcome: Result<T, WriteError>) -> Vec<String> {
    let Err(WriteError::Invalid(violations)) = outcome else {
        panic!("{outcome:?} has no invalid fields");
    };
    let fields = violations.as_slice().iter();
    fields.map(|bad| format!("{} {}", bad.field, bad.reason)).collect()
}

#[test]
fn settings_are_set_cleared_and_refused_like_any_resource() {
    let mut world = World::new();
    let seeded = world
        .update_settings(registry::Settings::default(), &["beta_enabled"])
        .unwrap();
    assert_eq!(
        (seeded.beta_enabled, seeded.revision, seeded.update_time),
        (Some(false), 0, None)
    );
    assert_eq!(world.revision(), 1, "a write without changes makes no revision");

    world.set_beta(true);
    let cleared = world.update_settings(registry::Settings::default(), &["*"]).unwrap();
    assert_eq!((cleared.beta_enabled, cleared.revision), (Some(false), 3));

    let paused = registry::Settings {
        inference_paused: Some(true),
        ..Default::default()
    };
    let paused = world.update_settings(paused, &[]).unwrap();
    assert_eq!(
        (paused.inference_paused, paused.beta_enabled),
        (Some(true), Some(false))
    );
    world.set_beta(true);
    let resumed = registry::Settings {
        inference_paused: Some(false),
        ..Default::default()
    };
    let resumed = world.update_settings(resumed, &[]).unwrap();
    assert_eq!(
        (resumed.inference_paused, resumed.beta_enabled),
        (Some(false), Some(true))
    );

    let stale = registry::Settings {
        beta_enabled: Some(true),
        etag: seeded.etag,
        ..Default::default()
    };
    assert!(matches!(
        world.update_settings(stale, &[]),
        Err(WriteError::Conflict { .. })
    ));
}

#[test]
fn a_refused_write_names_every_invalid_field_and_changes_nothing() {
    let mut world = World::with_models(&["mistral"]);
    let two = registry::Model {
        endpoints: endpoints(&[("http://gpu1", None), ("http://gpu2", None)]),
        ..named("models/mistral")
    };
    world.update(two, &[]).unwrap();
    let before = world.revision();
    for row in refused_writes() {
        let error = match row.request.clone() {
            WriteRequest::CreateModel(request) => world.write(&model_wire::create(request)).unwrap_err(),
            WriteRequest::UpdateModel(request) => world.write(&model_wire::update(request)).unwrap_err(),
            WriteRequest::UpdateFeature(request) => world.write(&feature_wire::update(request)).unwrap_err(),
            WriteRequest::BatchUpdateFeatures(request) => world.write(&batch_wire::update(request)).unwrap_err(),
            WriteRequest::UpdateSettings(request) => world.write(&settings_wire::update(request)).unwrap_err(),
        };
        row.check(&Failure::from(error).into());
        assert_eq!(world.revision(), before, "{row:?}");
    }
}
