//! The common parts of all write requests: `request_id`, `validate_only`, and the answer.

use std::fmt;

use switchboard::{pb::registry, reason::FieldReason, violation::Violations};

use super::{batch, configuration, delete, feature, history, model, settings};
use crate::domain::{
    repeat::RepeatId,
    write::{
        ApplyConfig, BatchUpdateFeatures, CreateModel, DeleteModel, RestoreRevision, Revise, UpdateFeature,
        UpdateModel, UpdateSettings,
    },
};

/// A request for a write.
pub trait WriteRequest: prost::Message + Sized + 'static {
    /// The requested write.
    type Write: Revise;
    /// The message with the answer.
    type Answer: WriteAnswer;

    /// Name of the method. A request id only belongs to one method.
    const METHOD: &'static str;

    /// Removes the `request_id` and returns it. The rest of the message is the content.
    fn take_request_id(&mut self) -> String;

    /// Returns whether the write is only checked.
    fn is_validate_only(&self) -> bool;

    /// Reads the rest of the request, and adds `violations` to those that are found.
    fn into_write(self, violations: Violations) -> Self::Write;

    /// Returns the answer to a write that was made.
    fn answer(outcome: &<Self::Write as Revise>::View) -> Self::Answer;
}

/// The answer to a write.
pub trait WriteAnswer: prost::Message + Default + Sized + 'static {
    /// Converts the answer into that of a write that was only checked: without the values that only a revision can
    /// have.
    #[must_use]
    fn into_checked(self) -> Self;
}

/// A parsed request for a write.
pub struct ParsedWrite<R: WriteRequest> {
    /// The write.
    pub write: R::Write,
    /// The request id, and the encoded content that it belongs to. `None`: the request has no valid id, or is only
    /// checked.
    pub repeat: Option<(RepeatId, Vec<u8>)>,
    /// Whether the write is only checked.
    pub validate_only: bool,
}

impl<R: WriteRequest> fmt::Debug for ParsedWrite<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(R::METHOD)
            .field("request_id", &self.repeat.as_ref().map(|(id, _)| id))
            .field("validate_only", &self.validate_only)
            .finish_non_exhaustive()
    }
}

impl<R: WriteRequest> ParsedWrite<R> {
    /// Reads a request.
    #[must_use]
    pub fn read(mut request: R) -> Self {
        let mut violations = Violations::new();
        let validate_only = request.is_validate_only();
        let text = request.take_request_id();
        let id = (!text.is_empty()).then(|| RepeatId::parse(&text));
        let repeat = match id {
            Some(Ok(id)) if !validate_only => Some((id, request.encode_to_vec())),
            Some(Err(error)) => {
                violations.push("request_id", FieldReason::ValueMalformed, error.to_string());
                None
            }
            Some(Ok(_)) | None => None,
        };
        Self {
            write: request.into_write(violations),
            repeat,
            validate_only,
        }
    }
}

macro_rules! write_requests {
    ($($request:ident => $write:ty, $answer:ident: $method:literal, $read:path, $show:path;)*) => {$(
        impl WriteRequest for registry::$request {
            type Write = $write;
            type Answer = registry::$answer;

            const METHOD: &'static str = $method;

            fn take_request_id(&mut self) -> String {
                std::mem::take(&mut self.request_id)
            }

            fn is_validate_only(&self) -> bool {
                self.validate_only
            }

            fn into_write(self, violations: Violations) -> $write {
                let mut write = $read(self);
                write.violations.append(violations);
                write
            }

            fn answer(outcome: &<$write as Revise>::View) -> registry::$answer {
                $show(outcome)
            }
        }
    )*};
}

write_requests! {
    CreateModelRequest => CreateModel, Model: "CreateModel", model::create, model::answer;
    UpdateModelRequest => UpdateModel, Model: "UpdateModel", model::update, model::answer;
    DeleteModelRequest => DeleteModel, DeleteModelResponse: "DeleteModel", delete::delete, delete::answer;
    UpdateFeatureRequest => UpdateFeature, Feature: "UpdateFeature", feature::update, feature::answer;
    BatchUpdateFeaturesRequest => BatchUpdateFeatures, BatchUpdateFeaturesResponse:
        "BatchUpdateFeatures", batch::update, batch::answer;
    UpdateSettingsRequest => UpdateSettings, Settings: "UpdateSettings", settings::update, settings::answer;
    RestoreRevisionRequest => RestoreRevision, RestoreRevisionResponse:
        "RestoreRevision", history::restore, history::restored;
    ApplyConfigRequest => ApplyConfig, ApplyConfigResponse: "ApplyConfig", configuration::apply, configuration::applied;
}

impl WriteAnswer for registry::Model {
    fn into_checked(self) -> Self {
        Self {
            etag: String::new(),
            revision: 0,
            ..self
        }
    }
}

impl WriteAnswer for registry::Feature {
    fn into_checked(self) -> Self {
        Self {
            etag: String::new(),
            revision: 0,
            ..self
        }
    }
}

impl WriteAnswer for registry::Settings {
    fn into_checked(self) -> Self {
        Self {
            etag: String::new(),
            revision: 0,
            ..self
        }
    }
}

impl WriteAnswer for registry::DeleteModelResponse {
    fn into_checked(self) -> Self {
        Self { revision: 0, ..self }
    }
}

impl WriteAnswer for registry::BatchUpdateFeaturesResponse {
    fn into_checked(self) -> Self {
        Self {
            features: self.features.into_iter().map(WriteAnswer::into_checked).collect(),
            revision: 0,
        }
    }
}

impl WriteAnswer for registry::RestoreRevisionResponse {
    fn into_checked(self) -> Self {
        Self {
            revision: 0,
            changes: history::tried(self.changes),
            ..self
        }
    }
}

impl WriteAnswer for registry::ApplyConfigResponse {
    fn into_checked(self) -> Self {
        Self {
            revision: 0,
            changes: history::tried(self.changes),
            ..self
        }
    }
}
