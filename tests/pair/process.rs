//! Behaviour of each of the two processes: flags, limits, health, failures outside the handlers, and shutdown.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Output},
    time::Duration,
};

use switchboard::pb::{
    registry::{WatchRequest, watch_response::Kind},
    router::{InferRequest, infer_request::Input},
};
use tokio::time::Instant;
use tonic::{Code, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use crate::harness::{PATIENCE, Pair, Service, binary};

pub(crate) const BINARIES: [&str; 2] = ["switchboard-registry", "switchboard-router"];

pub(crate) fn run(name: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(binary(name))
        .args(args)
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

/// Arguments, environment, and the flag that the error names.
type Wrong<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

fn an_invalid_flag_prints_one_line_and_exits_with_code_2() {
    let both: &[Wrong<'_>] = &[
        (&["--listen-addr", "nowhere"], &[], "--listen-addr"),
        (&["--listen-addr", "0.0.0.0:0"], &[], "--insecure-no-auth"),
        (&["--admin-addr", "127.0.0.1"], &[], "--admin-addr"),
        (&["--drain-timeout", "soon"], &[], "--drain-timeout"),
        (&["--log-level", "a=b=c"], &[], "--log-level"),
        (&["--log-format", "xml"], &[], "--log-format"),
        (&["--unheard-of"], &[], "--unheard-of"),
        (
            &["--listen-adr", "127.0.0.1:0"],
            &[],
            "; tip: a similar argument exists: '--listen-addr'",
        ),
        (&["elsewhere"], &[], "elsewhere"),
        (
            &["helth"],
            &[],
            "; tip: some similar subcommands exist: 'help', 'health'",
        ),
        (&["--listen-addr", "127.0.0.1:0", "health"], &[], "'health'"),
        (&["serve", "--admin-addr", "127.0.0.1"], &[], "--admin-addr"),
    ];
    let registry: &[Wrong<'_>] = &[
        (&["--database-url", "postgres://db"], &[], "--database-url"),
        (&[], &[("SWITCHBOARD_REGISTRY_LISTEN_ADDR", "nowhere")], "--listen-addr"),
        (
            &["health"],
            &[("SWITCHBOARD_REGISTRY_LISTEN_ADDR", "nowhere")],
            "--listen-addr",
        ),
    ];
    let router: &[Wrong<'_>] = &[
        (&["--registry-addr", "https://registry:1"], &[], "--registry-addr"),
        (&["--registry-addr", "registry:1"], &[], "--registry-addr"),
        (
            &["--registry-addr", "https://registry:1"],
            &[],
            "`https://` is not supported yet",
        ),
        (&["--router-id", "a b"], &[], "--router-id"),
        (&["--snapshot-file", "a"], &[], "--snapshot-key-file"),
        (&["--snapshot-key-file", "a"], &[], "--snapshot-file"),
        (
            &["--snapshot-file", "a", "--snapshot-key-file", "/nowhere/key"],
            &[],
            "/nowhere/key",
        ),
        (
            &[],
            &[("SWITCHBOARD_ROUTER_REGISTRY_ADDR", "nowhere/x")],
            "--registry-addr",
        ),
    ];
    for (name, own) in BINARIES.into_iter().zip([registry, router]) {
        for (args, env, named) in both.iter().chain(own) {
            let output = run(name, args, env);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {stderr}");
            assert_eq!(stderr.lines().count(), 1, "{name} {args:?}: {stderr}");
            assert!(
                stderr.starts_with("error: ") && stderr.contains(named),
                "{name} {args:?}: {stderr}"
            );
            assert!(output.stdout.is_empty(), "nothing is logged before all flags are valid");
        }
    }
}

async fn a_port_in_use_is_reported_before_the_database_is_created() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("switchboard.db");
    let database_url = format!("sqlite://{}", database.display());
    let output = run(
        "switchboard-registry",
        &[
            "--listen-addr",
            &addr,
            "--admin-addr=127.0.0.1:0",
            "--database-url",
            &database_url,
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains(&addr));
    assert!(!database.exists());
}

fn a_port_in_use_is_reported_with_its_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    for name in BINARIES {
        for (flag, other) in [("--listen-addr", "--admin-addr"), ("--admin-addr", "--listen-addr")] {
            let args = [format!("{flag}={addr}"), format!("{other}=127.0.0.1:0")];
            let output = run(name, &args.each_ref().map(String::as_str), &[]);
            assert_eq!(output.status.code(), Some(1), "{name} {flag}");
            let log = String::from_utf8(output.stdout).unwrap();
            let error = format!("could not listen on {addr} ({flag}): address already in use");
            assert_eq!(log.matches(&error).count(), 1, "{name}: {log}");
        }
    }
}

async fn a_tls_handshake_at_a_plaintext_port_is_logged_once() {
    let pair = Pair::start().await;
    for service in [pair.registry(), &pair.router] {
        for _ in 0..2 {
            let mut client = TcpStream::connect(service.listen_addr).unwrap();
            let mut hello = [0; 200];
            hello[..3].copy_from_slice(&[0x16, 3, 1]);
            client.write_all(&hello).unwrap();
            // The service has read the handshake once it closes the connection.
            drop(client.read_to_end(&mut Vec::new()));
        }
        let text = "a TLS handshake arrived at the plaintext port";
        service.wait_for_log(text).await;
        let log = service.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(text)).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("WARN") && lines[0].contains("without TLS"), "{log}");
        assert!(lines[0].contains(&service.listen_addr.to_string()), "{log}");
    }
    pair.finish().await;
}

async fn a_failure_outside_the_handlers_has_a_reason_and_the_request_id() {
    let pair = Pair::start().await;
    for (service, known, limit) in [
        (
            pair.registry(),
            "/switchboard.registry.v1.ModelService/GetModel",
            1024 * 1024,
        ),
        (
            &pair.router,
            "/switchboard.router.v1.InferenceService/StreamInfer",
            4 * 1024 * 1024,
        ),
    ] {
        let status = call(service, "/switchboard.registry.v1.ModelService/Nothing", String::new()).await;
        assert_eq!(
            (status.code(), reason(&status)),
            (Code::Unimplemented, "METHOD_UNKNOWN".to_owned())
        );
        assert_eq!(
            status.get_error_details().error_info().unwrap().metadata["request_id"],
            "r-42"
        );
        assert_eq!(status.metadata().get("x-request-id").unwrap(), "r-42");

        let status = call(service, known, "x".repeat(limit + 1)).await;
        assert_eq!(
            (status.code(), reason(&status)),
            (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned())
        );
        assert_eq!(
            status.get_error_details().error_info().unwrap().metadata["limit"],
            limit.to_string()
        );
    }
    pair.finish().await;
}

/// Calls a method with one text, which is field 1 of every request.
async fn call(service: &Service, method: &'static str, text: String) -> Status {
    let mut client = Grpc::new(service.channel());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(text);
    request.metadata_mut().insert("x-request-id", "r-42".parse().unwrap());
    let codec = ProstCodec::<String, ()>::default();
    client
        .unary(request, PathAndQuery::from_static(method), codec)
        .await
        .unwrap_err()
}

fn reason(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .map(|info| info.reason.clone())
        .unwrap_or_default()
}

async fn the_limit_of_concurrent_streams_is_announced() {
    let pair = Pair::start().await;
    for (service, limit) in [(pair.registry(), 256), (&pair.router, 1024)] {
        let stream = tokio::net::TcpStream::connect(service.listen_addr).await.unwrap();
        let (client, mut connection) = h2::client::handshake(stream).await.unwrap();
        let mut ping = connection.ping_pong().unwrap();
        // The server answers a ping after it has sent its settings.
        tokio::select! {
            result = &mut connection => panic!("the connection ended: {result:?}"),
            pong = ping.ping(h2::Ping::opaque()) => { pong.unwrap(); }
        }
        assert_eq!(client.current_max_send_streams(), limit);
    }
    pair.finish().await;
}

async fn a_client_that_provokes_many_resets_is_disconnected() {
    // A request to `/`, followed by a window update beyond the maximum window, which the server must answer by
    // resetting the stream.
    const HEADERS: [u8; 12] = [0, 0, 3, 1, 4, 0, 0, 0, 0, 0x83, 0x86, 0x84];
    const WINDOW_UPDATE: [u8; 13] = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff];

    let pair = Pair::start().await;
    for addr in [pair.registry().listen_addr, pair.router.listen_addr] {
        let provoked = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
            let mut drained = [0; 16 * 1024];
            for number in 0..20_000u32 {
                let id = (2 * number + 1).to_be_bytes();
                let (mut headers, mut update) = (HEADERS, WINDOW_UPDATE);
                headers[5..9].copy_from_slice(&id);
                update[5..9].copy_from_slice(&id);
                let sent = stream.write_all(&headers).and_then(|()| stream.write_all(&update));
                let ended = number % 64 == 0 && matches!(stream.read(&mut drained), Ok(0));
                if sent.is_err() || ended {
                    return number;
                }
            }
            20_000
        })
        .await
        .unwrap();
        assert!((1000..5000).contains(&provoked), "closed after {provoked} resets");
    }
    pair.finish().await;
}

async fn a_router_is_ready_once_it_has_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let args = [
        "--listen-addr=127.0.0.1:0".to_owned(),
        format!("--registry-addr=http://{free}"),
    ];
    let mut router = Service::start("switchboard-router", folder.path(), &args).await;
    assert_eq!(health(&router, "").await, ServingStatus::NotServing);
    assert_eq!(
        health(&router, "switchboard.router.v1.InferenceService").await,
        ServingStatus::NotServing
    );
    assert!(http_get(router.admin_addr, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(http_get(router.admin_addr, "/readyz").starts_with("HTTP/1.1 503"));
    let status = crate::harness::infer(
        &mut switchboard::pb::router::inference_service_client::InferenceServiceClient::new(router.channel()),
        "duo_chat",
        "hello",
    )
    .await
    .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::Unavailable, "CONFIG_NOT_LOADED".to_owned())
    );
    assert!(status.get_error_details().retry_info().is_some());
    assert!(router.terminate().await.success());

    let pair = Pair::start().await;
    for service in [pair.registry(), &pair.router] {
        let started = Instant::now();
        while health(service, "").await != ServingStatus::Serving {
            assert!(started.elapsed() < PATIENCE);
            tokio::task::yield_now().await;
        }
        assert!(http_get(service.admin_addr, "/readyz").starts_with("HTTP/1.1 200"));
    }
    pair.finish().await;
}

async fn health(service: &Service, name: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: name.to_owned(),
    };
    HealthClient::new(service.channel())
        .check(request)
        .await
        .unwrap()
        .into_inner()
        .status()
}

fn http_get(addr: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

async fn both_services_shut_down_in_time_with_open_streams_and_a_silent_client() {
    use crate::fake_upstream::{FakeUpstream, Script};

    let pair = Pair::start().await;
    let upstream = FakeUpstream::start().await;
    pair.configure(&upstream.url(), None).await;
    pair.wait_until_routed("code_generations").await;
    upstream.then(Script::stream().text("a word").hang());

    let _silent = [
        TcpStream::connect(pair.registry().listen_addr),
        TcpStream::connect(pair.router.listen_addr),
    ];
    let mut watch = pair.config().watch(WatchRequest::default()).await.unwrap().into_inner();
    let request = InferRequest {
        feature: "code_generations".to_owned(),
        input: Some(Input::Prompt("go on for ever".to_owned())),
        ..Default::default()
    };
    let mut answer = pair.inference().stream_infer(request).await.unwrap().into_inner();

    let asked = Instant::now();
    let (goodbye, status, ()) = tokio::join!(
        async {
            let mut last = None;
            while let Some(message) = watch.message().await.unwrap() {
                last = message.kind;
            }
            last
        },
        async {
            loop {
                if let Err(status) = answer.message().await {
                    return status;
                }
            }
        },
        pair.finish(),
    );
    assert!(
        matches!(goodbye, Some(Kind::Goodbye(_))),
        "the watch ends with a goodbye and then OK"
    );
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::Unavailable, "SERVER_DRAINING".to_owned())
    );
    assert_eq!(
        status.get_error_details().error_info().unwrap().metadata["partial"],
        "true"
    );
    assert!(
        asked.elapsed() < Duration::from_secs(12),
        "both shut down after {:?}",
        asked.elapsed()
    );
}

tests! {
    an_invalid_flag_prints_one_line_and_exits_with_code_2 (sync),
    a_port_in_use_is_reported_before_the_database_is_created,
    a_port_in_use_is_reported_with_its_flag (sync),
    a_tls_handshake_at_a_plaintext_port_is_logged_once,
    a_failure_outside_the_handlers_has_a_reason_and_the_request_id,
    the_limit_of_concurrent_streams_is_announced,
    a_client_that_provokes_many_resets_is_disconnected,
    a_router_is_ready_once_it_has_a_configuration,
    both_services_shut_down_in_time_with_open_streams_and_a_silent_client,
}
