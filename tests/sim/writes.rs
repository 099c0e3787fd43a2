//! Clients that send valid and invalid writes, repeat a write if its outcome is unknown, and make some writes
//! conditional on an etag.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;
use parking_lot::Mutex;
use prost::Message as _;
use switchboard::pb::{
    registry::{
        CreateModelRequest, DeleteModelRequest, Endpoint, Feature, FeatureLimits, Model, ModelLimits,
        RestoreRevisionRequest, Settings, UpdateFeatureRequest, UpdateModelRequest, UpdateSettingsRequest,
    },
    types::Provider,
};
use switchboard_registry::{
    commit::{Commit, CommitError},
    wire::write::{ParsedWrite, WriteRequest},
};
use tokio::time::timeout;

use crate::{
    history::{Actor, Event, Log, Outcome},
    mutants::Mutant,
    network::Network,
    time::between,
};

/// Features with and without a parent.
pub(crate) const FEATURES: [&str; 5] = [
    "code_generations",
    "code_completions",
    "duo_chat",
    "duo_chat_explain_code",
    "generate_commit_message",
];
const FAMILIES: [&str; 2] = ["mistral", "llama3"];
const MODELS: [&str; 4] = ["one", "two", "three", "four"];
const SERVERS: [&str; 3] = ["http://gpu1:8000", "http://gpu2:8000", "http://gpu3:8000"];

/// One write.
#[derive(Debug, Clone)]
enum Write {
    Create(CreateModelRequest),
    Update(UpdateModelRequest),
    Delete(DeleteModelRequest),
    Feature(UpdateFeatureRequest),
    Settings(UpdateSettingsRequest),
    Restore(RestoreRevisionRequest),
}

/// The newest known etag of each model.
pub(crate) type Etags = Arc<Mutex<BTreeMap<String, String>>>;

/// One client.
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) network: Network,
    pub(crate) random: Rng,
    /// Random source for limits, zones and hedge delays. It is separate, because nothing else depends on these values.
    pub(crate) tuning: Rng,
    pub(crate) log: Log,
    /// Maximum number of writes.
    pub(crate) writes: usize,
    /// Etags of models that any client has seen; all clients share them.
    pub(crate) etags: Etags,
    pub(crate) tokens: usize,
}

impl Client {
    pub(crate) fn new(number: usize, network: Network, etags: Etags, seed: u64, writes: usize) -> Self {
        Self {
            number,
            log: network.log.clone(),
            network,
            random: Rng::with_seed(seed),
            tuning: Rng::with_seed(!seed),
            writes,
            etags,
            tokens: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        for place in 0..self.writes {
            let most = if self.random.u8(..10) == 0 { 6_000 } else { 300 };
            self.pause(5, most).await;
            let write = self.any();
            let number = self.number * 10_000 + place * 4;
            let request_id = format!("request-{}-{place}", self.number);
            // A client that does not know the outcome repeats the write with the same request id. Some clients repeat
            // it although they know the outcome.
            for again in 0..3 {
                let outcome = self.send(number + again, &write, &request_id).await;
                if !matches!(outcome, Outcome::Unknown) && self.random.u8(..6) > 0 {
                    break;
                }
                self.pause(100, 3_000).await;
            }
        }
    }

    async fn pause(&mut self, min: u64, max: u64) {
        let duration = between(&mut self.random, min, max);
        let class = 4 + u64::try_from(self.number).unwrap();
        self.network.clock.pause(class, duration).await;
    }

    async fn send(&mut self, number: usize, write: &Write, request_id: &str) -> Outcome {
        // The second registry, if it runs, works on a copy that should not be written to; some clients write to it
        // anyway.
        let address = usize::from(self.random.u8(..8) == 0);
        let run = if address == 1 && self.network.has(1) {
            self.network.at(1)
        } else {
            self.network.at(0)
        };
        let Some(run) = run.filter(|run| !run.dead.is_cancelled()) else {
            return Outcome::Unknown;
        };
        let base = match write {
            Write::Update(update) if !update_etag(update).is_empty() => {
                let model = update.model.as_ref().unwrap();
                Some((model.name.clone(), model.etag.clone()))
            }
            _ => None,
        };
        self.log.write(
            Actor::Client(self.number),
            Event::Asked {
                write: number,
                run: run.number,
                request_id: request_id.to_owned(),
                base,
                what: write.what(),
            },
        );
        let submitted = async {
            match write.clone() {
                Write::Create(request) => {
                    submit(
                        &run.commit,
                        CreateModelRequest {
                            request_id: request_id.to_owned(),
                            ..request
                        },
                    )
                    .await
                }
                Write::Update(mut request) => {
                    request.request_id = request_id.to_owned();
                    if self.network.mutant == Some(Mutant::EtagIgnored)
                        && let Some(model) = &mut request.model
                    {
                        model.etag.clear();
                    }
                    submit(&run.commit, request).await
                }
                Write::Delete(request) => {
                    submit(
                        &run.commit,
                        DeleteModelRequest {
                            request_id: request_id.to_owned(),
                            ..request
                        },
                    )
                    .await
                }
                Write::Feature(request) => {
                    submit(
                        &run.commit,
                        UpdateFeatureRequest {
                            request_id: request_id.to_owned(),
                            ..request
                        },
                    )
                    .await
                }
                Write::Restore(request) => {
                    submit(
                        &run.commit,
                        RestoreRevisionRequest {
                            request_id: request_id.to_owned(),
                            ..request
                        },
                    )
                    .await
                }
                Write::Settings(request) => {
                    submit(
                        &run.commit,
                        UpdateSettingsRequest {
                            request_id: request_id.to_owned(),
                            ..request
                        },
                    )
                    .await
                }
            }
        };
        let outcome = tokio::select! {
            biased;
            () = run.dead.cancelled() => Outcome::Unknown,
            outcome = timeout(Duration::from_secs(10), submitted) => outcome.unwrap_or(Outcome::Unknown),
        };
        if let (Outcome::Written { answer, .. }, Write::Create(_) | Write::Update(_)) = (&outcome, write) {
            let model = Model::decode(&**answer).unwrap();
            self.etags.lock().insert(model.name, model.etag);
        }
        self.log.write(
            Actor::Client(self.number),
            Event::Answered {
                write: number,
                outcome: outcome.clone(),
            },
        );
        outcome
    }

    fn any(&mut self) -> Write {
        match self.random.u8(..17) {
            0..3 => Write::Create(CreateModelRequest {
                model: Some(self.new_model()),
                ..Default::default()
            }),
            3..8 => Write::Update(UpdateModelRequest {
                model: Some(self.changed_model()),
                ..Default::default()
            }),
            8..10 => Write::Delete(DeleteModelRequest {
                name: self.model(),
                reassign_to: if self.random.bool() {
                    self.model()
                } else {
                    String::new()
                },
                ..Default::default()
            }),
            10..15 => Write::Feature(UpdateFeatureRequest {
                feature: Some(self.feature()),
                ..Default::default()
            }),
            15 => Write::Restore(self.restore()),
            _ => Write::Settings(UpdateSettingsRequest {
                settings: Some(Settings {
                    inference_paused: Some(self.random.u8(..3) == 0),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }
    }

    /// Restores a revision that is still kept in most cases.
    fn restore(&mut self) -> RestoreRevisionRequest {
        let run = self.network.at(0);
        let newest = run.map_or(0, |run| run.commit.state().items.revision().get());
        RestoreRevisionRequest {
            revision: (newest - self.random.i64(0..8)).max(1),
            ..Default::default()
        }
    }

    fn new_model(&mut self) -> Model {
        Model {
            name: self.model(),
            display_name: Some(format!("Model {}", self.random.u8(..12))),
            family: Some(self.pick(&FAMILIES)),
            endpoints: self.endpoints(),
            api_token: self.random.bool().then(|| self.token()),
            limits: Some(self.limits()),
            ..Default::default()
        }
    }

    fn changed_model(&mut self) -> Model {
        let name = self.model();
        let etag = self.etags.lock().get(&name).cloned();
        let mut model = Model {
            etag: etag.filter(|_| self.random.bool()).unwrap_or_default(),
            name,
            ..Default::default()
        };
        model.limits = (self.tuning.u8(..5) == 0).then(|| self.limits());
        match self.random.u8(..5) {
            0 => model.display_name = Some(format!("Model {}", self.random.u8(..12))),
            1 => model.endpoints = self.endpoints(),
            2 => model.disabled = Some(self.random.bool()),
            3 => model.api_token = Some(self.token()),
            _ => model.api_token = Some(String::new()),
        }
        model
    }

    fn feature(&mut self) -> Feature {
        let (provider, model) = match self.random.u8(..8) {
            0 => (Provider::Unassigned, None),
            1 => (Provider::Disabled, None),
            _ => (Provider::SelfHosted, Some(self.model())),
        };
        Feature {
            name: format!("features/{}", self.pick(&FEATURES)),
            provider: Some(provider.into()),
            model,
            limits: (self.tuning.u8(..3) == 0).then(|| FeatureLimits {
                max_concurrency: None,
                reserved_concurrency: Some(self.tuning.i32(0..3)),
            }),
            hedge_delay: (self.tuning.u8(..4) == 0).then(|| prost_types::Duration {
                seconds: self.tuning.i64(1..=60),
                nanos: 0,
            }),
            ..Default::default()
        }
    }

    /// Few places, so that reservations fit in most cases, but not always.
    fn limits(&mut self) -> ModelLimits {
        ModelLimits {
            max_concurrency: Some(self.tuning.i32(3..8)),
            ..Default::default()
        }
    }

    fn endpoints(&mut self) -> Vec<Endpoint> {
        let mut servers = SERVERS;
        self.random.shuffle(&mut servers);
        let count = self.random.usize(1..=2);
        let endpoints = servers[..count].iter().map(|uri| Endpoint {
            uri: (*uri).to_owned(),
            zone: ["", "east", "west"][self.tuning.usize(..3)].to_owned(),
            ..Default::default()
        });
        endpoints.collect()
    }

    fn token(&mut self) -> String {
        self.tokens += 1;
        format!("canary-{}-{}", self.number, self.tokens)
    }

    fn model(&mut self) -> String {
        format!("models/{}", self.pick(&MODELS))
    }

    fn pick(&mut self, from: &[&str]) -> String {
        from[self.random.usize(..from.len())].to_owned()
    }
}

impl Write {
    fn what(&self) -> String {
        match self {
            Self::Create(request) => format!("create {}", request.model.as_ref().unwrap().name),
            Self::Update(request) => {
                let model = request.model.as_ref().unwrap();
                let token = model.api_token.as_ref().map(String::len);
                format!("update {} disabled {:?} token {token:?}", model.name, model.disabled)
            }
            Self::Delete(request) => format!("delete {} to {:?}", request.name, request.reassign_to),
            Self::Feature(request) => {
                let feature = request.feature.as_ref().unwrap();
                format!("assign {} to {:?}", feature.name, feature.model)
            }
            Self::Restore(request) => format!("restore revision {}", request.revision),
            Self::Settings(request) => {
                let settings = request.settings.as_ref().unwrap();
                format!("pause {:?}", settings.inference_paused)
            }
        }
    }
}

fn update_etag(update: &UpdateModelRequest) -> &str {
    update.model.as_ref().map_or("", |model| &model.etag)
}

/// Submits a write and returns its outcome.
pub(crate) async fn submit<R: WriteRequest>(commit: &Commit, request: R) -> Outcome {
    match commit.submit(ParsedWrite::read(request)).await {
        Ok(written) => Outcome::Written {
            revision: written.revision,
            incarnation: written.incarnation,
            answer: written.answer.encode_to_vec(),
        },
        Err(CommitError::Refused(_)) => Outcome::Refused("because of its content"),
        Err(CommitError::RequestIdReused) => Outcome::Refused("because of its request id"),
        Err(CommitError::Store(_)) => Outcome::Refused("because of the disk"),
        Err(CommitError::OutcomeUnknown | CommitError::Ended) => Outcome::Unknown,
    }
}
