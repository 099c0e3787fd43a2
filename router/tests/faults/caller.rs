//! What a caller does, and what it gets.

use std::time::Duration;

use prost::Message as _;

use super::CANARY;
use crate::harness::{Answer, Router, event, prompt};

/// What the caller does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// It reads what comes.
    Reads,
    /// It reads, and allows so long for the call.
    Allows(Duration),
    /// It reads nothing until the router has given it up.
    Stalls,
    /// It goes within the answer.
    Goes,
    /// It sends so many bytes.
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
                // One byte for the field, and four for its length, of which one was there.
                request = prompt(&"x".repeat(bytes - others - 3));
                assert_eq!(request.encoded_len(), bytes);
                router.ask(request).await
            }
        }
    }

    /// Whether its request comes so far that a model is selected for it.
    pub(super) const fn is_heard(self) -> bool {
        !matches!(self, Self::Sends(_))
    }
}
