//! Places of a model that are reserved for features: their total must not exceed the places of the model.

use switchboard::{
    names::ModelName,
    resource::model::{Count, Model},
};

/// Features reserve more places of a model than it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("does not fit: all features together would reserve {reserved} places of `{model}`, {}", whose(*.places))]
pub(super) struct Overbooked {
    model: ModelName,
    /// Places that all features together would reserve.
    reserved: i64,
    /// Places of the model. `None`: the number is not limited, so that no places can be reserved.
    places: Option<i32>,
}

fn whose(places: Option<i32>) -> String {
    places.map_or_else(
        || "which has no `limits.max_concurrency`".to_owned(),
        |places| format!("whose `limits.max_concurrency` is {places}"),
    )
}

/// Checks that a model has as many places as features reserve on it.
///
/// # Errors
///
/// [`Overbooked`] if it has fewer.
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
