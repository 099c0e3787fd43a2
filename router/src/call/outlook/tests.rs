//! Compares a dry run with the call that follows it, over states of servers, places, quotas and credentials.

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    time::Duration,
};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use switchboard::{
    catalogue::Catalogue,
    failure::Failure,
    names::{FeatureName, ModelName},
    pb::registry,
    resource::{
        feature::{FeatureLimits, RuleId, RuleMatch},
        model::{Count, ModelSpec},
    },
    service::request_id::RequestId,
};
use tokio::time::{Instant, advance};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{
    call::{CallContext, CallFailure, CallLimits},
    catalog::{self, Assignment, Caller, CompiledRule, CompiledSetting, ModelState, Scope},
    current::Current,
    endpoints::{Ask, Probed, Shape, Verdict, Work},
    live::{LiveModels, Slot},
    permits::Party,
    prompt::{Input, Options, Request, Tools},
    subscription::fixture::Store,
    upstream::{Upstream, names::Names},
};

/// The requested feature, and another one that takes and reserves places of the same models.
const FEATURE: &str = "duo_chat";
const OTHER: &str = "code_generations";
const MODELS: [&str; 3] = ["a", "b", "c"];
const NAMESPACE: &str = "42";

/// State of a server before the call.
#[derive(Debug, Clone, Copy)]
enum ServerState {
    Unknown,
    Failing,
    Asks,
    FailingAndAsks,
    /// Failing, and a probe has passed since.
    Probed,
}

/// State of a model before the call.
#[derive(Debug, Clone)]
struct ModelCase {
    state: Option<catalog::Unusable>,
    servers: Vec<ServerState>,
    capacity: Option<usize>,
    queue: usize,
    /// Reserved places for the requested feature and for the other one, in effect where this is the feature's model.
    reserved: [usize; 2],
    /// Number of earlier calls of each of the two features.
    calls: [usize; 2],
    is_refused: bool,
}

#[derive(Debug, Clone)]
struct Case {
    models: Vec<ModelCase>,
    /// Index of the model of a rule that matches. `None`: there is no rule.
    rule: Option<usize>,
    /// Indexes of the requested feature's model and of its fallbacks.
    order: Vec<usize>,
    others_model: usize,
    quota: Option<usize>,
    running: usize,
    is_paused: bool,
    /// Seconds since servers failed and credentials were refused.
    since: u64,
}

fn server_state() -> impl Strategy<Value = ServerState> {
    prop_oneof![
        3 => Just(ServerState::Unknown),
        4 => Just(ServerState::Failing),
        1 => Just(ServerState::Asks),
        1 => Just(ServerState::FailingAndAsks),
        1 => Just(ServerState::Probed),
    ]
}

fn model_case() -> impl Strategy<Value = ModelCase> {
    let unusable = prop_oneof![
        Just(catalog::Unusable::Disabled),
        Just(catalog::Unusable::CredentialMissing),
        Just(catalog::Unusable::NotReady),
    ];
    (
        prop::option::weighted(0.15, unusable),
        prop::collection::vec(server_state(), 1..3),
        prop::option::weighted(0.7, 1_usize..4),
        0_usize..3,
        [0_usize..3, 0_usize..4],
        [0_usize..4, 0_usize..4],
        prop::bool::weighted(0.3),
    )
        .prop_map(|(state, servers, capacity, queue, [own, others], calls, is_refused)| {
            let places = capacity.unwrap_or_default();
            let own = own.min(places);
            ModelCase {
                state,
                servers,
                capacity,
                queue,
                reserved: [own, others.min(places - own)],
                calls,
                is_refused,
            }
        })
}

fn case() -> impl Strategy<Value = Case> {
    (
        prop::collection::vec(model_case(), 3),
        prop::option::weighted(0.2, 0_usize..3),
        Just(vec![0, 1, 2]).prop_shuffle(),
        1_usize..4,
        0_usize..3,
        prop::option::weighted(0.2, 1_usize..4),
        0_usize..3,
        prop::bool::weighted(0.05),
        0_u64..60,
    )
        .prop_map(
            |(models, rule, order, candidates, others_model, quota, running, is_paused, since)| Case {
                models,
                rule,
                order: order.into_iter().take(candidates).collect(),
                others_model,
                quota,
                running,
                is_paused,
                since,
            },
        )
}

fn feature(name: &str) -> &'static FeatureName {
    &Catalogue::get().called(name).unwrap().name
}

fn model_name(index: usize) -> ModelName {
    ModelName::from_id(MODELS[index]).unwrap()
}

fn assignment(model: usize, fallbacks: &[usize], rule: Option<usize>, limits: FeatureLimits) -> CompiledSetting {
    let rule = rule.map(|model| CompiledRule {
        id: RuleId::parse("pilot").unwrap(),
        condition: (&RuleMatch::new(vec![NAMESPACE.into()], vec![], vec![], None).unwrap()).into(),
        model: model_name(model),
    });
    CompiledSetting::SelfHosted(Arc::new(Assignment {
        model: model_name(model),
        fallbacks: fallbacks.iter().copied().map(model_name).collect(),
        rules: rule.into_iter().collect(),
        limits,
        hedge_delay: None,
    }))
}

impl Case {
    fn model(&self, index: usize) -> Arc<CompiledModel> {
        let of = &self.models[index];
        let endpoint = |server| registry::Endpoint {
            uri: format!("http://{}{server}:8000", MODELS[index]),
            ..Default::default()
        };
        let count = |count: usize| i32::try_from(count).unwrap();
        let spec = registry::Model {
            display_name: Some(MODELS[index].to_owned()),
            family: Some("mistral".to_owned()),
            identifier: Some("m".to_owned()),
            endpoints: (0..of.servers.len()).map(endpoint).collect(),
            limits: Some(registry::ModelLimits {
                max_concurrency: of.capacity.map(count),
                max_queue: Some(count(of.queue)),
                ..Default::default()
            }),
            ..Default::default()
        };
        let spec = Arc::new(ModelSpec::whole(spec).unwrap());
        Arc::new(CompiledModel::new(model_name(index), spec, None))
    }

    fn catalog(&self, models: &[Arc<CompiledModel>]) -> Arc<Catalog> {
        let reserved = |count: usize| Count::parse(i32::try_from(count).unwrap()).ok();
        let own = FeatureLimits {
            max_concurrency: self
                .quota
                .map(|most| Count::parse(i32::try_from(most).unwrap()).unwrap()),
            reserved_concurrency: reserved(self.models[self.order[0]].reserved[0]),
        };
        let others = FeatureLimits {
            max_concurrency: None,
            reserved_concurrency: reserved(self.models[self.others_model].reserved[1]),
        };
        let states = models.iter().zip(&self.models).map(|(model, of)| {
            let state = match of.state {
                None => ModelState::Ready(Arc::clone(model)),
                Some(catalog::Unusable::Disabled) => ModelState::Disabled,
                Some(catalog::Unusable::CredentialMissing) => ModelState::CredentialMissing,
                Some(catalog::Unusable::NotReady) => ModelState::NotReady,
            };
            (model.name.clone(), state)
        });
        Arc::new(Catalog {
            cursor: Store::new().cursor,
            features: HashMap::from([
                (
                    feature(FEATURE).clone(),
                    assignment(self.order[0], &self.order[1..], self.rule, own),
                ),
                (feature(OTHER).clone(), assignment(self.others_model, &[], None, others)),
            ]),
            models: states.collect(),
            inference_paused: self.is_paused,
        })
    }

    /// Makes the servers of a model fail or ask for less load, as its case says.
    fn judge(&self, index: usize, models: &LiveModels, model: &Arc<CompiledModel>) {
        let ask = Ask {
            key: None,
            tried: &[],
            work: Work {
                shape: Shape::Stream,
                bytes: 100,
            },
            deadline: Instant::now() + Duration::from_secs(60),
            may_be_degraded: true,
        };
        // All attempts begin while every server is healthy, so that each can be chosen.
        let mut attempts: Vec<_> = (0..100).map(|_| models.of(model).choose(&ask).unwrap()).collect();
        for (server, state) in self.models[index].servers.iter().enumerate() {
            let dead = Verdict::Hard(Reason::UpstreamConnectFailed);
            let busy = Verdict::Busy(Reason::UpstreamRateLimited, Some(Duration::from_secs(20)));
            let verdicts: &[Verdict] = match state {
                ServerState::Unknown => &[],
                ServerState::Failing | ServerState::Probed => &[dead, dead, dead],
                ServerState::Asks => &[busy],
                ServerState::FailingAndAsks => &[busy, dead, dead, dead],
            };
            let mut there = attempts.iter_mut().filter(|attempt| attempt.endpoint == server);
            for verdict in verdicts {
                there.next().unwrap().in_flight.judge(*verdict);
            }
        }
    }

    fn probe(&self, models: &LiveModels, catalog: &Catalog) {
        for status in models.status(catalog) {
            let uri = status.identity.uri.as_str();
            let is_it = |&(model, server): &(usize, usize)| {
                uri == self.model(model).spec.servers()[server].uri.as_str()
                    && matches!(self.models[model].servers[server], ServerState::Probed)
            };
            let all =
                (0..self.models.len()).flat_map(|model| (0..self.models[model].servers.len()).map(move |s| (model, s)));
            if all.into_iter().any(|server| is_it(&server)) {
                models.probed(&status.identity, Probed::Passed);
            }
        }
    }
}

fn reason(error: CallError) -> Reason {
    Failure::from(CallFailure::at_once(error, CallContext::new("prompt"))).reason()
}

fn request() -> Request {
    Request {
        feature: FEATURE.to_owned(),
        input: Input::Prompt("hi".to_owned().into()),
        tools: Tools::default(),
        response_format: None,
        options: Options::default(),
        affinity_key: None,
    }
}

/// Makes a dry run, then the call, and compares the two.
async fn check(case: Case) {
    let live = LiveModels::default();
    let upstream = Upstream::new(Duration::from_secs(2), Names::default(), live.clone()).unwrap();
    let current = Arc::new(Current::default());
    let calls = Calls::new(
        Arc::clone(&current),
        upstream,
        CallLimits::default(),
        TaskTracker::new(),
        CancellationToken::new(),
    );
    let models: Vec<_> = (0..MODELS.len()).map(|index| case.model(index)).collect();
    let catalog = case.catalog(&models);
    current.swap(Arc::clone(&catalog));
    for (index, model) in models.iter().enumerate() {
        case.judge(index, &live, model);
        if case.models[index].is_refused {
            live.of(model).refuse(401);
        }
    }
    advance(Duration::from_secs(case.since)).await;
    case.probe(&live, &catalog);
    let running: Vec<_> = (0..case.running)
        .filter_map(|_| calls.quotas.begin(feature(FEATURE), case.quota).ok())
        .collect();
    let mut before = Vec::new();
    for (index, model) in models.iter().enumerate() {
        let parties = [(FEATURE, case.order[0] == index), (OTHER, case.others_model == index)];
        for ((name, has_reservation), count) in parties.into_iter().zip(case.models[index].calls) {
            let party = Party {
                feature: feature(name),
                has_reservation,
            };
            before.extend((0..count).map(|_| come(&live, &catalog, model, party)));
        }
    }
    let mut inside = Vec::new();
    let mut waiting = Vec::new();
    for mut caller in before {
        match caller.as_mut().now_or_never() {
            Some(place) => inside.extend(place),
            None => waiting.push(caller),
        }
    }

    let request_id = RequestId::of(&tonic::Request::new(()));
    let scope = Scope {
        root_namespace_id: Some(NAMESPACE),
        ..Scope::default()
    };
    let caller = Caller {
        scope,
        ..Caller::default()
    };
    let decision = catalog.decide(Catalog::feature(FEATURE).unwrap(), &caller).unwrap();
    let outlook = calls.outlook(&catalog, &decision);
    let expected = match (outlook.answerer, outlook.failure) {
        (Some(answerer), None) => Ok((
            answerer.model.name.clone(),
            answerer.reason,
            answerer.degraded.is_some(),
        )),
        (None, Some(error)) => Err(reason(error)),
        other => panic!("a dry run returns either a model or a failure: {other:?}"),
    };

    let mut context = CallContext::new("prompt");
    let admitted = calls.admit(request(), Shape::Stream, None, scope, &request_id, &mut context);
    let mut walk = match admitted {
        Ok(walk) => walk,
        Err(error) => return assert_eq!(expected, Err(reason(error))),
    };
    let reached = {
        let mut next = pin!(walk.next(&calls, &request_id));
        if let Some(reached) = next.as_mut().now_or_never() {
            reached
        } else {
            assert!(
                expected.is_ok(),
                "the call waits for a place, but {expected:?} was expected"
            );
            drop((waiting, inside));
            next.now_or_never().expect("every place is free")
        }
    };
    drop(running);
    match reached {
        Ok(attempt) => {
            let selected = &attempt.selected;
            let reached = (selected.model.name.clone(), selected.reason, selected.is_degraded);
            assert_eq!(expected, Ok(reached));
        }
        Err(error) => {
            let failure = walk.failure(error, context, 0);
            let rules_apart = outlook.considered.into_iter();
            let considered: Vec<_> = rules_apart
                .filter(|considered| considered.outcome != Outcome::RuleNotMatched)
                .collect();
            assert_eq!(considered, failure.context.considered);
            assert_eq!(expected, Err(Failure::from(failure).reason()));
        }
    }
}

/// Returns a call that waits for a place at a model.
fn come(
    models: &LiveModels,
    catalog: &Arc<Catalog>,
    model: &Arc<CompiledModel>,
    party: Party,
) -> Pin<Box<impl Future<Output = Option<Slot>> + use<>>> {
    let (live, catalog) = (models.of(model), Arc::clone(catalog));
    Box::pin(async move {
        let far = Instant::now() + Duration::from_secs(3600);
        live.place(&catalog, party, far).await.ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_dry_run_names_the_model_that_the_next_call_reaches(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(case));
    }
}
