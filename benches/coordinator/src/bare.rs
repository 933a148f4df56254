//! The bound of a transfer: bytes through quinn and TLS to another process, with the product's windows, socket buffers and
//! frames of a chunk's size, and nothing else: no hashing, no disk.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use archipelago_common::limits;
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};

use socket2::SockRef;

use crate::transfer::rate;

/// Sends so many bytes to a process of its own; megabytes a second until it says that it has them.
pub(crate) async fn measure(n_bytes: u64) -> Result<f64> {
    let mut server = Command::new(std::env::current_exe()?)
        .arg("bare-server")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start the bare server")?;
    let mut lines = BufReader::new(server.stdout.take().context("its output is there once")?).lines();
    let mut line = || lines.next().context("the bare server says where it is")?.map_err(anyhow::Error::from);
    let address: SocketAddr = line()?.parse()?;
    let certificate = line()?;
    let bytes = (0..certificate.len() / 2).map(|i| u8::from_str_radix(&certificate[2 * i..2 * i + 2], 16));
    let done = send(address, bytes.collect::<Result<Vec<_>, _>>()?, n_bytes).await;
    server.kill()?;
    server.wait()?;
    done
}

async fn send(address: SocketAddr, certificate: Vec<u8>, n_bytes: u64) -> Result<f64> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate))?;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(windows()));
    let endpoint = endpoint(None)?;
    let connection = endpoint.connect_with(config, address, "localhost")?.await?;
    let (mut stream, mut answer) = connection.open_bi().await?;
    let chunk = vec![7; limits::CHUNK_BYTES as usize];
    let (begun, mut left) = (Instant::now(), n_bytes);
    while left > 0 {
        let size = left.min(limits::CHUNK_BYTES);
        stream.write_all(&chunk[..size as usize]).await?;
        left -= size;
    }
    stream.finish()?;
    answer.read_to_end(1).await?;
    Ok(rate(n_bytes, begun))
}

/// Receives and forgets, until killed.
pub(crate) fn serve() -> Result<()> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(windows()));
    tokio::runtime::Runtime::new()?.block_on(async {
        let endpoint = endpoint(Some(config))?;
        let hex: String = certified.cert.der().iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(std::io::stdout(), "{}\n{hex}", endpoint.local_addr()?)?;
        let connection = endpoint.accept().await.context("one connection comes")?.await?;
        let (mut answer, mut stream) = connection.accept_bi().await?;
        let mut buffer = vec![0; limits::CHUNK_BYTES as usize];
        while stream.read(&mut buffer).await?.is_some() {}
        answer.write_all(b"!").await?;
        answer.finish()?;
        connection.closed().await;
        Ok(())
    })
}

/// An endpoint with the socket buffers of `archipelago-transport`.
fn endpoint(server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sized = SockRef::from(&socket);
    sized.set_recv_buffer_size(2 << 20)?;
    sized.set_send_buffer_size(2 << 20)?;
    let runtime = quinn::default_runtime().context("this runs in a runtime")?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket, runtime)?)
}

/// The windows of `archipelago-transport`.
fn windows() -> TransportConfig {
    let mut config = TransportConfig::default();
    config.stream_receive_window(VarInt::from_u32(16 << 20));
    config.receive_window(VarInt::from_u32(32 << 20));
    config.send_window(32 << 20);
    config
}
