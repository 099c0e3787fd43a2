//! The stream to the registry: dials, reads, reports, and lets the session decide.
//!
//! Each stream has its own connection, so that a new try never goes into a dead one. Reading goes on whatever is compiled,
//! fetched or reported: the two directions share nothing but watched values, of which only the newest counts.

use std::{sync::Arc, time::Duration};

use futures_util::Stream;
use switchboard::{
    pb::registry::{self, config_service_client::ConfigServiceClient},
    service::chain::Chain,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::{
    Applied, SubscriptionConfig,
    received::Received,
    session::{Action, Closed, End, Event, Message, Mode, RefusalWhy, Session, Standing},
};
use crate::{
    current::Current,
    endpoints::{Endpoints, Following},
    wire::change::{ENDPOINTS_MAX, MessageError, hello, report},
};

const CONNECT_MAX: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_MAX: Duration = Duration::from_secs(20);
/// A message of the registry is at most one part of 64 KiB, or one resource of 256 KiB.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Reports follow each other no closer.
const REPORT_SPACING: Duration = Duration::from_millis(50);
/// How long a stream that the router ends is still read, so that its last report gets through.
const CLOSING_MAX: Duration = Duration::from_secs(1);
/// Messages between the socket and the session. Full: the socket is not read, and the registry waits.
const MESSAGES_MAX: usize = 16;

/// The driver of one session.
pub(super) struct Link {
    config: Arc<SubscriptionConfig>,
    current: Arc<Current>,
    endpoints: Endpoints,
    /// Cancelled when the router shuts down: only then a stream may end as if nobody need wait for this router.
    leaving: CancellationToken,
    session: Session,
    begin: Instant,
    received: watch::Sender<Option<Arc<Received>>>,
    channel: watch::Sender<Option<Channel>>,
    applied: watch::Receiver<Applied>,
    stream: Option<OpenStream>,
    /// The tasks that read: that of the open stream, and those of streams that are being ended.
    readers: JoinSet<()>,
    contact: Contact,
}

/// The session's end of an open stream.
struct OpenStream {
    events: mpsc::Receiver<StreamEvent>,
    /// Dropped, it ends the upward direction behind the newest report.
    standing: watch::Sender<Standing>,
    /// The connection, until the registry has answered over it.
    channel: Option<Channel>,
}

enum StreamEvent {
    Connected(Channel),
    Message(Result<Message, MessageError>),
    Ended(Result<(), String>),
}

#[derive(PartialEq)]
enum Contact {
    None,
    Held,
    Lost,
}

impl Link {
    pub(super) fn new(
        config: Arc<SubscriptionConfig>,
        current: Arc<Current>,
        endpoints: Endpoints,
        received: watch::Sender<Option<Arc<Received>>>,
        channel: watch::Sender<Option<Channel>>,
        applied: watch::Receiver<Applied>,
    ) -> Self {
        Self {
            session: Session::new(config.registry_addrs.len(), fastrand::u64(..)),
            config,
            current,
            endpoints,
            leaving: CancellationToken::new(),
            begin: Instant::now(),
            received,
            channel,
            applied,
            stream: None,
            readers: JoinSet::new(),
            contact: Contact::None,
        }
    }

    /// Follows the registry until it is cancelled; then the stream is ended in order.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        loop {
            let wake = self.begin + self.session.wake_at();
            let event = tokio::select! {
                () = cancel.cancelled() => break,
                () = sleep_until(wake) => Some(Event::Timer),
                event = next_event(&mut self.stream) => self.read(event),
            };
            if let Some(event) = event {
                let actions = self.session.step(self.begin.elapsed(), event);
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

    /// What an event of the stream means to the session.
    fn read(&mut self, event: StreamEvent) -> Option<Event> {
        match event {
            StreamEvent::Connected(channel) => {
                if let Some(stream) = &mut self.stream {
                    stream.channel = Some(channel);
                }
                None
            }
            StreamEvent::Message(message) => {
                self.current.touch();
                Some(message.map_or(Event::Unreadable, Event::Message))
            }
            StreamEvent::Ended(end) => {
                self.stream = None;
                Some(Event::Ended(match end {
                    Ok(()) => {
                        debug!("the registry ended the stream");
                        End::Ok
                    }
                    Err(error) => {
                        self.lost(&error);
                        End::Failed
                    }
                }))
            }
        }
    }

    /// Hands the newest standing to the reports, which wake only when it has changed.
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
                let hello = hello(config, resume.as_ref(), want_snapshot);
                if let Some(address) = config.registry_addrs.get(address).cloned() {
                    self.open(address, hello);
                }
            }
            Action::Opened(mode) => self.opened(mode),
            Action::Install(received) => {
                self.received.send_replace(Some(received));
            }
            Action::Repeated(revision) => debug!(%revision, "the changes up to revision {revision} came again"),
            Action::Stalled(head) => warn!(
                %head,
                "the registry's writer is stuck at revision {head}: changes may be late"
            ),
            Action::Unstalled => info!("the registry's writer gets on again"),
            Action::Close(why) => {
                self.stream = None;
                match why {
                    Closed::Goodbye => info!("the registry said goodbye: connecting again"),
                    Closed::Refused => debug!("asking another registry, since the history of this one is refused"),
                    Closed::TooSlow => warn!("{why}: connecting again"),
                    Closed::Mismatch => warn!("{why}: asking for a snapshot"),
                    Closed::Opening | Closed::Silent | Closed::Gap | Closed::Protocol => self.lost(&why.to_string()),
                }
            }
        }
    }

    fn open(&mut self, address: http::Uri, hello: registry::SubscribeRequest) {
        while self.readers.try_join_next().is_some() {}
        let (events_in, events) = mpsc::channel(MESSAGES_MAX);
        let (standing, standing_out) = watch::channel(self.session.standing());
        let said = Said {
            standing: standing_out,
            applied: self.applied.clone(),
            endpoints: self.endpoints.clone(),
            current: Arc::clone(&self.current),
        };
        let upward = upward(hello, said, self.leaving.clone());
        let span = info_span!("stream", registry.addr = %address);
        self.readers
            .spawn(read_stream(address, upward, events_in).instrument(span));
        self.stream = Some(OpenStream {
            events,
            standing,
            channel: None,
        });
    }

    fn opened(&mut self, mode: Mode) {
        let again = if self.contact == Contact::Lost { " again" } else { "" };
        self.contact = Contact::Held;
        match mode {
            Mode::Resumed => info!("connected to the registry{again}: following where the router was"),
            Mode::Snapshot { .. } => info!("connected to the registry{again}: a snapshot follows"),
            Mode::Withheld { .. } => info!("connected to the registry{again}: it sends no configuration"),
        }
        let refusal = self.session.standing().refusal;
        if let Some(refusal) = refusal.filter(|refusal| refusal.why != RefusalWhy::StateMismatch) {
            let why = refusal.why;
            warn!(
                ?why,
                "the registry's history is refused: the last good catalog stays in use"
            );
        } else if let Some(channel) = self.stream.as_mut().and_then(|stream| stream.channel.take()) {
            // Credentials come only from a registry whose history is followed.
            self.channel.send_replace(Some(channel));
        }
    }

    /// Warns once until the registry is back.
    fn lost(&mut self, why: &str) {
        match std::mem::replace(&mut self.contact, Contact::Lost) {
            Contact::Lost => debug!("still without the registry: {why}"),
            Contact::Held => warn!("lost the registry, the last catalog stays in use: {why}"),
            Contact::None => warn!("cannot reach the registry: {why}"),
        }
    }
}

async fn next_event(stream: &mut Option<OpenStream>) -> StreamEvent {
    match stream {
        Some(stream) => match stream.events.recv().await {
            Some(event) => event,
            None => StreamEvent::Ended(Err("the reader broke off".to_owned())),
        },
        None => std::future::pending().await,
    }
}

/// Reads one stream from its dial to its end. When nobody listens any longer it still reads for a moment.
async fn read_stream(
    address: http::Uri,
    upward: impl Stream<Item = registry::SubscribeRequest> + Send + 'static,
    events: mpsc::Sender<StreamEvent>,
) {
    let opened = tokio::select! {
        opened = open_stream(address, upward, &events) => opened,
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
            read = stream.message() => read,
            () = events.closed() => break,
        };
        let (event, is_end) = match read {
            Ok(Some(message)) => (StreamEvent::Message(message.try_into()), false),
            Ok(None) => (StreamEvent::Ended(Ok(())), true),
            Err(status) => (StreamEvent::Ended(Err(described(&status))), true),
        };
        if events.send(event).await.is_err() {
            break;
        }
        if is_end {
            return;
        }
    }
    let drained = async { while let Ok(Some(_)) = stream.message().await {} };
    let _elapsed = timeout(CLOSING_MAX, drained).await;
}

async fn open_stream(
    address: http::Uri,
    upward: impl Stream<Item = registry::SubscribeRequest> + Send + 'static,
    events: &mpsc::Sender<StreamEvent>,
) -> Result<Streaming<registry::SubscribeResponse>, String> {
    let channel = Endpoint::from(address)
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_MAX)
        .connect()
        .await
        .map_err(|error| Chain(&error).to_string())?;
    let _nobody_listens = events.send(StreamEvent::Connected(channel.clone())).await;
    let mut client = ConfigServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let answer = client.subscribe(upward).await.map_err(|status| described(&status))?;
    Ok(answer.into_inner())
}

/// What is said of the router on one stream.
struct Said {
    standing: watch::Receiver<Standing>,
    applied: watch::Receiver<Applied>,
    endpoints: Endpoints,
    current: Arc<Current>,
}

impl Said {
    /// The newest of all, with what has changed of endpoints since the last report.
    fn newest(&mut self, following: &mut Following) -> registry::SubscribeRequest {
        let is_new = self.applied.has_changed().unwrap_or_default();
        let (standing, applied) = (self.standing.borrow_and_update(), self.applied.borrow_and_update());
        if is_new && let Some(catalog) = self.current.load() {
            self.endpoints.keep(&catalog);
        }
        report(&standing, &applied, &following.changes(ENDPOINTS_MAX))
    }
}

/// What the router says: the hello, then a report at once, at each change, and once a heartbeat. The newest counts: what
/// changes while one waits goes with it.
///
/// It ends behind the newest report, and only when the router shuts down: nobody need wait for it then. Where the router
/// only gives up a stream, it stays open in this direction until the registry ends it, since the next stream has taken its
/// place or nothing comes any longer.
fn upward(
    hello: registry::SubscribeRequest,
    mut said: Said,
    leaving: CancellationToken,
) -> impl Stream<Item = registry::SubscribeRequest> + Send + 'static {
    async_stream::stream! {
        let mut following = said.endpoints.follow();
        yield hello;
        loop {
            let heartbeat = said.standing.borrow().heartbeat;
            let newest = said.newest(&mut following);
            yield newest;
            sleep(REPORT_SPACING).await;
            let due = tokio::select! {
                changed = said.standing.changed() => changed.is_ok(),
                changed = said.applied.changed() => changed.is_ok(),
                () = following.changed() => true,
                () = sleep(heartbeat.saturating_sub(REPORT_SPACING)) => true,
            };
            if !due {
                break;
            }
        }
        leaving.cancelled().await;
    }
}

fn described(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
