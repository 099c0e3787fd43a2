//! Tests of the connected routers and of their log lines.

use switchboard::stream::{Resume, SnapshotWhy};

use super::*;
use crate::testing::History;

const MODE: WelcomeMode = WelcomeMode::Snapshot(SnapshotWhy::First);

fn hello(router: &str, instance: InstanceId) -> Hello {
    Hello {
        router: RouterId::parse(router).unwrap(),
        instance,
        group: Group::default(),
        build: "1".into(),
        can_check: true,
        resume: Resume::Nothing,
        want_snapshot: false,
    }
}

fn holding(count: usize) -> Report {
    Report {
        held_total: count,
        ..Report::default()
    }
}

#[test]
fn a_newer_stream_of_one_process_replaces_the_older_one() {
    let fleet = Arc::new(Fleet::default());
    let instance = InstanceId::random();
    let older = fleet.join(hello("r", instance), MODE).unwrap();
    let newer = fleet.join(hello("r", instance), MODE).unwrap();
    assert!(older.replaced().is_cancelled() && !newer.replaced().is_cancelled());
    let state = History::with_revisions(1).state();
    newer.report(holding(1), &state);
    older.report(holding(2), &state);
    assert_eq!(fleet.reports(), [holding(1)]);
    drop(older);
    assert_eq!(fleet.reports(), [holding(1)]);
    drop(newer);
    assert_eq!(fleet.reports(), []);
}

#[test]
fn a_router_whose_state_keeps_changing_does_not_flood_the_log() {
    let begin = Instant::now();
    let mut voice = Voice::default();
    let told: Vec<u64> = (0..1_000).filter_map(|_| voice.admit(begin)).collect();
    assert_eq!(told, [0; 10]);
    assert_eq!(
        voice.admit(begin + TELL_EVERY),
        Some(990),
        "the next line counts the events that were not logged"
    );
    assert_eq!(voice.admit(begin + TELL_EVERY), None);
}

#[test]
fn two_processes_under_one_id_both_stay_connected() {
    let fleet = Arc::new(Fleet::default());
    let [one, two] = [(); 2].map(|()| fleet.join(hello("r", InstanceId::random()), MODE).unwrap());
    assert!(!one.replaced().is_cancelled() && !two.replaced().is_cancelled());
    assert_eq!(fleet.reports().len(), 2);
    let twin = |key: &RouterInstance| fleet.lock().twin_of(key);
    assert_eq!((twin(&one.key), twin(&two.key)), (Some(two.key.1), Some(one.key.1)));
    let other = fleet.join(hello("s", InstanceId::random()), MODE).unwrap();
    assert_eq!(twin(&other.key), None);
}

#[test]
fn a_full_fleet_refuses_new_routers_and_accepts_known_ones() {
    let fleet = Arc::new(Fleet::default());
    let instance = InstanceId::random();
    let mut members: Vec<Member> = (0..ROUTERS_MAX)
        .map(|number| fleet.join(hello(&format!("r{number}"), instance), MODE).unwrap())
        .collect();
    assert_eq!(fleet.join(hello("new", instance), MODE).unwrap_err(), FleetFull);
    members.push(fleet.join(hello("r0", instance), MODE).unwrap());
    members.truncate(ROUTERS_MAX - 1);
    assert!(fleet.join(hello("new", instance), MODE).is_ok());
}

#[test]
fn routers_are_listed_by_id_and_duplicate_ids_are_marked() {
    let fleet = Arc::new(Fleet::default());
    let _members = ["b", "a", "c", "b"].map(|router| fleet.join(hello(router, InstanceId::random()), MODE).unwrap());
    let seen = fleet.routers(None, 10);
    let shown: Vec<(String, bool)> = seen
        .iter()
        .map(|seen| (seen.key.0.to_string(), seen.is_duplicate))
        .collect();
    let expected = [("a", false), ("b", true), ("b", true), ("c", false)];
    assert_eq!(shown, expected.map(|(id, is_duplicate)| (id.to_owned(), is_duplicate)));
    assert!(seen[1].key < seen[2].key);
    let rest = fleet.routers(Some(&seen[1].key), 1);
    assert_eq!((rest.len(), &rest[0].key), (1, &seen[2].key));
    assert_eq!(rest[0].reported, None);
}
