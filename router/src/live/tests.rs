//! Tests of how the states of servers change over time, and of what calls see of them. The clock is paused and only
//! moves when a test advances it.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;
use switchboard::{
    endpoint::EndpointUri,
    pb::registry,
    reason::Reason,
    resource::{
        self,
        model::{Endpoint, Identifier, ModelSpec, Platform, ServerName, Zone},
    },
};
use tokio::time::{advance, pause};

use super::*;
use crate::{
    catalog::CompiledSetting,
    endpoints::{Shape, Verdict, Work},
    subscription::fixture::Store,
};

const DEAD: Verdict = Verdict::Hard(Reason::UpstreamConnectFailed);
const BROKEN: Verdict = Verdict::Soft(Reason::UpstreamServerError);
const PASSED: Probed = Probed::Passed;
const FAILED: Probed = Probed::Failed(Reason::UpstreamConnectFailed);
/// Longer than any pause, including its random deviation.
const MINUTES: Duration = Duration::from_secs(120);

fn uri(number: usize) -> EndpointUri {
    EndpointUri::parse(&format!("http://gpu{number}:8000")).unwrap()
}

fn model_of(count: usize, platform: Platform) -> Arc<CompiledModel> {
    let plain = registry::Model {
        display_name: Some("M".to_owned()),
        family: Some("mistral".to_owned()),
        endpoint: Some(uri(0).as_str().to_owned()),
        identifier: Some("m".to_owned()),
        ..Default::default()
    };
    let spec = ModelSpec {
        platform,
        endpoints: endpoints((0..count).map(uri)),
        ..ModelSpec::whole(plain).unwrap()
    };
    Arc::new(named_m(spec))
}

fn named_m(spec: ModelSpec) -> CompiledModel {
    CompiledModel::new(ModelName::from_id("m").unwrap(), Arc::new(spec), None)
}

fn endpoints(uris: impl Iterator<Item = EndpointUri>) -> resource::model::Endpoints {
    resource::model::Endpoints::new(uris.map(Endpoint::at).collect()).unwrap()
}

fn model(count: usize) -> Arc<CompiledModel> {
    model_of(count, Platform::OpenAiCompatible)
}

fn catalog(model: &Arc<CompiledModel>) -> Catalog {
    Catalog {
        cursor: Store::new().cursor,
        features: HashMap::<_, CompiledSetting>::new(),
        models: HashMap::from([(model.name.clone(), ModelState::Ready(Arc::clone(model)))]),
        inference_paused: false,
    }
}

fn ask() -> Ask<'static> {
    Ask {
        key: None,
        tried: &[],
        work: Work {
            shape: Shape::Stream,
            bytes: 100,
        },
        deadline: Instant::now() + Duration::from_secs(60),
        may_be_degraded: true,
    }
}

/// The servers of a model, and calls whose progress the test decides.
struct Case {
    models: LiveModels,
    model: Arc<CompiledModel>,
}

impl Case {
    fn of(count: usize) -> Self {
        Self {
            models: LiveModels::default(),
            model: model(count),
        }
    }

    fn call(&self) -> Chosen {
        self.models.of(&self.model).choose(&ask()).unwrap()
    }

    fn spared(&self) -> Option<Chosen> {
        let ask = Ask {
            may_be_degraded: false,
            ..ask()
        };
        self.models.of(&self.model).choose(&ask)
    }

    /// Makes an attempt at the server of this endpoint.
    fn call_at(&self, endpoint: usize) -> Chosen {
        let all: Vec<_> = std::iter::repeat_with(|| self.call()).take(1000).collect();
        all.into_iter().find(|chosen| chosen.endpoint == endpoint).unwrap()
    }

    fn end_at(&self, endpoint: usize, verdict: Verdict) {
        self.call_at(endpoint).in_flight.judge(verdict);
    }

    fn health(&self, endpoint: usize) -> Option<Health> {
        self.status(endpoint).health
    }

    fn status(&self, endpoint: usize) -> Status {
        self.models.status(&catalog(&self.model))[endpoint].clone()
    }

    fn is_out(&self, endpoint: usize) -> bool {
        matches!(self.health(endpoint), Some(Health::Ejected(_)))
    }

    fn probe(&self, endpoint: usize, probed: Probed) {
        self.models.probed(&self.status(endpoint).identity, probed);
    }

    fn take_out(&self, endpoint: usize) {
        while !self.is_out(endpoint) {
            self.end_at(endpoint, DEAD);
        }
    }

    fn is_down(&self) -> bool {
        matches!(self.models.of(&self.model).readiness(), ModelReadiness::Down { .. })
    }
}

#[tokio::test(start_paused = true)]
async fn three_hard_failures_in_a_row_take_a_server_out() {
    let case = Case::of(2);
    for verdict in [DEAD, DEAD, Verdict::Answered, DEAD, DEAD, BROKEN, DEAD, DEAD] {
        case.end_at(0, verdict);
        assert!(!case.is_out(0), "the failures are not in a row");
    }
    case.end_at(0, DEAD);
    assert!(case.is_out(0));
    for _ in 0..100 {
        assert_eq!(case.call().endpoint, 1, "a failing server gets no calls");
    }
}

#[tokio::test(start_paused = true)]
async fn five_soft_failures_that_are_half_of_all_attempts_take_a_server_out() {
    let case = Case::of(2);
    for verdict in [Verdict::Answered, BROKEN, BROKEN, BROKEN, BROKEN] {
        case.end_at(0, verdict);
    }
    assert!(!case.is_out(0), "four failures are too few");
    advance(Duration::from_secs(31)).await;
    case.end_at(0, BROKEN);
    assert!(!case.is_out(0), "attempts older than 30 seconds do not count");
    for _ in 0..4 {
        case.end_at(0, BROKEN);
    }
    assert!(case.is_out(0));
}

#[tokio::test(start_paused = true)]
async fn verdicts_that_are_not_the_servers_fault_do_not_take_it_out() {
    let case = Case::of(2);
    let not_found = Verdict::Misconfigured(Reason::UpstreamModelNotFound);
    for verdict in [
        Verdict::Late,
        Verdict::Busy(Reason::UpstreamRateLimited, None),
        not_found,
    ] {
        for _ in 0..50 {
            case.end_at(0, verdict);
        }
    }
    for _ in 0..50 {
        drop(case.call_at(0));
    }
    assert_eq!(
        case.health(0),
        Some(Health::Misconfigured(Reason::UpstreamModelNotFound))
    );
    assert_eq!(case.models.of(&case.model).readiness(), ModelReadiness::Ready);
    assert_eq!(case.status(0).in_flight, 0, "every attempt that begins also ends");
}

#[tokio::test(start_paused = true)]
async fn a_server_is_left_alone_for_as_long_as_it_asks() {
    let case = Case::of(2);
    case.end_at(
        0,
        Verdict::Busy(Reason::UpstreamRateLimited, Some(Duration::from_secs(20))),
    );
    advance(Duration::from_secs(19)).await;
    assert!((0..100).all(|_| case.call().endpoint == 1));
    case.end_at(
        1,
        Verdict::Busy(Reason::UpstreamRateLimited, Some(Duration::from_secs(20))),
    );
    let expected = ModelReadiness::LeftAlone {
        reason: Reason::UpstreamRateLimited,
        pause: Duration::from_secs(1),
    };
    assert_eq!(case.models.of(&case.model).readiness(), expected);
    assert!(case.spared().is_none());
    advance(Duration::from_secs(1)).await;
    assert_eq!(case.call().endpoint, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failing_server_that_asks_for_it_is_left_alone_too() {
    let case = Case::of(2);
    let busy = Verdict::Busy(Reason::UpstreamRateLimited, Some(Duration::from_secs(20)));
    let (mut one, mut two) = (case.call_at(0), case.call_at(1));
    case.take_out(0);
    case.take_out(1);
    one.in_flight.judge(busy);
    assert!(case.is_down());
    assert!((0..50).all(|_| case.call().endpoint == 1));
    two.in_flight.judge(busy);
    let expected = ModelReadiness::LeftAlone {
        reason: Reason::UpstreamConnectFailed,
        pause: Duration::from_secs(20),
    };
    assert_eq!(case.models.of(&case.model).readiness(), expected);
    assert!(case.models.of(&case.model).choose(&ask()).is_none());
    advance(Duration::from_secs(20)).await;
    assert!(case.call().is_degraded);
}

#[tokio::test(start_paused = true)]
async fn soft_failures_take_out_at_most_half_of_the_servers_while_another_is_healthy() {
    let case = Case::of(4);
    for server in 0..3 {
        for _ in 0..9 {
            if !case.is_out(server) {
                case.end_at(server, BROKEN);
            }
        }
    }
    assert_eq!((0..4).filter(|server| case.is_out(*server)).count(), 2);
    assert!(!case.is_down());
    // The other servers fail too: no healthy server is left.
    for _ in 0..50 {
        case.call().in_flight.judge(BROKEN);
    }
    assert!(case.is_down());
}

#[tokio::test(start_paused = true)]
async fn a_models_only_server_goes_down_but_is_never_locked_out() {
    let case = Case::of(1);
    case.take_out(0);
    assert!(case.is_down());
    assert!(case.spared().is_none(), "it gets no calls if another model can answer");
    for _ in 0..100 {
        let mut chosen = case.call();
        assert!(chosen.is_degraded);
        chosen.in_flight.judge(DEAD);
    }
    let mut chosen = case.call();
    chosen.in_flight.first_token();
    assert!(!case.is_down(), "an answer proves that the server is back");
    assert!(!case.call().is_degraded);
}

#[tokio::test(start_paused = true)]
async fn a_server_comes_back_after_a_pause_a_probe_and_one_call() {
    let case = Case::of(2);
    case.take_out(0);
    case.probe(0, PASSED);
    advance(Duration::from_secs(3)).await;
    case.probe(0, PASSED);
    assert_eq!(case.call().endpoint, 1, "the probe came too early to count");
    advance(Duration::from_secs(4)).await;
    assert_eq!(case.call().endpoint, 1, "no probe has passed since the pause");
    let due = case.models.to_probe(&catalog(&case.model));
    assert!(
        due.iter().any(|identity| identity.uri == uri(0)),
        "its probe is due at once"
    );
    case.probe(0, PASSED);
    assert!(case.is_out(0), "a passed probe alone does not bring it back");
    let mut trial = case.call();
    assert_eq!(trial.endpoint, 0, "one call is let through");
    assert!(
        (0..50).all(|_| case.call().endpoint == 1),
        "no other call is let through"
    );
    trial.in_flight.first_token();
    assert_eq!(case.health(0), Some(Health::Healthy));
    assert!((0.09..0.11).contains(&case.status(0).ramp));
    advance(Duration::from_secs(15)).await;
    assert!((0.5..0.6).contains(&case.status(0).ramp));
    advance(Duration::from_secs(16)).await;
    assert!(case.status(0).ramp >= 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_to_come_back_rests_twice_as_long_up_to_a_minute() {
    let case = Case::of(2);
    case.take_out(0);
    let rest = || case.status(0).rest.unwrap();
    let about = |seconds: u64| {
        let rest = rest();
        let low = Duration::from_secs(seconds).mul_f64(0.79);
        let high = Duration::from_secs(seconds).mul_f64(1.21);
        assert!((low..high).contains(&rest), "{rest:?} is not about {seconds} s");
    };
    about(5);
    for seconds in [10, 20, 40, 60, 60] {
        advance(rest()).await;
        case.probe(0, FAILED);
        about(seconds);
    }
    advance(rest()).await;
    case.probe(0, PASSED);
    case.call().in_flight.judge(BROKEN);
    about(60);
    advance(rest()).await;
    case.probe(0, PASSED);
    case.call().in_flight.judge(Verdict::Answered);
    case.take_out(0);
    about(5);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_ends_without_a_verdict_permits_another() {
    let case = Case::of(2);
    case.take_out(0);
    advance(MINUTES).await;
    case.probe(0, PASSED);
    let gone = case.call();
    assert_eq!((gone.endpoint, case.call().endpoint), (0, 1));
    drop(gone);
    let slow = case.call();
    assert_eq!(
        (slow.endpoint, case.call().endpoint),
        (0, 1),
        "the first trial's caller has left"
    );
    advance(Duration::from_secs(10)).await;
    let mut second = case.call();
    assert_eq!(
        (second.endpoint, case.call().endpoint),
        (0, 1),
        "ten seconds have passed since the trial began"
    );
    drop(slow);
    assert_eq!(case.call().endpoint, 1, "the second trial is still running");
    second.in_flight.judge(Verdict::Answered);
    assert_eq!(case.health(0), Some(Health::Healthy));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_gets_one_trial_in_ten_seconds() {
    let case = Case::of(2);
    case.take_out(0);
    advance(MINUTES).await;
    for _ in 0..3 {
        case.probe(0, PASSED);
        let mut trial = case.call();
        assert_eq!(trial.endpoint, 0);
        advance(Duration::from_secs(2)).await;
        trial.in_flight.judge(Verdict::Late);
        drop(trial);
        advance(Duration::from_secs(7)).await;
        case.probe(0, PASSED);
        assert_eq!(case.call().endpoint, 1, "the next trial does not begin at once");
        advance(Duration::from_secs(1)).await;
    }
    case.probe(0, PASSED);
    case.call().in_flight.judge(Verdict::Answered);
    assert_eq!(case.health(0), Some(Health::Healthy));
}

#[tokio::test(start_paused = true)]
async fn attempts_from_an_older_epoch_are_ignored() {
    let case = Case::of(2);
    let mut old: Vec<_> = (0..20).map(|_| case.call_at(0)).collect();
    case.take_out(0);
    old.pop().unwrap().in_flight.first_token();
    assert!(case.is_out(0), "an older attempt does not bring it back");
    advance(MINUTES).await;
    case.probe(0, PASSED);
    case.call().in_flight.judge(Verdict::Answered);
    for mut call in old {
        call.in_flight.judge(DEAD);
        call.in_flight.judge(BROKEN);
    }
    assert_eq!(case.health(0), Some(Health::Healthy));
}

#[tokio::test(start_paused = true)]
async fn failed_probes_take_a_server_out_only_if_no_call_succeeded_in_between() {
    let case = Case::of(2);
    for probed in [FAILED, FAILED, PASSED, FAILED, FAILED] {
        case.probe(0, probed);
    }
    assert_eq!(case.health(0), Some(Health::Recovering(Reason::UpstreamConnectFailed)));
    case.end_at(0, Verdict::Answered);
    case.probe(0, FAILED);
    assert_eq!(case.health(0), Some(Health::Healthy), "a call outweighs probes");
    case.probe(0, FAILED);
    case.probe(0, FAILED);
    assert!(case.is_out(0));
}

#[tokio::test(start_paused = true)]
async fn servers_of_hosted_platforms_are_not_probed_and_come_back_without_a_probe() {
    let case = Case {
        models: LiveModels::default(),
        model: model_of(2, Platform::Anthropic),
    };
    case.take_out(0);
    advance(MINUTES).await;
    assert!(case.models.to_probe(&catalog(&case.model)).is_empty());
    let mut trial = case.call();
    assert_eq!((trial.endpoint, case.call().endpoint), (0, 1));
    trial.in_flight.first_token();
    assert!(!case.is_out(0));
}

#[tokio::test(start_paused = true)]
async fn each_server_is_probed_about_every_ten_seconds() {
    let case = Case::of(20);
    let catalog = catalog(&case.model);
    let mut probes = 0;
    for _ in 0..100 {
        advance(Duration::from_secs(1)).await;
        let due = case.models.to_probe(&catalog).len();
        assert!(due <= 12, "{due} probes at once");
        probes += due;
    }
    assert!((160..=240).contains(&probes), "{probes}");
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_server_survives_a_swap_of_the_catalog_and_ends_with_its_identity() {
    let mut case = Case::of(2);
    case.take_out(0);
    let held = case.call();
    let mut changed = (*case.model.spec).clone();
    changed.identifier = Identifier::parse("other").unwrap();
    changed.endpoints = endpoints([uri(7)].into_iter().chain(changed.uris().cloned()));
    case.model = Arc::new(named_m(changed.clone()));
    case.models.keep(&catalog(&case.model));
    assert!(case.is_out(1) && !case.is_out(0), "the server is at index 1 now");
    assert_eq!(case.status(2).in_flight, 1);
    drop(held);
    assert_eq!(case.status(2).in_flight, 0);
    changed.tls.server_name = ServerName::parse("gpu").unwrap();
    case.model = Arc::new(named_m(changed));
    assert!(
        (0..3).all(|server| case.health(server).is_none()),
        "these are other servers"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_before_the_first_token_shows_how_slow_a_server_is() {
    let case = Case::of(1);
    let mut quick = case.call();
    advance(Duration::from_secs(1)).await;
    quick.in_flight.judge(Verdict::Answered);
    let waits = case.call();
    advance(Duration::from_secs(60)).await;
    drop(waits);
    assert!(case.status(0).slowness > 2.0);
    let before = case.status(0).slowness;
    drop(case.call());
    assert!(
        (case.status(0).slowness - before).abs() < 1e-9,
        "a caller that leaves says nothing about the server"
    );
}

#[tokio::test(start_paused = true)]
async fn a_router_prefers_its_own_zone_while_that_has_a_server_that_takes_calls() {
    let mut zoned = (*model(3).spec).clone();
    let servers = zoned.servers().iter().zip(["north", "south", ""]);
    let servers = servers.map(|(server, zone)| Endpoint {
        zone: Zone::parse(zone).unwrap(),
        ..server.clone()
    });
    zoned.endpoints = resource::model::Endpoints::new(servers.collect()).unwrap();
    let case = |zone| Case {
        models: LiveModels::new(zone, ByName),
        model: Arc::new(named_m(zoned.clone())),
    };
    let all = |case: &Case, endpoint: usize| (0..50).all(|_| case.call().endpoint == endpoint);
    let south = case("south");
    assert!(all(&south, 1));
    let busy: Vec<_> = (0..9).map(|_| south.call()).collect();
    assert!(
        busy.iter().any(|chosen| chosen.endpoint != 1),
        "other zones take calls while the own zone is busy"
    );
    drop(busy);
    while !south.is_out(1) {
        south.call().in_flight.judge(DEAD);
    }
    assert!(!all(&south, 1));
    let nowhere = case("");
    assert!(!all(&nowhere, 2), "a router without a zone prefers no server");
}

#[derive(Debug)]
struct Two;

impl Addresses for Two {
    fn version(&self) -> u64 {
        1
    }

    fn of(&self, _: &EndpointUri) -> Arc<[IpAddr]> {
        Arc::new(["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()])
    }
}

#[tokio::test(start_paused = true)]
async fn each_address_of_a_host_name_is_a_server_and_the_worst_health_is_reported() {
    let case = Case {
        models: LiveModels::new("", Two),
        model: model(1),
    };
    let mut following = case.models.follow();
    let mut bad = case.call();
    let address = bad.address.unwrap();
    for _ in 0..3 {
        bad.in_flight.judge(DEAD);
    }
    drop(bad);
    assert!((0..50).all(|_| case.call().address.is_some_and(|other| other != address)));
    case.call().in_flight.judge(Verdict::Answered);
    let told = following.changes(9);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].health, Some(Health::Ejected(Reason::UpstreamConnectFailed)));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin,
    End(Option<Verdict>),
    Wait(u64),
    Probe(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdicts = prop::sample::select(vec![
        None,
        Some(DEAD),
        Some(BROKEN),
        Some(Verdict::Answered),
        Some(Verdict::Late),
        Some(Verdict::Misconfigured(Reason::UpstreamModelNotFound)),
    ]);
    let step = prop_oneof![
        3 => Just(Step::Begin),
        3 => verdicts.prop_map(Step::End),
        1 => (0_u64..40).prop_map(Step::Wait),
        1 => (0_usize..3, any::<bool>()).prop_map(|(server, passes)| Step::Probe(server, passes)),
    ];
    proptest::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_server_always_takes_a_call_and_every_attempt_is_counted_until_it_ends(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            pause();
            let case = Case::of(3);
            let mut calls = Vec::new();
            for step in steps {
                match step {
                    Step::Begin => calls.push(case.call()),
                    Step::End(verdict) => {
                        if let (Some(mut call), Some(verdict)) = (calls.pop(), verdict) {
                            call.in_flight.judge(verdict);
                        }
                    }
                    Step::Wait(seconds) => advance(Duration::from_secs(seconds)).await,
                    Step::Probe(server, passes) => case.probe(server, if passes { PASSED } else { FAILED }),
                }
                let in_flight: u32 = (0..3).map(|server| case.status(server).in_flight).sum();
                assert_eq!(in_flight as usize, calls.len());
            }
            calls.clear();
            assert!((0..3).all(|server| case.status(server).in_flight == 0));
        });
    }
}
