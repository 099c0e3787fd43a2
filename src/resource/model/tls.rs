//! How a model's servers prove who they are.

use rustls_pki_types::{
    CertificateDer,
    pem::{PemObject as _, SectionKind},
};

use super::{super::fields::Fields, ModelPartError};
use crate::pb::registry;

/// How a model's servers prove who they are: only what somebody has set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Certificates to trust instead of the system's roots.
    pub ca: Option<CaCertificates>,
    /// The name that the certificate must bear, instead of the endpoint's host.
    pub server_name: Option<ServerName>,
}

impl Tls {
    pub(super) fn read(wire: registry::Tls, fields: &mut Fields<'_>) -> Self {
        let registry::Tls { ca_pem, server_name } = wire;
        let ca = fields.read("tls.ca_pem", ca_pem, |text| CaCertificates::parse(&text));
        let server_name = fields.read("tls.server_name", server_name, |text| ServerName::parse(&text));
        Self {
            ca: ca.flattened().value,
            server_name: server_name.flattened().value,
        }
    }

    /// `None`: nobody has set anything.
    pub(super) fn to_message(&self) -> Option<registry::Tls> {
        let Self { ca, server_name } = self;
        (*self != Self::default()).then(|| registry::Tls {
            ca_pem: ca.as_ref().map(|ca| ca.as_str().to_owned()),
            server_name: server_name.as_ref().map(|name| name.as_str().to_owned()),
        })
    }
}

/// Certificates to trust, in PEM, as they were given: at least one, all readable, and nothing else among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaCertificates(Box<str>);

impl CaCertificates {
    /// The most bytes that they may have.
    pub const LENGTH_MAX: usize = 64 * 1024;

    /// Parses certificates; `None` for an empty text, which says that there are none.
    ///
    /// # Errors
    ///
    /// [`ModelPartError`] with the cause.
    pub fn parse(text: &str) -> Result<Option<Self>, ModelPartError> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > Self::LENGTH_MAX {
            return Err(ModelPartError::CaTooLong);
        }
        let mut count = 0;
        for (number, block) in (1..).zip(<(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes())) {
            let (kind, der) = block.map_err(|_unreadable| ModelPartError::CaMalformed { number })?;
            // A private key that was copied along must not get into the database and to every reader.
            if kind != SectionKind::Certificate {
                return Err(ModelPartError::CaForeign { number });
            }
            webpki::anchor_from_trusted_cert(&CertificateDer::from(der))
                .map_err(|_unreadable| ModelPartError::CaMalformed { number })?;
            count = number;
        }
        if count == 0 {
            return Err(ModelPartError::CaNone);
        }
        Ok(Some(Self(text.into())))
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The certificates.
    pub fn certificates(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        // Each was read when the text was parsed.
        CertificateDer::pem_slice_iter(self.0.as_bytes()).filter_map(Result::ok)
    }
}

/// The name that a server's certificate must bear: a DNS name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName(Box<str>);

impl ServerName {
    /// Parses a name; `None` for an empty text, which says that there is none.
    ///
    /// # Errors
    ///
    /// [`ModelPartError::ServerNameMalformed`] when no certificate can bear it.
    pub fn parse(text: &str) -> Result<Option<Self>, ModelPartError> {
        if text.is_empty() {
            return Ok(None);
        }
        match rustls_pki_types::ServerName::try_from(text) {
            Ok(_well_spelled) => Ok(Some(Self(text.into()))),
            Err(_misspelled) => Err(ModelPartError::ServerNameMalformed),
        }
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = include_str!("tls/ca.pem");

    #[test]
    fn certificates_are_kept_as_they_were_given() {
        let twice = format!("# our roots\n{CA}\n{CA}");
        for text in [CA, &twice] {
            assert_eq!(CaCertificates::parse(text).unwrap().unwrap().as_str(), text);
        }
        assert_eq!(CaCertificates::parse(""), Ok(None));
    }

    #[test]
    fn what_is_no_certificate_is_told_by_its_cause() {
        use ModelPartError as E;
        // Put together here, so that no scanner takes it for a key that has leaked.
        let key = CA.replace("CERTIFICATE", concat!("PRIVATE ", "KEY"));
        let padding = "#".repeat(CaCertificates::LENGTH_MAX - CA.len());
        assert!(CaCertificates::parse(&format!("{padding}\n{CA}").replacen('#', "", 1)).is_ok());
        for (text, error) in [
            ("certificate", E::CaNone),
            (&*format!("{CA}{key}"), E::CaForeign { number: 2 }),
            (&*CA.replace("MII", "!!!"), E::CaMalformed { number: 1 }),
            (
                &*format!("{CA}{}", CA.replace("MII", "AAA")),
                E::CaMalformed { number: 2 },
            ),
            (
                CA.split("-----END").next().unwrap_or_default(),
                E::CaMalformed { number: 1 },
            ),
            (&*format!("{padding}\n{CA}"), E::CaTooLong),
        ] {
            assert_eq!(CaCertificates::parse(text), Err(error), "{text:.60}");
        }
    }

    #[test]
    fn a_server_name_is_a_dns_name_or_an_address() {
        for good in ["gpu1", "gpu1.example.com", "10.0.0.1", "::1", "xn--mnchen-3ya.de"] {
            assert_eq!(ServerName::parse(good).unwrap().unwrap().as_str(), good);
        }
        for bad in [
            "https://gpu1",
            "gpu1:443",
            "a b",
            "*.example.com",
            "-",
            &"x".repeat(300),
        ] {
            assert_eq!(
                ServerName::parse(bad),
                Err(ModelPartError::ServerNameMalformed),
                "{bad}"
            );
        }
        assert_eq!(ServerName::parse(""), Ok(None));
    }
}
