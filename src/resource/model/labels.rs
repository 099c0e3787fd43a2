//! Labels of a model.

use std::collections::BTreeMap;

use super::ModelPartError;

/// Labels: keys and values for people and tools, without a meaning to Switchboard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The maximum number of labels of a model.
    pub const COUNT_MAX: usize = 64;
    /// The maximum length of a key, in characters.
    pub const KEY_LENGTH_MAX: usize = 63;
    /// The maximum length of a value, in characters.
    pub const VALUE_LENGTH_MAX: usize = 255;

    /// Checks the bounds of a map and creates labels from it.
    ///
    /// # Errors
    ///
    /// The first error that is found.
    pub fn new(map: BTreeMap<String, String>) -> Result<Self, ModelPartError> {
        if map.len() > Self::COUNT_MAX {
            return Err(ModelPartError::LabelCount);
        }
        for (key, value) in &map {
            if !(1..=Self::KEY_LENGTH_MAX).contains(&key.chars().count()) {
                let shown = key.chars().take(Self::KEY_LENGTH_MAX).collect();
                return Err(ModelPartError::LabelKeyLength { shown });
            }
            if value.chars().count() > Self::VALUE_LENGTH_MAX {
                let key = key.as_str().into();
                return Err(ModelPartError::LabelValueLength { key });
            }
        }
        Ok(Self(map))
    }

    /// The labels, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }
}
