//! A reader of `Watch` that keeps what it is shown.

use std::collections::BTreeMap;

use prost::Message as _;
use switchboard::pb::{
    registry::{Mode, Resource, SubscribeResponse, WatchRequest, WatchResponse, subscribe_response::Kind},
    types::Cursor,
};
use tokio::time::timeout;
use tonic::Streaming;

use crate::{
    harness::{PATIENCE, Pair},
    mirror::Mirror,
};

/// What was shown so far, and up to where.
#[derive(Debug)]
pub(super) struct Follower {
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
    pub(super) async fn start(pair: &Pair) -> Self {
        let stream = watch(pair, None).await;
        let mut follower = Self {
            stream,
            mirror: Mirror::default(),
        };
        assert_eq!(follower.welcome().await, Mode::Snapshot);
        while follower.revision() == 0 {
            follower.step().await;
        }
        follower
    }

    /// Leaves, and comes back to where it was.
    pub(super) async fn resume(&mut self, pair: &Pair) {
        self.stream = watch(pair, Some(self.cursor().clone())).await;
        assert_eq!(self.welcome().await, Mode::Resumed);
        self.mirror.begin();
    }

    /// Reads on until this revision is reached.
    pub(super) async fn catch_up(&mut self, revision: i64) {
        while self.revision() < revision {
            self.step().await;
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.mirror.revision()
    }

    pub(super) fn cursor(&self) -> &Cursor {
        self.mirror.cursor()
    }

    pub(super) fn items(&self) -> &BTreeMap<String, Resource> {
        self.mirror.items()
    }

    async fn next(&mut self) -> Kind {
        let message = timeout(PATIENCE, self.stream.message())
            .await
            .expect("the stream goes on");
        let message = message.unwrap().expect("the stream does not end");
        // Both streams have the same kinds under the same numbers.
        let same = SubscribeResponse::decode(&*message.encode_to_vec()).unwrap();
        same.kind.unwrap()
    }

    async fn welcome(&mut self) -> Mode {
        match self.next().await {
            Kind::Welcome(welcome) => welcome.mode(),
            other => panic!("the welcome comes first, not {other:?}"),
        }
    }

    /// Reads one message.
    async fn step(&mut self) {
        let next = self.next().await;
        self.mirror.take(next);
    }
}

async fn watch(pair: &Pair, resume: Option<Cursor>) -> Streaming<WatchResponse> {
    let request = WatchRequest {
        resume,
        include_snapshot: None,
    };
    pair.config().watch(request).await.unwrap().into_inner()
}
