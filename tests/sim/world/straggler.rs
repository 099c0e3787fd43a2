//! A router that misses a delete until the history is compacted up to the router's position, or beyond it.

use std::time::Duration;

use switchboard::{
    names::Revision,
    pb::registry::{CreateModelRequest, DeleteModelRequest, Endpoint, Model, Settings, UpdateSettingsRequest},
};
use switchboard_registry::wire::write::WriteRequest;
use tokio::time::timeout;

use super::World;
use crate::{history::Outcome, writes::submit};

/// A model that only this module writes, so that no client creates it again.
const MAYFLY: &str = "models/mayfly";

/// Maximum number of writes until the history is compacted that far.
const WRITES_MAX: usize = 30;

impl World {
    pub(super) async fn straggle(&mut self, router: usize) {
        // A stalled reader continues with its stream; a router that was cut off has to resume.
        let (is_stalled, is_beyond) = (self.random.bool(), self.random.bool());
        self.say(format!(
            "router {router} misses a delete, stalled {is_stalled}, until its position is compacted away {is_beyond}"
        ));
        self.write(CreateModelRequest {
            model: Some(Model {
                name: MAYFLY.to_owned(),
                display_name: Some("Mayfly".to_owned()),
                family: Some("mistral".to_owned()),
                endpoints: vec![Endpoint {
                    uri: "http://gpu9:8000".to_owned(),
                    ..Default::default()
                }],
                ..Model::default()
            }),
            ..CreateModelRequest::default()
        })
        .await;
        self.pause(300, 600).await;
        self.network.change(router, |weather| weather.no_down = true);
        // A stalled router has one message in flight: this one.
        self.toggle().await;
        self.pause(10, 100).await;
        if !is_stalled {
            self.network.change(router, |weather| {
                weather.epoch += 1;
                weather.no_up = true;
            });
        }
        let deleted = self
            .write(DeleteModelRequest {
                name: MAYFLY.to_owned(),
                ..DeleteModelRequest::default()
            })
            .await;
        let enough = deleted.map(|deleted| if is_beyond { deleted } else { before(deleted) });
        for _ in 0..WRITES_MAX {
            if enough.is_none_or(|enough| self.floor() >= enough) {
                break;
            }
            self.toggle().await;
        }
        self.network.change(router, |weather| {
            (weather.no_up, weather.no_down) = (false, false);
        });
    }

    fn floor(&self) -> Revision {
        let run = self.runs[0].as_ref();
        run.map_or(Revision::ZERO, |run| run.link.commit.state().items.oldest_resumable())
    }

    /// Makes a write that always changes something if it succeeds.
    async fn toggle(&mut self) {
        let run = self.runs[0].as_ref();
        let is_paused = run.is_some_and(|run| run.link.commit.state().settings.value.inference_paused);
        self.write(UpdateSettingsRequest {
            settings: Some(Settings {
                inference_paused: Some(!is_paused),
                ..Settings::default()
            }),
            ..UpdateSettingsRequest::default()
        })
        .await;
    }

    /// Makes a write on behalf of the world and returns its revision, or `None` if it was not written.
    async fn write<R: WriteRequest>(&mut self, request: R) -> Option<Revision> {
        self.pause(1, 50).await;
        let link = self.runs[0].as_ref()?.link.clone();
        let outcome = timeout(Duration::from_secs(1), submit(&link.commit, request)).await;
        match outcome {
            Ok(Outcome::Written { revision, .. }) => Some(revision),
            _ => None,
        }
    }
}

fn before(revision: Revision) -> Revision {
    Revision::new(revision.get() - 1).unwrap_or(Revision::ZERO)
}
