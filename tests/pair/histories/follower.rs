//! A reader of `Watch` that keeps what it is shown, and proves it by the digest at every step.

use std::collections::BTreeMap;

use switchboard::{
    digest::{ItemDigest, ItemParts, StateDigest},
    names::Revision,
    pb::{
        registry::{
            Delta, Mode, Resource, WatchRequest, WatchResponse, config_service_client::ConfigServiceClient,
            watch_response::Kind,
        },
        types::Cursor,
    },
};
use tokio::time::timeout;
use tonic::{Streaming, transport::Channel};

use crate::harness::{PATIENCE, Pair};

/// What was shown so far, and up to where.
#[derive(Debug)]
pub(crate) struct Follower {
    stream: Streaming<WatchResponse>,
    items: BTreeMap<String, Resource>,
    cursor: Cursor,
}

/// Two followers are equal when they were shown the same, however it came.
impl PartialEq for Follower {
    fn eq(&self, other: &Self) -> bool {
        (&self.cursor, &self.items) == (&other.cursor, &other.items)
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
            items: BTreeMap::new(),
            cursor: Cursor::default(),
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
        self.stream = watch(registry, Some(self.cursor.clone())).await?;
        assert_eq!(self.welcome().await?, Mode::Resumed);
        Some(())
    }

    /// Reads on until this revision is reached.
    pub(crate) async fn catch_up(&mut self, revision: i64) {
        while self.revision() < revision {
            self.try_step().await.expect("the stream goes on");
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.cursor.revision
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub(crate) fn items(&self) -> &BTreeMap<String, Resource> {
        &self.items
    }

    /// `None`: the stream has broken off.
    async fn next(&mut self) -> Option<Kind> {
        let message = timeout(PATIENCE, self.stream.message())
            .await
            .expect("the stream goes on");
        message.ok()??.kind
    }

    async fn welcome(&mut self) -> Option<Mode> {
        match self.next().await? {
            Kind::Welcome(welcome) => Some(welcome.mode()),
            other => panic!("the welcome comes first, not {other:?}"),
        }
    }

    /// Reads one message.
    pub(crate) async fn try_step(&mut self) -> Option<()> {
        match self.next().await? {
            Kind::SnapshotBegin(_) => self.items.clear(),
            Kind::SnapshotPart(part) => self.keep(part.resources),
            Kind::SnapshotEnd(end) => self.reach(end.at),
            Kind::Delta(delta) => self.apply(delta),
            Kind::Bookmark(_) => {}
            other @ (Kind::Welcome(_) | Kind::Goodbye(_)) => panic!("unexpected: {other:?}"),
        }
        Some(())
    }

    fn apply(&mut self, delta: Delta) {
        assert_eq!(
            delta.from_revision,
            self.revision(),
            "a delta begins where the one before ended"
        );
        self.keep(delta.upserts);
        for gone in delta.deletes {
            self.items.remove(&gone.name);
        }
        if !delta.more {
            self.reach(delta.to);
        }
    }

    fn keep(&mut self, resources: Vec<Resource>) {
        for resource in resources {
            self.items.insert(resource.name.clone(), resource);
        }
    }

    /// All parts are here: what is kept has to have the digest that was promised.
    fn reach(&mut self, cursor: Option<Cursor>) {
        self.cursor = cursor.expect("a state has a cursor");
        let state = self
            .items
            .values()
            .fold(StateDigest::EMPTY, |sum, item| sum.plus(digest(item)));
        assert_eq!(
            state.as_bytes().as_slice(),
            self.cursor.state_digest,
            "the digest at revision {}",
            self.cursor.revision
        );
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

fn digest(item: &Resource) -> ItemDigest {
    let payload = item.payload.as_ref().unwrap();
    ItemDigest::of(&ItemParts {
        name: &item.name,
        create_revision: Revision::new(item.create_revision).unwrap(),
        revision: Revision::new(item.revision).unwrap(),
        type_url: &payload.type_url,
        value: &payload.value,
        requires: &item.requires,
    })
}
