//! Fallbacks and rules, in both directions.

use switchboard::{names::ModelName, pb::registry, reason::FieldReason, violation::Violations};

use super::super::{Flaw, model_reference};
use crate::domain::{
    feature::{Description, Fallbacks, FeaturePartError, NewRule, Percent, Rule, RuleId, RuleMatch, Rules, Setting},
    write::Edit,
};

const FALLBACKS: &str = "feature.fallback_models";
const RULES: &str = "feature.rules";

/// Reads the models that are tried when the one before cannot answer.
pub(super) fn fallbacks(list: &[String], violations: &mut Violations) -> Edit<Fallbacks> {
    let mut models = Vec::with_capacity(list.len().min(Fallbacks::COUNT_MAX + 1));
    let mut is_bad = false;
    for (index, text) in list.iter().enumerate().take(Fallbacks::COUNT_MAX + 1) {
        match reference(text, &format!("{FALLBACKS}[{index}]"), violations) {
            Some(model) => models.push(model),
            None => is_bad = true,
        }
    }
    whole(is_bad, models, Fallbacks::new, violations, |error| match error {
        FeaturePartError::FallbackRepeated { index } => format!("{FALLBACKS}[{index}]"),
        _ => FALLBACKS.to_owned(),
    })
}

/// Reads the exceptions.
pub(super) fn rules(list: Vec<registry::FeatureRule>, violations: &mut Violations) -> Edit<Rules> {
    let mut rules = Vec::with_capacity(list.len().min(Rules::COUNT_MAX + 1));
    let mut is_bad = false;
    for (index, wire) in list.into_iter().enumerate().take(Rules::COUNT_MAX + 1) {
        match rule(wire, &format!("{RULES}[{index}]"), violations) {
            Some(rule) => rules.push(rule),
            None => is_bad = true,
        }
    }
    whole(is_bad, rules, Rules::new, violations, |error| match error {
        FeaturePartError::RuleIdRepeated { index } => format!("{RULES}[{index}].rule_id"),
        _ => RULES.to_owned(),
    })
}

/// Judges a list as a whole: only without a bad entry, as its places are those of the request only then.
fn whole<T, U>(
    is_bad: bool,
    list: Vec<T>,
    new: fn(Vec<T>) -> Result<U, Vec<FeaturePartError>>,
    violations: &mut Violations,
    path: impl Fn(FeaturePartError) -> String,
) -> Edit<U> {
    if is_bad {
        return Edit::Bad;
    }
    match new(list) {
        Ok(list) => Edit::Set(list),
        Err(errors) => {
            for error in errors {
                violations.push(path(error), error.reason(), error.to_string());
            }
            Edit::Bad
        }
    }
}

/// Reads one exception. `None`: it is bad, which is a violation by now.
fn rule(rule: registry::FeatureRule, field: &str, violations: &mut Violations) -> Option<NewRule> {
    let text = Some(rule.rule_id).filter(|id| !id.is_empty());
    let id = text.map(|text| {
        let id = RuleId::parse(&text).map_err(Flaw::from);
        or_violation(id, &format!("{field}.rule_id"), violations)
    });
    let matches = matches(rule.r#match.unwrap_or_default(), &format!("{field}.match"), violations);
    let model = reference(&rule.model, &format!("{field}.model"), violations);
    let description = Description::parse(&rule.description).map_err(Flaw::from);
    let description = or_violation(description, &format!("{field}.description"), violations);
    Some(NewRule {
        id: match id {
            Some(id) => Some(id?),
            None => None,
        },
        matches: matches?,
        model: model?,
        description: description?,
    })
}

fn matches(wire: registry::RuleMatch, field: &str, violations: &mut Violations) -> Option<RuleMatch> {
    let lists = [&wire.namespace_ids, &wire.project_ids, &wire.user_ids];
    // More entries than there may be need not be judged one by one.
    if lists.iter().map(|list| list.len()).sum::<usize>() > RuleMatch::COUNT_MAX {
        let error = FeaturePartError::MatchCount;
        violations.push(field, error.reason(), error.to_string());
        return None;
    }
    let names = ["namespace_ids", "project_ids", "user_ids"];
    let mut entries = names.into_iter().zip(lists).map(|(name, list)| {
        let entries = list.iter().enumerate().map(|(index, text)| {
            let path = format!("{field}.{name}[{index}]");
            or_violation(RuleMatch::entry(text).map_err(Flaw::from), &path, violations)
        });
        entries.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()
    });
    let [namespaces, projects, users] = [entries.next()?, entries.next()?, entries.next()?];
    drop(entries);
    let percent = wire.percent.map(|percent| {
        let percent = Percent::parse(percent).map_err(Flaw::from);
        or_violation(percent, &format!("{field}.percent"), violations)
    });
    let percent = match percent {
        Some(percent) => Some(percent?),
        None => None,
    };
    let matches = RuleMatch::new(namespaces?, projects?, users?, percent).map_err(Flaw::from);
    or_violation(matches, field, violations)
}

fn reference(text: &str, field: &str, violations: &mut Violations) -> Option<ModelName> {
    let model = match text {
        "" => Err(Flaw::new(FieldReason::FieldRequired, "must be given")),
        text => model_reference(text),
    };
    or_violation(model, field, violations)
}

/// The value; what is wrong with it becomes a violation.
fn or_violation<T>(outcome: Result<T, Flaw>, field: &str, violations: &mut Violations) -> Option<T> {
    outcome
        .map_err(|flaw| violations.push(field, flaw.reason, flaw.description))
        .ok()
}

/// The fallbacks as they are answered and stored.
pub(in crate::wire) fn fallback_models(setting: &Setting) -> Vec<String> {
    setting.fallbacks().iter().map(ToString::to_string).collect()
}

/// The rules as they are answered and stored.
pub(in crate::wire) fn rule_messages(setting: &Setting) -> Vec<registry::FeatureRule> {
    setting.rules().iter().map(rule_message).collect()
}

fn rule_message(rule: &Rule) -> registry::FeatureRule {
    let texts = |list: &[Box<str>]| list.iter().map(|text| text.as_ref().to_owned()).collect();
    registry::FeatureRule {
        rule_id: rule.id.as_str().to_owned(),
        r#match: Some(registry::RuleMatch {
            namespace_ids: texts(rule.matches.namespace_ids()),
            project_ids: texts(rule.matches.project_ids()),
            user_ids: texts(rule.matches.user_ids()),
            percent: rule.matches.percent().map(Percent::get),
        }),
        model: rule.model.to_string(),
        description: rule.description.as_str().to_owned(),
    }
}
