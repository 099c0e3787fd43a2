use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn choice(identity: u64) -> Choice {
    Choice {
        weight: 1.0,
        in_flight: 0,
        others: None,
        slowness: 1.0,
        is_near: false,
        identity,
    }
}

fn choices(weights: &[f64]) -> Vec<Choice> {
    let numbered = (1..).zip(weights);
    numbered
        .map(|(identity, &weight)| Choice {
            weight,
            ..choice(identity)
        })
        .collect()
}

/// Returns how many of `calls` calls each server gets. With `stays`, no call ends before the last one has begun.
fn picked(choices: &mut [Choice], calls: usize, stays: bool) -> Vec<u32> {
    let mut chance = fastrand::Rng::with_seed(7);
    let mut counts = vec![0; choices.len()];
    for _ in 0..calls {
        let index = choose(choices, None, || chance.f64()).unwrap();
        counts[index] += 1;
        choices[index].in_flight += u32::from(stays);
    }
    counts
}

fn is_about(count: u32, expected: u32) -> bool {
    count.abs_diff(expected) <= expected / 10
}

#[test]
fn calls_are_shared_by_weight_under_low_and_high_load() {
    for stays in [false, true] {
        let counts = picked(&mut choices(&[1.0, 3.0]), 4000, stays);
        assert!(is_about(counts[0], 1000) && is_about(counts[1], 3000), "{counts:?}");
    }
}

#[test]
fn a_server_that_just_came_back_gets_a_reduced_share() {
    let counts = picked(&mut choices(&[1.0, 0.1]), 11_000, false);
    assert!(is_about(counts[1], 1000), "{counts:?}");
    let counts = picked(&mut choices(&[1.0, 0.1]), 1100, true);
    assert!(is_about(counts[1], 100), "{counts:?}");
}

#[test]
fn the_slower_of_two_servers_gets_fewer_calls() {
    let mut choices = choices(&[1.0, 1.0]);
    choices[0].slowness = 4.0;
    let counts = picked(&mut choices, 5000, false);
    assert!(is_about(counts[0], 1000), "{counts:?}");
    let counts = picked(&mut choices, 5000, true);
    assert!(is_about(counts[0], 1000), "{counts:?}");
}

#[test]
fn calls_stay_in_the_own_zone_until_it_is_twice_as_busy() {
    let mut zones = choices(&[1.0, 1.0, 1.0]);
    zones[0].is_near = true;
    for (near, far, stays) in [
        (0, 0, true),
        (1, 0, true),
        (9, 9, true),
        (19, 9, true),
        (22, 5, false),
        (9, 0, false),
    ] {
        zones[0].in_flight = near;
        zones[1].in_flight = far;
        zones[2].in_flight = far;
        let mut chance = fastrand::Rng::with_seed(7);
        let has_left = (0..100).any(|_| choose(&zones, None, || chance.f64()) != Some(0));
        // Calls that leave the zone go to the less busy server.
        assert_eq!(!has_left, stays, "{near} near, {far} elsewhere");
    }
}

#[test]
fn keys_are_spread_by_weight_and_stay_at_their_server() {
    let choices = choices(&[1.0, 1.0, 2.0]);
    let mut counts = [0; 3];
    for key in 0..8000 {
        let index = choose(&choices, Some(key), || 0.0).unwrap();
        assert_eq!(choose(&choices, Some(key), || 0.9), Some(index));
        counts[index] += 1;
    }
    assert!(is_about(counts[0], 2000) && is_about(counts[2], 4000), "{counts:?}");
}

#[test]
fn keys_of_an_overloaded_server_go_to_the_next_in_their_order() {
    let mut choices = choices(&[1.0, 1.0, 1.0]);
    let home = choose(&choices, Some(1), || 0.0).unwrap();
    let next = {
        let mut without = choices.clone();
        without.remove(home);
        let index = choose(&without, Some(1), || 0.0).unwrap();
        without[index].identity
    };
    for (busy, others, stays) in [
        (1, 0, true),
        (2, 0, false),
        (5, 4, true),
        (9, 4, false),
        (9, 5, false),
        (7, 6, true),
    ] {
        for choice in &mut choices {
            choice.in_flight = others;
        }
        choices[home].in_flight = busy;
        let chosen = choose(&choices, Some(1), || 0.0).unwrap();
        let expected = if stays { choices[home].identity } else { next };
        assert_eq!(choices[chosen].identity, expected, "{busy} there, {others} elsewhere");
    }
}

fn any_choices() -> impl Strategy<Value = Vec<Choice>> {
    let one = (1_u32..=10_000, 0_u32..200, 0.25_f64..8.0, any::<bool>());
    proptest::collection::vec(one, 1..12).prop_map(|all| {
        let numbered = (1..).zip(all);
        numbered
            .map(|(identity, (weight, in_flight, slowness, is_near))| Choice {
                weight: f64::from(weight) / 10.0,
                in_flight,
                slowness,
                is_near,
                ..choice(identity)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn a_server_is_always_chosen_if_there_is_one(choices in any_choices(), key in any::<Option<u64>>(), chance in 0.0_f64..1.0) {
        let index = choose(&choices, key, || chance);
        prop_assert!(index.is_some_and(|index| index < choices.len()));
    }

    #[test]
    fn a_call_with_a_key_never_goes_to_a_server_far_above_its_share(choices in any_choices(), key in any::<u64>()) {
        let index = choose(&choices, Some(key), || 0.0).unwrap();
        let near = stays_near(&choices);
        let among: Vec<&Choice> = choices.iter().filter(|choice| choice.is_near || !near).collect();
        let calls: u32 = among.iter().map(|choice| choice.in_flight).sum();
        let weights: f64 = among.iter().map(|choice| choice.weight).sum();
        let share = f64::from(calls) * choices[index].weight / weights;
        prop_assert!(f64::from(choices[index].in_flight) <= (1.25 * share).ceil());
    }

    #[test]
    fn removing_a_server_moves_only_its_own_keys(count in 2_usize..8, gone in any::<prop::sample::Index>()) {
        let all = choices(&vec![1.0; count]);
        let gone = gone.index(count);
        let mut left = all.clone();
        left.remove(gone);
        for key in 0..200 {
            let before = all[choose(&all, Some(key), || 0.0).unwrap()].identity;
            let after = left[choose(&left, Some(key), || 0.0).unwrap()].identity;
            prop_assert!(before == after || before == all[gone].identity);
        }
    }

    #[test]
    fn a_server_that_gains_weight_gains_keys_and_no_other_keys_move(count in 2_usize..6, weight in 1.0_f64..10.0) {
        let before = choices(&vec![1.0; count]);
        let mut after = before.clone();
        after[0].weight = weight;
        let moved: HashMap<u64, (usize, usize)> = (0..200)
            .map(|key| (key, (choose(&before, Some(key), || 0.0).unwrap(), choose(&after, Some(key), || 0.0).unwrap())))
            .collect();
        prop_assert!(moved.values().all(|(from, to)| from == to || *to == 0));
    }
}

#[test]
fn requests_from_other_clients_count_only_if_known_for_both_servers() {
    let choose_of = |others: [Option<f64>; 2]| {
        let mut choices = choices(&[1.0, 1.0]);
        for (choice, others) in choices.iter_mut().zip(others) {
            choice.in_flight = 1;
            choice.others = others;
        }
        // Index 0 is drawn first.
        choose(&choices, None, || 0.0)
    };
    assert_eq!(choose_of([Some(5.0), Some(0.0)]), Some(1));
    assert_eq!(choose_of([Some(0.0), Some(5.0)]), Some(0));
    assert_eq!(choose_of([Some(5.0), None]), Some(0), "unknown is not zero");
    assert_eq!(choose_of([None, None]), Some(0));
    let keyed = |others| {
        let mut choices = choices(&[1.0, 1.0]);
        choices[0].others = others;
        choices[1].others = Some(0.0);
        choose(&choices, Some(3), || 0.0)
    };
    assert_eq!(keyed(Some(100.0)), keyed(Some(0.0)), "it never excludes a server");
}
