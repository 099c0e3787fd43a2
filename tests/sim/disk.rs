//! A volume: which data of a registry's database is durable, and which is written but not yet synced.

pub(crate) mod skew;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use switchboard::{
    digest::ChainDigest,
    history::Incarnation,
    names::{IncarnationId, ModelName, ResourceName, Revision, StoreId},
};
use switchboard_registry::{
    domain::{
        items::{Item, ItemChange, Items, Past, Tombstone},
        life::NewLife,
        repeat::{Fingerprinter, Remembered, RepeatKey},
        state::Record,
        write::OldValue,
    },
    store::{Batch, Loaded, Storage, StoreError, StoredCredential, WriteFailure},
};

use crate::{
    history::{Actor, Event, Log},
    mutants::Mutant,
    time::{Clock, between},
};

/// The content of a database.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    store: StoreId,
    pub(crate) incarnation: Incarnation,
    chains: Vec<ChainDigest>,
    past: Vec<Past>,
    live: BTreeMap<Arc<str>, (Item, Record)>,
    deleted: BTreeMap<Arc<str>, Revision>,
    credentials: BTreeMap<ModelName, StoredCredential>,
    answers: Vec<Remembered>,
    ended: Vec<Ended>,
}

/// The version of a resource that a change replaced or deleted.
#[derive(Debug, Clone)]
struct Ended {
    revision: Revision,
    name: ResourceName,
    /// The stored value before the change. `None`: the resource did not exist.
    value: Option<Bytes>,
}

/// A volume on which registries run.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) number: usize,
    log: Log,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    durable: Content,
    /// Content that is written but not synced: a power cut may or may not keep it.
    unsynced: Option<Content>,
    random: Rng,
    trouble: Trouble,
}

/// The percentage of writes that fail in each way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trouble {
    pub(crate) fails: u8,
    pub(crate) in_doubt: u8,
    pub(crate) stalls: u8,
}

impl Content {
    /// Creates a new store without any revision.
    pub(crate) fn empty() -> Self {
        Self {
            store: StoreId::random(),
            incarnation: Incarnation {
                number: 1,
                id: IncarnationId::random(),
            },
            chains: Vec::new(),
            past: Vec::new(),
            live: BTreeMap::new(),
            deleted: BTreeMap::new(),
            credentials: BTreeMap::new(),
            answers: Vec::new(),
            ended: Vec::new(),
        }
    }

    pub(crate) fn head(&self) -> Revision {
        self.past.last().map_or(Revision::ZERO, |past| past.revision)
    }

    /// Returns the same content after it has begun a new life.
    pub(crate) fn new_life(mut self, new: &NewLife) -> Self {
        let time = self.past.last().map_or(SystemTime::UNIX_EPOCH, |past| past.commit_time);
        let (life, first) = self.loaded().items.begin_life(new, time);
        (self.store, self.incarnation) = (life.store, life.incarnation);
        self.past = vec![first];
        self.forget_past_lives();
        self
    }

    /// Drops the changes of earlier lives, which a store does not keep.
    fn forget_past_lives(&mut self) {
        self.chains.clear();
        self.deleted.clear();
        self.ended.clear();
    }

    fn take_in(&mut self, batch: &Batch<'_>) {
        for applied in batch.revisions {
            let time = applied.past.commit_time;
            if let Some(life) = &applied.life {
                (self.store, self.incarnation) = (life.store, life.incarnation);
                self.past.clear();
                self.forget_past_lives();
            }
            self.past.push(applied.past);
            for change in &applied.changes {
                let key = Arc::clone(change.key());
                self.ended.push(Ended {
                    revision: applied.past.revision,
                    name: ResourceName::parse(&key).unwrap(),
                    value: applied.before.get(&key).map(|item| item.value.clone()),
                });
                self.deleted.remove(&key);
                match change {
                    ItemChange::Put(item) => {
                        let before = self.live.get(&key).map(|(_, record)| record.create_time);
                        let record = Record {
                            create_revision: item.create_revision,
                            revision: item.revision,
                            create_time: before.unwrap_or(time),
                            update_time: time,
                        };
                        self.live.insert(key, (item.clone(), record));
                    }
                    ItemChange::Delete(tombstone) => {
                        self.live.remove(&key);
                        if let Some(ResourceName::Model(model)) = ResourceName::parse(&key) {
                            self.credentials.remove(&model);
                        }
                        self.deleted.insert(key, tombstone.revision);
                    }
                }
            }
            for (model, credential) in &applied.credentials {
                let stored = StoredCredential {
                    credential: credential.clone(),
                    update_time: time,
                };
                self.credentials.insert(model.clone(), stored);
            }
        }
        self.answers.extend(batch.remembered.iter().cloned());
        let surplus = self
            .answers
            .len()
            .saturating_sub(usize::try_from(batch.retention.answers).unwrap());
        self.answers.drain(..surplus);
        if let Some(cut) = batch.cut {
            let below = self.past.iter().take_while(|past| past.revision < cut.floor).count();
            self.chains.extend(self.past.drain(..below).map(|past| past.chain));
            self.past[0].change_bytes = 0;
            let kept = usize::try_from(cut.floor.get() - cut.oldest_chain.get()).unwrap();
            let surplus = self.chains.len().saturating_sub(kept);
            self.chains.drain(..surplus);
            self.deleted.retain(|_, revision| *revision > cut.floor);
            self.ended.retain(|ended| ended.revision > cut.floor);
        }
    }

    fn loaded(&self) -> Loaded {
        let deleted = self.deleted.iter().map(|(key, revision)| Tombstone {
            key: Arc::clone(key),
            revision: *revision,
        });
        let live: Vec<Item> = self.live.values().map(|(item, _)| item.clone()).collect();
        let records = self.live.values().map(|(item, record)| (item.name.clone(), *record));
        Loaded {
            records: records.collect(),
            items: Items::restored(
                self.store,
                self.incarnation,
                self.chains.clone(),
                self.past.clone(),
                live,
                deleted.collect(),
            ),
            credentials: self.credentials.clone(),
            fingerprinter: Fingerprinter::new(&[7; 32]),
        }
    }
}

impl Volume {
    pub(crate) fn new(number: usize, content: Content, seed: u64, log: Log) -> Arc<Self> {
        log.write(
            Actor::Disk(number),
            Event::Durable {
                volume: number,
                incarnation: content.incarnation.id,
                places: content.past.iter().map(|past| (past.revision, past.chain)).collect(),
                answers: Vec::new(),
            },
        );
        Arc::new(Self {
            number,
            log,
            inner: Mutex::new(Inner {
                durable: content,
                unsynced: None,
                random: Rng::with_seed(seed),
                trouble: Trouble::default(),
            }),
        })
    }

    pub(crate) fn trouble(&self, trouble: Trouble) {
        self.inner.lock().trouble = trouble;
    }

    /// Returns the durable content.
    pub(crate) fn content(&self) -> Content {
        self.inner.lock().durable.clone()
    }

    pub(crate) fn load(&self) -> Loaded {
        self.inner.lock().durable.loaded()
    }

    /// Cuts the power: data that was written but not synced is either kept or lost.
    pub(crate) fn cut_power(&self) {
        let kept = {
            let mut inner = self.inner.lock();
            let unsynced = inner.unsynced.take();
            unsynced.filter(|_| inner.random.bool())
        };
        if let Some(content) = kept {
            self.settle(content);
        }
    }

    /// Makes a content durable and logs the revisions and answers that are new in it.
    fn settle(&self, content: Content) {
        let mut inner = self.inner.lock();
        let old = inner.durable.head();
        let new = content.past.iter().filter(|past| past.revision > old);
        let places = new.map(|past| (past.revision, past.chain)).collect();
        let known: Vec<_> = inner.durable.answers.iter().map(|answer| answer.key.clone()).collect();
        let fresh = content.answers.iter().filter(|answer| !known.contains(&answer.key));
        let answers = fresh
            .map(|answer| (answer.key.id.as_str().to_owned(), answer.revision))
            .collect();
        let incarnation = content.incarnation.id;
        inner.durable = content;
        inner.unsynced = None;
        drop(inner);
        self.log.write(
            Actor::Disk(self.number),
            Event::Durable {
                volume: self.number,
                incarnation,
                places,
                answers,
            },
        );
    }
}

/// The registry's storage on a volume.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) volume: Arc<Volume>,
    pub(crate) clock: Clock,
    pub(crate) class: u64,
    pub(crate) mutant: Option<Mutant>,
}

enum Fate {
    Good,
    Fails,
    InDoubt { is_kept: bool },
}

impl Disk {
    async fn pause(&self, min: u64, max: u64) {
        let duration = between(&mut self.volume.inner.lock().random, min, max);
        self.clock.pause(self.class, duration).await;
    }

    fn fate(&self) -> (Fate, Duration) {
        let mut inner = self.volume.inner.lock();
        let Trouble {
            fails,
            in_doubt,
            stalls,
        } = inner.trouble;
        let wait = if inner.random.u8(..100) < stalls {
            between(&mut inner.random, 5_000, 20_000)
        } else {
            between(&mut inner.random, 1, 40)
        };
        let fate = match inner.random.u8(..100) {
            lot if lot < fails => Fate::Fails,
            lot if lot < fails + in_doubt => Fate::InDoubt {
                is_kept: inner.random.bool(),
            },
            _ => Fate::Good,
        };
        (fate, wait)
    }
}

impl Storage for Disk {
    async fn write(&mut self, batch: &Batch<'_>) -> Result<(), WriteFailure> {
        let (fate, sync) = self.fate();
        self.pause(0, 10).await;
        if matches!(fate, Fate::Fails) {
            return Err(WriteFailure::RolledBack(failure()));
        }
        let content = {
            let mut inner = self.volume.inner.lock();
            let mut content = inner.unsynced.as_ref().unwrap_or(&inner.durable).clone();
            content.take_in(batch);
            inner.unsynced = Some(content.clone());
            content
        };
        if self.mutant == Some(Mutant::CommitWithoutSync) {
            return Ok(());
        }
        self.clock.pause(self.class, sync).await;
        match fate {
            Fate::InDoubt { is_kept } => {
                self.volume.inner.lock().unsynced = None;
                if is_kept {
                    self.volume.settle(content);
                }
                Err(WriteFailure::OutcomeUnknown(failure()))
            }
            Fate::Good | Fate::Fails => {
                self.volume.settle(content);
                Ok(())
            }
        }
    }

    async fn recall(&mut self, keys: &[RepeatKey]) -> Result<Vec<Remembered>, StoreError> {
        if self.mutant == Some(Mutant::RequestIdForgotten) {
            return Ok(Vec::new());
        }
        let inner = self.volume.inner.lock();
        let known = inner.durable.answers.iter();
        Ok(known.filter(|answer| keys.contains(&answer.key)).cloned().collect())
    }

    async fn values_at(&mut self, revision: Revision) -> Result<Vec<OldValue>, StoreError> {
        let inner = self.volume.inner.lock();
        let mut values = BTreeMap::new();
        for ended in inner.durable.ended.iter().filter(|ended| ended.revision > revision) {
            values.entry(ended.name.to_string()).or_insert_with(|| OldValue {
                name: ended.name.clone(),
                value: ended.value.clone(),
            });
        }
        Ok(values.into_values().collect())
    }

    async fn probe(&mut self) -> Result<(), WriteFailure> {
        let (fate, sync) = self.fate();
        self.clock.pause(self.class, sync).await;
        match fate {
            Fate::Good => Ok(()),
            Fate::Fails => Err(WriteFailure::RolledBack(failure())),
            Fate::InDoubt { .. } => Err(WriteFailure::OutcomeUnknown(failure())),
        }
    }

    async fn reopen(&mut self) -> Result<Loaded, StoreError> {
        let (fate, sync) = self.fate();
        self.clock.pause(self.class, sync).await;
        match fate {
            Fate::Good => Ok(self.volume.load()),
            Fate::Fails | Fate::InDoubt { .. } => Err(failure()),
        }
    }

    async fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn failure() -> StoreError {
    StoreError::File {
        path: PathBuf::from("simulated"),
        source: io::Error::other("simulated"),
    }
}
