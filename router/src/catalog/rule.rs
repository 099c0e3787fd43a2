//! Rules: exceptions inside a feature, which send some of its calls to another model. Pure.

use switchboard::{
    names::{FeatureName, ModelName},
    resource::feature::{self, Percent, RuleId, RuleMatch},
};
use xxhash_rust::xxh3::Xxh3;

/// Seed of the hash that draws a share of users. It must never change: with another seed every rule would draw other
/// users.
const SEED: u64 = 0x5357_4954_4348_4244;

/// An exception: the calls that match it use its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledRule {
    /// Its id.
    pub id: RuleId,
    /// Which calls match it.
    pub condition: Match,
    /// The model that these calls use.
    pub model: ModelName,
}

impl From<&feature::Rule> for CompiledRule {
    fn from(rule: &feature::Rule) -> Self {
        let feature::Rule {
            id,
            matches,
            model,
            // Only for display.
            description: _,
        } = rule;
        Self {
            id: id.clone(),
            condition: matches.into(),
            model: model.clone(),
        }
    }
}

/// For whom a call is made, according to its metadata. A field that is absent matches no condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scope<'a> {
    /// `x-gitlab-root-namespace-id`.
    pub root_namespace_id: Option<&'a str>,
    /// `x-gitlab-namespace-id`.
    pub namespace_id: Option<&'a str>,
    /// `x-gitlab-project-id`.
    pub project_id: Option<&'a str>,
    /// `x-gitlab-global-user-id`.
    pub global_user_id: Option<&'a str>,
    /// `x-gitlab-user-id`.
    pub user_id: Option<&'a str>,
}

/// The facts about a call that rules depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caller<'a> {
    /// For whom the call is made.
    pub scope: Scope<'a>,
    /// The caller's affinity key, which identifies a conversation.
    pub affinity_key: Option<&'a str>,
    /// The request id of the call.
    pub request_id: Option<&'a str>,
}

impl<'a> Caller<'a> {
    /// Returns the key by which a share of users is drawn: the user, or else the conversation, or else the call.
    fn key(&self) -> Option<&'a str> {
        self.scope.global_user_id.or(self.affinity_key).or(self.request_id)
    }
}

/// Which calls match a rule: all conditions must hold. A list holds if one of its entries matches; an empty list is not
/// a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    namespace_ids: Vec<Box<str>>,
    project_ids: Vec<Box<str>>,
    user_ids: Vec<Box<str>>,
    percent: Option<Percent>,
}

impl From<&RuleMatch> for Match {
    fn from(matches: &RuleMatch) -> Self {
        let sorted = |texts: &[Box<str>]| {
            let mut texts = texts.to_vec();
            texts.sort_unstable();
            texts
        };
        Self {
            namespace_ids: sorted(matches.namespace_ids()),
            project_ids: sorted(matches.project_ids()),
            user_ids: sorted(matches.user_ids()),
            percent: matches.percent(),
        }
    }
}

impl Match {
    /// Whether a call of `caller` matches the rule `id` of `feature`.
    #[must_use]
    pub fn holds(&self, caller: &Caller<'_>, feature: &FeatureName, id: &RuleId) -> bool {
        let Scope {
            root_namespace_id,
            namespace_id,
            project_id,
            global_user_id,
            user_id,
        } = caller.scope;
        fits(&self.namespace_ids, [namespace_id, root_namespace_id])
            && fits(&self.project_ids, [project_id])
            && fits(&self.user_ids, [global_user_id, user_id])
            && self.percent.is_none_or(|percent| {
                let key = caller.key();
                key.is_some_and(|key| is_drawn(percent, feature, id, key))
            })
    }
}

fn fits<const N: usize>(sorted: &[Box<str>], texts: [Option<&str>; N]) -> bool {
    let is_listed = |text: &str| sorted.binary_search_by(|entry| (**entry).cmp(text)).is_ok();
    sorted.is_empty() || texts.into_iter().flatten().any(is_listed)
}

/// Whether a key is in the share of a rule. Other rules and other features draw other keys; a larger share contains
/// every key of a smaller one.
fn is_drawn(percent: Percent, feature: &FeatureName, rule: &RuleId, key: &str) -> bool {
    const WHOLE: u16 = 10_000;
    let mut hash = Xxh3::with_seed(SEED);
    // Ids contain no zero byte, so that two different triples never give the same bytes.
    for part in [feature.id(), "\0", rule.as_str(), "\0", key] {
        hash.update(part.as_bytes());
    }
    let point = (u128::from(hash.digest()) * u128::from(WHOLE)) >> u64::BITS;
    point < u128::from(percent.steps())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(percent: f64) -> Percent {
        Percent::parse(percent).unwrap()
    }

    fn condition(namespaces: &[&str], projects: &[&str], users: &[&str], percent: Option<Percent>) -> Match {
        let entries = |texts: &[&str]| texts.iter().map(|&text| text.into()).collect();
        let matches = RuleMatch::new(entries(namespaces), entries(projects), entries(users), percent);
        Match::from(&matches.unwrap())
    }

    fn rule(id: &str) -> RuleId {
        RuleId::parse(id).unwrap()
    }

    fn feature() -> FeatureName {
        FeatureName::from_id("duo_chat").unwrap()
    }

    #[test]
    fn a_percentage_has_steps_of_a_hundredth() {
        for (percent, steps) in [(0.01, 1), (0.29, 29), (10.0, 1000), (33.33, 3333), (100.0, 10_000)] {
            assert_eq!(share(percent).steps(), steps, "{percent}");
        }
        for percent in [0.0, -1.0, 0.001, 0.015, 100.01, f64::NAN, f64::INFINITY] {
            assert!(Percent::parse(percent).is_err(), "{percent}");
        }
    }

    #[test]
    fn a_share_contains_the_same_users_in_every_build() {
        let drawn: Vec<bool> = (0..16)
            .map(|user| is_drawn(share(50.0), &feature(), &rule("pilot"), &format!("user-{user}")))
            .collect();
        let sides: String = drawn.iter().map(|&side| if side { '1' } else { '0' }).collect();
        assert_eq!(sides, "0101110011010000");
    }

    #[test]
    fn all_conditions_must_hold_and_an_absent_field_matches_none() {
        let matched = condition(&["9", "42"], &["7"], &["u", "g"], None);
        let all = Scope {
            root_namespace_id: Some("1"),
            namespace_id: Some("42"),
            project_id: Some("7"),
            global_user_id: Some("g"),
            user_id: Some("0"),
        };
        for (scope, holds) in [
            (all, true),
            (
                Scope {
                    root_namespace_id: Some("9"),
                    namespace_id: None,
                    ..all
                },
                true,
            ),
            (
                Scope {
                    global_user_id: None,
                    user_id: Some("u"),
                    ..all
                },
                true,
            ),
            (
                Scope {
                    namespace_id: Some("4"),
                    ..all
                },
                false,
            ),
            (
                Scope {
                    namespace_id: Some("042"),
                    ..all
                },
                false,
            ),
            (
                Scope {
                    project_id: None,
                    ..all
                },
                false,
            ),
            (
                Scope {
                    global_user_id: None,
                    ..all
                },
                false,
            ),
            (Scope::default(), false),
        ] {
            let caller = Caller {
                scope,
                ..Caller::default()
            };
            assert_eq!(matched.holds(&caller, &feature(), &rule("r")), holds, "{scope:?}");
        }
    }

    #[test]
    fn a_share_is_drawn_by_user_else_by_conversation_else_by_call() {
        let half = condition(&[], &[], &[], Some(share(50.0)));
        let holds = |caller: &Caller<'_>| half.holds(caller, &feature(), &rule("r"));
        let within = |key: &str| is_drawn(share(50.0), &feature(), &rule("r"), key);
        let keys: Vec<String> = (0..64).map(|number| number.to_string()).collect();
        for key in &keys {
            let user = Scope {
                global_user_id: Some(key),
                ..Scope::default()
            };
            let by_user = Caller {
                scope: user,
                affinity_key: Some("other"),
                request_id: Some("another"),
            };
            assert_eq!(holds(&by_user), within(key));
            let by_conversation = Caller {
                scope: Scope::default(),
                affinity_key: Some(key),
                request_id: Some("another"),
            };
            assert_eq!(holds(&by_conversation), within(key));
            let by_call = Caller {
                request_id: Some(key),
                ..Caller::default()
            };
            assert_eq!(holds(&by_call), within(key));
        }
        assert!(!holds(&Caller::default()), "there is no key to draw by");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_share_is_close_to_its_percentage_and_contains_smaller_ones(steps in 1_u16..=10_000, id in "[a-z]{1,8}") {
            let of_steps = |steps: u16| share(f64::from(steps) / 100.0);
            let (id, smaller, larger) = (rule(&id), of_steps(steps.div_ceil(2)), of_steps(steps));
            let mut drawn = 0_u32;
            for user in 0..4000 {
                let key = format!("user-{user}");
                let is_in = is_drawn(larger, &feature(), &id, &key);
                prop_assert!(is_in || !is_drawn(smaller, &feature(), &id, &key));
                drawn += u32::from(is_in);
            }
            let share = f64::from(drawn) / 4000.0;
            // Five standard deviations of 4000 draws.
            prop_assert!((share - f64::from(steps) / 10_000.0).abs() < 0.04, "{share}");
        }
    }

    #[test]
    fn rules_and_features_draw_independently() {
        let other = FeatureName::from_id("code_generations").unwrap();
        let drawn = |feature: &FeatureName, id: &str| -> Vec<bool> {
            let keys = (0..64).map(|user| user.to_string());
            keys.map(|key| is_drawn(share(50.0), feature, &rule(id), &key))
                .collect()
        };
        assert_ne!(drawn(&feature(), "r"), drawn(&other, "r"));
        assert_ne!(drawn(&feature(), "r"), drawn(&feature(), "q"));
    }
}
