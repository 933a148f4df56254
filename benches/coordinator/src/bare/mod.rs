//! The bound of a transfer: bytes through TLS to another process, in pieces of a chunk's size, and nothing else: no hashing, no
//! disk.

mod quic;
mod tcp;

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use archipelago_common::limits;
use archipelago_transport::Way;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::{cluster::Place, transfer::rate};

/// Sends so many bytes to a process of its own; megabytes a second until it says that it has them.
pub(crate) async fn measure(way: Way, n_bytes: u64, at: &Place) -> Result<f64> {
    let program = std::env::current_exe()?;
    let mut words = at.prefix.iter().map(OsStr::new).chain([program.as_os_str()]);
    let mut server = Command::new(words.next().unwrap_or_default())
        .args(words)
        .args(["bare-server", way.as_str(), &at.host])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start the bare server")?;
    let mut lines = BufReader::new(server.stdout.take().context("its output is there once")?).lines();
    let mut line = || lines.next().context("the bare server says where it is")?.map_err(anyhow::Error::from);
    let address: SocketAddr = line()?.parse()?;
    let tls = client_config(&line()?)?;
    let begun = Instant::now();
    match way {
        Way::Quic => quic::send(address, tls, n_bytes).await?,
        Way::Tcp => tcp::send(address, tls, n_bytes).await?,
        Way::Memory => bail!("processes have no memory in common"),
    }
    let rate = rate(n_bytes, begun);
    server.kill()?;
    server.wait()?;
    Ok(rate)
}

/// So many bytes, in pieces of a chunk's size.
async fn pour(stream: &mut (impl AsyncWrite + Unpin), n_bytes: u64) -> Result<()> {
    let chunk = vec![7; limits::CHUNK_BYTES as usize];
    let mut left = n_bytes;
    while left > 0 {
        let size = left.min(limits::CHUNK_BYTES);
        stream.write_all(&chunk[..size as usize]).await?;
        left -= size;
    }
    Ok(())
}

/// Receives and forgets, until killed.
pub(crate) fn serve(way: &str, host: IpAddr) -> Result<()> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
    let hex: String = certified.cert.der().iter().map(|byte| format!("{byte:02x}")).collect();
    let listening = |address: SocketAddr| Ok(writeln!(std::io::stdout(), "{address}\n{hex}")?);
    tokio::runtime::Runtime::new()?.block_on(async {
        match way {
            way if way == Way::Tcp.as_str() => tcp::serve(tls, host, listening).await,
            _ => quic::serve(tls, host, listening).await,
        }
    })
}

fn client_config(certificate: &str) -> Result<ClientConfig> {
    let bytes = (0..certificate.len() / 2).map(|i| u8::from_str_radix(&certificate[2 * i..2 * i + 2], 16));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(bytes.collect::<Result<Vec<_>, _>>()?))?;
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
