//! A scripted model server that can produce every fault and records the requests that it receives.
//!
//! It speaks HTTP/1.1 by hand over a plain socket, so that it can violate the protocol in any way. Each request takes
//! the next queued script, or else the default script, which answers `hello` unless the test sets another. Probes and
//! connection checks send `GET` requests at any time, so `GET` requests have a queue of scripts and a record of their
//! own; without a script the answer is 404.
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

/// How long a test waits for an event that should happen soon.
const PATIENCE: Duration = Duration::from_secs(10);

/// The steps of the server for one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script(Vec<Step>);

#[derive(Debug, Clone)]
enum Step {
    /// Raw bytes.
    Raw(Vec<u8>),
    /// One chunk of a chunked body.
    Chunk(Vec<u8>),
    /// Sends nothing for this long.
    Pause(Duration),
    /// Sends nothing until the peer closes the connection.
    Hang,
    /// Closes the connection in the orderly way, whether or not the response is complete.
    Close,
    /// Resets the connection.
    Reset,
    /// Sends the same raw bytes again and again until the peer closes the connection.
    Flood(Vec<u8>),
    /// Sends `count` numbered pieces of text, one per interval `every`.
    Pieces {
        piece: fn(usize) -> String,
        count: usize,
        every: Duration,
    },
}

impl Script {
    /// A complete streamed answer of these pieces, with a finish reason, usage and `[DONE]`.
    pub(crate) fn answer<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Self {
        let begun = pieces.into_iter().fold(Self::stream(), Self::text);
        begun.finish("stop").usage(3, 2).done().end()
    }

    /// The header of an answer that streams events, without any event.
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

    /// A complete response that is not a stream.
    pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let length = body.len().to_string();
        let mut all = vec![("content-length", length.as_str())];
        all.extend_from_slice(headers);
        Self::head(status, &all).raw(body)
    }

    /// A complete chat answer that is not a stream.
    pub(crate) fn whole(text: &str) -> Self {
        let text = json_string(text);
        let body = format!(
            r#"{{"choices":[{{"index":0,"message":{{"content":{text}}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":2}}}}"#
        );
        Self::json(&body)
    }

    /// A complete response with a JSON body.
    pub(crate) fn json(body: &str) -> Self {
        Self::response(200, &[("content-type", "application/json")], body)
    }

    /// Sends nothing until the peer closes the connection.
    pub(crate) fn silence() -> Self {
        Self::default().hang()
    }

    /// Closes the connection without a response.
    pub(crate) fn closed() -> Self {
        Self::default().close()
    }

    /// Resets the connection without a response.
    pub(crate) fn broken() -> Self {
        Self::default().reset()
    }

    /// Adds a piece of text as a chat chunk.
    pub(crate) fn text(self, text: &str) -> Self {
        self.chunk(text_event(text))
    }

    /// Adds a finish reason.
    pub(crate) fn finish(self, reason: &str) -> Self {
        self.event(&format!(
            r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#
        ))
    }

    /// Adds a usage chunk.
    pub(crate) fn usage(self, input: u32, output: u32) -> Self {
        self.event(&format!(
            r#"{{"choices":[],"usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}}}"#
        ))
    }

    /// Adds the end marker `[DONE]`.
    pub(crate) fn done(self) -> Self {
        self.event("[DONE]")
    }

    /// Adds one event with this data.
    pub(crate) fn event(self, data: &str) -> Self {
        self.chunk(format!("data: {data}\n\n"))
    }

    /// Adds one chunk of the body.
    pub(crate) fn chunk(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Chunk(bytes.into()))
    }

    /// Adds raw bytes, which may violate the protocol.
    pub(crate) fn raw(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Raw(bytes.into()))
    }

    /// Ends a chunked body in the orderly way; the connection stays open.
    pub(crate) fn end(self) -> Self {
        self.raw("0\r\n\r\n")
    }

    /// Adds a pause.
    pub(crate) fn pause(self, pause: Duration) -> Self {
        self.step(Step::Pause(pause))
    }

    /// Sends nothing more until the peer closes the connection.
    pub(crate) fn hang(self) -> Self {
        self.step(Step::Hang)
    }

    /// Closes the connection at this point.
    pub(crate) fn close(self) -> Self {
        self.step(Step::Close)
    }

    /// Resets the connection at this point.
    pub(crate) fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    /// Repeats this chunk without end.
    pub(crate) fn flood(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Flood(framed(&bytes.into())))
    }

    /// Repeats these raw bytes without end.
    pub(crate) fn flood_raw(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Flood(bytes.into()))
    }

    /// Adds `count` numbered pieces of text, one per interval `every`.
    pub(crate) fn pieces(self, piece: fn(usize) -> String, count: usize, every: Duration) -> Self {
        self.step(Step::Pieces { piece, count, every })
    }

    fn step(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}

/// A request that the server received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Index of the connection on which the request arrived, counting only connections that carried calls.
    pub(crate) connection: usize,
    /// Method, path and HTTP version.
    pub(crate) line: String,
    /// Headers, with names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// The body.
    pub(crate) body: String,
}

#[derive(Debug, Default)]
struct Log {
    requests: Vec<Received>,
    probes: Vec<Received>,
    /// When each connection was closed. `None`: it is still open.
    connections: Vec<Option<Instant>>,
    /// How many scripts are playing for calls now, and the maximum so far.
    playing: usize,
    playing_most: usize,
}

/// The server. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct FakeUpstream {
    port: u16,
    scripts: Arc<Mutex<VecDeque<Script>>>,
    probe_scripts: Arc<Mutex<VecDeque<Script>>>,
    /// The default answer to requests for the list of models.
    list: Arc<Mutex<Option<Script>>>,
    log: watch::Sender<Log>,
    server: JoinSet<()>,
}

impl FakeUpstream {
    /// Starts a server with the default script on a free port.
    pub(crate) async fn start() -> Self {
        Self::always(Script::answer(["hello"])).await
    }

    /// Starts a server that follows this script whenever no other script is queued.
    pub(crate) async fn always(usual: Script) -> Self {
        Self::on("127.0.0.1", 0, usual).await
    }

    /// Ends the server with all its connections. Returns its port, so that another server can be started there.
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

    /// Queues a script for the next call that has none yet.
    pub(crate) fn then(&self, script: Script) -> &Self {
        self.scripts.lock().push_back(script);
        self
    }

    /// Queues a script for the next probe that has none yet.
    pub(crate) fn probed(&self, script: Script) -> &Self {
        self.probe_scripts.lock().push_back(script);
        self
    }

    /// Sets the answer to every request for the list of models.
    pub(crate) fn listing(&self, script: Script) -> &Self {
        *self.list.lock() = Some(script);
        self
    }

    /// Returns all probes received so far.
    pub(crate) fn probes(&self) -> Vec<Received> {
        self.log.borrow().probes.clone()
    }

    /// Waits until the server has received a probe.
    pub(crate) async fn is_probed(&self) {
        let mut log = self.log.subscribe();
        let seen = timeout(PATIENCE, log.wait_for(|log| !log.probes.is_empty())).await;
        seen.expect("a probe should arrive").unwrap();
    }

    /// Returns the address on which the server listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Returns the base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Returns the base URL with a host name that resolves to this server.
    pub(crate) fn url_by(&self, name: &str) -> String {
        format!("http://{name}:{}/v1", self.port)
    }

    /// Returns all calls received so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.log.borrow().requests.clone()
    }

    /// Waits for the call with this index and returns it.
    pub(crate) async fn request(&self, number: usize) -> Received {
        let mut log = self.log.subscribe();
        let seen = timeout(PATIENCE, log.wait_for(|log| log.requests.len() > number)).await;
        seen.expect("the request should arrive").unwrap().requests[number].clone()
    }

    /// Waits until the connection with this index has been opened.
    pub(crate) async fn opened(&self, connection: usize) {
        let mut log = self.log.subscribe();
        let seen = timeout(PATIENCE, log.wait_for(|log| log.connections.len() > connection)).await;
        seen.expect("the connection should be opened").unwrap();
    }

    /// Waits until the connection with this index is closed by the peer or by the script, and returns when that
    /// happened.
    pub(crate) async fn closed(&self, connection: usize) -> Instant {
        let mut log = self.log.subscribe();
        let when = |log: &Log| log.connections.get(connection).copied().flatten();
        let seen = timeout(PATIENCE, log.wait_for(|log| when(log).is_some())).await;
        let seen = seen.expect("the connection should be closed").unwrap();
        when(&seen).unwrap()
    }

    /// Returns the maximum number of calls that were in progress at the same time.
    pub(crate) fn calls_at_once(&self) -> usize {
        self.log.borrow().playing_most
    }

    /// Returns how many connections have been opened so far.
    pub(crate) fn connections(&self) -> usize {
        self.log.borrow().connections.len()
    }
}

/// State that the connections share.
#[derive(Clone)]
struct Play {
    usual: Script,
    scripts: Arc<Mutex<VecDeque<Script>>>,
    probe_scripts: Arc<Mutex<VecDeque<Script>>>,
    /// The default answer to requests for the list of models.
    list: Arc<Mutex<Option<Script>>>,
    log: watch::Sender<Log>,
}

impl Play {
    /// Returns the index of a connection that carries a call, and assigns one if it has none.
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

    /// Records a request and returns the script for it.
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

    /// Counts a call as in progress until the returned guard is dropped.
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
            // It does not matter who ended the connection, or how.
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
    // Also counts a connection whose bytes never become a request, such as a TLS handshake.
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
                    // If the peer closes during the pause, the script ends at once.
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

/// Waits until the peer closes the connection.
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

/// Reads the next request. Returns `None` if the peer closed the connection.
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
    let head = String::from_utf8(head).expect("a request's header is UTF-8");
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
    let body = String::from_utf8(unread.drain(..length).collect()).expect("a request's body is UTF-8");
    Ok(Some(Received {
        connection: 0,
        line,
        headers,
        body,
    }))
}

/// Formats a piece of text as the event of a chat chunk.
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
