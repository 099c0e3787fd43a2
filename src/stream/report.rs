//! The report of a router: its progress, the resources that it cannot use, and the states of the model servers.

use std::time::Duration;

use super::fields::{REASON_MAX, ReportFields, TEXT_MAX, from_span};
use crate::{
    endpoint::EndpointUri,
    history::Cursor,
    names::{ModelName, Revision},
    pb::{registry, types},
    reason::FieldReason,
    violation::Violations,
};

/// The progress and the state of a router. Each report replaces the previous one, with the exception of
/// [`Self::endpoints`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The cursor of the state from which the router's catalog was compiled. Of a held item, the catalog has an older
    /// version or none. `None`: the router has no catalog.
    pub applied: Option<Cursor>,
    /// The cursor of the newest state that was received completely. `None`: no state was received yet.
    pub received: Option<Cursor>,
    /// The cursor of the state with which the router would start after a restart. `None`: the router has stored no
    /// state.
    pub persisted: Option<Cursor>,
    /// Held items, whose newest version the router cannot use. Lists only the first [`Self::HELD_MAX`].
    pub held: Vec<HeldReport>,
    /// The total number of held items: at least the length of [`Self::held`].
    pub held_total: usize,
    /// Set if the router refuses to follow the registry's history.
    pub history_refusal: Option<HistoryRefusal>,
    /// The number in the newest bookmark's field `probe`.
    pub probe: i64,
    /// How long the router took to put its catalog into use.
    pub apply_duration: Duration,
    /// Model servers whose state has changed since the last report, at most [`Self::ENDPOINTS_MAX`]. Unlike the other
    /// fields, this one adds to earlier reports.
    pub endpoints: Vec<EndpointReport>,
}

impl Report {
    /// The maximum number of held items that a report lists.
    pub const HELD_MAX: usize = 256;
    /// The maximum number of endpoints that a report lists.
    pub const ENDPOINTS_MAX: usize = 1_000;
}

/// The state of one server of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReport {
    /// Name of the model.
    pub model: ModelName,
    /// The endpoint, as the model's configuration has it.
    pub uri: Box<str>,
    /// The state of the server. `None`: the router no longer has this server.
    pub state: Option<EndpointState>,
    /// The reason for the state, for programs. Empty if the server is healthy.
    pub reason: Box<str>,
}

/// The state of a model server. The variants are ordered from the best to the worst state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    /// The server answers calls.
    Healthy,
    /// The server asked for less load.
    BackingOff,
    /// The server failed, and no call has succeeded since.
    Recovering,
    /// The server failed repeatedly and gets no calls for now.
    Ejected,
    /// The server cannot be used until an administrator changes the configuration.
    Misconfigured,
}

/// A held item: a resource whose newest version a router cannot use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldReport {
    /// Name of the resource.
    pub resource: Box<str>,
    /// Path of the field that cannot be used. Empty: the resource as a whole.
    pub field: Box<str>,
    /// The reason, for programs.
    pub reason: Box<str>,
    /// The reason, for people. The registry does not read it, because it knows [`Self::reason`].
    pub message: Box<str>,
    /// The revision of the version that cannot be used.
    pub revision: Revision,
    /// The revision of the version that is in use instead. 0: no version is in use.
    pub used_revision: Revision,
    /// The kind of cause.
    pub kind: HeldKind,
}

/// The kind of cause for which an item is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldKind {
    /// The item is unreadable or invalid for the router.
    Refused,
    /// The item needs a capability that the router does not have.
    CapabilityMissing,
    /// The item's credential has not been fetched yet.
    CredentialPending,
    /// The item refers to another item that the router cannot use.
    Dependency,
}

impl HeldKind {
    /// Whether the item stays held until the item or the router is changed. The other kinds usually end by themselves
    /// within moments.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::Refused | Self::CapabilityMissing => true,
            Self::CredentialPending | Self::Dependency => false,
        }
    }
}

/// A router's refusal to follow the history that the registry offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRefusal {
    /// What is wrong with the history.
    pub why: HistoryRefusalWhy,
    /// The cursor that the registry offered. `None`: the router does not report it.
    pub offered: Option<Cursor>,
}

/// Why a router refuses a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRefusalWhy {
    /// The history is older than the router's state, or is of an older incarnation of the store.
    RevisionRegressed,
    /// The history is of another store.
    StoreChanged,
    /// The content of a snapshot or of a delta did not match the digest in its cursor.
    StateMismatch,
}

impl TryFrom<&registry::Report> for Report {
    type Error = Violations;

    fn try_from(wire: &registry::Report) -> Result<Self, Violations> {
        let mut fields = ReportFields::default();
        let applied = fields.cursor("report.applied", wire.applied.as_ref());
        let received = fields.cursor("report.received", wire.received.as_ref());
        let persisted = fields.cursor("report.persisted", wire.persisted.as_ref());
        let held = fields.held(&wire.held);
        let held_total = fields.held_total(wire.held_total, wire.held.len());
        let history_refusal = wire.history_refusal.as_ref().and_then(|wire| fields.refusal(wire));
        let apply_duration = fields.duration("report.apply_duration", wire.apply_duration);
        let endpoints = fields.endpoints(&wire.endpoints);
        fields.violations.or(Self {
            applied,
            received,
            persisted,
            held,
            held_total,
            history_refusal,
            probe: wire.probe,
            apply_duration,
            endpoints,
        })
    }
}

impl From<&Report> for registry::Report {
    fn from(report: &Report) -> Self {
        Self {
            applied: report.applied.as_ref().map(Into::into),
            received: report.received.as_ref().map(Into::into),
            persisted: report.persisted.as_ref().map(Into::into),
            held: report.held.iter().map(Into::into).collect(),
            held_total: i32::try_from(report.held_total).unwrap_or(i32::MAX),
            history_refusal: report.history_refusal.as_ref().map(Into::into),
            probe: report.probe,
            apply_duration: from_span(report.apply_duration),
            endpoints: report.endpoints.iter().map(Into::into).collect(),
        }
    }
}

impl From<&HeldReport> for registry::Held {
    fn from(held: &HeldReport) -> Self {
        let why = match held.kind {
            HeldKind::Refused => registry::HeldWhy::Refused,
            HeldKind::CapabilityMissing => registry::HeldWhy::CapabilityMissing,
            HeldKind::CredentialPending => registry::HeldWhy::CredentialPending,
            HeldKind::Dependency => registry::HeldWhy::Dependency,
        };
        Self {
            item: Some(held.into()),
            why: why.into(),
            used_revision: held.used_revision.get(),
        }
    }
}

impl From<&HeldReport> for types::Refusal {
    fn from(held: &HeldReport) -> Self {
        Self {
            resource: held.resource.to_string(),
            field: held.field.to_string(),
            reason: held.reason.to_string(),
            message: held.message.to_string(),
            revision: held.revision.get(),
        }
    }
}

impl From<&HistoryRefusal> for registry::HistoryRefusal {
    fn from(refusal: &HistoryRefusal) -> Self {
        let why = match refusal.why {
            HistoryRefusalWhy::RevisionRegressed => registry::HistoryRefusalWhy::RevisionRegressed,
            HistoryRefusalWhy::StoreChanged => registry::HistoryRefusalWhy::StoreChanged,
            HistoryRefusalWhy::StateMismatch => registry::HistoryRefusalWhy::StateMismatch,
        };
        Self {
            why: why.into(),
            offered: refusal.offered.as_ref().map(Into::into),
        }
    }
}

impl From<&EndpointReport> for registry::EndpointReport {
    fn from(endpoint: &EndpointReport) -> Self {
        let state = endpoint.state.map(types::EndpointState::from);
        Self {
            model: endpoint.model.to_string(),
            uri: endpoint.uri.to_string(),
            state: state.unwrap_or_default().into(),
            reason: endpoint.reason.to_string(),
        }
    }
}

impl From<EndpointState> for types::EndpointState {
    fn from(state: EndpointState) -> Self {
        match state {
            EndpointState::Healthy => Self::Healthy,
            EndpointState::BackingOff => Self::BackingOff,
            EndpointState::Recovering => Self::Recovering,
            EndpointState::Ejected => Self::Ejected,
            EndpointState::Misconfigured => Self::Misconfigured,
        }
    }
}

impl ReportFields {
    fn held_total(&mut self, total: i32, listed: usize) -> usize {
        match usize::try_from(total) {
            Ok(total) if total >= listed => total,
            Ok(_) | Err(_) => {
                self.violations.push(
                    "report.held_total",
                    FieldReason::ValueOutOfRange,
                    format!("must be at least {listed}, the number of entries of `held`"),
                );
                listed
            }
        }
    }

    fn held(&mut self, wire: &[registry::Held]) -> Vec<HeldReport> {
        if wire.len() > Report::HELD_MAX {
            self.violations.push(
                "report.held",
                FieldReason::ValueOutOfRange,
                format!("must list at most {} items", Report::HELD_MAX),
            );
            return Vec::new();
        }
        let one = |(index, wire)| self.held_item(&format!("report.held[{index}]"), wire);
        wire.iter().enumerate().filter_map(one).collect()
    }

    fn held_item(&mut self, path: &str, wire: &registry::Held) -> Option<HeldReport> {
        let Some(item) = &wire.item else {
            self.violations
                .push(format!("{path}.item"), FieldReason::FieldRequired, "is required");
            return None;
        };
        let kind = match wire.why() {
            registry::HeldWhy::Refused => Some(HeldKind::Refused),
            registry::HeldWhy::CapabilityMissing => Some(HeldKind::CapabilityMissing),
            registry::HeldWhy::CredentialPending => Some(HeldKind::CredentialPending),
            registry::HeldWhy::Dependency => Some(HeldKind::Dependency),
            registry::HeldWhy::Unspecified => None,
        };
        if kind.is_none() {
            self.unknown(&format!("{path}.why"));
        }
        let resource = self.text(&format!("{path}.item.resource"), &item.resource, TEXT_MAX);
        let field = self.text(&format!("{path}.item.field"), &item.field, TEXT_MAX);
        let reason = self.text(&format!("{path}.item.reason"), &item.reason, REASON_MAX);
        let revision = self.revision(&format!("{path}.item.revision"), item.revision);
        let used_revision = self.revision(&format!("{path}.used_revision"), wire.used_revision);
        Some(HeldReport {
            resource: resource?,
            field: field?,
            reason: reason?,
            message: Box::default(),
            revision: revision?,
            used_revision: used_revision?,
            kind: kind?,
        })
    }

    fn endpoints(&mut self, wire: &[registry::EndpointReport]) -> Vec<EndpointReport> {
        if wire.len() > Report::ENDPOINTS_MAX {
            self.violations.push(
                "report.endpoints",
                FieldReason::ValueOutOfRange,
                format!("must list at most {} endpoints", Report::ENDPOINTS_MAX),
            );
            return Vec::new();
        }
        let one = |(index, wire)| self.endpoint(&format!("report.endpoints[{index}]"), wire);
        wire.iter().enumerate().filter_map(one).collect()
    }

    fn endpoint(&mut self, path: &str, wire: &registry::EndpointReport) -> Option<EndpointReport> {
        use types::EndpointState as Wire;
        let model = self.take(&format!("{path}.model"), ModelName::parse(&wire.model));
        let uri = self.text(&format!("{path}.uri"), &wire.uri, EndpointUri::LENGTH_MAX);
        let reason = self.text(&format!("{path}.reason"), &wire.reason, REASON_MAX);
        let state = match Wire::try_from(wire.state) {
            Ok(Wire::Unspecified) => Some(None),
            Ok(Wire::Healthy) => Some(Some(EndpointState::Healthy)),
            Ok(Wire::Recovering) => Some(Some(EndpointState::Recovering)),
            Ok(Wire::Ejected) => Some(Some(EndpointState::Ejected)),
            Ok(Wire::Misconfigured) => Some(Some(EndpointState::Misconfigured)),
            Ok(Wire::BackingOff) => Some(Some(EndpointState::BackingOff)),
            Err(_unknown) => {
                self.unknown(&format!("{path}.state"));
                None
            }
        };
        Some(EndpointReport {
            model: model?,
            uri: uri?,
            state: state?,
            reason: reason?,
        })
    }

    fn refusal(&mut self, wire: &registry::HistoryRefusal) -> Option<HistoryRefusal> {
        let why = match wire.why() {
            registry::HistoryRefusalWhy::RevisionRegressed => Some(HistoryRefusalWhy::RevisionRegressed),
            registry::HistoryRefusalWhy::StoreChanged => Some(HistoryRefusalWhy::StoreChanged),
            registry::HistoryRefusalWhy::StateMismatch => Some(HistoryRefusalWhy::StateMismatch),
            registry::HistoryRefusalWhy::Unspecified => None,
        };
        if why.is_none() {
            self.unknown("report.history_refusal.why");
        }
        let offered = self.cursor("report.history_refusal.offered", wire.offered.as_ref());
        Some(HistoryRefusal { why: why?, offered })
    }
}
