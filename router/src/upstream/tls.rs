//! Says in plain words why the TLS handshake with a model server failed. Pure.
//!
//! The texts of rustls are not used: some quote the certificate, which is as long as the server likes, and none says
//! what it means for the server.

use std::error::Error as StdError;

use rustls::{CertificateError, Error, InvalidMessage};
use switchboard::service::cause::{Cause, causes};

/// Returns why a certificate is not trusted.
pub(super) fn untrusted(error: &CertificateError) -> Cause {
    use CertificateError as E;

    Cause::new(match error {
        E::Expired | E::ExpiredContext { .. } => "the certificate has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "the certificate is not valid yet",
        E::UnknownIssuer | E::BadSignature => "the certificate was signed by an unknown authority",
        E::NotValidForName => "the certificate is for another name",
        // The expected name is the endpoint's host or the model's `tls.server_name`.
        E::NotValidForNameContext { expected, .. } => {
            let expected = expected.to_str();
            return Cause::new(format!("the certificate is not for the name {expected}"));
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "the certificate is not for a server",
        E::Revoked => "the certificate was revoked",
        E::BadEncoding => "the certificate is malformed",
        _ => "the certificate cannot be verified",
    })
}

/// Returns why a handshake failed for another reason than the certificate.
pub(super) fn handshake(error: &(dyn StdError + 'static)) -> Cause {
    match causes(error).find_map(|cause| cause.downcast_ref::<Error>()) {
        Some(error) => broken(error),
        None => Cause::new(format!("{} during the TLS handshake", Cause::of(error))),
    }
}

fn broken(error: &Error) -> Cause {
    Cause::new(match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "the server does not use TLS on this port",
        Error::AlertReceived(alert) => {
            let alert = words(&format!("{alert:?}"));
            return Cause::new(format!("the server refused the TLS handshake ({alert})"));
        }
        Error::PeerIncompatible(_) => "the server has no TLS version or cipher in common with the router",
        Error::NoCertificatesPresented => "the server has no certificate",
        _ => "the server does not follow the TLS protocol",
    })
}

/// Splits the name of a variant into words: `HandshakeFailure` becomes `handshake failure`.
fn words(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 4);
    let mut was_lower = false;
    for character in name.chars() {
        if was_lower && character.is_ascii_uppercase() {
            words.push(' ');
        }
        was_lower = character.is_ascii_lowercase();
        words.push(character.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{AlertDescription, PeerIncompatible, pki_types::ServerName};

    use super::*;

    #[test]
    fn the_words_name_what_is_wrong_with_a_certificate_and_quote_nothing_of_it() {
        let expected = ServerName::try_from("gpu.test").unwrap();
        let other_name = CertificateError::NotValidForNameContext {
            expected,
            presented: vec!["\u{e9}vil".repeat(10_000)],
        };
        for (error, words) in [
            (CertificateError::Expired, "the certificate has expired"),
            (CertificateError::NotValidYet, "the certificate is not valid yet"),
            (
                CertificateError::UnknownIssuer,
                "the certificate was signed by an unknown authority",
            ),
            (other_name, "the certificate is not for the name gpu.test"),
            (
                CertificateError::UnhandledCriticalExtension,
                "the certificate cannot be verified",
            ),
        ] {
            assert_eq!(untrusted(&error).to_string(), words);
        }
    }

    #[test]
    fn the_words_name_why_a_handshake_broke_off() {
        let tls = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        for (error, words) in [
            (
                tls(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
                "the server does not use TLS on this port",
            ),
            (
                tls(Error::AlertReceived(AlertDescription::HandshakeFailure)),
                "the server refused the TLS handshake (handshake failure)",
            ),
            (
                tls(Error::PeerIncompatible(PeerIncompatible::NullCompressionRequired)),
                "the server has no TLS version or cipher in common with the router",
            ),
            (closed, "connection closed during the TLS handshake"),
            (
                io::ErrorKind::ConnectionReset.into(),
                "connection reset during the TLS handshake",
            ),
        ] {
            assert_eq!(handshake(&error).to_string(), words);
            assert_eq!(handshake(&io::Error::other(error)).to_string(), words, "deeper");
        }
    }
}
