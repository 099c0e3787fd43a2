//! A reader of `Watch` that keeps what it is shown.

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

/// What was shown so far, and up to where.
#[derive(Debug)]
pub(crate) struct Follower {
    stream: Streaming<WatchResponse>,
    mirror: Mirror,
}

/// Two followers are equal when they were shown the same, however it came.
impl PartialEq for Follower {
    fn eq(&self, other: &Self) -> bool {
        self.mirror == other.mirror
    }
}

impl Follower {
    /// Follows from the beginning, and has read the snapshot.
    pub(crate) async fn start(pair: &Pair) -> Self {
        let follower = Self::try_start(pair.registry().channel()).await;
        follower.expect("the stream goes on")
    }

    /// The same, of a registry that may end meanwhile.
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

    /// Leaves, and comes back to where it was.
    pub(crate) async fn resume(&mut self, pair: &Pair) {
        let resumed = self.try_resume(pair.registry().channel()).await;
        resumed.expect("the stream goes on");
    }

    /// The same, of a registry that may end meanwhile.
    pub(crate) async fn try_resume(&mut self, registry: Channel) -> Option<()> {
        self.stream = watch(registry, Some(self.cursor().clone())).await?;
        assert_eq!(self.welcome().await?, Mode::Resumed);
        self.mirror.begin();
        Some(())
    }

    /// Reads on until this revision is reached.
    pub(crate) async fn catch_up(&mut self, revision: i64) {
        while self.revision() < revision {
            self.try_step().await.expect("the stream goes on");
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

    /// `None`: the stream has broken off.
    async fn next(&mut self) -> Option<Kind> {
        let message = timeout(PATIENCE, self.stream.message())
            .await
            .expect("the stream goes on");
        // Both streams have the same kinds under the same numbers.
        let same = SubscribeResponse::decode(&*message.ok()??.encode_to_vec()).unwrap();
        same.kind
    }

    async fn welcome(&mut self) -> Option<Mode> {
        match self.next().await? {
            Kind::Welcome(welcome) => Some(welcome.mode()),
            other => panic!("the welcome comes first, not {other:?}"),
        }
    }

    /// Reads one message.
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
