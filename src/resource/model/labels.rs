//! What people write on a model.

use std::collections::BTreeMap;

use super::ModelPartError;

/// Keys and values without any meaning to Switchboard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The most entries that a model may have.
    pub const COUNT_MAX: usize = 64;
    /// The most characters that a key may have.
    pub const KEY_LENGTH_MAX: usize = 63;
    /// The most characters that a value may have.
    pub const VALUE_LENGTH_MAX: usize = 255;

    /// Takes a map.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
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

    /// The entries, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }
}
