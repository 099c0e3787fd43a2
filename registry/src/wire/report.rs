//! What routers say, read: every field has its bound, so that a connected router costs no more than a known amount.

pub(super) mod fields;

use prost::Message as _;
use switchboard::{
    capability,
    endpoint::EndpointUri,
    names::{InstanceId, ModelName},
    pb::{registry, types},
    reason::FieldReason,
    violation::Violations,
};

use self::fields::{Fields, REASON_MAX};
use super::{change::resume, check};
use crate::fleet::{
    report::{
        EndpointReport, EndpointState, Group, Held, HeldWhy, Hello, HistoryRefusal, HistoryRefusalWhy, Message, Report,
        RouterId,
    },
    uplink::UplinkError,
};

/// The most bytes of a message: more than a thousand servers with the longest addresses take.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most characters of a build, of a resource name and of a field path.
const TEXT_MAX: usize = 255;

/// The most capabilities, and the most characters of one.
const CAPABILITIES_MAX: usize = 64;
const CAPABILITY_MAX: usize = 63;

impl TryFrom<registry::SubscribeRequest> for Message {
    type Error = UplinkError;

    fn try_from(wire: registry::SubscribeRequest) -> Result<Self, UplinkError> {
        use registry::subscribe_request::Kind;
        if wire.encoded_len() > MESSAGE_BYTES_MAX {
            return Err(UplinkError::TooLarge);
        }
        match wire.kind {
            Some(Kind::Hello(hello)) => Hello::try_from(&hello).map(Self::Hello),
            Some(Kind::Report(report)) => Report::try_from(&report).map(Self::Report),
            Some(Kind::CheckResult(result)) => check::findings(&result).map(Self::Findings),
            None => return Err(UplinkError::UnknownMessage),
        }
        .map_err(UplinkError::Malformed)
    }
}

impl TryFrom<&registry::Hello> for Hello {
    type Error = Violations;

    fn try_from(wire: &registry::Hello) -> Result<Self, Violations> {
        let mut fields = Fields::default();
        let router = fields.take("hello.router_id", RouterId::parse(&wire.router_id));
        let instance = fields.take("hello.instance", InstanceId::parse(&wire.instance));
        let group = fields.take("hello.group", Group::parse(&wire.group));
        let build = fields.text("hello.build", &wire.build, TEXT_MAX);
        let capabilities = fields.capabilities(&wire.capabilities);
        match (router, instance, group, build, capabilities) {
            (Some(router), Some(instance), Some(group), Some(build), Some(capabilities)) => Ok(Self {
                router,
                instance,
                group,
                build,
                can_check: capabilities.contains(&capability::CHECKS.to_owned()),
                resume: resume(wire.resume.as_ref()),
                want_snapshot: wire.want_snapshot,
            }),
            _ => Err(fields.violations),
        }
    }
}

impl TryFrom<&registry::Report> for Report {
    type Error = Violations;

    fn try_from(wire: &registry::Report) -> Result<Self, Violations> {
        let mut fields = Fields::default();
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
            apply_duration,
            endpoints,
        })
    }
}

impl Fields {
    fn capabilities<'a>(&mut self, wire: &'a [String]) -> Option<&'a [String]> {
        let is_word = |text: &String| text.len() <= CAPABILITY_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        if wire.len() > CAPABILITIES_MAX || !wire.iter().all(is_word) {
            let description =
                format!("must be at most {CAPABILITIES_MAX} words of at most {CAPABILITY_MAX} characters");
            self.violations
                .push("hello.capabilities", FieldReason::ValueOutOfRange, description);
            return None;
        }
        Some(wire)
    }

    fn held_total(&mut self, total: i32, listed: usize) -> usize {
        match usize::try_from(total) {
            Ok(total) if total >= listed => total,
            Ok(_) | Err(_) => {
                self.violations.push(
                    "report.held_total",
                    FieldReason::ValueOutOfRange,
                    format!("must be at least the {listed} that `held` lists"),
                );
                listed
            }
        }
    }

    fn held(&mut self, wire: &[registry::Held]) -> Vec<Held> {
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

    fn held_item(&mut self, path: &str, wire: &registry::Held) -> Option<Held> {
        let Some(item) = &wire.item else {
            self.violations
                .push(format!("{path}.item"), FieldReason::FieldRequired, "is required");
            return None;
        };
        let why = match wire.why() {
            registry::HeldWhy::Refused => Some(HeldWhy::Refused),
            registry::HeldWhy::CapabilityMissing => Some(HeldWhy::CapabilityMissing),
            registry::HeldWhy::CredentialPending => Some(HeldWhy::CredentialPending),
            registry::HeldWhy::Dependency => Some(HeldWhy::Dependency),
            registry::HeldWhy::Unspecified => None,
        };
        if why.is_none() {
            self.unknown(&format!("{path}.why"));
        }
        let resource = self.text(&format!("{path}.item.resource"), &item.resource, TEXT_MAX);
        let field = self.text(&format!("{path}.item.field"), &item.field, TEXT_MAX);
        let reason = self.text(&format!("{path}.item.reason"), &item.reason, REASON_MAX);
        let revision = self.revision(&format!("{path}.item.revision"), item.revision);
        let used_revision = self.revision(&format!("{path}.used_revision"), wire.used_revision);
        Some(Held {
            resource: resource?,
            field: field?,
            reason: reason?,
            revision: revision?,
            used_revision: used_revision?,
            why: why?,
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

#[cfg(test)]
mod tests;
