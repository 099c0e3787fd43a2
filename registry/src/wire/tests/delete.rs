use switchboard::{
    catalogue::Catalogue,
    names::{ModelName, Revision},
};

use super::*;
use crate::wire::delete;

fn request(name: &str, reassign_to: &str) -> registry::DeleteModelRequest {
    registry::DeleteModelRequest {
        name: name.to_owned(),
        reassign_to: reassign_to.to_owned(),
        ..Default::default()
    }
}

fn delete(world: &mut World, name: &str, reassign_to: &str) -> Result<registry::DeleteModelResponse, WriteError> {
    world
        .write(&delete::delete(request(name, reassign_to)))
        .map(|view| delete::answer(&view))
}

/// Creates a world in which `models/mistral` has two features, one of them switched off.
fn in_use(other_family: &str) -> World {
    let mut world = World::with_models(&["mistral", other_family]);
    world.assign("code_generations", "models/mistral").unwrap();
    world.assign("duo_chat", "models/mistral").unwrap();
    let provider = Some(types::Provider::Disabled.into());
    world.update_feature(setting("duo_chat", provider, None), &[]).unwrap();
    world
}

#[test]
fn a_deleted_model_leaves_nothing_and_its_id_can_be_used_again() {
    let mut world = World::new();
    let with_token = registry::Model {
        api_token: Some("canary-4f1c".to_owned()),
        ..model("Mistral", "mistral", "http://gpu1:8000")
    };
    let first = world.create(with_token).unwrap();
    let answer = delete(&mut world, "models/mistral", "").unwrap();
    assert_eq!(
        (answer.revision, answer.reassigned_features.len()),
        (world.revision(), 0)
    );
    let name = ModelName::parse("models/mistral").unwrap();
    assert!(world.state.model(&name).is_none());
    assert!(world.state.credentials.is_empty() && world.state.token_update_times.is_empty());
    let gone: Vec<_> = world.state.items.deleted_after(Revision::ZERO).collect();
    assert_eq!(
        (&*gone[0].key, gone[0].revision.get()),
        ("models/mistral", answer.revision)
    );

    let second = world.create(model("Mistral", "mistral", "http://gpu1:8000")).unwrap();
    assert!(!second.api_token_set && second.api_token_update_time.is_none());
    assert_eq!(second.revision, answer.revision + 1);
    assert_ne!(second.etag, first.etag);
    let item = world.state.items.get("models/mistral").unwrap();
    assert_eq!(item.create_revision.get(), second.revision);
}

#[test]
fn a_model_in_use_is_not_deleted_and_the_refusal_names_its_features() {
    let mut world = in_use("claude_3");
    let before = world.revision();
    let Err(WriteError::InUse { features, .. }) = delete(&mut world, "models/mistral", "") else {
        panic!("a model in use was deleted");
    };
    let names: Vec<_> = features.iter().map(|name| name.id().to_owned()).collect();
    assert_eq!(names, ["code_generations", "duo_chat"], "a disabled feature counts");
    assert_eq!(world.revision(), before);
}

#[test]
fn every_reference_moves_in_the_revision_of_the_delete() {
    let mut world = in_use("claude_3");
    let before = world.revision();
    let answer = delete(&mut world, "models/mistral", "models/claude-3").unwrap();
    assert_eq!(answer.revision, before + 1);
    assert_eq!(
        answer.reassigned_features,
        ["features/code_generations", "features/duo_chat"]
    );
    let heir = world
        .state
        .model(&ModelName::parse("models/claude-3").unwrap())
        .unwrap();
    assert_eq!(heir.features.len(), 2);
    for feature in &heir.features {
        let record = world.state.features[feature].record;
        assert_eq!(record.revision.get(), answer.revision, "{feature}");
    }
}

#[test]
fn a_delete_that_breaks_a_rule_changes_nothing() {
    let mut world = in_use("codegemma");
    let before = world.revision();
    for (heir, expected) in [
        ("models/none", "reassign_to MODEL_NOT_FOUND"),
        ("models/mistral", "reassign_to VALUE_MALFORMED"),
        ("codegemma", "reassign_to VALUE_MALFORMED"),
        ("models/codegemma", "reassign_to FAMILY_NOT_COMPATIBLE"),
    ] {
        assert_eq!(
            bad_fields(delete(&mut world, "models/mistral", heir)),
            [expected],
            "{heir}"
        );
    }
    assert_eq!(bad_fields(delete(&mut world, "", "")), ["name FIELD_REQUIRED"]);
    let missing = delete(&mut world, "models/none", "");
    assert!(matches!(missing, Err(WriteError::NotFound(_))));
    let stale = registry::DeleteModelRequest {
        etag: "stale".to_owned(),
        ..request("models/mistral", "")
    };
    let stale = world.write(&delete::delete(stale));
    assert!(matches!(stale, Err(WriteError::Conflict { .. })));
    assert_eq!(world.revision(), before);
}

#[test]
fn a_moved_reference_counts_as_a_new_assignment_for_beta() {
    let catalogue = Catalogue::get();
    let (feature, family) = catalogue
        .features()
        .iter()
        .filter(|feature| !feature.stage.needs_beta() && feature.families.iter().any(|name| name == "mistral"))
        .find_map(|feature| {
            let mut families = feature.families.iter().filter_map(|name| catalogue.family(name));
            Some((feature, families.find(|family| family.stage.needs_beta())?))
        })
        .unwrap();
    let mut world = World::with_models(&["mistral", &family.machine_name]);
    world.assign(feature.name.id(), "models/mistral").unwrap();
    let heir = format!("models/{}", family.machine_name);
    let refused = delete(&mut world, "models/mistral", &heir);
    assert!(matches!(refused, Err(WriteError::BetaNotEnabled(_))), "{refused:?}");
    world.set_beta(true);
    delete(&mut world, "models/mistral", &heir).unwrap();
}
