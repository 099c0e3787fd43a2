//! Writes that can be repeated by their request ids, and the conditions that must hold for them afterwards.

use std::collections::BTreeMap;

use switchboard::pb::registry::{
    CreateModelRequest, ListModelsRequest, Model, model_service_client::ModelServiceClient,
};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Status, transport::Channel};

use super::process::Registry;
use crate::{
    harness::{PATIENCE, reason_of},
    histories::follower::Follower,
};

/// Reasons of writes that were not made. After any other failure the outcome is unknown.
const NOT_MADE: [&str; 5] = [
    "STORAGE_FULL",
    "STORAGE_BUSY",
    "STORAGE_CORRUPT",
    "STORAGE_READ_ONLY",
    "SERVER_DRAINING",
];

/// Writes by number, each of which creates a model, with their results: the revision or the status.
#[derive(Debug, Default)]
pub(super) struct Writes(BTreeMap<u32, Result<i64, Status>>);

impl Writes {
    /// Makes `count` more writes, one after the other.
    pub(super) async fn make(&mut self, registry: &Registry, count: u32) {
        let mut client = ModelServiceClient::new(registry.channel());
        for _ in 0..count {
            let number = self.next();
            self.0.insert(number, create(&mut client, number).await);
        }
    }

    /// Makes `count` more writes, four at a time, or fewer if the registry ends.
    pub(super) async fn make_together(&mut self, registry: Channel, count: u32) {
        let mut tasks = JoinSet::new();
        for writer in 0..4 {
            let (mut client, first) = (ModelServiceClient::new(registry.clone()), self.next() + writer);
            tasks.spawn(async move {
                let mut made = Vec::new();
                for number in (first..first + count).step_by(4) {
                    let answer = create(&mut client, number).await;
                    let is_gone = answer.as_ref().is_err_and(|status| reason(status).is_empty());
                    made.push((number, answer));
                    if is_gone {
                        break;
                    }
                }
                made
            });
        }
        self.0.extend(tasks.join_all().await.into_iter().flatten());
    }

    fn next(&self) -> u32 {
        self.0.last_key_value().map_or(0, |(number, _)| number + 1)
    }

    /// Returns the reason with which the last write failed, or an empty string if it succeeded.
    pub(super) fn last_reason(&self) -> String {
        let last = self.0.last_key_value().and_then(|(_, answer)| answer.as_ref().err());
        last.map(reason).unwrap_or_default()
    }

    /// Returns the number of acknowledged writes.
    pub(super) fn acknowledged(&self) -> usize {
        self.0.values().filter(|answer| answer.is_ok()).count()
    }

    /// Checks a restarted registry: acknowledged writes are present, refused ones are not, and a repeated write is
    /// present once. A follower resumes from its cursor and gets the right digest.
    pub(super) async fn check(&self, registry: &Registry, follower: Option<&mut Follower>) {
        let present = models(registry).await;
        for (number, answer) in &self.0 {
            let found = present.get(&format!("models/m{number}"));
            match answer {
                Ok(revision) => assert_eq!(found, Some(revision), "write {number} was acknowledged"),
                Err(status) if NOT_MADE.contains(&reason(status).as_str()) => {
                    assert_eq!(found, None, "write {number} was refused: {status:?}");
                }
                Err(_) => {}
            }
        }
        let tried = |name: &String| self.0.keys().any(|number| *name == format!("models/m{number}"));
        assert!(present.keys().all(tried), "{present:?}");

        let mut client = ModelServiceClient::new(registry.channel());
        for (&number, answer) in &self.0 {
            let again = create(&mut client, number).await;
            let again = again.unwrap_or_else(|status| panic!("write {number} repeated: {status:?}"));
            let found = present.get(&format!("models/m{number}"));
            let before = answer.as_ref().ok().or(found);
            assert!(
                before.is_none_or(|before| *before == again),
                "write {number} was made twice"
            );
        }
        assert_eq!(models(registry).await.len(), self.0.len());
        if let Some(follower) = follower {
            let head = Follower::try_start(registry.channel()).await.unwrap();
            follower.try_resume(registry.channel()).await.unwrap();
            follower.catch_up(head.revision()).await;
            assert_eq!(follower.cursor(), head.cursor());
        }
    }
}

fn reason(status: &Status) -> String {
    reason_of::<()>(&Err(status.clone())).unwrap_or_default()
}

async fn create(client: &mut ModelServiceClient<Channel>, number: u32) -> Result<i64, Status> {
    let request = CreateModelRequest {
        model_id: format!("m{number}"),
        request_id: format!("r{number}"),
        model: Some(Model {
            display_name: Some(format!("Model {number}")),
            family: Some("mistral".to_owned()),
            // Long, so that a few models fill more than one message of the stream.
            endpoint: Some(format!("http://gpu{number}:8000/{}", "x".repeat(1000))),
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = timeout(PATIENCE, client.create_model(request)).await;
    let answer = answer.expect("every write is answered");
    assert!(
        !answer
            .as_ref()
            .is_err_and(|status| status.code() == Code::InvalidArgument),
        "{answer:?}"
    );
    answer.map(|answer| answer.into_inner().revision)
}

/// Returns all models with their revisions.
pub(super) async fn models(registry: &Registry) -> BTreeMap<String, i64> {
    let mut client = ModelServiceClient::new(registry.channel());
    let (mut found, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let request = ListModelsRequest {
            page_size: 1000,
            page_token,
        };
        let page = client.list_models(request).await.unwrap().into_inner();
        found.extend(page.models.into_iter().map(|model| (model.name, model.revision)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}
