//! Conversion of features from and to the contract's messages.

use super::{
    super::fields::{Field, Fields, Flaw, Given, entry_model_name, model_name},
    Description, Fallbacks, Feature, FeatureLimits, FeaturePartError, FeatureSpec, HedgeDelay, NewRule, Percent,
    Provider, Routes, Rule, RuleId, RuleMatch, Rules, Setting,
};
use crate::{
    names::ModelName,
    pb::{registry, types},
    reason::FieldReason,
    resource::Source,
    violation::Violations,
};

const MODEL: &str = "model";
const FALLBACKS: &str = "fallback_models";
const RULES: &str = "rules";

impl FeatureSpec {
    /// Reads a message that is a complete feature.
    ///
    /// # Errors
    ///
    /// All violations that [`Self::read`] finds.
    pub fn whole(message: registry::Feature) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        match Self::read(message, &Given::Whole, |_, _, _| {}, &mut violations) {
            Some(spec) if violations.is_empty() => Ok(spec),
            Some(_) | None => Err(violations),
        }
    }

    /// Reads a feature from a message, without its name. Output-only fields are ignored.
    ///
    /// Calls `check` for each model that the write itself has set, if its field is valid. `check` gets the path of the
    /// field and the model, and may add violations.
    ///
    /// Adds all violations, of single fields and of fields together, to `violations`. The result is a valid feature
    /// only if there are no violations; otherwise the caller may use it only to look for more violations. `None`: not
    /// enough of the message is valid for such a result, or `given` is [`Given::Alone`].
    pub fn read(
        message: registry::Feature,
        given: &Given,
        mut check: impl FnMut(&str, &ModelName, &mut Violations),
        violations: &mut Violations,
    ) -> Option<Self> {
        let registry::Feature {
            name: _,
            provider,
            model,
            fallback_models,
            rules,
            limits,
            hedge_delay,
            etag: _,
            display_name: _,
            group: _,
            release_stage: _,
            compatible_families: _,
            parent: _,
            unit_primitives: _,
            assignable: _,
            revision: _,
            update_time: _,
            kept_without_beta: _,
        } = message;
        let mut fields = Fields::new("feature", given, violations);
        let choice = AnswerFields {
            provider: fields.read("provider", provider, read_provider),
            model: fields.read(MODEL, model, |text| model_name(&text)),
            fallbacks: read_fallbacks(&fallback_models, &mut fields),
            rules: read_rules(rules, &mut fields),
        };
        let (limits, reserved_by_write) = FeatureLimits::read(limits.unwrap_or_default(), &mut fields);
        let hedge_delay = fields.read("hedge_delay", hedge_delay, HedgeDelay::read);
        if fields.are_alone() {
            return None;
        }

        for (field, model) in choice.given() {
            check(&field, model, fields.violations);
        }
        let setting = choice.setting(&mut fields);
        limits.check(reserved_by_write, &mut fields);
        Some(Self {
            setting: setting?,
            limits,
            hedge_delay: hedge_delay.value,
        })
    }
}

impl Feature {
    /// Converts the feature to the message that is stored, streamed and hashed, and that the registry merges writes
    /// into and builds its responses from. Apart from `provider`, it contains only values that were set.
    #[must_use]
    pub fn to_message(&self) -> registry::Feature {
        let Self {
            name,
            spec:
                FeatureSpec {
                    setting,
                    limits,
                    hedge_delay,
                },
        } = self;
        registry::Feature {
            name: name.to_string(),
            // Always set, also to UNASSIGNED: readers should not need to know what an absent provider means.
            provider: Some(types::Provider::from(setting.provider()).into()),
            model: setting.model().map(ToString::to_string),
            fallback_models: setting.fallbacks().iter().map(ToString::to_string).collect(),
            rules: setting.rules().iter().map(Rule::to_message).collect(),
            limits: limits.to_message(),
            hedge_delay: hedge_delay.and_then(|delay| delay.get().try_into().ok()),
            etag: String::new(),
            display_name: String::new(),
            group: String::new(),
            release_stage: registry::ReleaseStage::Unspecified.into(),
            compatible_families: Vec::new(),
            parent: String::new(),
            unit_primitives: Vec::new(),
            assignable: false,
            revision: 0,
            update_time: None,
            kept_without_beta: false,
        }
    }
}

impl Setting {
    /// Returns the models that the setting names, each with the path of its field. `is_meant` gets the name of a whole
    /// field, such as `rules`, and decides whether the models of that field are included.
    pub fn named(&self, is_meant: impl Fn(&str) -> bool) -> Vec<(String, &ModelName)> {
        named(
            self.model().filter(|_| is_meant(MODEL)),
            Some(self.fallbacks()).filter(|_| is_meant(FALLBACKS)),
            Some(self.rules()).filter(|_| is_meant(RULES)),
        )
    }
}

impl Provider {
    /// Describes the values that a field of this type can have, for violations.
    pub const EXPECTED: &str =
        "must be PROVIDER_UNASSIGNED, PROVIDER_DISABLED, PROVIDER_VENDORED or PROVIDER_SELF_HOSTED";

    /// Converts a number of the contract's enum. `None`: the number is unspecified or unknown.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        match types::Provider::try_from(number) {
            Ok(types::Provider::Unassigned) => Some(Self::Unassigned),
            Ok(types::Provider::Disabled) => Some(Self::Disabled),
            Ok(types::Provider::Vendored) => Some(Self::Vendored),
            Ok(types::Provider::SelfHosted) => Some(Self::SelfHosted),
            Ok(types::Provider::Unspecified) | Err(_) => None,
        }
    }
}

impl From<Provider> for types::Provider {
    fn from(provider: Provider) -> Self {
        match provider {
            Provider::Unassigned => Self::Unassigned,
            Provider::Disabled => Self::Disabled,
            Provider::Vendored => Self::Vendored,
            Provider::SelfHosted => Self::SelfHosted,
        }
    }
}

fn read_provider(number: i32) -> Result<Provider, Flaw> {
    Provider::from_number(number).ok_or_else(|| Flaw::new(FieldReason::ValueUnknown, Provider::EXPECTED))
}

/// The fields that together determine the provider and its models.
struct AnswerFields {
    provider: Field<Provider>,
    model: Field<ModelName>,
    fallbacks: Field<Fallbacks>,
    rules: Field<Rules>,
}

impl AnswerFields {
    /// Returns the models that the write itself has set, each with the path of its field.
    fn given(&self) -> Vec<(String, &ModelName)> {
        let fallbacks = self.fallbacks.given().map(Fallbacks::as_slice);
        named(self.model.given(), fallbacks, self.rules.given().map(Rules::as_slice))
    }

    /// Combines the fields to a setting. `None`: the provider is invalid or its model is missing, and a violation was
    /// added.
    fn setting(self, fields: &mut Fields<'_>) -> Option<Setting> {
        if self.provider.is_bad {
            return None;
        }
        match self.provider.value.unwrap_or(Provider::Unassigned) {
            Provider::Unassigned => {
                self.check_names_nothing(fields);
                Some(Setting::Unassigned)
            }
            Provider::Vendored => {
                self.check_names_nothing(fields);
                Some(Setting::Vendored)
            }
            Provider::Disabled => {
                let (model, routes) = self.models(fields);
                Some(Setting::Disabled {
                    model: model.value,
                    routes,
                })
            }
            Provider::SelfHosted => {
                let (model, routes) = self.models(fields);
                if model.value.is_none() && !model.is_bad {
                    let description = "must be given: provider SELF_HOSTED needs a model, `models/{id}`";
                    fields.push(MODEL, FieldReason::FieldRequired, description);
                }
                Some(Setting::SelfHosted {
                    model: model.value?,
                    routes,
                })
            }
        }
    }

    /// Adds a violation for each model that the write sets although the provider is UNASSIGNED or VENDORED. These
    /// providers have no models; models that were stored before are dropped.
    fn check_names_nothing(&self, fields: &mut Fields<'_>) {
        let remedy = match self.provider.source {
            Source::Kept => "set `provider` to PROVIDER_SELF_HOSTED too",
            Source::Set | Source::Cleared => "leave it out, or set `provider` to PROVIDER_SELF_HOSTED",
        };
        for (path, is_given) in [
            (MODEL, self.model.is_given()),
            (FALLBACKS, self.fallbacks.is_given()),
            (RULES, self.rules.is_given()),
        ] {
            if is_given {
                let description = format!("is allowed only with provider SELF_HOSTED or DISABLED; {remedy}");
                fields.push(path, FieldReason::ProviderMismatch, description);
            }
        }
    }

    /// Returns the models, for a provider that has models. Adds a violation if the assigned model is also a fallback.
    fn models(self, fields: &mut Fields<'_>) -> (Field<ModelName>, Routes) {
        let is_list_kept = self.fallbacks.source == Source::Kept;
        let routes = Routes {
            fallbacks: self.fallbacks.value.unwrap_or_default(),
            rules: self.rules.value.unwrap_or_default(),
        };
        let mut fallbacks = routes.fallbacks.as_slice().iter();
        if let Some(index) = fallbacks.position(|fallback| Some(fallback) == self.model.value.as_ref()) {
            let (path, description) = if is_list_kept {
                let description =
                    "is one of the feature's `fallback_models`; in the same write, set that list without this model";
                (MODEL.to_owned(), description)
            } else {
                (format!("{FALLBACKS}[{index}]"), "is already the feature's `model`")
            };
            fields.push(&path, FieldReason::ValueRepeated, description);
        }
        (self.model, routes)
    }
}

/// Returns the given models, each with the path of its field.
fn named<'a>(
    model: Option<&'a ModelName>,
    fallbacks: Option<&'a [ModelName]>,
    rules: Option<&'a [Rule]>,
) -> Vec<(String, &'a ModelName)> {
    let model = model.into_iter().map(|model| (format!("feature.{MODEL}"), model));
    let fallbacks = fallbacks.unwrap_or_default().iter().enumerate();
    let fallbacks = fallbacks.map(|(index, model)| (format!("feature.{FALLBACKS}[{index}]"), model));
    let rules = rules.unwrap_or_default().iter().enumerate();
    let rules = rules.map(|(index, rule)| (format!("feature.{RULES}[{index}].model"), &rule.model));
    model.chain(fallbacks).chain(rules).collect()
}

fn read_fallbacks(list: &[String], fields: &mut Fields<'_>) -> Field<Fallbacks> {
    read_list(
        FALLBACKS,
        list.iter().take(Fallbacks::COUNT_MAX + 1),
        |text, path, fields| fields.part(path, entry_model_name(text)),
        Fallbacks::new,
        |error| match error {
            FeaturePartError::FallbackRepeated { index } => format!("{FALLBACKS}[{index}]"),
            _ => FALLBACKS.to_owned(),
        },
        fields,
    )
}

fn read_rules(list: Vec<registry::FeatureRule>, fields: &mut Fields<'_>) -> Field<Rules> {
    read_list(
        RULES,
        list.into_iter().take(Rules::COUNT_MAX + 1),
        read_rule,
        Rules::new,
        |error| match error {
            FeaturePartError::RuleIdRepeated { index } => format!("{RULES}[{index}].rule_id"),
            _ => RULES.to_owned(),
        },
        fields,
    )
}

/// Reads a list: first each entry, then the list as a whole. If an entry is invalid, the list as a whole is not
/// checked, because indexes in its errors would not be those of the message.
fn read_list<W, T, U>(
    path: &str,
    list: impl ExactSizeIterator<Item = W>,
    entry: impl Fn(W, &str, &mut Fields<'_>) -> Option<T>,
    whole: fn(Vec<T>) -> Result<U, Vec<FeaturePartError>>,
    path_of: impl Fn(FeaturePartError) -> String,
    fields: &mut Fields<'_>,
) -> Field<U> {
    let count = list.len();
    let source = fields.source(path, count > 0);
    if count == 0 {
        return Field {
            value: None,
            source,
            is_bad: false,
        };
    }
    let entries = list.enumerate();
    let entries: Vec<_> = entries
        .filter_map(|(index, wire)| entry(wire, &format!("{path}[{index}]"), fields))
        .collect();
    if entries.len() < count {
        return Field::bad(source);
    }
    match whole(entries) {
        Ok(list) => Field {
            value: Some(list),
            source,
            is_bad: false,
        },
        Err(errors) => {
            for error in errors {
                fields.refuse(&path_of(error), error);
            }
            Field::bad(source)
        }
    }
}

/// Reads one rule. `None`: the rule is invalid, and a violation was added.
fn read_rule(wire: registry::FeatureRule, path: &str, fields: &mut Fields<'_>) -> Option<NewRule> {
    let registry::FeatureRule {
        rule_id,
        r#match,
        model,
        description,
    } = wire;
    let id = Some(rule_id).filter(|id| !id.is_empty());
    let id = id.map(|text| fields.part(&format!("{path}.rule_id"), RuleId::parse(&text)));
    let matches = read_match(r#match.unwrap_or_default(), &format!("{path}.match"), fields);
    let model = fields.part(&format!("{path}.model"), entry_model_name(&model));
    let description = fields.part(&format!("{path}.description"), Description::parse(&description));
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

fn read_match(wire: registry::RuleMatch, path: &str, fields: &mut Fields<'_>) -> Option<RuleMatch> {
    let registry::RuleMatch {
        namespace_ids,
        project_ids,
        user_ids,
        percent,
    } = wire;
    // With too many entries, the single entries are not checked.
    if namespace_ids.len() + project_ids.len() + user_ids.len() > RuleMatch::COUNT_MAX {
        fields.refuse(path, FeaturePartError::MatchCount);
        return None;
    }
    let mut entries = |name: &str, list: &[String]| -> Option<Vec<_>> {
        let entries = list.iter().enumerate();
        let entries =
            entries.map(|(index, text)| fields.part(&format!("{path}.{name}[{index}]"), RuleMatch::entry(text)));
        // Collects twice, so that all entries are checked before an invalid one ends the iteration.
        entries.collect::<Vec<_>>().into_iter().collect()
    };
    let namespaces = entries("namespace_ids", &namespace_ids);
    let projects = entries("project_ids", &project_ids);
    let users = entries("user_ids", &user_ids);
    let percent = percent.map(|percent| fields.part(&format!("{path}.percent"), Percent::parse(percent)));
    let percent = match percent {
        Some(percent) => Some(percent?),
        None => None,
    };
    let matches = RuleMatch::new(namespaces?, projects?, users?, percent);
    fields.part(path, matches)
}

impl Rule {
    fn to_message(&self) -> registry::FeatureRule {
        let Self {
            id,
            matches,
            model,
            description,
        } = self;
        let texts = |list: &[Box<str>]| list.iter().map(|text| text.as_ref().to_owned()).collect();
        registry::FeatureRule {
            rule_id: id.as_str().to_owned(),
            r#match: Some(registry::RuleMatch {
                namespace_ids: texts(matches.namespace_ids()),
                project_ids: texts(matches.project_ids()),
                user_ids: texts(matches.user_ids()),
                percent: matches.percent().map(Percent::get),
            }),
            model: model.to_string(),
            description: description.as_str().to_owned(),
        }
    }
}
