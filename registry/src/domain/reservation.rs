//! Places of a model that are kept for features: together they have to fit it.

use switchboard::{
    names::ModelName,
    resource::model::{Count, Model},
};

/// More places of a model are reserved than it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("does not fit: all features together would reserve {reserved} places of `{model}`, {}", whose(*.places))]
pub(super) struct Overbooked {
    model: ModelName,
    /// By all features together.
    reserved: i64,
    /// How many it has. `None`: they are not limited, so that none can be kept for somebody.
    places: Option<i32>,
}

fn whose(places: Option<i32>) -> String {
    places.map_or_else(
        || "which has no `limits.max_concurrency`".to_owned(),
        |places| format!("whose `limits.max_concurrency` is {places}"),
    )
}

/// Checks that a model has the places that are reserved on it.
///
/// # Errors
///
/// [`Overbooked`] when it has not.
pub(super) fn check(model: &Model, reserved: i64) -> Result<(), Overbooked> {
    let places = model.spec.limits.max_concurrency.map(Count::get);
    if reserved <= i64::from(places.unwrap_or(0)) {
        return Ok(());
    }
    Err(Overbooked {
        model: model.name.clone(),
        reserved,
        places,
    })
}
