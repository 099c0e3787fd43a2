//! Rules of a feature: exceptions by which matching calls use another model.

use std::{collections::HashSet, fmt, sync::Arc};

use crate::names::ModelName;

use super::FeaturePartError;
use crate::resource::{
    derived_id::numbered,
    size::{NUMBERS, text},
};

/// A rule: calls that match it use its model instead of the assigned one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The id of the rule, unique in the feature. It seeds the choice of users for [`RuleMatch::percent`].
    pub id: RuleId,
    /// The conditions.
    pub matches: RuleMatch,
    /// The model for matching calls.
    pub model: ModelName,
    /// A description, for people.
    pub description: Description,
}

impl Rule {
    /// Returns the maximum size of the stored rule in bytes.
    pub(super) fn stored_bytes_max(&self) -> usize {
        let lists = [
            &self.matches.namespace_ids,
            &self.matches.project_ids,
            &self.matches.user_ids,
        ];
        let entries = lists.into_iter().flatten().map(|entry| text(entry));
        let texts = [self.id.as_str(), self.model.id(), self.description.as_str()];
        NUMBERS + texts.into_iter().map(text).sum::<usize>() + entries.sum::<usize>()
    }
}

/// A rule whose id may still have to be derived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRule {
    /// The id of the rule. `None`: it is derived from the model.
    pub id: Option<RuleId>,
    /// The conditions.
    pub matches: RuleMatch,
    /// The model for matching calls.
    pub model: ModelName,
    /// A description, for people.
    pub description: Description,
}

/// The id of a rule. It has the same syntax as the id of a model.
///
/// Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// Parses an id.
    ///
    /// # Errors
    ///
    /// [`FeaturePartError::RuleIdMalformed`] if the id is malformed.
    pub fn parse(text: &str) -> Result<Self, FeaturePartError> {
        match ModelName::from_id(text) {
            Ok(_well_spelled) => Ok(Self(text.into())),
            Err(_misspelled) => Err(FeaturePartError::RuleIdMalformed),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The description of a rule, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description(Box<str>);

impl Description {
    /// The maximum length of a description, in characters.
    pub const LENGTH_MAX: usize = 255;

    /// Parses a description; it may be empty.
    ///
    /// # Errors
    ///
    /// [`FeaturePartError::DescriptionTooLong`] if the text is longer than [`Self::LENGTH_MAX`].
    pub fn parse(text: &str) -> Result<Self, FeaturePartError> {
        if text.chars().count() > Self::LENGTH_MAX {
            return Err(FeaturePartError::DescriptionTooLong);
        }
        Ok(Self(text.into()))
    }

    /// The description as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A percentage of the users, in steps of 0.01.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u16);

impl Percent {
    /// Parses a percentage above 0 and at most 100.
    ///
    /// # Errors
    ///
    /// [`FeaturePartError::PercentOutOfRange`] if the number is out of range, or is not a multiple of 0.01.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number that does not fit the type is converted to one that the check below refuses"
    )]
    pub fn parse(percent: f64) -> Result<Self, FeaturePartError> {
        let nearest = Self((percent * 100.0).round() as u16);
        // Converting back shows whether the number was exactly a multiple of 0.01.
        if (1..=10_000).contains(&nearest.0) && nearest.get().to_bits() == percent.to_bits() {
            Ok(nearest)
        } else {
            Err(FeaturePartError::PercentOutOfRange)
        }
    }

    /// The percentage in steps of 0.01: from 1 to 10,000.
    #[must_use]
    pub const fn steps(self) -> u16 {
        self.0
    }

    /// The percentage, from 0.01 to 100.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

/// The conditions of a rule: at least one. A call matches if it meets all of them. It meets a list if it matches one
/// entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleMatch {
    namespace_ids: Vec<Box<str>>,
    project_ids: Vec<Box<str>>,
    user_ids: Vec<Box<str>>,
    percent: Option<Percent>,
}

impl RuleMatch {
    /// The maximum number of entries in all lists together.
    pub const COUNT_MAX: usize = 1000;
    /// The maximum length of an entry, in characters.
    pub const LENGTH_MAX: usize = 255;

    /// Combines conditions. The entries of the lists must have been parsed by [`Self::entry`].
    ///
    /// # Errors
    ///
    /// [`FeaturePartError`] if there is no condition, or there are too many entries.
    pub fn new(
        namespace_ids: Vec<Box<str>>,
        project_ids: Vec<Box<str>>,
        user_ids: Vec<Box<str>>,
        percent: Option<Percent>,
    ) -> Result<Self, FeaturePartError> {
        match namespace_ids.len() + project_ids.len() + user_ids.len() {
            0 if percent.is_none() => Err(FeaturePartError::MatchEmpty),
            0..=Self::COUNT_MAX => Ok(Self {
                namespace_ids,
                project_ids,
                user_ids,
                percent,
            }),
            _ => Err(FeaturePartError::MatchCount),
        }
    }

    /// Parses one entry of a list.
    ///
    /// # Errors
    ///
    /// [`FeaturePartError::EntryLength`] if the text is empty or too long.
    pub fn entry(text: &str) -> Result<Box<str>, FeaturePartError> {
        if (1..=Self::LENGTH_MAX).contains(&text.chars().count()) {
            Ok(text.into())
        } else {
            Err(FeaturePartError::EntryLength)
        }
    }

    /// Ids of namespaces or of root namespaces.
    #[must_use]
    pub fn namespace_ids(&self) -> &[Box<str>] {
        &self.namespace_ids
    }

    /// Ids of projects.
    #[must_use]
    pub fn project_ids(&self) -> &[Box<str>] {
        &self.project_ids
    }

    /// Global or local ids of users.
    #[must_use]
    pub fn user_ids(&self) -> &[Box<str>] {
        &self.user_ids
    }

    /// The percentage of users to which the rule applies. `None`: no such condition.
    #[must_use]
    pub const fn percent(&self) -> Option<Percent> {
        self.percent
    }
}

/// Rules in the order in which they are tried: at most 64, with different ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// The maximum number of rules of a feature.
    pub const COUNT_MAX: usize = 64;

    /// Creates the list and checks it as a whole. A missing rule id is derived from the id of the rule's model, with a
    /// suffix `-2`, `-3` and so on if it is already taken.
    ///
    /// # Errors
    ///
    /// All errors of the list as a whole.
    pub fn new(list: Vec<NewRule>) -> Result<Self, Vec<FeaturePartError>> {
        let mut errors = Vec::new();
        if list.len() > Self::COUNT_MAX {
            errors.push(FeaturePartError::RuleCount);
        }
        let mut taken = HashSet::new();
        for (index, rule) in list.iter().enumerate() {
            if let Some(id) = &rule.id
                && !taken.insert(id.clone())
            {
                errors.push(FeaturePartError::RuleIdRepeated { index });
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let rules = list.into_iter().map(|rule| {
            let free = |id: String| Some(RuleId(id.into())).filter(|id| taken.insert(id.clone()));
            let id = rule.id.or_else(|| numbered(rule.model.id()).find_map(free));
            Some(Rule {
                id: id?,
                matches: rule.matches,
                model: rule.model,
                description: rule.description,
            })
        });
        // `flatten` removes nothing: there are more numbers than rules, so every rule gets an id.
        Ok(Self(rules.flatten().collect()))
    }

    /// The rules, in the order in which they are tried.
    #[must_use]
    pub fn as_slice(&self) -> &[Rule] {
        &self.0
    }

    pub(super) fn moved(&self, moved: impl Fn(&ModelName) -> ModelName) -> Self {
        let rules = self.0.iter().map(|rule| Rule {
            model: moved(&rule.model),
            ..rule.clone()
        });
        Self(rules.collect())
    }
}
