//! `switchboard.router.v1.InferenceService`.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use switchboard::{
    failpoint,
    failure::Failure,
    pb::router::{self, inference_service_server::InferenceService},
    reason::header,
    service::{call::notes::Notes, deadline, request_id::RequestId},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Response, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::{
    call::{Answering, CallLimits, Calls, Selected},
    current::Current,
    prompt::Request,
    telemetry::{note_completion, note_failure, note_selected},
    upstream::Upstream,
    wire::{inference::padding::padded, routing},
};

/// The handlers of the inference service.
#[derive(Debug)]
pub struct InferenceApi {
    calls: Calls,
    pads: bool,
}

impl InferenceApi {
    /// Creates handlers whose calls select models from `current` and run as tasks of `tasks`. After `drain` is
    /// cancelled, new calls are refused and running calls end with `SERVER_DRAINING`. Cancel it when the grace period
    /// for streams is over.
    #[must_use]
    pub fn new(
        current: Arc<Current>,
        upstream: Upstream,
        limits: CallLimits,
        tasks: TaskTracker,
        drain: CancellationToken,
    ) -> Self {
        Self {
            calls: Calls::new(current, upstream, limits, tasks, drain),
            pads: false,
        }
    }

    /// If `pads` is set, pads every streamed message to at least 256 bytes.
    #[must_use]
    pub fn padding(self, pads: bool) -> Self {
        Self { pads, ..self }
    }

    /// Returns the service that makes the calls.
    #[must_use]
    pub const fn calls(&self) -> &Calls {
        &self.calls
    }
}

#[tonic::async_trait]
impl InferenceService for InferenceApi {
    async fn infer(
        &self,
        request: tonic::Request<router::InferRequest>,
    ) -> Result<Response<router::InferResponse>, Status> {
        let request_id = RequestId::of(&request);
        let notes = Notes::of(&request);
        let ParsedCall {
            metadata: asked,
            timeout,
            request,
        } = checked(request)?;
        let answered = self
            .calls
            .infer(request, timeout, routing::scope(&asked), &request_id)
            .await
            .map_err(|failure| {
                note_failure(&notes, &failure);
                Failure::from(failure)
            })?;
        note_selected(&notes, &answered.selected);
        note_completion(&notes, answered.whole.finish, answered.whole.usage);
        let metadata = metadata(&answered.selected);
        let mut response = Response::new(answered.into());
        *response.metadata_mut() = metadata;
        Ok(response)
    }

    type StreamInferStream = BoxStream<'static, Result<router::StreamInferResponse, Status>>;

    async fn stream_infer(
        &self,
        request: tonic::Request<router::InferRequest>,
    ) -> Result<Response<Self::StreamInferStream>, Status> {
        let request_id = RequestId::of(&request);
        let notes = Notes::of(&request);
        let ParsedCall {
            metadata: asked,
            timeout,
            request,
        } = checked(request)?;
        let answering = self
            .calls
            .stream(request, timeout, routing::scope(&asked), &request_id)
            .await
            .map_err(|failure| {
                note_failure(&notes, &failure);
                Failure::from(failure)
            })?;
        note_selected(&notes, answering.selected());
        let metadata = metadata(answering.selected());
        let messages = messages(answering, notes);
        let mut response = Response::new(if self.pads {
            messages.map_ok(padded).boxed()
        } else {
            messages.boxed()
        });
        *response.metadata_mut() = metadata;
        Ok(response)
    }
}

/// A received call after validation.
struct ParsedCall {
    metadata: MetadataMap,
    /// Time limit that the caller sets for the whole call. `None`: it sets none.
    timeout: Option<Duration>,
    request: Request,
}

/// Validates a request. The failure lists all violations.
fn checked(request: tonic::Request<router::InferRequest>) -> Result<ParsedCall, Failure> {
    failpoint::hit("infer.handler");
    let (metadata, _, message) = request.into_parts();
    match (deadline::of(&metadata), Request::try_from(message)) {
        (Ok(timeout), Ok(request)) => Ok(ParsedCall {
            metadata,
            timeout,
            request,
        }),
        (timeout, request) => {
            let mut violations = timeout.err().unwrap_or_default();
            violations.append(request.err().unwrap_or_default());
            Err(Failure::invalid(&violations))
        }
    }
}

fn metadata(selected: &Selected) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert(header::REVISION, selected.revision.get().into());
    metadata.insert(header::REASON, MetadataValue::from_static(selected.reason.as_str()));
    // Model names are plain ASCII, so parsing them never fails.
    if let Ok(model) = selected.model.name.to_string().parse() {
        metadata.insert(header::MODEL, model);
    }
    metadata
}

/// Returns the messages of a streamed answer: exactly one selection, any number of deltas, then one completion or one
/// failure.
fn messages(
    mut answering: Answering,
    notes: Notes,
) -> impl Stream<Item = Result<router::StreamInferResponse, Status>> + Send {
    async_stream::stream! {
        yield Ok(answering.selected().into());
        failpoint::hit("infer.answer");
        while let Some(delta) = answering.delta().await {
            yield Ok(delta.into());
        }
        yield match answering.end().await {
            Ok(completion) => {
                note_completion(&notes, completion.finish, completion.usage);
                Ok(completion.into())
            }
            Err(failure) => {
                note_failure(&notes, &failure);
                Err(Failure::from(failure).into())
            }
        };
    }
}
