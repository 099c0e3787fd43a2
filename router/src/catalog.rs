//! An immutable snapshot of the configuration, ready to select from, and the selection itself.
//!
//! Pure: no I/O, no clock, nothing async. It knows nothing of health or load.
//! The one hard idea: a call loads the catalog once and uses that one to its end, whatever is swapped in meanwhile.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use switchboard::{
    catalogue::{Catalogue, Family},
    endpoint::{EndpointUri, Origin},
    history::Cursor,
    names::{CredentialId, FeatureName, ModelName, Revision},
    secret::ApiToken,
};

/// Everything that a call needs to select a model.
#[derive(Debug)]
pub struct Catalog {
    /// The state that it was compiled from.
    pub cursor: Cursor,
    /// The setting of each feature.
    pub features: HashMap<FeatureName, Setting>,
    /// Each model that exists, usable or not.
    pub models: HashMap<ModelName, ModelState>,
}

/// Who answers a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Nobody was chosen: the parent decides.
    Unassigned,
    /// Switched off.
    Disabled,
    /// GitLab's own cloud.
    Vendored,
    /// A self-hosted model.
    SelfHosted(ModelName),
}

/// What a model can be used for now.
#[derive(Debug, Clone)]
pub enum ModelState {
    /// It can be called.
    Ready(Arc<Model>),
    /// It was taken out of selection.
    Disabled,
    /// Its API token was dropped and no other was given.
    CredentialMissing,
    /// There is no usable version of it here yet.
    NotReady,
}

/// A model that can be called.
#[derive(Debug)]
pub struct Model {
    /// Its name.
    pub name: ModelName,
    /// Its family.
    pub family: &'static Family,
    /// The name by which the server knows it, as sent.
    pub identifier: String,
    /// Its servers, one at least with a weight above 0.
    pub endpoints: Vec<Endpoint>,
    /// Its credential. `None`: calls carry none.
    pub credential: Option<Arc<Credential>>,
    /// How it completes code.
    pub infill_mode: InfillMode,
}

/// How a model completes code between a prefix and a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InfillMode {
    /// As its family does.
    #[default]
    FamilyDefault,
    /// With the family's marks, as text to go on from.
    Completions,
    /// With a suffix beside the text, for servers that put in the marks themselves.
    Suffix,
    /// By chat.
    Chat,
}

/// One server of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its base URL.
    pub uri: EndpointUri,
    /// Its share of the calls, 0 to 1000.
    pub weight: u32,
}

/// An API token and where it may be sent.
#[derive(Debug)]
pub struct Credential {
    /// The id of this very token.
    pub id: CredentialId,
    /// The only origins to which it may be sent.
    pub origins: BTreeSet<Origin>,
    /// The token.
    pub token: ApiToken,
}

/// Which model answers a call, and why.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// The feature that was asked for.
    pub feature: &'static FeatureName,
    /// The feature whose setting was used.
    pub source_feature: &'static FeatureName,
    /// The model.
    pub model: &'a Arc<Model>,
    /// What decided.
    pub reason: SelectionReason,
    /// The revision of the configuration that decided.
    pub revision: Revision,
}

/// What decided a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectionReason {
    /// The feature names the model.
    Assigned,
    /// The feature is unassigned, and its parent names the model.
    ParentFeature,
}

/// Why no model can be selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No feature has this name.
    #[error("no feature is called `{name}`")]
    UnknownFeature {
        /// The name that was asked for, at most 128 characters of it.
        name: String,
    },
    /// The feature is switched off.
    #[error("`{feature}` is switched off")]
    FeatureDisabled {
        /// The feature whose setting says so.
        feature: &'static FeatureName,
    },
    /// Nobody was chosen to answer the feature, nor its parent.
    #[error("`{feature}` is assigned to nobody")]
    FeatureUnassigned {
        /// The feature that was asked for.
        feature: &'static FeatureName,
    },
    /// GitLab's own cloud answers the feature.
    #[error("`{feature}` is answered by GitLab's own cloud")]
    FeatureVendored {
        /// The feature whose setting says so.
        feature: &'static FeatureName,
    },
    /// The model was taken out of selection.
    #[error("`{model}`, which answers `{feature}`, is disabled")]
    ModelDisabled {
        /// The feature that was asked for.
        feature: &'static FeatureName,
        /// The model.
        model: ModelName,
    },
    /// The model's API token was dropped.
    #[error(
        "the API token of `{model}`, which answers `{feature}`, was dropped when its endpoint moved; give it again"
    )]
    CredentialMissing {
        /// The feature that was asked for.
        feature: &'static FeatureName,
        /// The model.
        model: ModelName,
    },
    /// There is no usable version of the model here yet.
    #[error("`{model}`, which answers `{feature}`, is not ready on this router yet")]
    ModelNotReady {
        /// The feature that was asked for.
        feature: &'static FeatureName,
        /// The model.
        model: ModelName,
    },
}

impl Catalog {
    /// Selects the model that answers a feature, asked for by machine name, with or without `features/`, or by one of its
    /// other names.
    ///
    /// # Errors
    ///
    /// [`ResolveError`], when nobody can answer.
    pub fn resolve(&self, name: &str) -> Result<Selection<'_>, ResolveError> {
        let asked = name.strip_prefix("features/").unwrap_or(name);
        let catalogue = Catalogue::get();
        let Some(feature) = catalogue.called(asked) else {
            return Err(ResolveError::UnknownFeature {
                name: asked.chars().take(128).collect(),
            });
        };
        let unassigned = ResolveError::FeatureUnassigned { feature: &feature.name };
        let (source, setting, reason) = match (self.setting(&feature.name), &feature.parent) {
            (Setting::Unassigned, None) => return Err(unassigned),
            (Setting::Unassigned, Some(parent)) => (parent, self.setting(parent), SelectionReason::ParentFeature),
            (own, _) => (&feature.name, own, SelectionReason::Assigned),
        };
        let model = match setting {
            Setting::Unassigned => return Err(unassigned),
            Setting::Disabled => return Err(ResolveError::FeatureDisabled { feature: source }),
            Setting::Vendored => return Err(ResolveError::FeatureVendored { feature: source }),
            Setting::SelfHosted(model) => model,
        };
        match self.models.get(model) {
            Some(ModelState::Ready(model)) => Ok(Selection {
                feature: &feature.name,
                source_feature: source,
                model,
                reason,
                revision: self.cursor.revision,
            }),
            Some(ModelState::Disabled) => Err(ResolveError::ModelDisabled {
                feature: &feature.name,
                model: model.clone(),
            }),
            Some(ModelState::CredentialMissing) => Err(ResolveError::CredentialMissing {
                feature: &feature.name,
                model: model.clone(),
            }),
            Some(ModelState::NotReady) | None => Err(ResolveError::ModelNotReady {
                feature: &feature.name,
                model: model.clone(),
            }),
        }
    }

    fn setting(&self, feature: &FeatureName) -> &Setting {
        self.features.get(feature).unwrap_or(&Setting::Unassigned)
    }
}

#[cfg(test)]
mod tests {
    use switchboard::{
        digest::{ChainDigest, StateDigest},
        history::{Incarnation, View},
        names::{IncarnationId, StoreId},
    };

    use super::*;

    /// A parent and its child.
    const CHAT: &str = "duo_chat";
    const EXPLAIN: &str = "duo_chat_explain_code";

    fn name(model: &str) -> ModelName {
        ModelName::from_id(model).unwrap()
    }

    fn ready(model: &str) -> ModelState {
        ModelState::Ready(Arc::new(Model {
            name: name(model),
            family: Catalogue::get().family("llama3").unwrap(),
            identifier: model.to_owned(),
            endpoints: vec![Endpoint {
                uri: EndpointUri::parse("http://gpu1:8000").unwrap(),
                weight: 1,
            }],
            credential: None,
            infill_mode: InfillMode::FamilyDefault,
        }))
    }

    /// A catalog with one model in every state, each under the state's name.
    fn catalog(settings: &[(&str, Setting)]) -> Catalog {
        let models = [
            ("ready", ready("ready")),
            ("other", ready("other")),
            ("disabled", ModelState::Disabled),
            ("dropped", ModelState::CredentialMissing),
            ("pending", ModelState::NotReady),
        ];
        Catalog {
            cursor: Cursor {
                store: StoreId::random(),
                incarnation: Incarnation {
                    number: 1,
                    id: IncarnationId::random(),
                },
                revision: Revision::new(7).unwrap(),
                chain: ChainDigest::NONE,
                view: View::Router,
                state: StateDigest::EMPTY,
            },
            features: settings
                .iter()
                .map(|(feature, setting)| (FeatureName::from_id(feature).unwrap(), setting.clone()))
                .collect(),
            models: models.map(|(model, state)| (name(model), state)).into(),
        }
    }

    fn on(model: &str) -> Setting {
        Setting::SelfHosted(name(model))
    }

    #[test]
    fn a_feature_is_answered_by_the_model_that_it_names() {
        let catalog = catalog(&[(CHAT, on("other")), (EXPLAIN, on("ready"))]);
        for asked in [EXPLAIN, "features/duo_chat_explain_code"] {
            let selection = catalog.resolve(asked).unwrap();
            assert_eq!(selection.model.name, name("ready"));
            assert_eq!(selection.feature.id(), EXPLAIN);
            assert_eq!(selection.source_feature.id(), EXPLAIN);
            assert_eq!(selection.reason, SelectionReason::Assigned);
            assert_eq!(selection.revision.get(), 7);
        }
        let by_other_name = catalog.resolve("chat").unwrap();
        assert_eq!(by_other_name.feature.id(), CHAT);
    }

    #[test]
    fn an_unassigned_feature_asks_its_parent() {
        for settings in [
            &[(CHAT, on("ready")), (EXPLAIN, Setting::Unassigned)][..],
            &[(CHAT, on("ready"))][..],
        ] {
            let catalog = catalog(settings);
            let selection = catalog.resolve(EXPLAIN).unwrap();
            assert_eq!(selection.feature.id(), EXPLAIN);
            assert_eq!(selection.source_feature.id(), CHAT);
            assert_eq!(selection.reason, SelectionReason::ParentFeature);
        }
        let nobody = catalog(&[]).resolve(EXPLAIN).unwrap_err();
        assert!(matches!(nobody, ResolveError::FeatureUnassigned { feature } if feature.id() == EXPLAIN));
        let without_parent = catalog(&[(EXPLAIN, on("ready"))]).resolve(CHAT).unwrap_err();
        assert!(matches!(without_parent, ResolveError::FeatureUnassigned { feature } if feature.id() == CHAT));
    }

    #[test]
    fn a_feature_that_is_switched_off_or_vendored_asks_no_parent() {
        let off = catalog(&[(CHAT, on("ready")), (EXPLAIN, Setting::Disabled)]);
        assert!(matches!(
            off.resolve(EXPLAIN),
            Err(ResolveError::FeatureDisabled { feature }) if feature.id() == EXPLAIN
        ));
        let vendored = catalog(&[(CHAT, on("ready")), (EXPLAIN, Setting::Vendored)]);
        assert!(matches!(
            vendored.resolve(EXPLAIN),
            Err(ResolveError::FeatureVendored { feature }) if feature.id() == EXPLAIN
        ));
    }

    #[test]
    fn what_the_parent_says_is_told_with_the_parents_name() {
        let off = catalog(&[(CHAT, Setting::Disabled)]);
        assert!(matches!(
            off.resolve(EXPLAIN),
            Err(ResolveError::FeatureDisabled { feature }) if feature.id() == CHAT
        ));
        let vendored = catalog(&[(CHAT, Setting::Vendored)]);
        assert!(matches!(
            vendored.resolve(EXPLAIN),
            Err(ResolveError::FeatureVendored { feature }) if feature.id() == CHAT
        ));
    }

    #[test]
    fn a_model_that_cannot_be_called_is_told_by_its_state() {
        let resolve = |model| catalog(&[(CHAT, on(model))]).resolve(EXPLAIN).map(|_| ()).unwrap_err();
        let feature = &Catalogue::get().called(EXPLAIN).unwrap().name;
        let model = name;
        assert_eq!(
            resolve("disabled"),
            ResolveError::ModelDisabled {
                feature,
                model: model("disabled")
            }
        );
        assert_eq!(
            resolve("dropped"),
            ResolveError::CredentialMissing {
                feature,
                model: model("dropped")
            }
        );
        for not_ready in ["pending", "unheard-of"] {
            assert_eq!(
                resolve(not_ready),
                ResolveError::ModelNotReady {
                    feature,
                    model: model(not_ready)
                }
            );
        }
    }

    #[test]
    fn an_unknown_name_is_repeated_only_so_far() {
        let error = catalog(&[]).resolve(&"ä".repeat(1000)).map(|_| ()).unwrap_err();
        assert_eq!(error, ResolveError::UnknownFeature { name: "ä".repeat(128) });
    }
}
