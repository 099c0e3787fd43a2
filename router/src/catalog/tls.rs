//! The TLS settings for the servers of one model, parsed once.

use std::hash::{DefaultHasher, Hash, Hasher};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use switchboard::resource::model;

/// How the certificates of a model's servers are verified. A setting that is absent has the same default as for other
/// models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledTls {
    roots: Option<Vec<CertificateDer<'static>>>,
    server_name: Option<ServerName<'static>>,
    /// Hash of both settings. It is computed once, since a bundle may be large and every call looks up its client by
    /// it.
    hash: u64,
}

impl Hash for CompiledTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl CompiledTls {
    /// Compiles the TLS settings of a model. `None`: none are set.
    #[must_use]
    pub fn of(set: &model::Tls) -> Option<Self> {
        if *set == model::Tls::default() {
            return None;
        }
        let roots = set.ca.as_ref().map(|ca| ca.certificates().collect::<Vec<_>>());
        let name = set.server_name.as_ref().map(|name| name.as_str().to_owned());
        // It was checked when the setting was read.
        let server_name = name.and_then(|name| ServerName::try_from(name).ok());
        let mut hasher = DefaultHasher::new();
        (&roots, &server_name).hash(&mut hasher);
        Some(Self {
            roots,
            server_name,
            hash: hasher.finish(),
        })
    }

    /// Returns the only certificates to trust. `None`: those of the system.
    #[must_use]
    pub fn roots(&self) -> Option<RootCertStore> {
        let mut store = RootCertStore::empty();
        // Each certificate was checked when the setting was read.
        store.add_parsable_certificates(self.roots.as_ref()?.iter().cloned());
        Some(store)
    }

    /// Returns the name that the server's certificate must contain. `None`: the endpoint's host.
    #[must_use]
    pub const fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }
}
