//! How the servers of one model prove who they are, parsed once.

use std::hash::{DefaultHasher, Hash, Hasher};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use switchboard::resource::model;

/// How a model's servers prove who they are. What is absent is as for every other server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledTls {
    roots: Option<Vec<CertificateDer<'static>>>,
    server_name: Option<ServerName<'static>>,
    /// Of both: a bundle may be large, and each call asks which client is the one for it.
    hash: u64,
}

impl Hash for CompiledTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl CompiledTls {
    /// Compiles what somebody has set. `None`: nothing.
    #[must_use]
    pub fn of(set: &model::Tls) -> Option<Self> {
        if *set == model::Tls::default() {
            return None;
        }
        let roots = set.ca.as_ref().map(|ca| ca.certificates().collect::<Vec<_>>());
        let name = set.server_name.as_ref().map(|name| name.as_str().to_owned());
        // It was read as such a name before.
        let server_name = name.and_then(|name| ServerName::try_from(name).ok());
        let mut hasher = DefaultHasher::new();
        (&roots, &server_name).hash(&mut hasher);
        Some(Self {
            roots,
            server_name,
            hash: hasher.finish(),
        })
    }

    /// The only certificates to trust. `None`: the system's.
    #[must_use]
    pub fn roots(&self) -> Option<RootCertStore> {
        let mut store = RootCertStore::empty();
        // Each was tried when it was read.
        store.add_parsable_certificates(self.roots.as_ref()?.iter().cloned());
        Some(store)
    }

    /// The name that the server's certificate must bear. `None`: the endpoint's host.
    #[must_use]
    pub const fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }
}
