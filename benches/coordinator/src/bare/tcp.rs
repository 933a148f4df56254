//! The bare loop over TCP: TLS and one stream of bytes.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::Result;
use archipelago_common::limits;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::pour;

/// Sends so many bytes, and waits until they are there.
pub(super) async fn send(address: SocketAddr, tls: rustls::ClientConfig, n_bytes: u64) -> Result<()> {
    let socket = filling(TcpStream::connect(address).await?);
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(ServerName::try_from("localhost")?, socket).await?;
    pour(&mut stream, n_bytes).await?;
    stream.shutdown().await?;
    stream.read_u8().await?;
    Ok(())
}

/// Receives and forgets what one peer sends.
pub(super) async fn serve(
    tls: rustls::ServerConfig,
    host: IpAddr,
    listening: impl FnOnce(SocketAddr) -> Result<()>,
) -> Result<()> {
    let listener = TcpListener::bind((host, 0)).await?;
    listening(listener.local_addr()?)?;
    let socket = filling(listener.accept().await?.0);
    let mut stream = TlsAcceptor::from(Arc::new(tls)).accept(socket).await?;
    let mut buffer = vec![0; limits::CHUNK_BYTES as usize];
    while stream.read(&mut buffer).await? > 0 {}
    stream.write_all(b"!").await?;
    stream.shutdown().await?;
    Ok(())
}

/// The congestion control of `archipelago-transport`, where the system has it.
fn filling(socket: TcpStream) -> TcpStream {
    let _ = SockRef::from(&socket).set_tcp_congestion(b"bbr");
    socket
}
