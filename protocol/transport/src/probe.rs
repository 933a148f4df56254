//! The way to a coordinator, one step at a time, for whoever wants to know where it ends. Nothing is said on it beyond a
//! handshake, and nothing is kept.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use archipelago_common::{NodeId, text::printable};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_rustls::TlsConnector;

use crate::{
    Connection, Credentials, Timing, Transport as _, credentials,
    dialling::{resolve, within},
    error::{Cause, Error, Result},
    net::{Network, Ways},
    proxy::Proxy,
    quic::QuicTransport,
    tcp::TcpTransport,
    tls,
};

/// Takes the ways to coordinators apart.
pub struct Probe {
    quic: QuicTransport,
    tcp: TcpTransport,
    ways: Ways,
    timing: Timing,
}

/// A certificate that answered, whoever signed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Presented {
    /// Whom it speaks of.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
}

impl Probe {
    /// Ways as `network` has them, for the holder of `credentials`.
    pub fn new(credentials: Credentials, network: Network) -> Self {
        let timing = Timing::default();
        Self {
            quic: QuicTransport::with_timing(credentials.clone(), timing),
            tcp: TcpTransport::with_timing(credentials, timing, network.proxy),
            ways: network.ways,
            timing,
        }
    }

    /// Which ways the configuration allows.
    pub fn ways(&self) -> Ways {
        self.ways
    }

    /// Where the host of an address (`host:port`) is.
    ///
    /// # Errors  [`Error::Unreachable`]
    pub async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>> {
        within(self.timing.handshake_timeout, address, Cause::NoName, resolve(address)).await
    }

    /// The proxy that TCP to an address goes through.
    pub fn proxy_for(&self, address: &str) -> Option<&Proxy> {
        self.tcp.proxy_for(address)
    }

    /// How long it takes over UDP until both sides know each other.
    ///
    /// # Errors  as [`crate::Transport::dial`]
    pub async fn over_udp(&self, address: &str, node: NodeId) -> Result<Duration> {
        let begun = Instant::now();
        let connection = self.quic.dial(address, node).await?;
        Ok(parted(&connection, begun))
    }

    /// How long it takes until a TCP connection stands, through the proxy where there is one for the address.
    ///
    /// # Errors  [`Error::Unreachable`]
    pub async fn to_port(&self, address: &str) -> Result<Duration> {
        let begun = Instant::now();
        within(self.timing.handshake_timeout, address, Cause::Silent, self.tcp.socket(address)).await?;
        Ok(begun.elapsed())
    }

    /// How long it takes over TCP until both sides know each other.
    ///
    /// # Errors  as [`crate::Transport::dial`]
    pub async fn over_tcp(&self, address: &str, node: NodeId) -> Result<Duration> {
        let begun = Instant::now();
        let connection = self.tcp.dial(address, node).await?;
        Ok(parted(&connection, begun))
    }

    /// Whose certificate answers over TCP, believed or not: an inspecting proxy gives itself away here. Ours is not shown.
    ///
    /// # Errors  [`Error::Unreachable`], [`Error::BadPeer`] where nobody there speaks TLS 1.3
    pub async fn presented(&self, address: &str) -> Result<Presented> {
        let onlooker = Arc::new(Onlooker::default());
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| Error::Issue { what: "a TLS configuration", detail: e.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(onlooker.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![tls::ALPN.to_vec()];
        let look = async {
            let socket = self.tcp.socket(address).await?;
            // However it ends: what is wanted has been seen by then.
            Ok(TlsConnector::from(Arc::new(config)).connect(tls::server_name(address), socket).await.map(drop))
        };
        let ended = within(self.timing.handshake_timeout, address, Cause::Silent, look).await?;
        match (onlooker.seen(), ended) {
            (Some(seen), _) => seen.map_err(|detail| Error::BadPeer { detail }),
            (None, Err(error)) => Err(Error::BadPeer { detail: printable(&error.to_string(), DETAIL_CHARS) }),
            (None, Ok(())) => Err(Error::BadPeer { detail: "it showed no certificate".to_owned() }),
        }
    }
}

/// Takes leave; what a handshake took.
fn parted(connection: &Connection, begun: Instant) -> Duration {
    let took = begun.elapsed();
    connection.close("it was only a look");
    took
}

/// Looks at a certificate and lets no connection come about: it believes nobody.
#[derive(Debug, Default)]
struct Onlooker {
    seen: Mutex<Option<Result<Presented, String>>>,
}

impl Onlooker {
    fn seen(&self) -> Option<Result<Presented, String>> {
        self.seen.lock().unwrap_or_else(|e| e.into_inner()).take()
    }
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = credentials::names(end_entity).map(|(subject, issuer)| Presented {
            subject: printable(&subject, NAME_CHARS),
            issuer: printable(&issuer, NAME_CHARS),
        });
        *self.seen.lock().unwrap_or_else(|e| e.into_inner()) = Some(seen);
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A distinguished name can be long, and it is foreign text.
const NAME_CHARS: usize = 120;
const DETAIL_CHARS: usize = 200;
