//! Deletes a model, and moves references to it to another model.

use switchboard::{
    catalogue::{self, Catalogue, Family},
    names::{CredentialId, FeatureName, ModelName, Revision},
    reason::FieldReason,
    resource::feature::Feature,
    violation::Violations,
};

use super::{Plan, Revise, WriteError, check_etag};
use crate::domain::{
    reservation,
    state::{Change, State},
    view::WriteView,
};

const REASSIGN_TO: &str = "reassign_to";

/// Deletes a model.
#[derive(Debug)]
pub struct DeleteModel {
    /// The name of the model. `None`: it is invalid, which is one of the violations.
    pub name: Option<ModelName>,
    /// Etag that the model must have. `None`: not checked.
    pub etag: Option<String>,
    /// The model that receives every reference to the deleted one. `None`: the model must not be referenced.
    pub reassign_to: Option<ModelName>,
    /// Violations that were found when the request was read.
    pub violations: Violations,
}

/// A model that was deleted.
#[derive(Debug, Clone)]
pub struct DeletedView {
    /// The revision that deleted it.
    pub revision: Revision,
    /// The features whose references were moved, in the catalogue's order.
    pub reassigned: Vec<FeatureName>,
}

impl WriteView for DeletedView {
    fn revision(&self) -> Revision {
        self.revision
    }
}

impl Revise for DeleteModel {
    /// The features whose references are moved.
    type Subject = Vec<FeatureName>;
    type View = DeletedView;

    fn plan(&self, state: &State, _fresh: CredentialId) -> Result<Plan<Vec<FeatureName>>, WriteError> {
        let Some(name) = &self.name else {
            return Err(WriteError::Invalid(self.violations.clone()));
        };
        let Some(stored) = state.models.get(name) else {
            return Err(WriteError::NotFound(name.clone().into()));
        };
        check_etag(state, name.clone().into(), stored.record, self.etag.as_deref())?;
        let users = users(state, name);
        let mut violations = self.violations.clone();
        let heir = self
            .reassign_to
            .as_ref()
            .and_then(|heir| find_heir(state, name, heir, &users, &mut violations));
        if !violations.is_empty() {
            return Err(WriteError::Invalid(violations));
        }
        let subject: Vec<_> = users.iter().map(|(facts, _)| facts.name.clone()).collect();
        let changes = match heir {
            Some((heir, family)) => {
                check_beta(state, &users, family)?;
                let moved = users.iter().map(|(_, feature)| feature.reassigned(name, heir));
                moved.map(Change::Feature).collect()
            }
            None if subject.is_empty() => Vec::new(),
            None => {
                return Err(WriteError::InUse {
                    name: name.clone(),
                    features: subject,
                });
            }
        };
        Ok(Plan {
            subject,
            changes,
            deleted: vec![name.clone()],
        })
    }

    fn outcome(state: &State, reassigned: &Vec<FeatureName>) -> Option<DeletedView> {
        Some(DeletedView {
            revision: state.items.revision(),
            reassigned: reassigned.clone(),
        })
    }
}

type User<'a> = (&'static catalogue::FeatureFacts, &'a Feature);

/// Returns the features that name a model, in the catalogue's order.
fn users<'a>(state: &'a State, model: &ModelName) -> Vec<User<'a>> {
    let features = Catalogue::get().features().iter();
    features
        .filter_map(|facts| Some((facts, &state.features.get(&facts.name)?.value)))
        .filter(|(_, feature)| feature.references().any(|named| named == model))
        .collect()
}

/// Returns the model that receives the references, and its family. Adds violations if it cannot. `None`: it does not
/// exist, or is the deleted model.
fn find_heir<'a>(
    state: &State,
    name: &ModelName,
    heir: &'a ModelName,
    users: &[User<'_>],
    violations: &mut Violations,
) -> Option<(&'a ModelName, &'static Family)> {
    if heir == name {
        violations.push(REASSIGN_TO, FieldReason::ValueMalformed, "must be another model");
        return None;
    }
    let Some(model) = state.models.get(heir) else {
        let description = format!("`{heir}` does not exist");
        violations.push(REASSIGN_TO, FieldReason::ModelNotFound, description);
        return None;
    };
    let moved = state.places_reserved_on(name);
    if moved > 0
        && let Err(overbooked) = reservation::check(&model.value, state.places_reserved_on(heir) + moved)
    {
        violations.push(REASSIGN_TO, FieldReason::ReservationTooLarge, overbooked.to_string());
    }
    let family = model.value.spec.family;
    for (facts, _) in users.iter().filter(|(facts, _)| !facts.fits(family)) {
        violations.push(
            REASSIGN_TO,
            FieldReason::FamilyNotCompatible,
            format!(
                "`{heir}` is of family `{}`, which cannot serve `{}`; families that can: {}",
                family.machine_name,
                facts.name,
                facts.families.join(", ")
            ),
        );
    }
    Some((heir, family))
}

/// Moving a reference counts as a new assignment: while beta is off, neither the feature nor the new family may be in
/// beta.
fn check_beta(state: &State, users: &[User<'_>], family: &Family) -> Result<(), WriteError> {
    if users.is_empty() || state.is_beta_enabled() {
        return Ok(());
    }
    let features = users.iter().filter(|(facts, _)| facts.stage.needs_beta());
    let mut subjects: Vec<_> = features
        .map(|(facts, _)| format!("feature `{}`", facts.name.id()))
        .collect();
    if family.stage.needs_beta() {
        subjects.push(format!("family `{}`", family.machine_name));
    }
    if subjects.is_empty() {
        Ok(())
    } else {
        Err(WriteError::BetaNotEnabled(subjects))
    }
}
