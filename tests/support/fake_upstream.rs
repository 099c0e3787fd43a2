//! A model server that does what a script says, fault by fault, and writes down what it was asked.
//!
//! It speaks HTTP/1.1 over a plain socket by hand, so that it can break every rule of it. Each request takes the next
//! script, else the usual one, which answers `hello` unless another was given. Probes come whenever they like, so what they
//! ask (`GET`) has scripts and a record of its own, and is answered by 404 without one. So is what a check asks so.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a harness fails by panicking")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part of it")]

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, timeout},
};

/// How long a test waits for something that should happen soon.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the server does with one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script(Vec<Step>);

#[derive(Debug, Clone)]
enum Step {
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// One chunk of a chunked body.
    Chunk(Vec<u8>),
    /// Nothing, for so long.
    Pause(Duration),
    /// Nothing, until the peer closes.
    Hang,
    /// The end of the connection, said or not: an orderly close.
    Close,
    /// The end of the connection by a reset.
    Reset,
    /// The same bytes as they are again and again, until the peer closes.
    Flood(Vec<u8>),
    /// So many pieces of text, by their number, one each so often.
    Pieces {
        piece: fn(usize) -> String,
        count: usize,
        every: Duration,
    },
}

impl Script {
    /// A whole answer of these pieces, with a finish reason, usage and `[DONE]`.
    pub(crate) fn answer<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Self {
        let begun = pieces.into_iter().fold(Self::stream(), Self::text);
        begun.finish("stop").usage(3, 2).done().end()
    }

    /// The header of an answer that streams events, and nothing yet.
    pub(crate) fn stream() -> Self {
        Self::head(
            200,
            &[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")],
        )
    }

    /// A response's header.
    pub(crate) fn head(status: u16, headers: &[(&str, &str)]) -> Self {
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head.push_str("\r\n");
        Self::default().raw(head)
    }

    /// A whole response that is no stream.
    pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let length = body.len().to_string();
        let mut all = vec![("content-length", length.as_str())];
        all.extend_from_slice(headers);
        Self::head(status, &all).raw(body)
    }

    /// A whole answer that is no stream, as a chat's.
    pub(crate) fn whole(text: &str) -> Self {
        let text = json_string(text);
        let body = format!(
            r#"{{"choices":[{{"index":0,"message":{{"content":{text}}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":2}}}}"#
        );
        Self::json(&body)
    }

    /// A whole response of JSON.
    pub(crate) fn json(body: &str) -> Self {
        Self::response(200, &[("content-type", "application/json")], body)
    }

    /// Nothing at all, until the peer closes.
    pub(crate) fn silence() -> Self {
        Self::default().hang()
    }

    /// The connection ends without a word.
    pub(crate) fn closed() -> Self {
        Self::default().close()
    }

    /// The connection is reset without a word.
    pub(crate) fn broken() -> Self {
        Self::default().reset()
    }

    /// A piece of text, as a chat's chunk.
    pub(crate) fn text(self, text: &str) -> Self {
        self.chunk(text_event(text))
    }

    /// A finish reason.
    pub(crate) fn finish(self, reason: &str) -> Self {
        self.event(&format!(
            r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#
        ))
    }

    /// A usage chunk.
    pub(crate) fn usage(self, input: u32, output: u32) -> Self {
        self.event(&format!(
            r#"{{"choices":[],"usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}}}"#
        ))
    }

    /// The mark of the end.
    pub(crate) fn done(self) -> Self {
        self.event("[DONE]")
    }

    /// One event with this data.
    pub(crate) fn event(self, data: &str) -> Self {
        self.chunk(format!("data: {data}\n\n"))
    }

    /// One chunk of the body.
    pub(crate) fn chunk(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Chunk(bytes.into()))
    }

    /// Bytes outside all rules.
    pub(crate) fn raw(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Raw(bytes.into()))
    }

    /// The orderly end of a chunked body; the connection stays.
    pub(crate) fn end(self) -> Self {
        self.raw("0\r\n\r\n")
    }

    /// A pause.
    pub(crate) fn pause(self, pause: Duration) -> Self {
        self.step(Step::Pause(pause))
    }

    /// Nothing more, until the peer closes.
    pub(crate) fn hang(self) -> Self {
        self.step(Step::Hang)
    }

    /// The connection is closed here.
    pub(crate) fn close(self) -> Self {
        self.step(Step::Close)
    }

    /// The connection is reset here.
    pub(crate) fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    /// This chunk without end.
    pub(crate) fn flood(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Flood(framed(&bytes.into())))
    }

    /// These bytes outside all rules, without end.
    pub(crate) fn flood_raw(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Flood(bytes.into()))
    }

    /// So many pieces of text, which have numbers, one each so often.
    pub(crate) fn pieces(self, piece: fn(usize) -> String, count: usize, every: Duration) -> Self {
        self.step(Step::Pieces { piece, count, every })
    }

    fn step(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// The number of the connection that it came on, from 0, among those that calls came on.
    pub(crate) connection: usize,
    /// Method and path.
    pub(crate) line: String,
    /// Headers, names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// The body.
    pub(crate) body: String,
}

#[derive(Debug, Default)]
struct Log {
    requests: Vec<Received>,
    probes: Vec<Received>,
    /// When each connection was closed.
    connections: Vec<Option<Instant>>,
    /// How many scripts play for calls, and how many did at most.
    playing: usize,
    playing_most: usize,
}

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct FakeUpstream {
    port: u16,
    scripts: Arc<Mutex<VecDeque<Script>>>,
    probe_scripts: Arc<Mutex<VecDeque<Script>>>,
    /// The usual answer to who asks for its list of models.
    list: Arc<Mutex<Option<Script>>>,
    log: watch::Sender<Log>,
    server: JoinSet<()>,
}

impl FakeUpstream {
    /// Starts a server on a port of its own.
    pub(crate) async fn start() -> Self {
        Self::always(Script::answer(["hello"])).await
    }

    /// Starts a server that follows this script whenever no other is lined up.
    pub(crate) async fn always(usual: Script) -> Self {
        Self::on("127.0.0.1", 0, usual).await
    }

    /// Ends the server with all its connections. What is told is the port, for another.
    pub(crate) async fn kill(mut self) -> u16 {
        self.server.shutdown().await;
        self.port
    }

    /// Starts a server on this port.
    pub(crate) async fn on_port(port: u16, usual: Script) -> Self {
        Self::on("127.0.0.1", port, usual).await
    }

    /// Starts another server on the same port of `127.0.0.2`, for names that have both addresses.
    pub(crate) async fn beside(&self, usual: Script) -> Self {
        Self::on("127.0.0.2", self.port, usual).await
    }

    async fn on(address: &str, port: u16, usual: Script) -> Self {
        let listener = TcpListener::bind((address, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scripts = Arc::<Mutex<VecDeque<Script>>>::default();
        let probe_scripts = Arc::<Mutex<VecDeque<Script>>>::default();
        let list = Arc::<Mutex<Option<Script>>>::default();
        let log = watch::Sender::new(Log::default());
        let mut server = JoinSet::new();
        let play = Play {
            usual,
            scripts: Arc::clone(&scripts),
            probe_scripts: Arc::clone(&probe_scripts),
            list: Arc::clone(&list),
            log: log.clone(),
        };
        server.spawn(serve(listener, play));
        Self {
            port,
            scripts,
            probe_scripts,
            list,
            log,
            server,
        }
    }

    /// Lines up a script for the next request that has none yet.
    pub(crate) fn then(&self, script: Script) -> &Self {
        self.scripts.lock().push_back(script);
        self
    }

    /// Lines up a script for the next probe that has none yet.
    pub(crate) fn probed(&self, script: Script) -> &Self {
        self.probe_scripts.lock().push_back(script);
        self
    }

    /// Answers so whenever it is asked for its list of models.
    pub(crate) fn listing(&self, script: Script) -> &Self {
        *self.list.lock() = Some(script);
        self
    }

    /// All that probes have asked so far.
    pub(crate) fn probes(&self) -> Vec<Received> {
        self.log.borrow().probes.clone()
    }

    /// Waits until a probe has asked something.
    pub(crate) async fn is_probed(&self) {
        let mut log = self.log.subscribe();
        let seen = timeout(PATIENCE, log.wait_for(|log| !log.probes.is_empty())).await;
        seen.expect("a probe should come").unwrap();
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The base URL by a name that leads here.
    pub(crate) fn url_by(&self, name: &str) -> String {
        format!("http://{name}:{}/v1", self.port)
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.log.borrow().requests.clone()
    }

    /// The request of a number, from 0, once it has come.
    pub(crate) async fn request(&self, number: usize) -> Received {
        let mut log = self.log.subscribe();
        let seen = timeout(PATIENCE, log.wait_for(|log| log.requests.len() > number)).await;
        seen.expect("the request should come").unwrap().requests[number].clone()
    }

    /// Waits until there was a connection of a number, from 0.
    pub(crate) async fn opened(&self, connection: usize) {
        let mut log = self.log.subscribe();
        let seen = timeout(PATIENCE, log.wait_for(|log| log.connections.len() > connection)).await;
        seen.expect("the connection should be opened").unwrap();
    }

    /// Waits until the connection of a number, from 0, is closed by the peer or by the script; says when that was.
    pub(crate) async fn closed(&self, connection: usize) -> Instant {
        let mut log = self.log.subscribe();
        let when = |log: &Log| log.connections.get(connection).copied().flatten();
        let seen = timeout(PATIENCE, log.wait_for(|log| when(log).is_some())).await;
        let seen = seen.expect("the connection should be closed").unwrap();
        when(&seen).unwrap()
    }

    /// How many calls were there at the same time at most.
    pub(crate) fn calls_at_once(&self) -> usize {
        self.log.borrow().playing_most
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> usize {
        self.log.borrow().connections.len()
    }
}

/// What connections share.
#[derive(Clone)]
struct Play {
    usual: Script,
    scripts: Arc<Mutex<VecDeque<Script>>>,
    probe_scripts: Arc<Mutex<VecDeque<Script>>>,
    /// The usual answer to who asks for its list of models.
    list: Arc<Mutex<Option<Script>>>,
    log: watch::Sender<Log>,
}

impl Play {
    /// The number of a connection on which a call comes.
    fn number(&self, connection: &mut Option<usize>) -> usize {
        *connection.get_or_insert_with(|| {
            let mut number = 0;
            self.log.send_modify(|log| {
                number = log.connections.len();
                log.connections.push(None);
            });
            number
        })
    }

    /// Takes a request down, and tells what it gets.
    fn script(&self, mut request: Received, connection: &mut Option<usize>) -> Script {
        if request.line.starts_with("GET ") {
            let is_list = request.line.starts_with("GET /v1/models ");
            self.log.send_modify(|log| log.probes.push(request));
            let script = self.probe_scripts.lock().pop_front();
            let usual = || self.list.lock().clone().filter(|_| is_list);
            return script.or_else(usual).unwrap_or_else(|| Script::response(404, &[], ""));
        }
        request.connection = self.number(connection);
        let script = self.scripts.lock().pop_front();
        self.log.send_modify(|log| log.requests.push(request));
        script.unwrap_or_else(|| self.usual.clone())
    }

    /// Counts a call that has come, until what is returned is dropped.
    fn playing(&self) -> Playing {
        self.log.send_modify(|log| {
            log.playing += 1;
            log.playing_most = log.playing_most.max(log.playing);
        });
        Playing(self.log.clone())
    }
}

/// A call that is being answered.
struct Playing(watch::Sender<Log>);

impl Drop for Playing {
    fn drop(&mut self) {
        self.0.send_modify(|log| log.playing -= 1);
    }
}

async fn serve(listener: TcpListener, play: Play) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let play = play.clone();
        connections.spawn(async move {
            let mut number = None;
            // Whoever ended it, and however: here it only matters that it ended.
            converse(socket, &mut number, &play).await.ok();
            if let Some(number) = number {
                play.log
                    .send_modify(|log| log.connections[number] = Some(Instant::now()));
            }
        });
    }
}

async fn converse(mut socket: TcpStream, number: &mut Option<usize>, play: &Play) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut unread = Vec::new();
    socket.read_buf(&mut unread).await?;
    // Also where it never becomes a request, as a TLS handshake does not.
    if !unread.is_empty() && !unread.starts_with(b"GET") {
        play.number(number);
    }
    while let Some(request) = receive(&mut socket, &mut unread).await? {
        let _playing = request.line.starts_with("POST ").then(|| play.playing());
        for step in play.script(request, number).0 {
            match step {
                Step::Raw(bytes) => socket.write_all(&bytes).await?,
                Step::Chunk(bytes) => socket.write_all(&framed(&bytes)).await?,
                Step::Pause(pause) => {
                    // A peer that goes meanwhile is noticed at once.
                    if let Ok(gone) = timeout(pause, hang(&mut socket)).await {
                        return gone;
                    }
                }
                Step::Hang => return hang(&mut socket).await,
                Step::Close => return Ok(()),
                Step::Reset => return socket.set_zero_linger(),
                Step::Flood(bytes) => loop {
                    socket.write_all(&bytes).await?;
                },
                Step::Pieces { piece, count, every } => {
                    let mut pace = interval(every);
                    for number in 0..count {
                        pace.tick().await;
                        socket.write_all(&framed(text_event(&piece(number)).as_bytes())).await?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Waits until the peer closes.
async fn hang(socket: &mut TcpStream) -> std::io::Result<()> {
    let mut nothing = [0; 64];
    while socket.read(&mut nothing).await? > 0 {}
    Ok(())
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = format!("{:x}\r\n", bytes.len()).into_bytes();
    frame.extend_from_slice(bytes);
    frame.extend_from_slice(b"\r\n");
    frame
}

/// The next request. `None`: the peer closed.
async fn receive(socket: &mut TcpStream, unread: &mut Vec<u8>) -> std::io::Result<Option<Received>> {
    let head_end = loop {
        if let Some(end) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = unread.drain(..head_end).collect();
    let head = String::from_utf8(head).expect("a request's header is text");
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while unread.len() < length {
        if socket.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    }
    let body = String::from_utf8(unread.drain(..length).collect()).expect("a request's body is text");
    Ok(Some(Received {
        connection: 0,
        line,
        headers,
        body,
    }))
}

/// A piece of text, as the event of a chat's chunk.
fn text_event(text: &str) -> String {
    let text = json_string(text);
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text}}}}}]}}\n\n")
}

fn json_string(text: &str) -> String {
    let mut json = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            _ if character.is_control() => write!(json, "\\u{:04x}", u32::from(character)).unwrap(),
            _ => json.push(character),
        }
    }
    json.push('"');
    json
}
