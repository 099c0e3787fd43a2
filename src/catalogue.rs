//! The catalogue: the fixed list of GitLab's AI-powered features and of the approved model families.
//!
//! The list is compiled into both services. It changes with a release and not with a revision, so the change stream
//! does not carry it. Prompt formats are not part of it: only the router has them.

use std::{collections::HashMap, sync::LazyLock};

use serde::Deserialize;

use crate::names::FeatureName;

/// The release stage of a family or of a feature at GitLab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Stage {
    /// Generally available.
    Ga,
    /// In beta: can be newly assigned only while beta is enabled.
    Beta,
    /// An experiment: the same restrictions as in beta.
    Experiment,
}

impl Stage {
    /// Whether something in this stage can be newly assigned only while beta is enabled.
    #[must_use]
    pub const fn needs_beta(self) -> bool {
        match self {
            Self::Ga => false,
            Self::Beta | Self::Experiment => true,
        }
    }
}

/// An approved model family.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// Machine name of the family, for example `mistral`.
    pub machine_name: String,
    /// The name that users see.
    pub display_name: String,
    /// Release stage of the family.
    pub stage: Stage,
    /// Size of the context in tokens. For information only.
    pub context_tokens: i32,
    /// The maximum length of an answer, in tokens, which is also the default. `None`: the model server decides.
    pub max_output_tokens: Option<i32>,
    /// The sampling temperature for calls that do not set one. `None`: the model server decides.
    pub temperature: Option<f64>,
    /// Whether the family supports chat. If not, it only completes text.
    #[serde(default = "yes")]
    pub chat: bool,
    /// Whether the family has special tokens for infill: completing code between a prefix and a suffix.
    pub infill_tokens: bool,
}

/// An AI-powered feature of GitLab.
#[derive(Debug, PartialEq, Eq)]
pub struct FeatureFacts {
    /// Resource name of the feature. The id is the feature's machine name.
    pub name: FeatureName,
    /// The name that users see.
    pub display_name: String,
    /// The group under which GitLab lists the feature.
    pub group: String,
    /// Release stage of the feature.
    pub stage: Stage,
    /// Machine names of the families that may serve the feature.
    pub families: Vec<String>,
    /// Further names by which a caller may ask for the feature.
    pub unit_primitives: Vec<String>,
    /// The feature whose setting applies while this feature is unassigned. `None`: the feature has no parent.
    pub parent: Option<FeatureName>,
}

impl FeatureFacts {
    /// Whether models of `family` may serve the feature.
    #[must_use]
    pub fn fits(&self, family: &Family) -> bool {
        self.families.contains(&family.machine_name)
    }
}

/// All features and families.
#[derive(Debug)]
pub struct Catalogue {
    features: Vec<FeatureFacts>,
    families: Vec<Family>,
    /// Maps every name by which a caller may ask for a feature to the feature's index in `features`.
    names: HashMap<String, usize>,
}

impl Catalogue {
    /// Returns the catalogue of this build.
    ///
    /// # Panics
    ///
    /// Never in a build that has passed its tests: the data is compiled in, and a test parses it.
    #[must_use]
    pub fn get() -> &'static Self {
        #[expect(clippy::expect_used, reason = "the data is compiled in, and a test parses it")]
        static CATALOGUE: LazyLock<Catalogue> =
            LazyLock::new(|| Catalogue::read().expect("the catalogue's data files are well formed"));
        &CATALOGUE
    }

    /// All features, in the order of the data file.
    #[must_use]
    pub fn features(&self) -> &[FeatureFacts] {
        &self.features
    }

    /// All families, in the order of the data file.
    #[must_use]
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// Finds a family by its machine name.
    #[must_use]
    pub fn family(&self, machine_name: &str) -> Option<&Family> {
        self.families.iter().find(|family| family.machine_name == machine_name)
    }

    /// Finds a feature by its resource name.
    #[must_use]
    pub fn feature(&self, name: &FeatureName) -> Option<&FeatureFacts> {
        self.called(name.id()).filter(|feature| feature.name == *name)
    }

    /// Finds the feature that a caller asks for. `name` is a machine name, a unit primitive or the name of a chat tool;
    /// a machine name takes precedence.
    #[must_use]
    pub fn called(&self, name: &str) -> Option<&FeatureFacts> {
        self.names.get(name).and_then(|&index| self.features.get(index))
    }

    fn read() -> Result<Self, Box<dyn std::error::Error>> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Features {
            feature: Vec<FeatureRow>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct FeatureRow {
            machine_name: String,
            display_name: String,
            group: String,
            stage: Stage,
            parent: Option<String>,
            families: Vec<String>,
            #[serde(default)]
            unit_primitives: Vec<String>,
            #[serde(default)]
            chat_tools: Vec<String>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Families {
            family: Vec<Family>,
        }

        let rows = toml::from_str::<Features>(include_str!("catalogue/features.toml"))?.feature;
        let families = toml::from_str::<Families>(include_str!("catalogue/families.toml"))?.family;

        let mut names: HashMap<String, usize> = rows
            .iter()
            .enumerate()
            .map(|(index, row)| (row.machine_name.clone(), index))
            .collect();
        for (index, row) in rows.iter().enumerate() {
            for name in row.unit_primitives.iter().chain(&row.chat_tools) {
                names.entry(name.clone()).or_insert(index);
            }
        }
        let features = rows
            .into_iter()
            .map(|row| {
                Ok(FeatureFacts {
                    name: FeatureName::from_id(&row.machine_name)?,
                    display_name: row.display_name,
                    group: row.group,
                    stage: row.stage,
                    families: row.families,
                    unit_primitives: row.unit_primitives,
                    parent: row.parent.as_deref().map(FeatureName::from_id).transpose()?,
                })
            })
            .collect::<Result<_, crate::names::NameError>>()?;
        Ok(Self {
            features,
            families,
            names,
        })
    }
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_data_files_agree_with_each_other() {
        let catalogue = Catalogue::get();
        assert_eq!(catalogue.features().len(), 21);
        assert_eq!(catalogue.families().len(), 13);
        let unique: HashSet<_> = catalogue.families().iter().map(|family| &family.machine_name).collect();
        assert_eq!(unique.len(), 13);
        let infill = catalogue.families().iter().filter(|family| family.infill_tokens);
        assert_eq!(infill.count(), 8);
        for feature in catalogue.features() {
            assert!(!feature.families.is_empty(), "{}", feature.name);
            for family in &feature.families {
                assert!(
                    catalogue.family(family).is_some(),
                    "{} names family {family}",
                    feature.name
                );
            }
            if let Some(parent) = &feature.parent {
                let parent = catalogue.feature(parent).expect("a parent is a feature");
                assert_eq!(parent.parent, None, "parents have no parents");
            }
        }
    }

    #[test]
    fn a_machine_name_takes_precedence_over_other_names_of_features() {
        let called = |name| Catalogue::get().called(name).map(|feature| feature.name.id());
        assert_eq!(called("duo_chat"), Some("duo_chat"));
        assert_eq!(called("code_suggestions"), Some("code_completions"));
        assert_eq!(called("duo_agent_platform"), Some("duo_agent_platform"));
        assert_eq!(called("duo_chat_issue_reader"), Some("duo_chat"));
        assert_eq!(called("nothing"), None);
        let tool = FeatureName::from_id("duo_chat_issue_reader").unwrap();
        assert_eq!(Catalogue::get().feature(&tool), None);
    }
}
