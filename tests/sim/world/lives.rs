//! Volumes that are swapped and copied, and the new lives of the store that heal it.

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
    /// The volume is swapped by hand: for an older copy, or for an empty one.
    pub(super) async fn go_back(&mut self) {
        let content = match self.random.choice(&self.backups) {
            Some(backup) => backup.clone(),
            None if self.random.u8(..3) == 0 => Content::empty(),
            None => return,
        };
        self.is_torn = true;
        self.say(format!(
            "the volume of registry 0 is swapped for one at {}",
            content.head()
        ));
        self.kill(0).await;
        self.add_volume(content);
        self.pause(0, 2_000).await;
        self.begin(0).await;
    }

    /// A second registry begins on a copy of the volume of the first, or ends.
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
        // The newest is that of registry 0.
        self.volumes.insert(0, Arc::clone(&volume));
        self.begin_on(1, &volume).await;
    }

    /// What the first registry has becomes the newest life of the store that routers know: while it runs, or while it
    /// does not.
    pub(super) async fn new_life(&mut self) {
        if self.random.bool() || !self.accept_history().await {
            self.restore().await;
        }
    }

    /// The registry that runs begins the new life. False: it could not.
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

    /// The store that routers know, and the highest life and revision that anybody can have seen.
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
