//! TLS 1.3 with both sides authenticated by one consortium authority, and identities instead of host names.
//!
//! Chains, validity and signatures are verified by webpki through rustls. What is added here is who the certificate
//! speaks of: a dialler insists on `coordinator/<the node it meant>`, a listener on its own consortium. Nothing is
//! resumed, so that every connection is verified in full.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use archipelago_common::{Identity, NodeId, Principal};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use time::OffsetDateTime;

use crate::{
    credentials::{self, Credentials},
    error::{Error, Result},
};

/// The application protocol that both sides must name.
pub(crate) const ALPN: &[u8] = b"archipelago/1";

/// Where a dial finds out why its own verifier refused the peer; TLS itself only carries an alert.
pub(crate) type Verdict = Arc<Mutex<Option<Error>>>;

/// The one source of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// How a listener speaks TLS.
pub(crate) fn server_config(credentials: &Credentials) -> Result<ServerConfig> {
    let chain = WebPkiClientVerifier::builder_with_provider(credentials.roots(), provider())
        .build()
        .map_err(|e| bad_setup(&e))?;
    let verifier = MemberVerifier { chain, us: credentials.identity().clone() };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| bad_setup(&e))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(credentials.chain(), credentials.key())
        .map_err(|e| bad_setup(&e))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// How a dial to coordinator `node` speaks TLS.
pub(crate) fn client_config(credentials: &Credentials, node: NodeId, verdict: Verdict) -> Result<ClientConfig> {
    let us = credentials.identity().clone();
    let expected = Identity { consortium: us.consortium.clone(), principal: Principal::Coordinator(node) };
    let verifier = CoordinatorVerifier { provider: provider(), roots: credentials.roots(), expected, verdict };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| bad_setup(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(credentials.chain(), credentials.key())
        .map_err(|e| bad_setup(&e))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The host of `host:port`, for whoever routes connections by it on the way. It is not compared with anything: identities are.
pub(crate) fn server_name(address: &str) -> ServerName<'static> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    ServerName::try_from(host.to_owned()).unwrap_or(ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into()))
}

/// What a failed verification means to a person on this side.
pub(crate) fn judge(us: &Identity, error: &rustls::Error) -> Error {
    let rustls::Error::InvalidCertificate(error) = error else {
        return Error::BadPeer { detail: error.to_string() };
    };
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            Error::PeerExpired { clocks: clocks("until", *not_after, *time) }
        }
        CertificateError::Expired => Error::PeerExpired { clocks: String::new() },
        CertificateError::NotValidYetContext { time, not_before } => {
            Error::PeerNotYetValid { clocks: clocks("from", *not_before, *time) }
        }
        CertificateError::NotValidYet => Error::PeerNotYetValid { clocks: String::new() },
        // A forged authority of the same name shows as a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Error::UntrustedPeer { consortium: us.consortium.to_string() }
        }
        other => Error::BadPeer { detail: other.to_string() },
    }
}

/// What a TLS alert from the peer says about our certificate (RFC 8446, section 6.2).
pub(crate) fn alert(code: u8) -> &'static str {
    match code {
        42 | 43 | 46 | 51 => "it finds our certificate malformed",
        44 => "our certificate is revoked",
        45 => OUT_OF_TIME,
        48 => "our certificate was not signed by its consortium's authority",
        49 => "our certificate is of another consortium or names no identity",
        116 => "it asks for a certificate",
        120 => "it does not speak our protocol",
        _ => "the handshake failed",
    }
}

/// A peer that finds our certificate out of its time, and what this side's clock says to that: one of the two clocks may be wrong.
pub(crate) fn with_clocks(credentials: &Credentials, error: Error) -> Error {
    let Error::Refused { reason } = &error else { return error };
    if reason != OUT_OF_TIME {
        return error;
    }
    let (now, (begins, ends)) = (OffsetDateTime::now_utc(), credentials.validity());
    let [shown, from, until] = [now, begins, ends].map(credentials::minute);
    let reason = if now > ends {
        format!("our certificate has expired: it was valid until {until}, and this machine's clock shows {shown}")
    } else if now < begins {
        format!("our certificate is not valid before {from}, and this machine's clock shows {shown}")
    } else {
        format!(
            "it finds our certificate expired or not valid yet, and by this machine's clock, which shows {shown}, it is valid \
             from {from} until {until}: the clocks of the two machines differ"
        )
    };
    Error::Refused { reason }
}

/// The end or begin of a peer's certificate, beside this machine's clock.
fn clocks(which: &str, bound: UnixTime, now: UnixTime) -> String {
    let minute = |at: UnixTime| {
        let at = i64::try_from(at.as_secs()).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
        at.map_or_else(|| "a time that is none".to_owned(), credentials::minute)
    };
    format!(": it is valid {which} {}, and this machine's clock shows {}", minute(bound), minute(now))
}

/// What a peer's alert says that finds our certificate expired, or not valid yet: TLS has one word for both.
const OUT_OF_TIME: &str = "our certificate has expired or is not valid yet";

/// Verifies that a server is one certain coordinator of this consortium.
#[derive(Debug)]
struct CoordinatorVerifier {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    expected: Identity,
    verdict: Verdict,
}

impl CoordinatorVerifier {
    fn refuse(&self, error: Error) -> rustls::Error {
        let tls = match &error {
            Error::PeerExpired { .. } => CertificateError::Expired,
            Error::PeerNotYetValid { .. } => CertificateError::NotValidYet,
            Error::UntrustedPeer { .. } => CertificateError::UnknownIssuer,
            _ => CertificateError::ApplicationVerificationFailure,
        };
        *self.verdict.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
        tls.into()
    }
}

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let wrong = |found| Error::WrongPeer { expected: self.expected.to_string(), found };
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verified = ParsedCertificate::try_from(end_entity).and_then(|leaf| {
            verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms)
        });
        match verified {
            Ok(()) => {}
            // Only coordinators are certified as servers.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
            )) => {
                let found = credentials::identity(end_entity).map_or_else(|_| "nobody".to_owned(), |i| i.to_string());
                return Err(self.refuse(wrong(found)));
            }
            Err(e) => return Err(self.refuse(judge(&self.expected, &e))),
        }
        match credentials::identity(end_entity) {
            Ok(found) if found == self.expected => Ok(ServerCertVerified::assertion()),
            Ok(found) => Err(self.refuse(wrong(found.to_string()))),
            Err(detail) => Err(self.refuse(Error::BadPeer { detail })),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies that a client is a member of this consortium; what it may do is decided by its role, later.
#[derive(Debug)]
struct MemberVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    us: Identity,
}

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now).map_err(|error| match error {
            // So that the peer hears the reason: see `judge`.
            rustls::Error::InvalidCertificate(CertificateError::BadSignature) => CertificateError::UnknownIssuer.into(),
            other => other,
        })?;
        match credentials::identity(end_entity) {
            Ok(found) if found.consortium == self.us.consortium => Ok(verified),
            Ok(_) | Err(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn bad_setup(error: &dyn std::fmt::Display) -> Error {
    Error::Issue { what: "a TLS configuration", detail: error.to_string() }
}
