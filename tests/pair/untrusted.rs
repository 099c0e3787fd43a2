//! A model server with a self-signed certificate, which no trusted authority has issued.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use tonic::Code;

use crate::{
    harness::{Pair, infer, reason_of},
    runner::Requirement,
};

const OPENSSL: Requirement = Requirement::Program {
    name: "openssl",
    remedy: "apt-get install openssl",
};

/// OpenSSL's own server with a self-signed certificate.
struct SelfSigned {
    server: Child,
    port: u16,
}

impl SelfSigned {
    fn start(folder: &Path) -> Self {
        let openssl = OPENSSL.path();
        let made = Command::new(&openssl)
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1".split(' '))
            .args("-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem".split(' '))
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = Command::new(openssl)
            .args("s_server -accept 127.0.0.1:0 -cert cert.pem -key key.pem -www".split(' '))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| line.unwrap().strip_prefix("ACCEPT 127.0.0.1:")?.parse().ok())
            .expect("the server prints its port");
        Self { server, port }
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

async fn an_untrusted_certificate_fails_with_its_own_reason() {
    let pair = Pair::start().await;
    let server = SelfSigned::start(pair.folder.path());
    pair.configure(&format!("https://localhost:{}", server.port), None)
        .await;
    pair.wait_until_routed("code_generations").await;

    let result = infer(&mut pair.inference(), "code_generations", "hello").await;
    assert_eq!(reason_of(&result).as_deref(), Some("UPSTREAM_TLS_UNTRUSTED"));
    assert_eq!(result.unwrap_err().code(), Code::FailedPrecondition);
    pair.finish().await;
}

tests! {
    an_untrusted_certificate_fails_with_its_own_reason needs OPENSSL,
}
