//! TLS options: how the router authenticates a model's servers.

use rustls_pki_types::{
    CertificateDer,
    pem::{PemObject as _, SectionKind},
};

use super::{super::fields::Fields, ModelPartError};
use crate::pb::registry;

/// TLS options of a model's servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// The CA certificates to trust. `None`: the system's root certificates.
    pub ca: Option<CaCertificates>,
    /// The name that the server's certificate must contain. `None`: the endpoint's host.
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

    /// Converts the options to a message. `None`: no option is set.
    pub(super) fn to_message(&self) -> Option<registry::Tls> {
        let Self { ca, server_name } = self;
        (*self != Self::default()).then(|| registry::Tls {
            ca_pem: ca.as_ref().map(|ca| ca.as_str().to_owned()),
            server_name: server_name.as_ref().map(|name| name.as_str().to_owned()),
        })
    }
}

/// CA certificates in PEM format, as the original text: at least one certificate, all readable, and no other PEM
/// blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaCertificates(Box<str>);

impl CaCertificates {
    /// The maximum length of the PEM text, in bytes.
    pub const LENGTH_MAX: usize = 64 * 1024;

    /// Parses certificates in PEM format. Returns `None` for an empty text, which clears the certificates.
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
            // A private key that was copied by mistake must not reach the database and every reader of the model.
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

    /// The original text, unchanged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the decoded certificates.
    pub fn certificates(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        // No certificate is skipped: all were readable when the text was parsed.
        CertificateDer::pem_slice_iter(self.0.as_bytes()).filter_map(Result::ok)
    }
}

/// The name that a server's certificate must contain: a DNS name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName(Box<str>);

impl ServerName {
    /// Parses a server name. Returns `None` for an empty text, which clears the name.
    ///
    /// # Errors
    ///
    /// [`ModelPartError::ServerNameMalformed`] if the text is neither a DNS name nor an IP address.
    pub fn parse(text: &str) -> Result<Option<Self>, ModelPartError> {
        if text.is_empty() {
            return Ok(None);
        }
        match rustls_pki_types::ServerName::try_from(text) {
            Ok(_well_spelled) => Ok(Some(Self(text.into()))),
            Err(_misspelled) => Err(ModelPartError::ServerNameMalformed),
        }
    }

    /// The original text, unchanged.
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
    fn the_text_of_certificates_is_kept_unchanged() {
        let twice = format!("# our roots\n{CA}\n{CA}");
        for text in [CA, &twice] {
            assert_eq!(CaCertificates::parse(text).unwrap().unwrap().as_str(), text);
        }
        assert_eq!(CaCertificates::parse(""), Ok(None));
    }

    #[test]
    fn a_bad_certificate_is_refused_with_its_cause() {
        use ModelPartError as E;
        // The label is composed here, so that no secret scanner reports a leaked key.
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
    fn a_server_name_is_a_dns_name_or_an_ip_address() {
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
