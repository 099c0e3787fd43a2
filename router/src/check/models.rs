//! What is known of the models that a server has.

use std::time::Duration;

use crate::upstream::model_list::ModelList;

/// What is known of the models that a server has.
pub(super) enum Models {
    /// The server's model list, and how long the server took to return it.
    Listed(ModelList, Duration),
    /// There is no list: the server was not asked for it, or returned nothing that can be read as one.
    Unlisted,
}
