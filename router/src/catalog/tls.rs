//! How the servers of one model prove who they are, parsed once.

use std::hash::{DefaultHasher, Hash, Hasher};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

/// How a model's servers prove who they are. What is absent is as for every other server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    roots: Option<Vec<CertificateDer<'static>>>,
    server_name: Option<ServerName<'static>>,
    /// Of both: a bundle may be large, and each call asks which client is the one for it.
    hash: u64,
}

impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Why TLS settings cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The bundle is no PEM, or has a certificate that cannot be trusted.
    #[error("must hold one PEM certificate at least, and nothing that is malformed")]
    CaPem,
    /// The name is neither a DNS name nor an address.
    #[error("must be a DNS name or an IP address")]
    ServerName,
}

impl Tls {
    /// Parses a bundle of certificates to trust instead of the system's roots, and a name that the server's certificate
    /// must bear instead of the endpoint's host.
    ///
    /// # Errors
    ///
    /// [`TlsError`] says which of them is malformed.
    pub fn parse(ca_pem: Option<&str>, server_name: Option<&str>) -> Result<Self, TlsError> {
        let server_name = server_name
            .map(|name| ServerName::try_from(name.to_owned()).map_err(|_invalid| TlsError::ServerName))
            .transpose()?;
        let roots = ca_pem.map(certificates).transpose()?;
        let mut hasher = DefaultHasher::new();
        (&roots, &server_name).hash(&mut hasher);
        Ok(Self {
            roots,
            server_name,
            hash: hasher.finish(),
        })
    }

    /// The only certificates to trust. `None`: the system's.
    #[must_use]
    pub fn roots(&self) -> Option<RootCertStore> {
        let mut store = RootCertStore::empty();
        // Each was tried when it was parsed.
        store.add_parsable_certificates(self.roots.as_ref()?.iter().cloned());
        Some(store)
    }

    /// The name that the server's certificate must bear. `None`: the endpoint's host.
    #[must_use]
    pub const fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_malformed| TlsError::CaPem)?;
    let mut store = RootCertStore::empty();
    let are_all_usable = certificates
        .iter()
        .all(|certificate| store.add(certificate.clone()).is_ok());
    if certificates.is_empty() || !are_all_usable {
        return Err(TlsError::CaPem);
    }
    Ok(certificates)
}
