//! Tests of the admin port while calls, or the metrics that a scrape reads, are blocked.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Barrier, mpsc},
    time::Duration,
};

use tokio::{
    runtime::{self, Runtime},
    task::JoinHandle,
};

use super::{
    super::metrics::{of_service, read_counter},
    *,
};

const WORKERS: usize = 2;

/// The time limit for the response to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

const LIMITS: TransportLimits = TransportLimits {
    streams_per_connection: 1,
    connections: 1,
    message_bytes: 1024,
};

/// A running service without methods of its own, on a runtime with [`WORKERS`] workers.
struct Running {
    runtime: Runtime,
    admin_addr: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    fn start(metrics: Registry) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), metrics)
    }

    /// Starts a service whose admin port is on this address.
    fn start_at(admin_addr: SocketAddr, metrics: Registry) -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .unwrap();
        let any = ([127, 0, 0, 1], 0).into();
        let ports = runtime
            .block_on(async { Ports::bind(any, admin_addr, LIMITS) })
            .unwrap();
        let admin_addr = ports.admin_addr();
        let services = Services {
            ports,
            limits: LIMITS,
            ready_file: None,
            set: ServiceSet::default(),
            parts: Vec::new(),
            reflection: false,
            ready: watch::channel(true).1,
            metrics,
        };
        let stop = CancellationToken::new();
        let shutdown = Shutdown::new(stop.clone(), Duration::ZERO);
        let serving = runtime.spawn(serve(services, shutdown));
        Self {
            runtime,
            admin_addr,
            stop,
            serving,
        }
    }

    fn ask(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.admin_addr).unwrap();
        stream.set_read_timeout(Some(PROBE_TIMEOUT)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        stream
    }

    fn get(&self, path: &str) -> io::Result<String> {
        read(self.ask(path))
    }

    fn finish(self) {
        self.stop.cancel();
        self.runtime.block_on(self.serving).unwrap().unwrap();
    }
}

fn read(mut stream: TcpStream) -> io::Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_admin_port_serves_the_log_level_on_loopback_only() {
    for (ip, has_level) in [([127, 0, 0, 1], true), ([0, 0, 0, 0], false)] {
        let running = Running::start_at((ip, 0).into(), of_service("test"));
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = running.get(path).unwrap();
            // Readiness may not be known yet, which is another answer than for an unknown path.
            assert!(!answer.starts_with("HTTP/1.1 404"), "{ip:?} {path}: {answer}");
        }
        // A test has no log level, which an existing path says in its answer.
        let answer = running.get("/log-level").unwrap();
        assert_eq!(answer.contains("cannot be changed"), has_level, "{ip:?}: {answer}");
        running.finish();
    }
}

#[test]
fn the_admin_port_answers_while_every_worker_of_the_main_runtime_is_blocked() {
    let running = Running::start(of_service("test"));
    // The response shows that the service is running.
    running.get("/healthz").unwrap();
    let blocked = Arc::new(Barrier::new(WORKERS + 1));
    let mut releases = Vec::new();
    let mut blockers = Vec::new();
    for _ in 0..WORKERS {
        let (release, released) = mpsc::channel::<()>();
        releases.push(release);
        let blocked = Arc::clone(&blocked);
        blockers.push(running.runtime.spawn(async move {
            blocked.wait();
            released.recv().unwrap_err();
        }));
    }
    // Each blocker now occupies a worker of its own: no blocker passes the barrier before all have reached it.
    blocked.wait();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = running.get(path);
        assert!(answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 ")), "{path}");
    }
    drop(releases);
    for blocker in blockers {
        running.runtime.block_on(blocker).unwrap();
    }
    running.finish();
}

#[test]
fn liveness_is_answered_while_a_scrape_waits_for_a_lock() {
    let lock = Arc::new(parking_lot::Mutex::new(()));
    let (began, has_begun) = mpsc::channel();
    let mut metrics = of_service("test");
    let locked = Arc::clone(&lock);
    read_counter(&mut metrics, "locked", "Read under a lock", move || {
        began.send(()).unwrap();
        drop(locked.lock());
        1
    });
    let running = Running::start(metrics);
    let held = lock.lock();
    let scrape = running.ask("/metrics");
    has_begun.recv_timeout(PROBE_TIMEOUT).unwrap();
    assert!(running.get("/healthz").unwrap().starts_with("HTTP/1.1 200"));
    drop(held);
    assert!(read(scrape).unwrap().contains("switchboard_locked_total 1"));
    running.finish();
}
