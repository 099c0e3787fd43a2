//! A TCP proxy between two processes that can simulate network faults and recovery while they communicate.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    select,
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// The condition of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Everything passes.
    Fair,
    /// New connections are reset at once.
    Refusing,
    /// Connections stay open, but data in the given directions does not arrive until the condition changes.
    Holding {
        /// To the server.
        up: bool,
        /// To the client.
        down: bool,
    },
    /// Each piece is delayed by between one and two times this duration.
    Slow(Duration),
    /// Each byte is sent as a packet of its own.
    Bytewise,
    /// About 10 kB per second in each direction.
    Dripping,
    /// A connection is reset after this many more bytes to the client.
    ResetAfter(usize),
}

/// Listens on one port until it is dropped, whatever the condition of the network and whether or not the server runs.
#[derive(Debug)]
pub(crate) struct Proxy {
    addr: SocketAddr,
    weather: watch::Sender<Weather>,
    /// A counter; incrementing it resets all open connections.
    cuts: watch::Sender<u64>,
    resets: Arc<AtomicU64>,
    _accepting: JoinSet<()>,
}

/// The state of the network as a connection observes it.
#[derive(Clone)]
struct Sky {
    weather: watch::Receiver<Weather>,
    cuts: watch::Receiver<u64>,
    resets: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let addr = listener.local_addr().unwrap();
        let (weather, weather_out) = watch::channel(Weather::Fair);
        let (cuts, cuts_out) = watch::channel(0);
        let resets = Arc::default();
        let sky = Sky {
            weather: weather_out,
            cuts: cuts_out,
            resets: Arc::clone(&resets),
        };
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, server, sky));
        Self {
            addr,
            weather,
            cuts,
            resets,
            _accepting: accepting,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Resets all open connections.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Returns how many open connections were reset.
    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, sky: Sky) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let mut sky = sky.clone();
        sky.cuts.mark_unchanged();
        connections.spawn(async move {
            if *sky.weather.borrow() == Weather::Refusing {
                reset(&client);
                return;
            }
            let Ok(server) = TcpStream::connect(server).await else {
                reset(&client);
                return;
            };
            connect(client, server, sky).await;
        });
    }
}

/// Carries bytes in both directions until one side closes or the network cuts the connection.
async fn connect(mut client: TcpStream, mut server: TcpStream, mut sky: Sky) {
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let mut cuts = sky.cuts.clone();
    sky.weather.mark_unchanged();
    let is_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = carry(from_client, to_server, Direction::Up, sky.clone());
        let down = carry(from_server, to_client, Direction::Down, sky.clone());
        select! {
            _ = cuts.changed() => true,
            _ = up => false,
            end = down => end.is_ok_and(|end| end == End::Spent),
        }
    };
    if is_cut {
        reset(&client);
        reset(&server);
        sky.resets.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(PartialEq)]
enum End {
    /// The sender has closed.
    Closed,
    /// The permitted number of bytes has passed.
    Spent,
}

async fn carry(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, direction: Direction, mut sky: Sky) -> io::Result<End> {
    let mut buffer = vec![0; 16 * 1024];
    // Bytes that have passed since the last change of the condition.
    let mut gone = 0;
    loop {
        let now = *sky.weather.borrow_and_update();
        let room = match now {
            Weather::Dripping => 500,
            Weather::ResetAfter(bytes) => (bytes - gone.min(bytes)).clamp(1, buffer.len()),
            Weather::Fair | Weather::Refusing | Weather::Holding { .. } | Weather::Slow(_) | Weather::Bytewise => {
                buffer.len()
            }
        };
        let read = select! {
            read = from.read(&mut buffer[..room]) => read?,
            _ = sky.weather.changed() => {
                gone = 0;
                continue;
            }
        };
        if read == 0 {
            return Ok(End::Closed);
        }
        if let (Direction::Down, Weather::ResetAfter(bytes)) = (direction, now)
            && gone + read > bytes
        {
            return Ok(End::Spent);
        }
        gone += read;
        // Data that was read before the network began to hold is held, too.
        let weather = *sky
            .weather
            .wait_for(|weather| !direction.is_held(*weather))
            .await
            .map_err(io::Error::other)?;
        match weather {
            Weather::Slow(delay) => sleep(delay.mul_f64(1.0 + fastrand::f64())).await,
            Weather::Dripping => sleep(Duration::from_millis(50)).await,
            Weather::Fair
            | Weather::Refusing
            | Weather::Holding { .. }
            | Weather::Bytewise
            | Weather::ResetAfter(_) => {}
        }
        let piece = if weather == Weather::Bytewise { 1 } else { read };
        for bytes in buffer[..read].chunks(piece) {
            to.write_all(bytes).await?;
        }
    }
}

impl Direction {
    fn is_held(self, weather: Weather) -> bool {
        match (self, weather) {
            (Self::Up, Weather::Holding { up, .. }) => up,
            (Self::Down, Weather::Holding { down, .. }) => down,
            _ => false,
        }
    }
}

/// Makes the peer see a reset when the socket is closed.
fn reset(socket: &TcpStream) {
    drop(socket.set_zero_linger());
}
