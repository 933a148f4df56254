//! The bare loop over QUIC: quinn and TLS with the product's windows and socket buffers.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use archipelago_common::limits;
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt,
    congestion::BbrConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use socket2::SockRef;

use super::pour;

/// Sends so many bytes, and waits until they are there.
pub(super) async fn send(address: SocketAddr, tls: rustls::ClientConfig, n_bytes: u64) -> Result<()> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(windows()));
    let endpoint = endpoint(Ipv4Addr::UNSPECIFIED.into(), None)?;
    let connection = endpoint.connect_with(config, address, "localhost")?.await?;
    let (mut stream, mut answer) = connection.open_bi().await?;
    pour(&mut stream, n_bytes).await?;
    stream.finish()?;
    answer.read_to_end(1).await?;
    Ok(())
}

/// Receives and forgets what one peer sends.
pub(super) async fn serve(
    tls: rustls::ServerConfig,
    host: IpAddr,
    listening: impl FnOnce(SocketAddr) -> Result<()>,
) -> Result<()> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(windows()));
    let endpoint = endpoint(host, Some(config))?;
    listening(endpoint.local_addr()?)?;
    let connection = endpoint.accept().await.context("one connection comes")?.await?;
    let (mut answer, mut stream) = connection.accept_bi().await?;
    let mut buffer = vec![0; limits::CHUNK_BYTES as usize];
    while stream.read(&mut buffer).await?.is_some() {}
    answer.write_all(b"!").await?;
    answer.finish()?;
    connection.closed().await;
    Ok(())
}

/// An endpoint with the socket buffers of `archipelago-transport`.
fn endpoint(host: IpAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = UdpSocket::bind((host, 0))?;
    let sized = SockRef::from(&socket);
    sized.set_recv_buffer_size(2 << 20)?;
    sized.set_send_buffer_size(2 << 20)?;
    let runtime = quinn::default_runtime().context("this runs in a runtime")?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket, runtime)?)
}

/// The windows and the congestion control of `archipelago-transport`.
fn windows() -> TransportConfig {
    let mut config = TransportConfig::default();
    config.stream_receive_window(VarInt::from_u32(16 << 20));
    config.receive_window(VarInt::from_u32(32 << 20));
    config.send_window(32 << 20);
    config.congestion_controller_factory(Arc::new(BbrConfig::default()));
    config
}
