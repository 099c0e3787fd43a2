//! The results of checks of model servers, and the faults to which checks attribute failures.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use switchboard::pb::registry::{
    CheckModelRequest, CheckOutcome, Endpoint, Fault, ListModelsRequest, Model, Platform, Tls,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{ALL, CANARY, check, check_unsaved, failed, list, refusal, server, taken, told, unsaved};
use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::Pair,
};

async fn a_wrong_token_is_a_credential_fault_and_is_never_printed() {
    let pair = Pair::start().await;
    // Some servers show their list of models without a valid token, so that only a call detects a wrong token.
    for is_list_open in [true, false] {
        let server = FakeUpstream::always(refusal(401)).await;
        server.listing(if is_list_open { list(&["mistral"]) } else { refusal(401) });
        let model = Model {
            api_token: Some(CANARY.to_owned()),
            ..unsaved(&server.url())
        };
        let check = check_unsaved(&pair, model).await;
        let step = failed(&check);
        assert_eq!(
            told(step),
            ("credential", Fault::Credential, "UPSTREAM_CREDENTIAL_REJECTED")
        );
        assert_eq!(
            server.probes()[0].headers["authorization"],
            format!("Bearer {CANARY}"),
            "the router fetched the token by its one-time id"
        );
        assert!(!format!("{check:?}").contains(CANARY));
    }
    for log in [pair.router.log(), pair.registry().log()] {
        assert!(!log.contains(CANARY), "{log}");
    }
    let listed = pair.models().list_models(ListModelsRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().total_size, 0, "nothing was saved");
    pair.finish().await;
}

async fn each_endpoint_is_checked_separately_and_reports_its_failed_step() {
    let pair = Pair::start().await;
    let well = server(&["mistral"]).await;
    let down = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let loading = FakeUpstream::start().await;
    loading.listing(refusal(503));
    let elsewhere = FakeUpstream::start().await;
    elsewhere.listing(Script::response(302, &[("location", "http://h/")], ""));
    let endpoint = |uri: &str| Endpoint {
        uri: uri.to_owned(),
        ..Default::default()
    };
    let model = Model {
        endpoint: None,
        endpoints: vec![
            endpoint(&well.url()),
            endpoint(&down),
            endpoint(&loading.url()),
            endpoint(&elsewhere.url()),
            endpoint("http://name.invalid:1"),
        ],
        ..unsaved("")
    };
    let request = CheckModelRequest {
        model: Some(model),
        ..Default::default()
    };
    let checks = check(&pair, request).await.unwrap();
    assert_eq!(checks.len(), 5);
    assert!(checks[0].passed, "{:?}", checks[0]);
    let expected = [
        ("tcp", Fault::Network, "UPSTREAM_CONNECT_FAILED"),
        ("http", Fault::ModelServer, "UPSTREAM_SERVER_ERROR"),
        ("http", Fault::Configuration, "UPSTREAM_REDIRECT_REFUSED"),
        ("dns", Fault::Network, "UPSTREAM_DNS_FAILED"),
    ];
    for (check, expected) in checks[1..].iter().zip(expected) {
        assert_eq!(told(failed(check)), expected);
    }
    pair.finish().await;
}

async fn a_check_finds_the_model_in_the_servers_list() {
    let pair = Pair::start().await;
    let several = FakeUpstream::start().await;
    several.listing(list(&["one", "two", "<b>"]));
    let ambiguous = check_unsaved(&pair, unsaved(&several.url())).await;
    let step = failed(&ambiguous);
    assert_eq!(
        told(step),
        ("model_list", Fault::Configuration, "UPSTREAM_MODEL_NOT_FOUND")
    );
    assert!(
        step.message.contains("`one`, `two` and 1 more") && !step.message.contains("<b>"),
        "{step:?}"
    );

    let other = FakeUpstream::always(refusal(404)).await;
    other.listing(list(&["one"]));
    let wrong = Model {
        identifier: Some("mistrl".to_owned()),
        ..unsaved(&other.url())
    };
    let wrong = check_unsaved(&pair, wrong).await;
    let step = failed(&wrong);
    assert_eq!(
        told(step),
        ("model_list", Fault::Configuration, "UPSTREAM_MODEL_NOT_FOUND")
    );
    assert!(
        step.message.contains("`mistrl`") && step.message.contains("`one`"),
        "{step:?}"
    );

    let single = server(&["only/one"]).await;
    let nameless = check_unsaved(&pair, unsaved(&single.url())).await;
    assert!(nameless.passed, "{nameless:?}");
    assert!(single.request(0).await.body.contains(r#""model":"only/one""#));
    pair.finish().await;
}

const AUTHORITY: &str = include_str!("../../../router/tests/tls/authority.pem");
const CERTIFICATE: &str = include_str!("../../../router/tests/tls/good.pem");
const KEY: &str = include_str!("../../../router/tests/tls/key.pem");
/// The host name in the certificate.
const CERTIFIED: &str = "gpu.test";

/// A TLS proxy in front of a server that does not speak TLS. It ends when it is dropped.
struct TlsFront {
    url: String,
    _front: JoinSet<()>,
}

impl TlsFront {
    async fn start(server: &FakeUpstream) -> Self {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://{}/v1", listener.local_addr().unwrap());
        let behind = server.addr();
        let mut front = JoinSet::new();
        front.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // A client that does not trust the certificate closes the connection.
                    let Ok(mut socket) = acceptor.accept(socket).await else {
                        return;
                    };
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    copy_bidirectional(&mut socket, &mut server).await.ok();
                });
            }
        });
        Self { url, _front: front }
    }
}

/// Starts a server that does not speak TLS and returns an https URL for it.
async fn without_tls() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut hello = [0; 1024];
            if socket.read(&mut hello).await.is_ok() {
                socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
            }
        }
    });
    (url, server)
}

async fn a_check_sends_nothing_to_a_server_with_an_untrusted_certificate() {
    let pair = Pair::start().await;
    let server = server(&["mistral"]).await;
    let front = TlsFront::start(&server).await;
    let model = |ca_pem: Option<&str>, server_name: Option<&str>| Model {
        tls: Some(Tls {
            ca_pem: ca_pem.map(str::to_owned),
            server_name: server_name.map(str::to_owned),
        }),
        api_token: Some(CANARY.to_owned()),
        ..unsaved(&front.url)
    };
    for (name, model) in [
        ("by the system's roots", model(None, Some(CERTIFIED))),
        ("by the endpoint's host", model(Some(AUTHORITY), None)),
    ] {
        let check = check_unsaved(&pair, model).await;
        let expected = ("tls", Fault::Configuration, "UPSTREAM_TLS_UNTRUSTED");
        assert_eq!(told(failed(&check)), expected, "{name}");
        assert_eq!(taken(&check)[0], ("tcp", CheckOutcome::Passed), "{name}");
    }
    assert!(server.probes().is_empty() && server.requests().is_empty());

    let trusted = check_unsaved(&pair, model(Some(AUTHORITY), Some(CERTIFIED))).await;
    let mut expected = ALL.to_vec();
    expected.insert(1, ("tls", CheckOutcome::Passed));
    assert_eq!(taken(&trusted), expected, "{trusted:?}");
    assert_eq!(server.requests().len(), 3);

    let (plain, _plain) = without_tls().await;
    let check = check_unsaved(&pair, unsaved(&plain)).await;
    let expected = ("tls", Fault::ModelServer, "UPSTREAM_TLS_HANDSHAKE_FAILED");
    assert_eq!(told(failed(&check)), expected);
    pair.finish().await;
}

async fn a_check_of_a_hosted_platform_skips_the_list_and_uses_the_platforms_dialect() {
    let pair = Pair::start().await;
    let server = FakeUpstream::always(refusal(401)).await;
    let model = Model {
        platform: Some(Platform::Anthropic.into()),
        identifier: Some("claude".to_owned()),
        api_token: Some(CANARY.to_owned()),
        ..unsaved(&server.url())
    };
    let check = check_unsaved(&pair, model).await;
    let expected = ("credential", Fault::Credential, "UPSTREAM_CREDENTIAL_REJECTED");
    assert_eq!(told(failed(&check)), expected);
    assert!(server.probes().is_empty());
    let request = server.request(0).await;
    assert_eq!(request.line, "POST /v1/messages HTTP/1.1");
    assert_eq!(request.headers["x-api-key"], CANARY);
    pair.finish().await;
}

tests! {
    a_wrong_token_is_a_credential_fault_and_is_never_printed,
    each_endpoint_is_checked_separately_and_reports_its_failed_step,
    a_check_finds_the_model_in_the_servers_list,
    a_check_sends_nothing_to_a_server_with_an_untrusted_certificate,
    a_check_of_a_hosted_platform_skips_the_list_and_uses_the_platforms_dialect,
}
