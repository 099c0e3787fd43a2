//! What a server says of the models that it has.

use std::time::Duration;

use crate::upstream::model_list::ModelList;

/// What the server says of its models.
pub(super) enum Models {
    /// These.
    Listed(ModelList, Duration),
    /// Nothing that could be read as a list.
    Unlisted,
}
