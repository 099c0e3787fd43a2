//! Swaps and copies of volumes, and the new lives of the store that repair the history afterwards.

use std::{sync::Arc, time::Duration};

use switchboard::names::{Revision, StoreId};
use switchboard_registry::domain::life::{LifeCause, Mark, NewLife};
use tokio::time::timeout;

use super::{REGISTRIES, World};
use crate::{
    disk::{Content, Volume},
    history::Event,
};

impl World {
    /// Replaces the volume by hand with an older copy or with an empty one.
    pub(super) async fn go_back(&mut self) {
        let content = match self.random.choice(&self.backups) {
            Some(backup) => backup.clone(),
            None if self.random.u8(..3) == 0 => Content::empty(),
            None => return,
        };
        self.is_torn = true;
        self.say(format!(
            "the volume of registry 0 is replaced with one at {}",
            content.head()
        ));
        self.kill(0).await;
        self.add_volume(content);
        self.pause(0, 2_000).await;
        self.begin(0).await;
    }

    /// Starts a second registry on a copy of the first registry's volume, or ends it if it runs.
    pub(super) async fn second_registry(&mut self) {
        if self.addresses < REGISTRIES {
            return;
        }
        if self.runs[1].is_some() {
            self.say("registry 1 ends".to_owned());
            self.kill(1).await;
            return;
        }
        self.say("registry 1 begins on a copy".to_owned());
        self.is_torn = true;
        let content = self.volume().content();
        if content.head() == Revision::ZERO {
            return;
        }
        let seed = self.random.u64(..);
        let number = self.volumes.len();
        let volume = Volume::new(number, content, seed, self.log.clone());
        // The last volume of the list belongs to registry 0.
        self.volumes.insert(0, Arc::clone(&volume));
        self.begin_on(1, &volume).await;
    }

    /// Turns the state of the first registry into the newest life of the store that routers know, either while the
    /// registry runs or while it is stopped.
    pub(super) async fn new_life(&mut self) {
        if self.random.bool() || !self.accept_history().await {
            self.restore().await;
        }
    }

    /// Begins the new life in the running registry. Returns false if the registry could not begin it.
    pub(super) async fn accept_history(&mut self) -> bool {
        self.say("the store begins a new life while its registry runs".to_owned());
        let (store, above) = self.known();
        let Some(run) = &self.runs[0] else { return false };
        let commit = run.link.commit.clone();
        let new = NewLife {
            cause: LifeCause::AcceptHistory,
            above,
            adopt: (commit.state().items.store() != store).then_some(store),
        };
        let begun = timeout(Duration::from_secs(5), commit.begin_life(new)).await;
        matches!(begun, Ok(Ok(_)))
    }

    async fn restore(&mut self) {
        self.say("the store begins a new life".to_owned());
        self.kill(0).await;
        let content = self.volume().content();
        if content.head() > Revision::ZERO {
            let (store, above) = self.known();
            let new = NewLife {
                cause: LifeCause::Restore,
                above,
                adopt: Some(store),
            };
            self.add_volume(content.new_life(&new));
        }
        self.begin(0).await;
    }

    /// Returns the store that routers know, and the highest life and revision that any process can have seen.
    fn known(&self) -> (StoreId, Mark) {
        let history = self.log.history();
        let states = history.events().filter_map(|event| match event {
            Event::Began { state, .. } | Event::Published { state, .. } => Some(&state.items),
            _ => None,
        });
        let marks = states.clone().map(|items| {
            let number = items.incarnation().number;
            Mark::new(number, items.revision().get()).unwrap()
        });
        let store = states.map(|items| items.store()).next().unwrap();
        (store, marks.fold(Mark::NONE, Mark::or_higher))
    }
}
