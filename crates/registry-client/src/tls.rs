//! Whom to believe: the rustls configuration, and what an error in TLS means.
//!
//! Besides the usual chain to a trusted CA, one more thing is accepted: a server certificate that is byte for byte one that the
//! user named. `openssl req -x509` marks such certificates as CAs, and the usual rules refuse a CA as a server's certificate
//! even where it is trusted. Its name and dates are checked all the same.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificates::Shown;
use crate::{Cause, Error};

/// The TLS configuration for one host (or for all that have nothing of their own).
///
/// `system` are the CAs of this machine, `named` what the user named, `shown` what we show when we are asked who we are.
pub(crate) fn client_config(
    system: &[CertificateDer<'static>],
    named: Vec<CertificateDer<'static>>,
    shown: Option<Shown>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(&provider, system, named);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Config { what: "TLS", value: "ring".to_owned(), why: e.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match shown {
        Some(Shown { chain, key, path }) => builder.with_client_auth_cert(chain, key).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                Error::content(path, "it is not the key of the certificate beside it")
            }
            other => Error::content(path, other.to_string()),
        })?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// There is no CA that could vouch for anybody.
#[derive(Debug, thiserror::Error)]
#[error("no CA is trusted")]
struct NoCa;

#[derive(Debug)]
struct Verifier {
    /// `None` when there is no CA at all: a minimal machine without `--ca-file`.
    chains: Option<Arc<WebPkiServerVerifier>>,
    named: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        provider: &Arc<CryptoProvider>,
        system: &[CertificateDer<'static>],
        named: Vec<CertificateDer<'static>>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system.iter().chain(&named).cloned());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().ok();
        Self { chains, named, provider: Arc::clone(provider) }
    }

    /// The usual check. Dates come first in it, so that an error about the chain means that the dates are good.
    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.chains {
            Some(chains) => chains.verify_server_cert(leaf, others, name, &[], now),
            None => Err(CertificateError::Other(OtherError(Arc::new(NoCa))).into()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let error = match self.check_chain(leaf, others, name, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        if !only_the_chain_is_wrong(&error) || !self.named.iter().any(|n| n.as_ref() == leaf.as_ref()) {
            return Err(error);
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn only_the_chain_is_wrong(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => true,
        // webpki's own error type is not part of rustls' interface
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.to_string() == "CaUsedAsEndEntity",
        _ => false,
    }
}

/// What an error in TLS means.
pub(crate) fn cause(error: &rustls::Error) -> Cause {
    use CertificateError as C;
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => return Cause::PlainHttp,
        rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
            return Cause::ClientCertificate { shown: false, why: format!("{alert:?}") };
        }
        other => return Cause::Tls(other.to_string()),
    };
    match certificate {
        C::Expired => Cause::Expired(None),
        C::ExpiredContext { not_after, .. } => Cause::Expired(day(*not_after)),
        C::NotValidYet => Cause::NotYetValid(None),
        C::NotValidYetContext { not_before, .. } => Cause::NotYetValid(day(*not_before)),
        C::NotValidForNameContext { presented, .. } => {
            // an e-mail address or a URI is no name of a server
            let names: Vec<String> =
                presented.iter().filter(|n| !n.starts_with("Unsupported")).map(|n| plain(n)).collect();
            if names.is_empty() { Cause::NoNames } else { Cause::WrongName(names.into_iter().take(8).collect()) }
        }
        // a bad signature is that of another CA of the same name: one that was made anew
        C::UnknownIssuer | C::BadSignature => Cause::UnknownIssuer,
        C::Other(other) if other.0.to_string() == "CaUsedAsEndEntity" => Cause::UnknownIssuer,
        // a certificate of version 1, as `openssl x509 -req` makes it without extensions, can hold no names
        C::Other(other) if other.0.to_string() == "UnsupportedCertVersion" => Cause::NoNames,
        C::Other(other) if other.0.is::<NoCa>() => Cause::NobodyTrusted,
        other => Cause::Tls(format!("its certificate is not valid: {other}")),
    }
}

/// What servers answer to a client's certificate, and to the lack of one: Go before 1.21 and TLS 1.2 say `BadCertificate` there.
fn is_about_our_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::CertificateRequired
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::DecryptError
            | A::AccessDenied
            | A::NoCertificate
    )
}

/// `DnsName("r.example")` as people write it.
fn plain(name: &str) -> String {
    match (name.find('"'), name.rfind('"')) {
        (Some(start), Some(end)) if start < end => name[start + 1..end].to_owned(),
        _ => name.strip_prefix("IpAddress(").and_then(|n| n.strip_suffix(')')).unwrap_or(name).to_owned(),
    }
}

fn day(time: UnixTime) -> Option<String> {
    let seconds = i64::try_from(time.as_secs()).ok()?;
    let timestamp = jiff::Timestamp::from_second(seconds).ok()?;
    Some(timestamp.strftime("%Y-%m-%d %H:%M UTC").to_string())
}
