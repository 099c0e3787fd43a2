//! Drives the stream to the registry: it connects, reads and reports, and the session makes the decisions.
//!
//! Each stream has its own connection, so that a new attempt never uses a dead connection. Compiling, fetching and
//! reporting never block reading: the two directions share only watched values, of which only the newest counts.

use std::{error::Error as _, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use switchboard::{
    history::{Cursor, View},
    pb::registry,
    service::cause::Cause,
    stream::{
        CheckRequest, Hello, HistoryRefusalWhy, RegistryMessage, RegistryMessageError, Report, RouterMessage,
        WelcomeMode,
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::{
    Applied, SubscriptionConfig,
    checks::{Basis, CHECKS_MAX, CheckTasks},
    order::CheckAnswer,
    received::Received,
    report::{hello, report},
    session::{Action, Closed, End, Session, SessionEvent, StreamMessage, StreamStanding},
    surroundings::{Connection as _, Downward, Surroundings, Upward},
};
use crate::{check::Checker, current::Current, endpoints::Following, live::LiveModels};

/// Minimum time between two reports.
const REPORT_SPACING: Duration = Duration::from_millis(50);
/// How long the router keeps reading a stream that it ends, so that its last report gets through.
const CLOSING_MAX: Duration = Duration::from_secs(1);
/// Capacity of the channel between the socket and the session. If it is full, the socket is not read, and the registry
/// has to wait.
const MESSAGES_MAX: usize = 16;

/// The sources of a report, except for the state of the stream itself.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) current: Arc<Current>,
    pub(super) models: LiveModels,
    /// Runs the checks that the registry requests. `None`: the router runs no checks.
    pub(super) checker: Option<Checker>,
    pub(super) applied: watch::Receiver<Applied>,
    pub(super) persisted: watch::Receiver<Option<Cursor>>,
}

/// The driver of one session.
pub(super) struct Link<S: Surroundings> {
    surroundings: S,
    config: Arc<SubscriptionConfig>,
    told: Told,
    /// Cancelled when the router shuts down. Only then may a stream end in the way that tells the registry not to wait
    /// for this router.
    leaving: CancellationToken,
    session: Session,
    begin: Instant,
    received: watch::Sender<Option<Arc<Received>>>,
    connection: watch::Sender<Option<S::Connection>>,
    stream: Option<OpenStream<S::Connection>>,
    /// The tasks that read: the task of the open stream, and those of streams that are being closed.
    readers: JoinSet<()>,
    checks: CheckTasks,
    contact: Contact,
}

/// The session's side of an open stream.
struct OpenStream<C> {
    /// The address of the registry, for the log.
    registry: Box<str>,
    events: mpsc::Receiver<StreamEvent<C>>,
    /// Dropping it ends the upward direction after the newest report.
    standing: watch::Sender<StreamStanding>,
    /// Carries the answers of checks to the stream.
    answers: mpsc::Sender<CheckAnswer>,
    /// The connection. Set until the registry has answered over it.
    connection: Option<C>,
}

enum StreamEvent<C> {
    Connected(C),
    Message(Result<StreamMessage, RegistryMessageError>),
    Ended(Result<(), String>),
}

#[derive(PartialEq)]
enum Contact {
    None,
    Held,
    Lost,
}

impl<S: Surroundings> Link<S> {
    pub(super) fn new(
        surroundings: S,
        config: Arc<SubscriptionConfig>,
        received: watch::Sender<Option<Arc<Received>>>,
        connection: watch::Sender<Option<S::Connection>>,
        told: Told,
    ) -> Self {
        let restored = received.borrow().clone();
        let session = Session::new(config.registry_addrs.len(), fastrand::u64(..));
        Self {
            surroundings,
            session: session.going_on_from(restored),
            config,
            told,
            leaving: CancellationToken::new(),
            begin: Instant::now(),
            received,
            connection,
            stream: None,
            readers: JoinSet::new(),
            checks: CheckTasks::default(),
            contact: Contact::None,
        }
    }

    /// Follows the registry until it is cancelled, then ends the stream in order.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        loop {
            let wake = self.begin + self.session.wake_at();
            let event = tokio::select! {
                // In a fixed order, so that the same events always lead to the same steps.
                biased;
                () = cancel.cancelled() => break,
                () = sleep_until(wake) => Some(SessionEvent::Timer),
                event = next_event(&mut self.stream) => self.read(event),
            };
            if let Some(event) = event {
                let actions = self.session.step(self.begin.elapsed(), event);
                if self.session.is_confirmed() {
                    self.told.current.set_confirmed();
                }
                self.tell_standing();
                for action in actions {
                    self.act(action);
                }
            }
        }
        self.leaving.cancel();
        self.stream = None;
        while self.readers.join_next().await.is_some() {}
    }

    /// Converts an event of the stream to one of the session. `None`: the event does not concern the session.
    fn read(&mut self, event: StreamEvent<S::Connection>) -> Option<SessionEvent> {
        match event {
            StreamEvent::Connected(connection) => {
                if let Some(stream) = &mut self.stream {
                    stream.connection = Some(connection);
                }
                None
            }
            StreamEvent::Message(message) => {
                self.told.current.touch();
                Some(message.map_or(SessionEvent::Unreadable, SessionEvent::Message))
            }
            StreamEvent::Ended(end) => Some(SessionEvent::Ended(match end {
                Ok(()) => {
                    self.stream = None;
                    debug!("the registry ended the stream");
                    End::Ok
                }
                Err(error) => {
                    self.lost(&error);
                    End::Failed
                }
            })),
        }
    }

    /// Passes the newest standing to the reports, which wake up only if it has changed.
    fn tell_standing(&self) {
        if let Some(stream) = &self.stream {
            let newest = self.session.standing();
            stream.standing.send_if_modified(|standing| {
                let is_new = *standing != newest;
                *standing = newest;
                is_new
            });
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Dial {
                address,
                resume,
                want_snapshot,
            } => {
                let config = &self.config;
                let can_check = self.told.checker.is_some();
                let hello = hello(config, can_check, resume, want_snapshot);
                if let Some(address) = config.registry_addrs.get(address).cloned() {
                    self.open(address, hello);
                }
            }
            Action::Opened(mode) => self.opened(mode),
            Action::Install(received) => {
                self.received.send_replace(Some(received));
            }
            Action::Repeated(revision) => debug!(%revision, "the changes up to revision {revision} were repeated"),
            Action::Check(request) => self.check(request),
            Action::Stalled(head) => warn!(
                %head,
                "the registry's writer makes no progress at revision {head}: changes may be delayed"
            ),
            Action::Unstalled => info!("the registry's writer makes progress again"),
            Action::Close(why) => {
                match why {
                    Closed::Goodbye => info!("the registry closed the stream with a goodbye: connecting again"),
                    Closed::Moved => info!("{why}: connecting again"),
                    Closed::Refused => debug!("trying another registry because the history of this one is refused"),
                    Closed::TooSlow => warn!("{why}: connecting again"),
                    Closed::Mismatch => warn!("{why}: asking for a snapshot"),
                    Closed::Opening | Closed::Silent | Closed::Gap | Closed::Protocol => self.lost(&why.to_string()),
                }
                self.stream = None;
            }
        }
    }

    fn open(&mut self, address: http::Uri, hello: Hello) {
        while self.readers.try_join_next().is_some() {}
        let (events_in, events) = mpsc::channel(MESSAGES_MAX);
        let (standing, standing_out) = watch::channel(self.session.standing());
        let (answers, answers_out) = mpsc::channel(CHECKS_MAX);
        let said = SaidOnStream {
            standing: standing_out,
            told: self.told.clone(),
        };
        let upward = upward(hello, said, answers_out, self.leaving.clone());
        let registry: Box<str> = address.to_string().trim_end_matches('/').into();
        let span = info_span!("stream", registry.addr = &*registry);
        self.readers
            .spawn(read_stream(self.surroundings.clone(), address, upward, events_in).instrument(span));
        self.stream = Some(OpenStream {
            registry,
            events,
            standing,
            answers,
            connection: None,
        });
    }

    /// Starts a check in a task of its own.
    fn check(&mut self, request: CheckRequest) {
        let connection = self.connection.borrow().clone();
        if let (Some(checker), Some(connection), Some(stream)) = (&self.told.checker, connection, &self.stream) {
            let basis = Basis {
                checker: checker.clone(),
                connection,
                received: self.received.borrow().clone(),
                catalog: self.told.current.load(),
            };
            self.checks.begin(request.into(), basis, stream.answers.clone());
        }
    }

    fn opened(&mut self, mode: WelcomeMode) {
        let again = if self.contact == Contact::Lost { " again" } else { "" };
        self.contact = Contact::Held;
        match mode {
            WelcomeMode::Resumed => info!("connected to the registry{again}: resuming at the router's revision"),
            WelcomeMode::Snapshot(_) => info!("connected to the registry{again}: a snapshot follows"),
            WelcomeMode::Withheld(_) => info!("connected to the registry{again}: it sends no configuration"),
        }
        let refusal = self.session.standing().refusal;
        if let Some(refusal) = refusal.filter(|refusal| refusal.why != HistoryRefusalWhy::StateMismatch) {
            let why = refusal.why;
            warn!(
                ?why,
                "the registry's history is refused: the last good catalog stays in use"
            );
        } else if let Some(connection) = self.stream.as_mut().and_then(|stream| stream.connection.take()) {
            // Credentials are fetched only from a registry whose history the router follows.
            self.connection.send_replace(Some(connection));
        }
    }

    /// Drops the open stream, and logs its registry and the cause: one warning until a registry is reachable again.
    fn lost(&mut self, why: &str) {
        let Some(OpenStream { registry, .. }) = self.stream.take() else {
            return;
        };
        let registry = &*registry;
        match std::mem::replace(&mut self.contact, Contact::Lost) {
            Contact::Lost => debug!(
                registry.addr = registry,
                "could still not connect to the registry {registry}: {why}"
            ),
            Contact::Held => warn!(
                registry.addr = registry,
                "lost the connection to the registry {registry}, the last catalog stays in use: {why}"
            ),
            Contact::None => warn!(
                registry.addr = registry,
                "could not connect to the registry {registry}: {why}"
            ),
        }
    }
}

async fn next_event<C>(stream: &mut Option<OpenStream<C>>) -> StreamEvent<C> {
    match stream {
        Some(stream) => match stream.events.recv().await {
            Some(event) => event,
            None => StreamEvent::Ended(Err("the task that reads the stream failed".to_owned())),
        },
        None => std::future::pending().await,
    }
}

/// Reads one stream from connecting to its end. After the receiver of the events is dropped, it keeps reading for a
/// moment.
async fn read_stream<S: Surroundings>(
    surroundings: S,
    address: http::Uri,
    upward: impl Upward,
    events: mpsc::Sender<StreamEvent<S::Connection>>,
) {
    let opened = tokio::select! {
        biased;
        opened = open_stream(&surroundings, address, upward, &events) => opened,
        () = events.closed() => return,
    };
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            let _nobody_listens = events.send(StreamEvent::Ended(Err(error))).await;
            return;
        }
    };
    loop {
        let read = tokio::select! {
            biased;
            read = stream.next() => read,
            () = events.closed() => break,
        };
        let (event, is_end) = match read {
            Some(Ok(message)) => (
                StreamEvent::Message(RegistryMessage::read(message, View::Router)),
                false,
            ),
            None => (StreamEvent::Ended(Ok(())), true),
            Some(Err(status)) => (StreamEvent::Ended(Err(described(&status))), true),
        };
        if events.send(event).await.is_err() {
            break;
        }
        if is_end {
            return;
        }
    }
    let drained = async { while let Some(Ok(_)) = stream.next().await {} };
    let _elapsed = timeout(CLOSING_MAX, drained).await;
}

async fn open_stream<S: Surroundings>(
    surroundings: &S,
    address: http::Uri,
    upward: impl Upward,
    events: &mpsc::Sender<StreamEvent<S::Connection>>,
) -> Result<Downward, String> {
    let connection = surroundings.connect(address).await?;
    let _nobody_listens = events.send(StreamEvent::Connected(connection.clone())).await;
    connection.subscribe(upward).await.map_err(|status| described(&status))
}

/// The sources of the reports on one stream.
struct SaidOnStream {
    standing: watch::Receiver<StreamStanding>,
    told: Told,
}

impl SaidOnStream {
    /// Waits until a report is due: at the first change after `earliest`, or at `latest` if nothing changes. Returns
    /// `false` if the sources of the reports have ended.
    ///
    /// # Cancel safety
    ///
    /// Cancelling the future loses no change: a change that was not reported yet is still seen afterwards.
    async fn due(&mut self, following: &mut Following, earliest: Instant, latest: Instant) -> bool {
        sleep_until(earliest).await;
        tokio::select! {
            biased;
            changed = self.standing.changed() => changed.is_ok(),
            changed = self.told.applied.changed() => changed.is_ok(),
            changed = self.told.persisted.changed() => changed.is_ok(),
            () = following.changed() => true,
            () = sleep_until(latest) => true,
        }
    }

    /// Builds a report of the newest state, with the endpoints that have changed since the last report.
    fn newest(&mut self, following: &mut Following) -> Report {
        let told = &mut self.told;
        let is_new = told.applied.has_changed().unwrap_or_default();
        let (standing, applied) = (self.standing.borrow_and_update(), told.applied.borrow_and_update());
        if is_new && let Some(catalog) = told.current.load() {
            told.models.keep(&catalog);
        }
        let persisted = told.persisted.borrow_and_update();
        report(
            &standing,
            &applied,
            *persisted,
            &following.changes(Report::ENDPOINTS_MAX),
        )
    }
}

/// The next message to the registry.
enum NextMessage {
    /// A report. `false`: no report follows, because the stream was given up.
    Report(bool),
    /// The answer of a check.
    Answer(CheckAnswer),
}

/// Returns the router's messages: the hello, then reports: one at once, one at each change, and one at each heartbeat.
/// Each report has the newest state; changes that occur while a report waits are part of it. Answers of checks are sent
/// between reports.
///
/// The messages end after the newest report, and only when the router shuts down: that tells the registry not to wait
/// for this router any longer. If the router only gives up a stream, the upward direction stays open until the registry
/// ends it, because another stream replaces this one or the registry has gone.
fn upward(
    hello: Hello,
    mut said: SaidOnStream,
    mut answers: mpsc::Receiver<CheckAnswer>,
    leaving: CancellationToken,
) -> impl Stream<Item = registry::SubscribeRequest> + Send + 'static {
    async_stream::stream! {
        let mut following = said.told.models.follow();
        yield (&RouterMessage::Hello(hello)).into();
        loop {
            let heartbeat = said.standing.borrow().heartbeat;
            let newest = said.newest(&mut following);
            yield (&RouterMessage::Report(newest)).into();
            let (earliest, latest) = (Instant::now() + REPORT_SPACING, Instant::now() + heartbeat);
            let due = loop {
                let next = tokio::select! {
                    biased;
                    due = said.due(&mut following, earliest, latest) => NextMessage::Report(due),
                    Some(answer) = answers.recv() => NextMessage::Answer(answer),
                };
                match next {
                    NextMessage::Report(due) => break due,
                    NextMessage::Answer(answer) => yield (&RouterMessage::Findings((&answer).into())).into(),
                }
            };
            if !due {
                break;
            }
        }
        leaving.cancelled().await;
    }
}

/// Describes why a stream ended: by the error of the connection, or else by the status that the registry sent.
fn described(status: &Status) -> String {
    match status.source() {
        Some(error) => Cause::of(error).to_string(),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}
