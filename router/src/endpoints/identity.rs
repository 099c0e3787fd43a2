//! What identifies a server, and the addresses behind a host name.

use std::{fmt, net::IpAddr, sync::Arc};

use switchboard::{endpoint::EndpointUri, names::ModelName, resource::model::Platform};

use crate::catalog::CompiledTls;

/// The identity of one server. A change of any field makes it another server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerIdentity {
    /// The model that it serves.
    pub model: ModelName,
    /// Its base URL.
    pub uri: EndpointUri,
    /// Its address, if its host name has several. `None`: the host name is dialled.
    pub address: Option<IpAddr>,
    /// How its certificate is verified. `None`: with the system's roots and the endpoint's host name.
    pub tls: Option<Arc<CompiledTls>>,
    /// The platform whose dialect it speaks.
    pub platform: Platform,
}

/// Provides the addresses behind host names.
pub trait Addresses: Send + Sync + fmt::Debug {
    /// Returns a number that changes whenever [`Self::of`] returns something else.
    fn version(&self) -> u64;

    /// Returns the addresses of an endpoint's host name. If there are fewer than two, the host name is dialled.
    fn of(&self, uri: &EndpointUri) -> Arc<[IpAddr]>;
}

/// Provides no addresses: every server is dialled by its host name.
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
