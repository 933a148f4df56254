//! Peers that are none of our programs: TLS over TCP by hand.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Result, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
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
use socket2::{Domain, Socket, Type};

use crate::consortium::Consortium;

/// What is told to whoever shakes hands over TLS, in the right protocol, and shows no certificate.
pub(super) fn without_certificate(address: &str) -> String {
    shake_hands(TcpStream::connect(address).unwrap())
}

fn shake_hands(socket: TcpStream) -> String {
    let mut stream = over(socket, believing().with_no_client_auth());
    let said = stream.write_all(b"hello").and_then(|()| rest(&mut stream));
    said.map_or_else(|error| error.to_string(), |n| format!("{n} bytes"))
}

/// What becomes of somebody with the certificate in a folder who opens streams of yamux as fast as they can be written.
pub(super) fn streams_without_end(address: &str, home: &Path) -> String {
    let chain = CertificateDer::pem_file_iter(home.join("cert.pem")).unwrap().collect::<std::result::Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(home.join("key.pem")).unwrap();
    let config = believing().with_client_auth_cert(chain.unwrap(), key).unwrap();
    let mut stream = over(TcpStream::connect(address).unwrap(), config);
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

/// What a crowd met.
#[derive(Default)]
struct Met {
    told: usize,
    hung_up_on: usize,
    left_open: usize,
    /// The last handshakes that were begun and left open.
    held: VecDeque<TcpStream>,
}

/// One of a crowd, at an address of its own: of three one shows no certificate, one is a browser, and one says three bytes and waits.
fn come(number: u32, to: SocketAddr, met: &mut Met) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number % 250);
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut socket = TcpStream::from(socket);
    match number % 3 {
        0 => match shake_hands(socket) {
            said if said.contains("CertificateRequired") => met.told += 1,
            said => {
                assert!(!said.ends_with("bytes"), "somebody without a certificate was answered: {said}");
                met.hung_up_on += 1;
            }
        },
        1 => {
            let mut answer = Vec::new();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let asked =
                socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").and_then(|()| socket.read_to_end(&mut answer));
            assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
            assert!(!asked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "nobody hangs up on a browser");
            met.hung_up_on += 1;
        }
        // Whether this is still taken does not matter.
        _ => {
            let _ = socket.write_all(&[22, 3, 1]);
            met.left_open += 1;
            met.held.push_back(socket);
            // No longer than the crowd has places: others are to find some too.
            if met.held.len() > HELD {
                met.held.pop_front();
            }
        }
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "figures for docs/reliability.md")]
fn ten_thousand_who_show_no_certificate_hold_up_nobody() {
    let consortium = Consortium::new(1);
    let to = consortium.addresses().into_values().next().unwrap().parse().unwrap();
    consortium.ask(&["status"]);
    let begun = Instant::now();
    let (met, mut waits) = std::thread::scope(|scope| {
        let one_of = |first: u32| {
            let mut met = Met::default();
            (0..STRANGERS / AT_ONCE).for_each(|i| come(first + i * AT_ONCE, to, &mut met));
            met
        };
        let crowd: Vec<_> = (0..AT_ONCE).map(|first| scope.spawn(move || one_of(first))).collect();
        let mut waits = Vec::new();
        while !crowd.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let begun = Instant::now();
            // Fails if it is not answered.
            consortium.ask(&["status"]);
            waits.push(begun.elapsed());
        }
        (crowd.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>(), waits)
    });
    let seconds = begun.elapsed().as_secs_f64();
    let count = |of: fn(&Met) -> usize| met.iter().map(of).sum::<usize>();
    let (told, hung_up_on, left_open) =
        (count(|met| met.told), count(|met| met.hung_up_on), count(|met| met.left_open));
    assert_eq!(told + hung_up_on + left_open, STRANGERS as usize);
    assert!(told > 0, "where there is a place, it is said what is missing");
    let peak = consortium.peak_kib(1);
    waits.sort();
    eprintln!(
        "{STRANGERS} strangers in {seconds:.1} s: {told} were told, {hung_up_on} hung up on, {left_open} left open; {} commands of an operator \
         meanwhile, p50 {:?}, at most {:?}; peak memory of the node {} MB",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() - 1],
        peak / 1_000
    );
    assert!(peak < 256 << 10, "the node took {peak} KiB for strangers");
    let page = consortium.http(1, "/metrics").unwrap();
    let mut sessions = page.lines().filter(|line| line.starts_with("archipelago_sessions{")).peekable();
    assert!(sessions.peek().is_some(), "the operator was here");
    assert!(sessions.all(|line| line.contains("role=\"operator\"") || line.ends_with(" 0")), "nobody came in");
}

/// Everything up to the end.
fn rest(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> Result<usize> {
    stream.read_to_end(&mut Vec::new())
}

fn over(stream: TcpStream, mut config: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    config.alpn_protocols = vec![b"archipelago/1".to_vec()];
    let connection = ClientConnection::new(Arc::new(config), "node".try_into().unwrap()).unwrap();
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

/// Who come, and how many of them at the same time.
const STRANGERS: u32 = 10_048;
const AT_ONCE: u32 = 64;
/// Handshakes that each of these leaves open at a time.
const HELD: usize = 2;

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
