//! A model's own certificates and server name decide whom it trusts, and nobody else does.
//!
//! `tls/` holds a certificate for `gpu.test` that signs itself, and its key: they protect nothing.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    harness::{Setup, prompt},
    names::{NAME, names, up},
};

const CERTIFICATE: &str = include_str!("tls/cert.pem");
const KEY: &str = include_str!("tls/key.pem");
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
    data: {\"choices\":[{\"delta\":{\"content\":\"hello\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// A server of `gpu.test` that answers every connection once. Its base URL, and what ends it when dropped.
#[expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]
async fn server() -> (String, JoinSet<()>) {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            // A client that does not trust the certificate breaks off.
            let Ok(mut socket) = acceptor.accept(socket).await else {
                continue;
            };
            let mut request = [0; 4096];
            if socket.read(&mut request).await.is_ok() {
                socket.write_all(ANSWER).await.ok();
                socket.shutdown().await.ok();
            }
        }
    });
    (url, server)
}

#[tokio::test]
async fn only_a_models_own_bundle_and_name_make_its_server_trusted() {
    let (url, _server) = server().await;
    for (ca_pem, server_name, is_trusted) in [
        (Some(CERTIFICATE), Some("gpu.test"), true),
        (Some(CERTIFICATE), None, false),
        (Some(CERTIFICATE), Some("other.test"), false),
        (None, Some("gpu.test"), false),
    ] {
        let router = Setup::at(&url).tls(ca_pem, server_name).start().await;
        let answer = router.ask(prompt("hi")).await;
        if is_trusted {
            assert_eq!(answer.failure.as_ref().map(tonic::Status::message), None);
            assert_eq!(answer.text, "hello");
        } else {
            assert_eq!(answer.told().reason, "UPSTREAM_TLS_UNTRUSTED", "{server_name:?}");
        }
    }
    let router = Setup::at(&url).start().await;
    assert_eq!(router.ask(prompt("hi")).await.told().reason, "UPSTREAM_TLS_UNTRUSTED");
}

#[tokio::test]
async fn a_server_that_is_dialled_by_its_address_proves_itself_by_its_name() {
    let (url, _server) = server().await;
    let url = url.replace("127.0.0.1", NAME);
    // Nobody is at the second address.
    let setup = Setup::at(url).names(names(&[1, 2], &up()));
    let router = setup.tls(Some(CERTIFICATE), None).start().await;
    for _ in 0..4 {
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(answer.failure.as_ref().map(tonic::Status::message), None);
        assert_eq!(answer.text, "hello");
    }
    let addresses = router.servers().into_iter().map(|server| server.identity.address);
    assert!(addresses.eq([1, 2].map(|last| Some([127, 0, 0, last].into()))));
}
