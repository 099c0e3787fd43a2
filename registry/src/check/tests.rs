use switchboard::{
    names::{Group, InstanceId},
    stream::{Hello, HistoryRefusal, HistoryRefusalWhy, Report, Resume, SnapshotWhy, WithheldWhy},
};

use super::*;
use crate::fleet::Fleet;

fn seen(id: &str, can_check: bool, mode: WelcomeMode, reported: Option<u64>) -> Seen {
    Seen {
        key: (RouterId::parse(id).unwrap(), InstanceId::random()),
        group: Group::default(),
        build: "".into(),
        mode,
        connected: Duration::from_secs(9),
        reported: reported.map(Duration::from_secs),
        report: Arc::default(),
        is_duplicate: false,
        can_check,
    }
}

const WELL: WelcomeMode = WelcomeMode::Snapshot(SnapshotWhy::First);
const WITHHELD: WelcomeMode = WelcomeMode::Withheld(WithheldWhy::Ahead);

fn chosen(seen: Vec<Seen>, routers: &Routers) -> Result<Vec<String>, CheckError> {
    let chosen = choose(seen, routers)?;
    Ok(chosen.into_iter().map(|seen| seen.key.0.to_string()).collect())
}

#[test]
fn any_router_means_the_one_that_can_check_and_reported_last() {
    let all = || {
        vec![
            seen("old", false, WELL, Some(0)),
            seen("withheld", true, WITHHELD, Some(0)),
            seen("new", true, WELL, None),
            seen("stale", true, WELL, Some(9)),
            seen("fresh", true, WELL, Some(1)),
        ]
    };
    assert_eq!(chosen(all(), &Routers::Any).unwrap(), ["fresh"]);
    assert_eq!(chosen(all()[..3].to_vec(), &Routers::Any).unwrap(), ["new"]);
    assert_eq!(chosen(all(), &Routers::All).unwrap().len(), 5);
    let one = |id: &str| Routers::One(RouterId::parse(id).unwrap());
    assert_eq!(
        chosen(all(), &one("old")).unwrap(),
        ["old"],
        "a chosen router is asked even if it cannot check"
    );
    assert_eq!(
        chosen(all(), &one("x")),
        Err(CheckError::NotConnected(RouterId::parse("x").unwrap()))
    );
    for routers in [Routers::Any, Routers::All] {
        assert_eq!(chosen(Vec::new(), &routers), Err(CheckError::NoRouter));
    }
}

#[test]
fn a_router_that_follows_another_history_is_not_asked_to_check() {
    assert_eq!(obstacle(&seen("a", true, WELL, None)), None);
    assert_eq!(obstacle(&seen("a", true, WITHHELD, None)), Some(Obstacle::OtherHistory));
    assert_eq!(obstacle(&seen("a", false, WELL, None)), Some(Obstacle::TooOld));
    let report = Report {
        history_refusal: Some(HistoryRefusal {
            why: HistoryRefusalWhy::RevisionRegressed,
            offered: None,
        }),
        ..Report::default()
    };
    let refusing = Seen {
        report: Arc::new(report),
        ..seen("a", true, WELL, None)
    };
    assert_eq!(obstacle(&refusing), Some(Obstacle::OtherHistory));
}

#[test]
fn every_obstacle_becomes_a_failed_check_with_a_reason() {
    let reasons = [
        (Obstacle::TooOld, "METHOD_UNKNOWN"),
        (Obstacle::OtherHistory, "STORE_INCARNATION_CHANGED"),
        (Obstacle::Busy, "WATCH_LIMIT_REACHED"),
        (Obstacle::Gone, "NO_ROUTER_CONNECTED"),
        (Obstacle::Late, "DEADLINE_EXCEEDED"),
    ];
    for (obstacle, reason) in reasons {
        let check = obstacle.into_check();
        let [step] = &*check.steps else { panic!("{check:?}") };
        assert!(!check.passed);
        assert_eq!(
            (&*step.step, step.culprit, &*step.reason),
            (ROUTER, Some(Culprit::Switchboard), reason)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_router_fails_its_check_at_the_deadline() {
    let fleet = Arc::new(Fleet::default());
    let hello = Hello {
        router: RouterId::parse("silent").unwrap(),
        instance: InstanceId::random(),
        group: Group::default(),
        build: "".into(),
        can_check: true,
        resume: Resume::Nothing,
        want_snapshot: false,
    };
    let mut member = fleet.join(hello, WELL).unwrap();
    let mut orders = member.orders().unwrap();
    let question = CheckQuestion {
        target: CheckedModel::Registered(ModelName::parse("models/a").unwrap()),
        credential: None,
        endpoints: 1,
    };
    let begun = Instant::now();
    let [until, wait] = [9, 10].map(|seconds| begun + Duration::from_secs(seconds));
    let routers = fleet.routers(None, 1);
    let checked = ask(&fleet, &routers[0], &question, until, wait).await;
    assert_eq!(&*checked[0].check.steps[0].reason, "DEADLINE_EXCEEDED");
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    assert_eq!(orders.recv().await.unwrap().until, until);
}
