use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::SystemTime,
};

use proptest::prelude::*;
use switchboard::{
    endpoint::Origin,
    names::CredentialId,
    pb::{registry::CredentialState, types::Provider},
    seal::Sealer,
    secret::ApiToken,
};
use tempfile::TempDir;

use super::{
    contents::{decode, encode},
    *,
};
use crate::{
    catalog::{Catalog, Credential, ModelState},
    subscription::{
        compile::compile,
        fixture::{Store, TOKEN_A, TOKEN_B, assigned, credential, feature, model, model_with_token},
    },
};

const CANARY: &str = "sk-canary-51ca";
const A: &str = "models/a";
const CHAT: &str = "features/duo_chat";
const BOUND: Duration = Duration::from_secs(10);

fn sealer(id: &str, digits: &str) -> Arc<Sealer> {
    Arc::new(Sealer::parse(&format!("{id}:{}", digits.repeat(32))).unwrap())
}

fn file_in(folder: &Path) -> SnapshotFile {
    SnapshotFile::new(folder.join("snapshot"), sealer("k1", "0f"))
}

/// A registry's store, and a router that has compiled each of its revisions.
struct Router {
    store: Store,
    used: Arc<Used>,
    cache: CredentialsById,
}

impl Router {
    fn new() -> Self {
        Self {
            store: Store::new(),
            used: Arc::default(),
            cache: CredentialsById::new(),
        }
    }

    /// A chat feature that a model with token A serves.
    fn with_chat() -> Self {
        let mut router = Self::new();
        router.fetched(TOKEN_A, CANARY);
        router.write(vec![(A, model_with_token(TOKEN_A)), (CHAT, assigned(A))]);
        router
    }

    fn fetched(&mut self, id: &str, token: &str) {
        let id = CredentialId::parse(id).unwrap();
        let credential = Credential {
            id,
            origins: [Origin::parse("http://gpu1:8000").unwrap()].into(),
            token: ApiToken::parse(token.to_owned()).unwrap(),
        };
        self.cache.insert(id, Arc::new(credential));
    }

    fn write(&mut self, changes: Vec<(&str, prost_types::Any)>) {
        self.store.write(changes);
        self.compile();
    }

    fn compile(&mut self) -> Shown {
        let compiled = compile(&self.store.received(), &self.used, &self.cache);
        self.used = Arc::new(compiled.used);
        self.cache.retain(|id, _| self.used.credential_ids().contains(id));
        Shown::of(&compiled.catalog, &compiled.held)
    }

    fn kept(&self) -> Kept {
        Kept {
            received: Arc::new(self.store.received()),
            used: Arc::clone(&self.used),
        }
    }

    /// Returns the router after a restart.
    fn restarted(&self) -> Self {
        let Restored { kept, credentials, .. } =
            decode(&encode(&self.kept(), SystemTime::now()), SystemTime::now()).unwrap();
        assert_eq!(*kept.received, self.store.received());
        Self {
            store: self.store.clone(),
            used: kept.used,
            cache: credentials,
        }
    }
}

/// Everything that calls see of a catalog, and the held items that are reported.
#[derive(Debug, PartialEq)]
struct Shown {
    features: BTreeMap<String, String>,
    models: BTreeMap<String, (String, Option<String>)>,
    inference_paused: bool,
    held: String,
}

impl Shown {
    fn of(catalog: &Catalog, held: &[crate::subscription::compile::Held]) -> Self {
        let features = catalog.features.iter();
        let models = catalog.models.iter().map(|(name, state)| {
            let credential = match state {
                ModelState::Ready(model) => model.credential.as_ref(),
                ModelState::Disabled | ModelState::CredentialMissing | ModelState::NotReady => None,
            };
            let token = credential.map(|credential| credential.token.expose().to_owned());
            (name.to_string(), (format!("{state:?}"), token))
        });
        Self {
            features: features
                .map(|(name, setting)| (name.to_string(), format!("{setting:?}")))
                .collect(),
            models: models.collect(),
            inference_paused: catalog.inference_paused,
            held: format!("{held:?}"),
        }
    }

    fn token_of(&self, model: &str) -> Option<&str> {
        self.models.get(model)?.1.as_deref()
    }
}

#[test]
fn a_held_version_is_restored_with_its_own_credential() {
    let mut router = Router::with_chat();
    // The new token has not been fetched, so the old version stays in use, also after a restart.
    router.write(vec![(A, model_with_token(TOKEN_B))]);
    let mut restarted = router.restarted();
    let shown = restarted.compile();
    assert_eq!(shown, router.compile());
    assert_eq!(shown.token_of(A), Some(CANARY));

    restarted.fetched(TOKEN_B, "sk-b");
    assert_eq!(restarted.compile().token_of(A), Some("sk-b"));
    assert_eq!(restarted.used.credential_ids().len(), 1);
}

#[test]
fn a_credential_that_was_taken_away_is_not_restored() {
    let mut router = Router::with_chat();
    for (taken, refused) in [
        (CredentialState::Dropped, true),
        (CredentialState::None, true),
        (CredentialState::Dropped, false),
    ] {
        router.write(vec![(
            A,
            model(|entry| {
                entry.credential = Some(credential(taken, ""));
                if refused {
                    entry.model.as_mut().unwrap().family = Some("unheard_of".to_owned());
                }
            }),
        )]);
        let bytes = encode(&router.kept(), SystemTime::now());
        assert!(!contains(&bytes, CANARY), "{taken:?}");
        let shown = router.restarted().compile();
        assert_eq!(shown, router.compile());
        assert_eq!(shown.token_of(A), None);
    }
}

/// Model a at another server, with token B, disabled or not.
fn moved(disabled: bool) -> prost_types::Any {
    model(|entry| {
        let model = entry.model.as_mut().unwrap();
        model.endpoints[0].uri = "http://gpu2:8000/v1".to_owned();
        model.disabled = Some(disabled);
        let mut token = credential(CredentialState::Set, TOKEN_B);
        token.origins = vec!["http://gpu2:8000".to_owned()];
        entry.credential = Some(token);
    })
}

#[test]
fn the_token_of_a_server_replaced_while_its_model_was_idle_is_removed_from_the_file() {
    let mut router = Router::with_chat();
    assert!(contains(&encode(&router.kept(), SystemTime::now()), CANARY));
    router.write(vec![(A, moved(true))]);
    assert!(!contains(&encode(&router.kept(), SystemTime::now()), CANARY));
    let mut restarted = router.restarted();
    restarted.compile();
    for router in [&mut router, &mut restarted] {
        router.store.write(vec![(A, moved(false))]);
        let shown = router.compile();
        assert!(shown.models[A].0.starts_with("NotReady"), "{shown:?}");
    }
    assert!(router.restarted().compile().models[A].0.starts_with("NotReady"));
}

#[test]
fn a_router_that_starts_with_a_state_newer_than_its_file_does_not_return_to_an_older_server() {
    let mut router = Router::with_chat();
    router.write(vec![("models/b", model(|_| ())), (CHAT, assigned("models/b"))]);
    // The last good version is kept, but takes no calls.
    let refused = model(|entry| {
        entry.model.as_mut().unwrap().family = None;
        entry.credential = Some(credential(CredentialState::Set, TOKEN_A));
    });
    router.write(vec![(A, refused)]);
    assert!(contains(&encode(&router.kept(), SystemTime::now()), CANARY));
    let mut restarted = router.restarted();
    restarted.store.write(vec![(A, moved(false)), (CHAT, assigned(A))]);
    let shown = restarted.compile();
    assert!(shown.models[A].0.starts_with("NotReady"), "{shown:?}");
    assert!(shown.features[CHAT].contains("ModelName(\"b\")"), "{shown:?}");
}

/// A write in a random history.
#[derive(Debug, Clone)]
enum Write {
    Model(usize, Token, bool, bool),
    Feature(usize, usize, bool),
    Disable(usize),
    Delete(usize),
    /// Makes the resource require a capability that no router has.
    Spoil(usize),
    Fetch,
}

#[derive(Debug, Clone, Copy)]
enum Token {
    None,
    Dropped,
    Set(u8),
}

const MODELS: [&str; 3] = ["models/a", "models/b", "models/c"];
const FEATURES: [&str; 2] = ["features/duo_chat", "features/code_generations"];

fn write() -> impl Strategy<Value = Write> {
    let token = prop_oneof![Just(Token::None), Just(Token::Dropped), (1..4u8).prop_map(Token::Set)];
    prop_oneof![
        4 => (0..3usize, token, any::<bool>(), prop::bool::weighted(0.3)).prop_map(|(m, t, d, r)| Write::Model(m, t, d, r)),
        3 => (0..2usize, 0..3usize, prop::bool::weighted(0.3)).prop_map(|(f, m, r)| Write::Feature(f, m, r)),
        1 => (0..2usize).prop_map(Write::Disable),
        1 => (0..3usize).prop_map(Write::Delete),
        1 => (0..5usize).prop_map(Write::Spoil),
        3 => Just(Write::Fetch),
    ]
}

impl Router {
    fn play(&mut self, write: &Write) {
        let refuse = |entry: &mut switchboard::pb::registry::ModelEntry| {
            entry.model.as_mut().unwrap().family = Some("unheard_of".to_owned());
        };
        match *write {
            Write::Model(place, token, disabled, refused) => {
                let payload = model(|entry| {
                    entry.model.as_mut().unwrap().disabled = disabled.then_some(true);
                    entry.credential = Some(match token {
                        Token::None => credential(CredentialState::None, ""),
                        Token::Dropped => credential(CredentialState::Dropped, ""),
                        Token::Set(number) => credential(CredentialState::Set, &id(place, number)),
                    });
                    if refused {
                        refuse(entry);
                    }
                });
                self.store.write(vec![(MODELS[place], payload)]);
            }
            Write::Feature(place, model, refused) => {
                let name = if refused { "no/name" } else { MODELS[model] };
                self.store.write(vec![(FEATURES[place], assigned(name))]);
            }
            Write::Disable(place) => self
                .store
                .write(vec![(FEATURES[place], feature(Provider::Disabled, None))]),
            Write::Delete(place) => self.store.delete(&[MODELS[place]]),
            Write::Spoil(place) => {
                let name = MODELS.iter().chain(&FEATURES).nth(place).unwrap();
                if self.store.resources.contains_key(*name) {
                    let revision = self.store.cursor.revision.next();
                    self.store.write(Vec::new());
                    self.store.spoil(name, |resource| {
                        resource.revision = revision.get();
                        resource.requires = vec!["flight".to_owned()];
                    });
                }
            }
            Write::Fetch => {
                let wanted = compile(&self.store.received(), &self.used, &self.cache).wanted;
                for wanted in wanted {
                    let id = wanted.credential.id.to_string();
                    self.fetched(&id, &format!("sk-{id}"));
                }
            }
        }
    }
}

fn id(place: usize, number: u8) -> String {
    format!("{place:016x}{number:016x}")
}

proptest! {
    /// A router that was restarted at some point shows the same state as one that was not, after any history, both
    /// right after the restart and after every later write.
    #[test]
    fn a_restart_changes_no_visible_state(
        before in prop::collection::vec(write(), 0..12),
        after in prop::collection::vec(write(), 0..6),
    ) {
        let mut router = Router::new();
        for write in &before {
            router.play(write);
            router.compile();
        }
        let mut restarted = router.restarted();
        prop_assert_eq!(restarted.compile(), router.compile());
        for write in &after {
            restarted.play(write);
            router.play(write);
            prop_assert_eq!(restarted.compile(), router.compile());
        }
    }
}

#[test]
fn the_file_is_sealed_and_accessible_only_to_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let file = file_in(folder.path());
    let kept = Router::with_chat().kept();
    let plain = encode(&kept, SystemTime::now());
    for text in [CANARY, "models/a", "gpu1"] {
        assert!(contains(&plain, text), "{text} should be in the unsealed contents");
    }
    // A file that others can read is replaced by a new file; the content is not written into it.
    fs::write(file.path(), "").unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    for _ in 0..2 {
        file.write(&kept).unwrap();
        let sealed = fs::read(file.path()).unwrap();
        for text in [CANARY, "models/a", "duo_chat", "gpu1", "type.googleapis.com"] {
            assert!(!contains(&sealed, text), "{text}");
        }
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "there is no other file in the folder"
        );
    }
    assert!(!format!("{:?}", file.load().unwrap()).contains(CANARY));
}

#[test]
fn a_file_with_a_changed_or_a_missing_byte_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = file_in(folder.path());
    file.write(&Router::with_chat().kept()).unwrap();
    let good = fs::read(file.path()).unwrap();
    for place in 0..good.len() {
        let mut changed = good.clone();
        changed[place] ^= 0x10;
        fs::write(file.path(), &changed).unwrap();
        assert!(matches!(file.load(), Err(LoadError::Sealed(_))), "byte {place}");
        fs::write(file.path(), &good[..place]).unwrap();
        assert!(
            matches!(file.load(), Err(LoadError::Sealed(_))),
            "the first {place} bytes"
        );
    }
    fs::write(file.path(), &good).unwrap();
    assert!(file.load().unwrap().is_some());
}

#[test]
fn unsealed_contents_are_still_validated() {
    let kept = Router::with_chat().kept();
    let good = encode(&kept, SystemTime::now());
    let now = SystemTime::now();
    let mut newer = good.clone();
    newer[0] = 2;
    assert_eq!(decode(&newer, now).unwrap_err(), ContentsError::UnknownFormat(2));
    assert_eq!(decode(&[], now).unwrap_err(), ContentsError::Unreadable);
    assert_eq!(
        decode(&good[..good.len() - 1], now).unwrap_err(),
        ContentsError::Unreadable
    );
    // The endpoint's host name is part of the bytes that the digest covers.
    let mut other = good.clone();
    let place = good.windows(4).position(|window| window == b"gpu1").unwrap();
    other[place] = b'x';
    assert_eq!(decode(&other, now).unwrap_err(), ContentsError::StateMismatch);
    for place in 0..good.len() {
        let mut changed = good.clone();
        changed[place] ^= 0x10;
        drop(decode(&changed, now));
    }
    let an_hour_ago = now - Duration::from_secs(3600);
    assert_eq!(decode(&encode(&kept, an_hour_ago), now).unwrap().age.as_secs(), 3600);
    assert_eq!(decode(&encode(&kept, now), an_hour_ago).unwrap().age, Duration::ZERO);
}

#[test]
fn the_error_of_an_unusable_file_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = file_in(folder.path());
    assert!(file.load().unwrap().is_none());
    file.write(&Router::with_chat().kept()).unwrap();
    let load = |sealer| {
        SnapshotFile::new(file.path().to_owned(), sealer)
            .load()
            .map(|_| ())
            .unwrap_err()
    };
    let said = |error: LoadError| Chain(&error).to_string();
    assert!(said(load(sealer("k2", "0f"))).contains("with the key `k1`"));
    assert!(said(load(sealer("k1", "f0"))).contains("another key of the same id"));
    let other = sealer("k1", "0f").seal(b"another file", b"x").unwrap();
    fs::write(file.path(), other).unwrap();
    assert!(said(file.load().unwrap_err()).contains("belongs to another place"));
    fs::write(file.path(), "{}").unwrap();
    assert!(said(file.load().unwrap_err()).contains("not sealed"));
    fs::remove_file(file.path()).unwrap();
    fs::create_dir(file.path()).unwrap();
    assert!(matches!(file.load(), Err(LoadError::NotAFile)));
    assert!(file.write(&Router::with_chat().kept()).is_err());
    assert!(file.path().is_dir(), "a folder at the path is not removed");
}

#[test]
fn a_path_that_can_never_be_written_is_found_before_the_first_write() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, plain) = (folder.path().join("missing"), folder.path().join("plain"));
    fs::write(&plain, "not a folder").unwrap();
    // Even root can create no file in /proc.
    for unusable in [&*missing, &plain, Path::new("/proc")] {
        let checked = file_in(unusable).check();
        assert!(
            matches!(checked, Err(SnapshotPathError::Folder(_))),
            "{unusable:?}: {checked:?}"
        );
    }

    let file = file_in(folder.path());
    for prepare in [
        (|_| {}) as fn(&SnapshotFile),
        |file| fs::write(file.path(), "an older one").unwrap(),
        |file| fs::write(file.path().with_extension("partial"), "half").unwrap(),
    ] {
        prepare(&file);
        let before = fs::read_dir(folder.path()).unwrap().count();
        file.check().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before, "nothing is left");
    }
    fs::remove_file(file.path()).unwrap();
    fs::create_dir(file.path()).unwrap();
    assert!(matches!(file.check(), Err(SnapshotPathError::NotAFile)));
}

#[test]
fn a_partial_file_of_a_crash_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let file = file_in(folder.path());
    let mut router = Router::with_chat();
    file.write(&router.kept()).unwrap();
    let partial = folder.path().join("snapshot.partial");
    let precious = folder.path().join("precious");
    fs::write(&precious, "not ours").unwrap();
    router.write(vec![(A, model(|_| ()))]);
    for leave in [
        (|partial, _| fs::write(partial, "half").unwrap()) as fn(&Path, &Path),
        |partial, precious| symlink(precious, partial).unwrap(),
    ] {
        leave(&partial, &precious);
        assert!(file.load().unwrap().is_some(), "the old file is still valid");
        file.write(&router.kept()).unwrap();
        assert!(!partial.exists());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "not ours");
        let restored = file.load().unwrap().unwrap();
        assert_eq!(restored.kept.received.cursor(), &router.store.cursor);
    }
}

/// The task that writes the file, with its inputs and outputs.
struct Writing {
    folder: TempDir,
    kept: watch::Sender<Option<Kept>>,
    persisted: watch::Receiver<Option<Cursor>>,
    metrics: PersistMetrics,
    cancel: CancellationToken,
    task: JoinSet<()>,
}

impl Writing {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (kept, kept_out) = watch::channel(None);
        let (persisted_in, persisted) = watch::channel(None);
        let metrics = PersistMetrics::default();
        let persister = Persister::new(file_in(folder.path()), kept_out, persisted_in, metrics.clone());
        let cancel = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(persister.run(cancel.clone()));
        Self {
            folder,
            kept,
            persisted,
            metrics,
            cancel,
            task,
        }
    }

    fn swap(&self, router: &Router) {
        self.kept.send_replace(Some(router.kept()));
    }

    async fn persisted(&mut self, router: &Router) {
        let cursor = Some(router.store.cursor);
        let persisted = self.persisted.wait_for(|persisted| *persisted == cursor);
        timeout(BOUND, persisted).await.unwrap().unwrap();
        let restored = file_in(self.folder.path()).load().unwrap().unwrap();
        assert_eq!(restored.kept.received.cursor(), &router.store.cursor);
    }
}

#[tokio::test]
async fn a_failed_write_is_repeated_until_it_succeeds() {
    let mut writing = Writing::start();
    let mut router = Router::with_chat();
    writing.swap(&router);
    writing.persisted(&router).await;

    // A folder at the path of the partial file simulates a disk that refuses the write.
    let partial = writing.folder.path().join("snapshot.partial");
    fs::create_dir(&partial).unwrap();
    router.write(vec![(A, model(|_| ()))]);
    writing.swap(&router);
    let failed = async {
        while writing.metrics.failures.get() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, failed).await.unwrap();
    assert_ne!(*writing.persisted.borrow(), Some(router.store.cursor));
    assert!(
        file_in(writing.folder.path()).load().unwrap().is_some(),
        "the old file stays"
    );

    fs::remove_dir(&partial).unwrap();
    writing.persisted(&router).await;
}

#[tokio::test]
async fn the_last_state_in_use_is_written_before_the_task_ends() {
    let mut writing = Writing::start();
    let router = Router::with_chat();
    writing.swap(&router);
    writing.cancel.cancel();
    timeout(BOUND, writing.task.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    writing.persisted(&router).await;
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
