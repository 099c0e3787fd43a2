//! The address of a model's server, with a fault.

use switchboard_router::upstream::names::Names;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{CANARY, Fault};
use crate::fake_upstream::FakeUpstream;

/// The address of a model's server, with everything that the fault needs.
#[derive(Debug)]
pub(super) struct Place {
    url: String,
    names: Names,
    server: Option<FakeUpstream>,
    /// Tasks and sockets that keep the fault in place.
    _kept: (JoinSet<()>, Vec<TcpStream>, Option<TcpListener>),
}

impl Place {
    #[expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails by panicking")]
    pub(super) async fn with(fault: &Fault) -> Self {
        let mut tasks = JoinSet::new();
        let (mut streams, mut kept) = (Vec::new(), None);
        let (mut server, mut names) = (None, Names::default());
        let url = match fault {
            Fault::Script(script) => {
                let upstream = FakeUpstream::start().await;
                upstream.then(script.clone());
                server.insert(upstream).url()
            }
            Fault::Refused => {
                let unused = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
                format!("http://{}", unused.local_addr().unwrap())
            }
            Fault::BlackHole => {
                // Linux drops connection attempts to a port whose accept queue is full.
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
                let full = socket.listen(1).unwrap();
                let address = full.local_addr().unwrap();
                for _ in 0..2 {
                    streams.push(TcpStream::connect(address).await.unwrap());
                }
                kept = Some(full);
                format!("http://{address}")
            }
            Fault::HalfOpen => {
                // The kernel accepts the connection.
                let gone = kept.insert(TcpListener::bind(("127.0.0.1", 0)).await.unwrap());
                format!("http://{}", gone.local_addr().unwrap())
            }
            Fault::SlowName => {
                names = Names::new(Box::new(|_| Box::pin(std::future::pending())));
                "http://gpu.test:8000".to_owned()
            }
            Fault::Panic => {
                // The call's own task starts the look-up.
                names = Names::new(Box::new(|_| panic!("{CANARY}")));
                "http://gpu.test:8000".to_owned()
            }
            Fault::NoName => format!("http://{}:8000", "x".repeat(64)),
            Fault::NoTls => {
                let plain = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
                let url = format!("https://{}", plain.local_addr().unwrap());
                tasks.spawn(async move {
                    let (mut socket, _) = plain.accept().await.unwrap();
                    socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
                });
                url
            }
        };
        Self {
            url,
            names,
            server,
            _kept: (tasks, streams, kept),
        }
    }

    /// Returns the base URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the resolver for the server's name.
    pub(super) fn names(&self) -> Names {
        self.names.clone()
    }

    /// Checks that the server has received no call.
    pub(super) fn was_not_asked(&self, name: &str) {
        let asked = self.server.as_ref().is_some_and(|server| !server.requests().is_empty());
        assert!(!asked, "{name}");
    }

    /// Checks that the server received exactly one call, and waits until its connection is closed.
    pub(super) async fn was_asked_once(&self, name: &str) {
        let Some(server) = &self.server else { return };
        assert_eq!(server.requests().len(), 1, "{name}: number of attempts");
        server.closed(0).await;
    }
}
