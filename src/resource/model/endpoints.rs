//! The endpoints of a model.

use std::collections::HashSet;

use super::{
    super::fields::{Field, Fields, Flaw},
    ModelPartError,
};
use crate::{endpoint::EndpointUri, pb::registry, reason::FieldReason, resource::Source};

/// The share of the model's calls that an endpoint gets, relative to the weights of the other endpoints. 0: no calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight(i32);

impl Weight {
    /// The maximum weight.
    pub const MAX: i32 = 1000;

    /// Parses a weight from 0 to [`Self::MAX`].
    ///
    /// # Errors
    ///
    /// [`ModelPartError::WeightOutOfRange`] for anything else.
    pub const fn parse(number: i32) -> Result<Self, ModelPartError> {
        match number {
            0..=Self::MAX => Ok(Self(number)),
            _ => Err(ModelPartError::WeightOutOfRange),
        }
    }

    /// The weight as a number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

/// The zone in which a server runs. Empty: not specified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone(Box<str>);

impl Zone {
    /// The maximum length of a zone, in characters.
    pub const LENGTH_MAX: usize = 63;

    /// Parses a zone: at most [`Self::LENGTH_MAX`] characters and no control characters.
    ///
    /// # Errors
    ///
    /// [`ModelPartError`] with the cause.
    pub fn parse(text: &str) -> Result<Self, ModelPartError> {
        if text.chars().count() > Self::LENGTH_MAX {
            return Err(ModelPartError::ZoneTooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(ModelPartError::ZoneMalformed);
        }
        Ok(Self(text.into()))
    }

    /// The original text, unchanged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One endpoint of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The base URL.
    pub uri: EndpointUri,
    /// The share of the model's calls.
    pub weight: Weight,
    /// The zone of the server.
    pub zone: Zone,
}

impl Endpoint {
    /// Creates an endpoint with the default weight and without a zone.
    #[must_use]
    pub fn at(uri: EndpointUri) -> Self {
        Self {
            uri,
            weight: Weight::default(),
            zone: Zone::default(),
        }
    }
}

/// The configured endpoints of a model: at most 64, without duplicates, and if there are any, at least one with a
/// weight above 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints(Vec<Endpoint>);

impl Endpoints {
    /// The maximum number of endpoints of a model.
    pub const COUNT_MAX: usize = 64;

    /// Creates the list and checks it as a whole.
    ///
    /// # Errors
    ///
    /// All errors of the list as a whole.
    pub fn new(list: Vec<Endpoint>) -> Result<Self, Vec<ModelPartError>> {
        let mut errors = Vec::new();
        if list.len() > Self::COUNT_MAX {
            errors.push(ModelPartError::EndpointCount);
        }
        let mut seen = HashSet::new();
        for (index, endpoint) in list.iter().enumerate() {
            // A server that is listed twice, for example with and without `/v1`, would get twice its share of calls.
            let path = endpoint.uri.call("/v1").path().to_owned();
            if !seen.insert((endpoint.uri.origin(), path)) {
                errors.push(ModelPartError::EndpointRepeated { index });
            }
        }
        if !list.is_empty() && list.iter().all(|endpoint| endpoint.weight == Weight(0)) {
            errors.push(ModelPartError::EndpointsAllDrained);
        }
        if errors.is_empty() { Ok(Self(list)) } else { Err(errors) }
    }

    /// Creates a list of one endpoint with the default weight.
    #[must_use]
    pub fn one(uri: EndpointUri) -> Self {
        Self(vec![Endpoint::at(uri)])
    }

    /// The endpoints, in their original order.
    #[must_use]
    pub fn as_slice(&self) -> &[Endpoint] {
        &self.0
    }
}

/// Reads the fields `endpoints` and `endpoint`, its short form.
pub(super) fn read(list: Vec<registry::Endpoint>, one: Option<String>, fields: &mut Fields<'_>) -> Field<Endpoints> {
    const LIST: &str = "endpoints";
    const ONE: &str = "endpoint";
    let (list_source, one_source) = (fields.source(LIST, !list.is_empty()), fields.source(ONE, one.is_some()));
    let listed = read_list(list, list_source, fields);
    let one = fields.read(ONE, one, |text| EndpointUri::parse(&text));
    match (list_source, one_source) {
        (Source::Set, Source::Set) => {
            let description = "must not be given together with `endpoints`, of which it is the short form";
            fields.push(ONE, FieldReason::EndpointAmbiguous, description);
            Field::bad(Source::Set)
        }
        (Source::Kept | Source::Cleared, Source::Set) => Field {
            value: one.value.map(Endpoints::one),
            source: Source::Set,
            is_bad: one.is_bad,
        },
        (Source::Kept, Source::Cleared) => Field {
            value: None,
            source: Source::Cleared,
            is_bad: false,
        },
        (_, Source::Kept | Source::Cleared) => listed,
    }
}

fn read_list(list: Vec<registry::Endpoint>, source: Source, fields: &mut Fields<'_>) -> Field<Endpoints> {
    if list.is_empty() {
        return Field {
            value: None,
            source,
            is_bad: false,
        };
    }
    let before = fields.violations.as_slice().len();
    // One entry above the limit is enough for the violation; the other excess entries are not read.
    let entries = list.into_iter().enumerate().take(Endpoints::COUNT_MAX + 1);
    let endpoints: Vec<_> = entries
        .filter_map(|(index, endpoint)| read_endpoint(index, endpoint, fields))
        .collect();
    // An invalid entry is left out of the list, so the indexes in the errors below would not be those of the request.
    if fields.violations.as_slice().len() > before {
        return Field::bad(source);
    }
    match Endpoints::new(endpoints) {
        Ok(endpoints) => Field {
            value: Some(endpoints),
            source,
            is_bad: false,
        },
        Err(errors) => {
            for error in errors {
                match error {
                    ModelPartError::EndpointRepeated { index } => {
                        fields.refuse(&format!("endpoints[{index}].uri"), error);
                    }
                    _ => fields.refuse("endpoints", error),
                }
            }
            Field::bad(source)
        }
    }
}

fn read_endpoint(index: usize, wire: registry::Endpoint, fields: &mut Fields<'_>) -> Option<Endpoint> {
    let registry::Endpoint { uri, weight, zone } = wire;
    let uri = match uri.as_str() {
        "" => Err(Flaw::new(FieldReason::FieldRequired, "must be given")),
        text => EndpointUri::parse(text).map_err(Flaw::from),
    };
    let uri = fields.part(&format!("endpoints[{index}].uri"), uri);
    let weight = weight.map_or_else(|| Ok(Weight::default()), Weight::parse);
    let weight = fields.part(&format!("endpoints[{index}].weight"), weight);
    let zone = fields.part(&format!("endpoints[{index}].zone"), Zone::parse(&zone));
    Some(Endpoint {
        uri: uri?,
        weight: weight?,
        zone: zone?,
    })
}

impl Endpoints {
    pub(super) fn to_messages(&self) -> Vec<registry::Endpoint> {
        let message = |endpoint: &Endpoint| {
            let Endpoint { uri, weight, zone } = endpoint;
            registry::Endpoint {
                uri: uri.as_str().to_owned(),
                weight: Some(weight.get()),
                zone: zone.as_str().to_owned(),
            }
        };
        self.0.iter().map(message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(uri: &str, weight: i32) -> Endpoint {
        Endpoint {
            uri: EndpointUri::parse(uri).unwrap(),
            weight: Weight::parse(weight).unwrap(),
            zone: Zone::default(),
        }
    }

    #[test]
    fn a_zone_has_at_most_63_characters_and_no_control_characters() {
        for good in ["", "eu-west-1a", "Keller links", &"ä".repeat(63)] {
            assert_eq!(Zone::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(Zone::parse(&"a".repeat(64)), Err(ModelPartError::ZoneTooLong));
        for bad in ["a\nb", "\u{7f}"] {
            assert_eq!(Zone::parse(bad), Err(ModelPartError::ZoneMalformed));
        }
    }

    #[test]
    fn a_list_of_endpoints_is_checked_as_a_whole() {
        use ModelPartError as E;
        let many = |count| {
            (0..count)
                .map(|port| endpoint(&format!("http://h:{}", port + 1), 1))
                .collect()
        };
        for (list, errors) in [
            (many(65), vec![E::EndpointCount]),
            (
                vec![
                    endpoint("http://H:80/v1", 1),
                    endpoint("http://h", 1),
                    endpoint("http://h/", 0),
                ],
                vec![E::EndpointRepeated { index: 1 }, E::EndpointRepeated { index: 2 }],
            ),
            (
                vec![endpoint("http://a", 0), endpoint("http://a/v1", 0)],
                vec![E::EndpointRepeated { index: 1 }, E::EndpointsAllDrained],
            ),
        ] {
            assert_eq!(Endpoints::new(list), Err(errors));
        }
        assert!(Endpoints::new(many(64)).is_ok());
        assert!(Endpoints::new(vec![endpoint("http://a", 0), endpoint("http://a/b", 1)]).is_ok());
        assert!(Weight::parse(-1).is_err() && Weight::parse(1001).is_err());
    }
}
