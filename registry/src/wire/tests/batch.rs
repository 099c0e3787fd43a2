use super::*;
use crate::wire::batch;

fn update(feature: &str, model: &str) -> registry::UpdateFeatureRequest {
    let provider = Some(types::Provider::SelfHosted.into());
    registry::UpdateFeatureRequest {
        feature: Some(setting(feature, provider, Some(model))),
        ..Default::default()
    }
}

fn write(
    world: &mut World,
    requests: Vec<registry::UpdateFeatureRequest>,
) -> Result<registry::BatchUpdateFeaturesResponse, WriteError> {
    let request = registry::BatchUpdateFeaturesRequest {
        requests,
        ..Default::default()
    };
    world.write(&batch::update(request)).map(|view| batch::answer(&view))
}

#[test]
fn a_batch_is_one_revision_and_answers_in_request_order() {
    let mut world = World::with_models(&["mistral"]);
    let before = world.revision();
    let requests = vec![
        update("duo_chat", "models/mistral"),
        update("code_generations", "models/mistral"),
    ];
    let answer = write(&mut world, requests.clone()).unwrap();
    assert_eq!((answer.revision, world.revision()), (before + 1, before + 1));
    let names: Vec<_> = answer.features.iter().map(|feature| feature.name.as_str()).collect();
    assert_eq!(names, ["features/duo_chat", "features/code_generations"]);
    assert!(answer.features.iter().all(|feature| feature.revision == before + 1));

    let again = write(&mut world, requests).unwrap();
    assert_eq!(again, answer);
    assert_eq!(
        world.revision(),
        before + 1,
        "a write without changes makes no revision"
    );
}

#[test]
fn each_update_has_its_own_mask_and_etag() {
    let mut world = World::with_models(&["mistral"]);
    let assigned = world.assign("duo_chat", "models/mistral").unwrap();
    let batch = |etag: &str| {
        let cleared = registry::UpdateFeatureRequest {
            feature: Some(registry::Feature {
                etag: etag.to_owned(),
                ..setting("duo_chat", None, None)
            }),
            update_mask: paths(&["provider", "model"]),
            ..Default::default()
        };
        vec![update("code_generations", "models/mistral"), cleared]
    };
    let before = world.revision();
    let stale = write(&mut world, batch("stale"));
    assert!(matches!(stale, Err(WriteError::Conflict { .. })));
    assert_eq!(world.revision(), before, "no update of the batch is made");
    let answer = write(&mut world, batch(&assigned.etag)).unwrap();
    assert_eq!(answer.features[1].provider, Some(types::Provider::Unassigned.into()));
}

#[test]
fn a_batch_of_more_than_a_hundred_updates_is_refused() {
    let mut world = World::with_models(&["mistral"]);
    let before = world.revision();
    let too_many = vec![update("duo_chat", "models/mistral"); 101];
    assert_eq!(
        bad_fields(write(&mut world, too_many))[0],
        "requests VALUE_OUT_OF_RANGE"
    );
    assert_eq!(world.revision(), before);
}
