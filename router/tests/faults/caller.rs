//! The behaviour of a caller, and the answer that it receives.

use std::time::Duration;

use prost::Message as _;

use super::CANARY;
use crate::harness::{Answer, Router, event, prompt};

/// The behaviour of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// Reads the answer.
    Reads,
    /// Reads the answer, with this deadline for the call.
    Allows(Duration),
    /// Reads nothing until the router has given up.
    Stalls,
    /// Cancels during the answer.
    Goes,
    /// Sends a request of this many bytes.
    Sends(usize),
}

impl Caller {
    /// Makes the call.
    #[expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]
    pub(super) async fn ask(self, router: &Router) -> Answer {
        match self {
            Self::Reads => router.ask(prompt(CANARY)).await,
            Self::Allows(timeout) => {
                let mut request = tonic::Request::new(prompt(CANARY));
                let value = format!("{}m", timeout.as_millis()).parse().unwrap();
                request.metadata_mut().insert("grpc-timeout", value);
                router.ask(request).await
            }
            Self::Stalls => {
                let response = router.client.clone().stream_infer(prompt(CANARY)).await.unwrap();
                router.settled().await;
                let metadata = Some(response.metadata().clone());
                let mut answer = Answer {
                    metadata,
                    ..Answer::default()
                };
                answer.read(response.into_inner()).await;
                answer
            }
            Self::Goes => {
                let mut stream = router
                    .client
                    .clone()
                    .stream_infer(prompt(CANARY))
                    .await
                    .unwrap()
                    .into_inner();
                for _selection_and_piece in 0..2 {
                    event(&mut stream).await;
                }
                drop(stream);
                router.settled().await;
                Answer::default()
            }
            Self::Sends(bytes) => {
                let mut request = prompt("");
                let others = request.encoded_len();
                // One byte for the field's tag, and four for its length, one of which the empty request already has.
                request = prompt(&"x".repeat(bytes - others - 3));
                assert_eq!(request.encoded_len(), bytes);
                router.ask(request).await
            }
        }
    }

    /// Whether the router accepts the request and selects a model for it.
    pub(super) const fn is_heard(self) -> bool {
        !matches!(self, Self::Sends(_))
    }
}
