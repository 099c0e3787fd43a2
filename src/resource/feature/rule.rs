//! Exceptions to who answers a feature.

use std::{collections::HashSet, fmt, sync::Arc};

use crate::names::ModelName;

use super::FeaturePartError;
use crate::resource::{
    derived_id::numbered,
    size::{NUMBERS, text},
};

/// An exception: these calls use that model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Unique in the feature; it seeds the share of users that [`RuleMatch::percent`] draws.
    pub id: RuleId,
    /// Which calls.
    pub matches: RuleMatch,
    /// The model that answers them.
    pub model: ModelName,
    /// For people.
    pub description: Description,
}

impl Rule {
    /// The most bytes that it can take when it is stored.
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
    /// The id. `None`: derived from the model.
    pub id: Option<RuleId>,
    /// Which calls.
    pub matches: RuleMatch,
    /// The model that answers them.
    pub model: ModelName,
    /// For people.
    pub description: Description,
}

/// The id of a rule, spelled as that of a model.
///
/// A clone shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// Parses an id.
    ///
    /// # Errors
    ///
    /// [`FeaturePartError::RuleIdMalformed`] when it is misspelled.
    pub fn parse(text: &str) -> Result<Self, FeaturePartError> {
        match ModelName::from_id(text) {
            Ok(_well_spelled) => Ok(Self(text.into())),
            Err(_misspelled) => Err(FeaturePartError::RuleIdMalformed),
        }
    }

    /// The text.
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

/// What people have written on a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description(Box<str>);

impl Description {
    /// The most characters that it may have.
    pub const LENGTH_MAX: usize = 255;

    /// Parses a description; it may be empty.
    ///
    /// # Errors
    ///
    /// [`FeaturePartError::DescriptionTooLong`] when it is longer.
    pub fn parse(text: &str) -> Result<Self, FeaturePartError> {
        if text.chars().count() > Self::LENGTH_MAX {
            return Err(FeaturePartError::DescriptionTooLong);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A share of the users, in steps of a hundredth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u16);

impl Percent {
    /// Parses a share above 0, up to 100.
    ///
    /// # Errors
    ///
    /// [`FeaturePartError::PercentOutOfRange`] for any other, and for one between two steps.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is no number of the type becomes one that is refused"
    )]
    pub fn parse(percent: f64) -> Result<Self, FeaturePartError> {
        let nearest = Self((percent * 100.0).round() as u16);
        // The way back tells a step from what lies between two.
        if (1..=10_000).contains(&nearest.0) && nearest.get().to_bits() == percent.to_bits() {
            Ok(nearest)
        } else {
            Err(FeaturePartError::PercentOutOfRange)
        }
    }

    /// How many steps of a hundredth of a percent it has.
    #[must_use]
    pub const fn steps(self) -> u16 {
        self.0
    }

    /// The share, from 0.01 to 100.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

/// Which calls a rule is for: all conditions that are given hold, a list when one entry does. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleMatch {
    namespace_ids: Vec<Box<str>>,
    project_ids: Vec<Box<str>>,
    user_ids: Vec<Box<str>>,
    percent: Option<Percent>,
}

impl RuleMatch {
    /// The most entries that its lists may have together.
    pub const COUNT_MAX: usize = 1000;
    /// The most characters that an entry may have.
    pub const LENGTH_MAX: usize = 255;

    /// Takes the conditions, whose entries were parsed by [`Self::entry`].
    ///
    /// # Errors
    ///
    /// [`FeaturePartError`] when there is none, or too much.
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
    /// [`FeaturePartError::EntryLength`] when it is empty or too long.
    pub fn entry(text: &str) -> Result<Box<str>, FeaturePartError> {
        if (1..=Self::LENGTH_MAX).contains(&text.chars().count()) {
            Ok(text.into())
        } else {
            Err(FeaturePartError::EntryLength)
        }
    }

    /// Namespaces and root namespaces.
    #[must_use]
    pub fn namespace_ids(&self) -> &[Box<str>] {
        &self.namespace_ids
    }

    /// Projects.
    #[must_use]
    pub fn project_ids(&self) -> &[Box<str>] {
        &self.project_ids
    }

    /// Users, by global or local id.
    #[must_use]
    pub fn user_ids(&self) -> &[Box<str>] {
        &self.user_ids
    }

    /// The share of the users that it is for.
    #[must_use]
    pub const fn percent(&self) -> Option<Percent> {
        self.percent
    }
}

/// Rules in the order in which they are tried: at most 64, each with an id of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// The most that a feature may have.
    pub const COUNT_MAX: usize = 64;

    /// Takes a list, and derives the ids that are missing from the models: with `-2`, `-3` and so on if one is taken.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the list as a whole.
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
        // There are more numbers than rules, so that every rule gets an id.
        Ok(Self(rules.flatten().collect()))
    }

    /// The rules, in their order.
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
