//! Only a model's own CA certificates and server name decide which servers it trusts.
//!
//! `tls/make.sh` made the certificates. They protect nothing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tonic::Code;

use crate::{
    harness::{Setup, TOKEN, prompt},
    names::{NAME, names, up},
};

const AUTHORITY: &str = include_str!("tls/authority.pem");
const GOOD: &str = include_str!("tls/good.pem");
const KEY: &str = include_str!("tls/key.pem");
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
    data: {\"choices\":[{\"delta\":{\"content\":\"hello\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// A server with one certificate that answers one request on each connection. It ends when it is dropped.
struct TlsServer {
    url: String,
    /// Number of bytes that it received after handshakes.
    bytes: Arc<AtomicUsize>,
    /// Number of handshakes that have ended, successful or not.
    handshakes: watch::Sender<usize>,
    _server: JoinSet<()>,
}

impl TlsServer {
    #[expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]
    async fn start(certificate: &str) -> Self {
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (bytes, handshakes) = (Arc::<AtomicUsize>::default(), watch::Sender::new(0));
        let mut server = JoinSet::new();
        let (told, ended) = (Arc::clone(&bytes), handshakes.clone());
        server.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let accepted = acceptor.accept(socket).await;
                ended.send_modify(|count| *count += 1);
                // A client that does not trust the certificate closes the connection.
                let Ok(mut socket) = accepted else { continue };
                let mut request = [0; 4096];
                if let Ok(count) = socket.read(&mut request).await {
                    told.fetch_add(count, Ordering::Relaxed);
                    socket.write_all(ANSWER).await.ok();
                    socket.shutdown().await.ok();
                }
            }
        });
        Self {
            url,
            bytes,
            handshakes,
            _server: server,
        }
    }
}

#[tokio::test]
async fn a_server_with_a_bad_certificate_receives_nothing() {
    let unknown = "the certificate was signed by an unknown authority";
    for (name, certificate, cause) in [
        ("self-signed", include_str!("tls/self_signed.pem"), unknown),
        ("by another authority", include_str!("tls/by_another.pem"), unknown),
        (
            "expired",
            include_str!("tls/expired.pem"),
            "the certificate has expired",
        ),
        (
            "not yet valid",
            include_str!("tls/not_yet.pem"),
            "the certificate is not valid yet",
        ),
        (
            "for another name",
            include_str!("tls/other_name.pem"),
            "the certificate is not for the name gpu.test",
        ),
        (
            "for clients",
            include_str!("tls/for_clients.pem"),
            "the certificate is not for a server",
        ),
    ] {
        let server = TlsServer::start(certificate).await;
        let router = Setup::at(&server.url)
            .token_for(&[&server.url])
            .tls(Some(AUTHORITY), Some("gpu.test"))
            .start()
            .await;
        let answer = router.ask(prompt("hi")).await;
        let told = answer.told();
        assert_eq!(
            (told.code, told.reason.as_str()),
            (Code::FailedPrecondition, "UPSTREAM_TLS_UNTRUSTED"),
            "{name}"
        );
        let message = format!("could not connect to {}: {cause}", server.url);
        assert_eq!(answer.failure.as_ref().map(tonic::Status::message), Some(&*message));
        assert!(!format!("{told:?}").contains(TOKEN), "{name}");
        let mut handshakes = server.handshakes.subscribe();
        assert_eq!(
            *handshakes.wait_for(|count| *count > 0).await.unwrap(),
            1,
            "{name}: number of handshakes"
        );
        assert_eq!(
            server.bytes.load(Ordering::Relaxed),
            0,
            "{name}: bytes received after the handshake"
        );
    }
}

#[tokio::test]
async fn only_the_models_own_certificates_and_server_name_make_its_server_trusted() {
    let server = TlsServer::start(GOOD).await;
    for (ca_pem, server_name, is_trusted) in [
        (Some(AUTHORITY), Some("gpu.test"), true),
        (Some(AUTHORITY), None, false),
        (Some(AUTHORITY), Some("other.test"), false),
        (None, Some("gpu.test"), false),
    ] {
        let router = Setup::at(&server.url).tls(ca_pem, server_name).start().await;
        let answer = router.ask(prompt("hi")).await;
        if is_trusted {
            assert_eq!(answer.failure.as_ref().map(tonic::Status::message), None);
            assert_eq!(answer.text, "hello");
        } else {
            assert_eq!(answer.told().reason, "UPSTREAM_TLS_UNTRUSTED", "{server_name:?}");
        }
    }
    let router = Setup::at(&server.url).start().await;
    assert_eq!(router.ask(prompt("hi")).await.told().reason, "UPSTREAM_TLS_UNTRUSTED");
}

#[tokio::test]
async fn a_server_dialled_by_address_is_verified_by_its_name() {
    let server = TlsServer::start(GOOD).await;
    let url = server.url.replace("127.0.0.1", NAME);
    // No server listens on the second address.
    let setup = Setup::at(url).names(names(&[1, 2], &up()));
    let router = setup.tls(Some(AUTHORITY), None).start().await;
    for _ in 0..4 {
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(answer.failure.as_ref().map(tonic::Status::message), None);
        assert_eq!(answer.text, "hello");
    }
    let addresses = router.servers().into_iter().map(|server| server.identity.address);
    assert!(addresses.eq([1, 2].map(|last| Some([127, 0, 0, last].into()))));
}
