//! A router implemented by hand: a `Subscribe` stream on a connection of its own.

use std::{net::SocketAddr, ops::Range, time::Duration};

use rustix::process::{Resource as Limit, getrlimit, setrlimit};
use switchboard::{
    names::InstanceId,
    pb::{
        registry::{
            CreateModelRequest, Hello, Model, Report, SubscribeRequest, SubscribeResponse, UpdateModelRequest, Welcome,
            config_service_client::ConfigServiceClient, model_service_client::ModelServiceClient,
            subscribe_request::Kind as Up, subscribe_response::Kind,
        },
        types::Cursor,
    },
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval_at, timeout},
};
use tokio_stream::{
    StreamExt as _,
    wrappers::{IntervalStream, ReceiverStream},
};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    harness::{PATIENCE, Pair, Service},
    mirror::Mirror,
};

/// How often a peer that sends nothing else sends an empty report as a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The router's side of the protocol.
#[derive(Debug)]
pub(crate) struct Peer {
    registry: SocketAddr,
    pub(crate) hello: Hello,
    /// HTTP/2 window of the connection and of the stream, in bytes. `None`: the default.
    pub(crate) window: Option<u32>,
    pub(crate) mirror: Mirror,
}

/// An open stream of a peer.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) welcome: Welcome,
    up: mpsc::Sender<SubscribeRequest>,
    down: Streaming<SubscribeResponse>,
}

impl Peer {
    pub(crate) fn new(registry: &Service, router_id: impl Into<String>) -> Self {
        let hello = Hello {
            router_id: router_id.into(),
            instance: InstanceId::random().to_string(),
            ..Default::default()
        };
        Self {
            registry: registry.listen_addr,
            hello,
            window: None,
            mirror: Mirror::default(),
        }
    }

    /// Sends the hello with its current cursor and reads the welcome.
    pub(crate) async fn open(&mut self) -> Result<Open, Status> {
        self.mirror.begin();
        let mut hello = self.hello.clone();
        hello.resume = hello
            .resume
            .or_else(|| Some(self.cursor().clone()).filter(|cursor| cursor.revision > 0));
        let (up, mut down) = dial(self.registry, self.window).await?;
        drop(up.send(up_message(Up::Hello(hello))).await);
        let welcome = match next(&mut down).await? {
            Some(Kind::Welcome(welcome)) => welcome,
            other => panic!("the first message must be a welcome, not {other:?}"),
        };
        Ok(Open { welcome, up, down })
    }

    /// Reads until the mirror has reached a revision.
    pub(crate) async fn read_to(&mut self, open: &mut Open, revision: i64) -> Result<(), Status> {
        while self.mirror.revision() < revision {
            match open.next().await? {
                Some(Kind::Goodbye(goodbye)) => return Err(Status::cancelled(format!("{goodbye:?}"))),
                Some(kind) => self.mirror.take(kind),
                None => return Err(Status::cancelled("the stream ended")),
            }
        }
        Ok(())
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        self.mirror.cursor()
    }
}

impl Open {
    /// Reads the next message, which must arrive soon. Returns `None` if the stream ended without an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Kind>, Status> {
        next(&mut self.down).await
    }

    pub(crate) async fn say(&self, kind: Up) {
        self.say_raw(up_message(kind)).await;
    }

    /// Returns once the message is queued. A message that the registry no longer reads is lost.
    pub(crate) async fn say_raw(&self, message: SubscribeRequest) {
        drop(
            timeout(PATIENCE, self.up.send(message))
                .await
                .expect("the registry keeps reading"),
        );
    }
}

/// Opens a stream without sending a hello.
pub(crate) async fn dial(
    registry: SocketAddr,
    window: Option<u32>,
) -> Result<(mpsc::Sender<SubscribeRequest>, Streaming<SubscribeResponse>), Status> {
    let channel = Endpoint::from_shared(format!("http://{registry}"))
        .unwrap()
        .initial_connection_window_size(window)
        .initial_stream_window_size(window)
        .connect()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let (up, messages) = mpsc::channel(1);
    let signs = IntervalStream::new(interval_at(Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE));
    let signs = signs.map(|_| up_message(Up::Report(Report::default())));
    let messages = ReceiverStream::new(messages).merge(signs);
    let down = ConfigServiceClient::new(channel)
        .subscribe(messages)
        .await?
        .into_inner();
    Ok((up, down))
}

pub(crate) async fn next(down: &mut Streaming<SubscribeResponse>) -> Result<Option<Kind>, Status> {
    let message = timeout(PATIENCE, down.message()).await.expect("the stream continues")?;
    Ok(message.map(|message| message.kind.expect("a kind is set")))
}

fn up_message(kind: Up) -> SubscribeRequest {
    SubscribeRequest { kind: Some(kind) }
}

/// Raises the limit of open files, because each follower needs one socket on either side.
pub(crate) fn allow_many_sockets() {
    let mut limit = getrlimit(Limit::Nofile);
    limit.current = limit.maximum;
    setrlimit(Limit::Nofile, limit).unwrap();
}

/// Writes models of about 4 KiB each and returns the newest revision. Round 0 creates them, a later `round` updates
/// them.
pub(crate) async fn write_models(pair: &Pair, numbers: Range<usize>, round: u32) -> i64 {
    let mut writing = JoinSet::new();
    let mut newest = 0;
    for number in numbers {
        if writing.len() == 16 {
            newest = newest.max(writing.join_next().await.unwrap().unwrap());
        }
        let models = pair.models();
        writing.spawn(async move { write_model(models, number, round).await.unwrap() });
    }
    writing.join_all().await.into_iter().fold(newest, i64::max)
}

/// Writes one of the models of [`write_models`].
pub(crate) async fn write_model(
    mut models: ModelServiceClient<Channel>,
    number: usize,
    round: u32,
) -> Result<i64, Status> {
    let mut model = Model {
        name: format!("models/heavy-{number}"),
        display_name: Some(format!("Heavy {number}")),
        labels: (0..16)
            .map(|label| (format!("label-{label}"), format!("{round:0>250}")))
            .collect(),
        ..Default::default()
    };
    if round > 0 {
        let request = UpdateModelRequest {
            model: Some(model),
            ..Default::default()
        };
        return Ok(models.update_model(request).await?.into_inner().revision);
    }
    model.family = Some("mistral".to_owned());
    model.endpoint = Some("http://127.0.0.1:9".to_owned());
    let request = CreateModelRequest {
        model: Some(model),
        ..Default::default()
    };
    Ok(models.create_model(request).await?.into_inner().revision)
}

/// Reads a number from the environment; `.ci/long` sets larger ones.
pub(crate) fn number(name: &str, default: usize) -> usize {
    std::env::var_os(name).map_or(default, |text| text.to_str().unwrap().parse().unwrap())
}
