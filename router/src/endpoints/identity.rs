//! Which servers there are: what tells one from another, and the addresses behind a name.

use std::{fmt, net::IpAddr, sync::Arc};

use switchboard::{endpoint::EndpointUri, names::ModelName, resource::model::Platform};

use crate::catalog::Tls;

/// One server, told apart from all others. Whatever of it changes makes it another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerIdentity {
    /// The model that it serves.
    pub model: ModelName,
    /// Its base URL.
    pub uri: EndpointUri,
    /// Its address, where the name has several. `None`: it is dialled by name.
    pub address: Option<IpAddr>,
    /// How it proves who it is.
    pub tls: Option<Arc<CompiledTls>>,
    /// What it speaks.
    pub platform: Platform,
}

/// Knows the addresses behind names.
pub trait Addresses: Send + Sync + fmt::Debug {
    /// A number that changes whenever [`Self::of`] says something else.
    fn version(&self) -> u64;

    /// The addresses of an endpoint's name. Fewer than two: it is dialled by name.
    fn of(&self, uri: &EndpointUri) -> Arc<[IpAddr]>;
}

/// Every server is dialled by name.
#[derive(Debug, Clone, Copy)]
pub struct ByName;

impl Addresses for ByName {
    fn version(&self) -> u64 {
        0
    }

    fn of(&self, _: &EndpointUri) -> Arc<[IpAddr]> {
        Arc::default()
    }
}
