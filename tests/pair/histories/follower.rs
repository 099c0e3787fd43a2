//! A client of `Watch` that keeps the state that it receives.

use std::collections::BTreeMap;

use prost::Message as _;
use switchboard::pb::{
    registry::{
        Mode, Resource, SubscribeResponse, WatchRequest, WatchResponse, config_service_client::ConfigServiceClient,
        subscribe_response::Kind,
    },
    types::Cursor,
};
use tokio::time::timeout;
use tonic::{Streaming, transport::Channel};

use crate::{
    harness::{PATIENCE, Pair},
    mirror::Mirror,
};

/// The stream and the state received so far.
#[derive(Debug)]
pub(crate) struct Follower {
    stream: Streaming<WatchResponse>,
    mirror: Mirror,
}

/// Two followers are equal if they have the same state, however they received it.
impl PartialEq for Follower {
    fn eq(&self, other: &Self) -> bool {
        self.mirror == other.mirror
    }
}

impl Follower {
    /// Starts a follower without a cursor and reads its snapshot.
    pub(crate) async fn start(pair: &Pair) -> Self {
        let follower = Self::try_start(pair.registry().channel()).await;
        follower.expect("the stream continues")
    }

    /// Like [`Self::start`], for a registry that may end meanwhile. Returns `None` if it ends.
    pub(crate) async fn try_start(registry: Channel) -> Option<Self> {
        let mut follower = Self {
            stream: watch(registry, None).await?,
            mirror: Mirror::default(),
        };
        assert_eq!(follower.welcome().await?, Mode::Snapshot);
        while follower.revision() == 0 {
            follower.try_step().await?;
        }
        Some(follower)
    }

    /// Reconnects and resumes from the current cursor.
    pub(crate) async fn resume(&mut self, pair: &Pair) {
        let resumed = self.try_resume(pair.registry().channel()).await;
        resumed.expect("the stream continues");
    }

    /// Like [`Self::resume`], for a registry that may end meanwhile. Returns `None` if it ends.
    pub(crate) async fn try_resume(&mut self, registry: Channel) -> Option<()> {
        self.stream = watch(registry, Some(self.cursor().clone())).await?;
        assert_eq!(self.welcome().await?, Mode::Resumed);
        self.mirror.begin();
        Some(())
    }

    /// Reads until this revision is reached.
    pub(crate) async fn catch_up(&mut self, revision: i64) {
        while self.revision() < revision {
            self.try_step().await.expect("the stream continues");
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.mirror.revision()
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        self.mirror.cursor()
    }

    pub(crate) fn items(&self) -> &BTreeMap<String, Resource> {
        self.mirror.items()
    }

    /// Reads the next message. Returns `None` if the stream has broken.
    async fn next(&mut self) -> Option<Kind> {
        let message = timeout(PATIENCE, self.stream.message())
            .await
            .expect("the stream continues");
        // Both kinds of stream have the same message kinds under the same field numbers.
        let same = SubscribeResponse::decode(&*message.ok()??.encode_to_vec()).unwrap();
        same.kind
    }

    async fn welcome(&mut self) -> Option<Mode> {
        match self.next().await? {
            Kind::Welcome(welcome) => Some(welcome.mode()),
            other => panic!("the first message must be a welcome, not {other:?}"),
        }
    }

    /// Reads and applies one message. Returns `None` if the stream has broken.
    pub(crate) async fn try_step(&mut self) -> Option<()> {
        let next = self.next().await?;
        self.mirror.take(next);
        Some(())
    }
}

async fn watch(registry: Channel, resume: Option<Cursor>) -> Option<Streaming<WatchResponse>> {
    let request = WatchRequest {
        resume,
        include_snapshot: None,
    };
    let stream = ConfigServiceClient::new(registry).watch(request).await;
    Some(stream.ok()?.into_inner())
}
