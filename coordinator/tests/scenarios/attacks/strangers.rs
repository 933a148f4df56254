//! Peers that are none of our programs: TLS over TCP by hand.

use std::{
    io::{ErrorKind, Read as _, Result, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

/// What is told to whoever shakes hands over TLS, in the right protocol, and shows no certificate.
pub(super) fn without_certificate(address: &str) -> String {
    let mut stream = dial(address, believing().with_no_client_auth());
    let said = stream.write_all(b"hello").and_then(|()| rest(&mut stream));
    said.map_or_else(|error| error.to_string(), |n| format!("{n} bytes"))
}

/// What becomes of somebody with the certificate in a folder who opens streams of yamux as fast as they can be written.
pub(super) fn streams_without_end(address: &str, home: &Path) -> String {
    let chain = CertificateDer::pem_file_iter(home.join("cert.pem")).unwrap().collect::<std::result::Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(home.join("key.pem")).unwrap();
    let mut stream = dial(address, believing().with_client_auth_cert(chain.unwrap(), key).unwrap());
    for number in 0..MANY {
        // Version, a window update that opens a stream of the dialler's, and no bytes more of window.
        let (id, kind, opens) = (2 * number + 1, 1, 1_u16.to_be_bytes());
        let header = [&[0, kind][..], &opens, &id.to_be_bytes(), &0_u32.to_be_bytes()].concat();
        if stream.write_all(&header).is_err() {
            return "closed".to_owned();
        }
    }
    match rest(&mut stream) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => format!("{MANY} open"),
        Ok(_) | Err(_) => "closed".to_owned(),
    }
}

/// Everything up to the end.
fn rest(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> Result<usize> {
    stream.read_to_end(&mut Vec::new())
}

fn dial(address: &str, mut config: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    config.alpn_protocols = vec![b"archipelago/1".to_vec()];
    let connection = ClientConnection::new(Arc::new(config), "node".try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    StreamOwned::new(connection, stream)
}

fn believing() -> ConfigBuilder<ClientConfig, WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whoever))
}

/// More than any coordinator lets one peer have.
const MANY: u32 = 10_000;

/// Believes every coordinator: what is asked is whom the coordinator believes.
#[derive(Debug)]
struct Whoever;

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
