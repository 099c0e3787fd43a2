//! Planted defects: each makes one part of the system wrong in the way that its name says.
//!
//! They wrap the real parts at their interfaces and are selected at run time.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use switchboard::{
    digest::{ItemDigest, ItemParts, StateDigest},
    names::{ModelName, ResourceName, Revision},
    pb::{
        registry::{self, Mode, ModeReason, subscribe_request, subscribe_response::Kind},
        types,
    },
};
use switchboard_router::{
    catalog::ModelState,
    subscription::{
        compile::{Compiled, CredentialsById, Held, HeldWhy, Used, compile},
        received::Received,
    },
};

/// A planted defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The registry omits a new resource from a delta, and its digests agree with the omission.
    SkippedEvent,
    /// The registry sends a delta twice.
    Duplicate,
    /// The registry sends two deltas in the wrong order.
    Reordered,
    /// A resumed follower does not receive deletes, as if their tombstones had been dropped too early.
    LostDelete,
    /// The registry resumes a cursor whose revision does not exist yet.
    FutureAccepted,
    /// The registry reports a follower as up to date before it is.
    EarlyBookmark,
    /// The registry omits the parts of each snapshot.
    TornSnapshot,
    /// The registry puts an API token into a resource.
    SecretOnStream,
    /// The registry stops sending deltas and bookmarks without ending the stream.
    SilentStop,
    /// The registry publishes and answers before the disk has synced.
    CommitWithoutSync,
    /// The registry does not look up its earlier answers.
    RequestIdForgotten,
    /// The etags of client requests are lost.
    EtagIgnored,
    /// The router reports what it has received as being in use.
    AppliedEarly,
    /// The router continues to use a model that was deleted.
    HeldAfterDelete,
    /// The router uses a model that was disabled.
    DisabledInUse,
    /// The router returns to a model version that is older than a version which took no calls.
    ReplacedInUse,
    /// The router stores credentials under the names of their models.
    CredentialByModel,
    /// A call loads the catalog again while it runs.
    LoadedAgain,
    /// The router replaces a model that it refuses with one that it knows.
    RefusedInUse,
    /// The router does not report what it refuses.
    RefusalUntold,
    /// The registry starts a watcher that has a cursor at the current revision.
    WatchedFromNow,
}

impl Mutant {
    /// Returns a router's message as this defect alters it.
    pub(crate) fn up(self, message: &registry::SubscribeRequest) -> registry::SubscribeRequest {
        let mut message = message.clone();
        if self == Self::AppliedEarly
            && let Some(subscribe_request::Kind::Report(report)) = &mut message.kind
        {
            report.applied.clone_from(&report.received);
        }
        if self == Self::RefusalUntold
            && let Some(subscribe_request::Kind::Report(report)) = &mut message.kind
        {
            report.held.clear();
        }
        message
    }
}

/// Alters the registry's messages on one stream.
#[derive(Debug)]
pub(crate) struct Forger {
    mutant: Option<Mutant>,
    /// The digests of the resources that the stream has sent.
    known: BTreeMap<String, ItemDigest>,
    /// Hidden changes that the router must not notice: the digest by name, and whether the router lacks the resource
    /// (true) or still has it although it was deleted (false).
    missing: BTreeMap<String, (ItemDigest, bool)>,
    has_resumed: bool,
    waiting: Option<registry::SubscribeResponse>,
    has_delta: bool,
}

impl Forger {
    pub(crate) const fn new(mutant: Option<Mutant>) -> Self {
        Self {
            mutant,
            known: BTreeMap::new(),
            missing: BTreeMap::new(),
            has_resumed: false,
            waiting: None,
            has_delta: false,
        }
    }

    pub(crate) fn forge(&mut self, mut message: registry::SubscribeResponse) -> Vec<registry::SubscribeResponse> {
        let Some(mutant) = self.mutant else {
            return vec![message];
        };
        let Some(kind) = &mut message.kind else {
            return vec![message];
        };
        self.has_delta |= matches!(kind, Kind::Delta(_));
        match (mutant, kind) {
            (Mutant::SkippedEvent | Mutant::LostDelete, kind) => self.hide(mutant, kind),
            (Mutant::Duplicate, Kind::Delta(_)) => return vec![message.clone(), message],
            (Mutant::Reordered, Kind::Delta(_)) => {
                return match self.waiting.take() {
                    Some(earlier) => vec![message, earlier],
                    None => {
                        self.waiting = Some(message);
                        Vec::new()
                    }
                };
            }
            (Mutant::FutureAccepted, Kind::Welcome(welcome)) if welcome.reason() == ModeReason::Ahead => {
                welcome.set_mode(Mode::Resumed);
                welcome.set_reason(ModeReason::Unspecified);
            }
            (Mutant::EarlyBookmark, Kind::Bookmark(bookmark)) => {
                if let Some(at) = &mut bookmark.at {
                    at.revision += 1;
                }
            }
            (Mutant::TornSnapshot, Kind::SnapshotPart(_)) => return Vec::new(),
            (Mutant::SecretOnStream, Kind::Delta(delta)) => {
                if let Some(resource) = delta.upserts.first_mut() {
                    resource.payload.get_or_insert_default().value.extend(b"canary-0");
                }
            }
            (Mutant::SilentStop, Kind::Delta(_) | Kind::Bookmark(_)) if self.has_delta => return Vec::new(),
            _ => {}
        }
        vec![message]
    }

    /// Removes changes from deltas, and changes the digests of all later cursors so that they agree.
    fn hide(&mut self, mutant: Mutant, kind: &mut Kind) {
        match kind {
            Kind::Welcome(welcome) => self.has_resumed = welcome.mode() == Mode::Resumed,
            Kind::SnapshotPart(part) => part.resources.iter().for_each(|resource| self.learn(resource)),
            Kind::Delta(delta) => {
                for deleted in &delta.deletes {
                    self.missing.remove(&deleted.name);
                }
                for resource in &delta.upserts {
                    self.missing.remove(&resource.name);
                }
                if mutant == Mutant::SkippedEvent {
                    let new = |resource: &registry::Resource| resource.create_revision == resource.revision;
                    for resource in delta.upserts.extract_if(.., |resource| new(resource)) {
                        self.missing.insert(resource.name.clone(), (digest(&resource), true));
                    }
                } else {
                    for deleted in delta
                        .deletes
                        .extract_if(.., |deleted| self.known.contains_key(&deleted.name))
                    {
                        let digest = self.known[&deleted.name];
                        self.missing.insert(deleted.name, (digest, false));
                    }
                }
                let upserts = delta.upserts.clone();
                upserts.iter().for_each(|resource| self.learn(resource));
                self.agree(delta.to.as_mut());
            }
            Kind::Bookmark(bookmark) => self.agree(bookmark.at.as_mut()),
            Kind::SnapshotBegin(_) | Kind::SnapshotEnd(_) | Kind::Goodbye(_) | Kind::CheckRequest(_) => {}
        }
    }

    fn learn(&mut self, resource: &registry::Resource) {
        self.known.insert(resource.name.clone(), digest(resource));
    }

    fn agree(&self, cursor: Option<&mut types::Cursor>) {
        let Some(cursor) = cursor else { return };
        let state = StateDigest::from_slice(&cursor.state_digest).unwrap();
        let forged = self.missing.values().fold(state, |state, (digest, is_missing)| {
            if *is_missing {
                state.minus(*digest)
            } else {
                state.plus(*digest)
            }
        });
        cursor.state_digest = forged.as_bytes().to_vec();
    }
}

fn digest(resource: &registry::Resource) -> ItemDigest {
    let payload = resource.payload.as_ref().unwrap();
    ItemDigest::of(&ItemParts {
        name: &resource.name,
        create_revision: Revision::new(resource.create_revision).unwrap(),
        revision: Revision::new(resource.revision).unwrap(),
        type_url: &payload.type_url,
        value: &payload.value,
        requires: &resource.requires,
    })
}

/// Compiles catalogs, with a defect if one is planted.
#[derive(Debug)]
pub(crate) struct Compiler {
    mutant: Option<Mutant>,
    before: Mutex<BTreeMap<ModelName, ModelState>>,
    /// The newest usable version of each model, with the revisions that created and changed it.
    usable: Mutex<BTreeMap<ModelName, (Revision, Revision, ModelState)>>,
}

impl Compiler {
    pub(crate) fn new(mutant: Option<Mutant>) -> Self {
        Self {
            mutant,
            before: Mutex::default(),
            usable: Mutex::default(),
        }
    }

    pub(crate) fn compile(&self, received: &Received, used: &Used, credentials: &CredentialsById) -> Compiled {
        let mut compiled = compile(received, used, credentials);
        if self.mutant == Some(Mutant::ReplacedInUse) {
            self.replace(received, &mut compiled);
        }
        let models = &mut compiled.catalog.models;
        let mut before = self.before.lock();
        for (name, old) in before.iter() {
            match (self.mutant, models.get(name)) {
                (Some(Mutant::HeldAfterDelete), None) | (Some(Mutant::DisabledInUse), Some(ModelState::Disabled)) => {
                    models.insert(name.clone(), old.clone());
                }
                _ => {}
            }
        }
        if self.mutant == Some(Mutant::RefusedInUse) {
            for held in compiled.held.iter().filter(|held| held.why.is_lasting()) {
                if let (ResourceName::Model(name), Some(known)) = (&held.name, before.values().next()) {
                    models.insert(name.clone(), known.clone());
                }
            }
        }
        before.extend(
            models
                .iter()
                .filter(|(_, state)| matches!(state, ModelState::Ready(_)))
                .map(|(name, state)| (name.clone(), state.clone())),
        );
        compiled
    }
}

impl Compiler {
    /// If a model waits for its credential and has no version in use, makes its last usable version answer calls.
    fn replace(&self, received: &Received, compiled: &mut Compiled) {
        let mut usable = self.usable.lock();
        for (name, state) in &mut compiled.catalog.models {
            let raw = &received.resources()[&*name.to_string()].raw;
            let is_it = |held: &&mut Held| held.name == ResourceName::Model(name.clone());
            match (compiled.held.iter_mut().find(is_it), &state) {
                (None, ModelState::Ready(_)) => {
                    usable.insert(name.clone(), (raw.create_revision, raw.revision, state.clone()));
                }
                (Some(held), ModelState::NotReady) if held.why == HeldWhy::CredentialPending => {
                    if let Some((created, revision, old)) = usable.get(name)
                        && *created == raw.create_revision
                    {
                        held.used_revision = *revision;
                        *state = old.clone();
                    }
                }
                _ => {}
            }
        }
    }
}

/// Passes credentials on, with a defect if one is planted.
#[derive(Debug)]
pub(crate) struct Tokens {
    mutant: Option<Mutant>,
    by_model: Mutex<BTreeMap<String, String>>,
}

impl Tokens {
    pub(crate) fn new(mutant: Option<Mutant>) -> Self {
        Self {
            mutant,
            by_model: Mutex::default(),
        }
    }

    pub(crate) fn answer(
        &self,
        request: &registry::GetModelCredentialRequest,
        mut answer: registry::GetModelCredentialResponse,
    ) -> registry::GetModelCredentialResponse {
        if self.mutant == Some(Mutant::CredentialByModel) {
            let mut known = self.by_model.lock();
            let first = known
                .entry(request.model.clone())
                .or_insert_with(|| answer.api_token.clone());
            answer.api_token.clone_from(first);
        }
        answer
    }
}
