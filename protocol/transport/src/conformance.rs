//! One suite that every transport passes: what a [`Connection`] promises, independent of how bytes move.

use std::sync::Arc;

use archipelago_common::{Identity, NodeId, limits};

use crate::{
    Connection, Listener, Timing, Transport,
    ca::{Authority, Validity},
    credentials::Credentials,
    error::Error,
    faulty::{Faults, FaultyTransport},
    memory::MemoryNetwork,
    net::{NetTransport, Network},
    quic::QuicTransport,
    tcp::TcpTransport,
};

/// A coordinator (node 1) and a site of one consortium.
struct Members {
    coordinator: Arc<dyn Transport>,
    site: Arc<dyn Transport>,
}

impl Members {
    async fn connected(&self) -> Connected {
        let mut listener = self.coordinator.listen("127.0.0.1:0").await.unwrap();
        let address = listener.address().to_owned();
        let (dialled, accepted) = tokio::join!(self.site.dial(&address, node(1)), listener.accept());
        Connected { site: dialled.unwrap(), coordinator: accepted.unwrap(), listener }
    }
}

/// A connection seen from both ends.
struct Connected {
    site: Connection,
    coordinator: Connection,
    listener: Listener,
}

async fn both_sides_know_each_other(members: Members) {
    let connected = members.connected().await;
    assert_eq!(connected.site.peer(), members.coordinator.identity());
    assert_eq!(connected.coordinator.peer(), members.site.identity());
}

async fn frames_arrive_whole_and_in_order_both_ways(members: Members) {
    let Connected { site, coordinator, listener: _listener } = members.connected().await;
    let frames = [vec![], vec![1], vec![2; 70_000], vec![3; limits::CHUNK_BYTES as usize + 64], vec![4; 3]];
    let echo = tokio::spawn(async move {
        let mut stream = coordinator.accept_stream().await.unwrap();
        while let Some(frame) = stream.recv_frame(limits::FRAME_BYTES).await.unwrap() {
            stream.send_frame(&frame).await.unwrap();
        }
        stream.finish().await.unwrap();
        coordinator
    });
    let mut stream = site.open_stream().await.unwrap();
    for frame in &frames {
        stream.send_frame(frame).await.unwrap();
        assert_eq!(stream.recv_frame(limits::FRAME_BYTES).await.unwrap().as_ref(), Some(frame));
    }
    stream.finish().await.unwrap();
    assert!(stream.recv_frame(limits::FRAME_BYTES).await.unwrap().is_none());
    drop(echo.await.unwrap());
}

async fn streams_do_not_mix(members: Members) {
    let Connected { site, coordinator, listener: _listener } = members.connected().await;
    let mut opened = Vec::new();
    for number in 0..8_u8 {
        let mut stream = site.open_stream().await.unwrap();
        stream.send_frame(&[number]).await.unwrap();
        opened.push(stream);
    }
    for _ in 0..8 {
        let mut stream = coordinator.accept_stream().await.unwrap();
        let frame = stream.recv_frame(1).await.unwrap().unwrap();
        stream.send_frame(&[frame[0], frame[0]]).await.unwrap();
        stream.finish().await.unwrap();
    }
    for (number, mut stream) in (0..8_u8).zip(opened) {
        assert_eq!(stream.recv_frame(2).await.unwrap().unwrap(), [number, number]);
    }
}

async fn a_coordinator_may_open_streams_too(members: Members) {
    let Connected { site, coordinator, listener: _listener } = members.connected().await;
    let mut opened = coordinator.open_stream().await.unwrap();
    opened.send_frame(b"news").await.unwrap();
    assert_eq!(site.accept_stream().await.unwrap().recv_frame(10).await.unwrap().unwrap(), b"news");
}

async fn a_frame_over_the_limit_spoils_its_stream_only(members: Members) {
    let Connected { site, coordinator, listener: _listener } = members.connected().await;
    let mut large = site.open_stream().await.unwrap();
    large.send_frame(&[0; 100]).await.unwrap();
    let error = coordinator.accept_stream().await.unwrap().recv_frame(99).await.unwrap_err();
    assert!(matches!(error, Error::FrameTooLarge { found: 100, limit: 99 }), "{error}");
    let mut small = site.open_stream().await.unwrap();
    small.send_frame(&[7]).await.unwrap();
    assert_eq!(coordinator.accept_stream().await.unwrap().recv_frame(99).await.unwrap().unwrap(), [7]);
}

async fn a_receiver_that_goes_stops_the_sender_and_not_the_connection(members: Members) {
    let Connected { site, coordinator, listener: _listener } = members.connected().await;
    let mut stream = site.open_stream().await.unwrap();
    stream.send_frame(b"open").await.unwrap();
    drop(coordinator.accept_stream().await.unwrap());
    let error = loop {
        if let Err(error) = stream.send_frame(&[0; 100_000]).await {
            break error;
        }
    };
    assert!(matches!(error, Error::StreamReset), "{error}");
    let mut next = site.open_stream().await.unwrap();
    next.send_frame(b"on").await.unwrap();
    assert_eq!(coordinator.accept_stream().await.unwrap().recv_frame(9).await.unwrap().unwrap(), b"on");
}

async fn a_receiver_that_has_answered_and_goes_stops_the_sender(members: Members) {
    let Connected { site, coordinator, listener: _listener } = members.connected().await;
    let mut stream = site.open_stream().await.unwrap();
    stream.send_frame(b"open").await.unwrap();
    let mut refusing = coordinator.accept_stream().await.unwrap();
    refusing.send_frame(b"no").await.unwrap();
    refusing.finish().await.unwrap();
    drop(refusing);
    let error = loop {
        if let Err(error) = stream.send_frame(&[0; 100_000]).await {
            break error;
        }
    };
    assert!(matches!(error, Error::StreamReset), "{error}");
    assert_eq!(stream.recv_frame(9).await.unwrap().unwrap(), b"no");
}

async fn a_place_comes_free_when_both_sides_have_done_with_a_stream(members: Members) {
    let Connected { site, coordinator, listener: _listener } = members.connected().await;
    let n_streams = 3 * limits::STREAMS;
    let served = tokio::spawn(async move {
        for _ in 0..n_streams {
            let mut stream = coordinator.accept_stream().await.unwrap();
            let frame = stream.recv_frame(4).await.unwrap().unwrap();
            stream.send_frame(&frame).await.unwrap();
            stream.finish().await.unwrap();
        }
        coordinator
    });
    for number in 0..n_streams {
        let mut stream = site.open_stream().await.unwrap();
        stream.send_frame(&number.to_be_bytes()).await.unwrap();
        stream.finish().await.unwrap();
        assert_eq!(stream.recv_frame(4).await.unwrap().unwrap(), number.to_be_bytes());
    }
    drop(served.await.unwrap());
}

async fn a_stream_that_its_peer_does_not_read_holds_up_no_other(members: Members) {
    let Connected { site, coordinator, listener: _listener } = members.connected().await;
    let mut unread = site.open_stream().await.unwrap();
    let flood = tokio::spawn(async move { while unread.send_frame(&[0; 1 << 20]).await.is_ok() {} });
    let never_read = coordinator.accept_stream().await.unwrap();
    let mut stream = site.open_stream().await.unwrap();
    for number in 0..100_u8 {
        stream.send_frame(&[number]).await.unwrap();
    }
    let mut read = coordinator.accept_stream().await.unwrap();
    for number in 0..100_u8 {
        assert_eq!(read.recv_frame(1).await.unwrap().unwrap(), [number]);
    }
    drop(never_read);
    flood.await.unwrap();
}

async fn the_reason_of_an_end_reaches_the_peer_and_its_streams(members: Members) {
    let Connected { site, coordinator, listener: _listener } = members.connected().await;
    let mut stream = site.open_stream().await.unwrap();
    coordinator.close("going down");
    let ends = [
        site.closed().await,
        stream.recv_frame(9).await.map(|_| ()).unwrap_err(),
        site.open_stream().await.map(|_| ()).unwrap_err(),
        site.accept_stream().await.map(|_| ()).unwrap_err(),
    ];
    for end in ends {
        assert!(matches!(&end, Error::Closed { reason } if reason == "going down"), "{end}");
    }
    let own = coordinator.closed().await;
    assert!(matches!(&own, Error::Closed { .. }), "{own}");
}

async fn a_refusal_is_told_from_an_end(members: Members) {
    let Connected { site, coordinator, listener: _listener } = members.connected().await;
    coordinator.refuse("site `a` is revoked");
    let end = site.closed().await;
    assert!(matches!(&end, Error::Refused { reason } if reason == "site `a` is revoked"), "{end}");
    assert!(!end.is_transient());
}

async fn a_closed_listener_ends_its_connections_and_frees_its_address(members: Members) {
    let Connected { site, coordinator: _coordinator, listener } = members.connected().await;
    let address = listener.address().to_owned();
    let (end, ()) = tokio::join!(site.closed(), listener.close("shutting down"));
    assert!(matches!(&end, Error::Closed { reason } if reason == "shutting down"), "{end}");
    let error = members.site.dial(&address, node(1)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. } | Error::Lost { .. } | Error::Refused { .. }), "{error}");
}

async fn nobody_at_an_address_is_unreachable(members: Members) {
    let error = members.site.dial("127.0.0.1:9", node(1)).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { address, .. } if address == "127.0.0.1:9"), "{error}");
}

async fn another_node_than_meant_is_the_wrong_peer(members: Members) {
    let listener = members.coordinator.listen("127.0.0.1:0").await.unwrap();
    let error = members.site.dial(listener.address(), node(2)).await.unwrap_err();
    assert!(matches!(&error, Error::WrongPeer { expected, .. } if expected.ends_with("coordinator/2")), "{error}");
}

fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

fn memory() -> Members {
    let network = MemoryNetwork::default();
    Members {
        coordinator: Arc::new(network.transport(identity("archipelago://lung/coordinator/1"))),
        site: Arc::new(network.transport(identity("archipelago://lung/site/a"))),
    }
}

/// Over sockets, with certificates.
fn certified<T: Transport + 'static>(transport: impl Fn(Credentials, Timing) -> T) -> Members {
    let (authority, _) = Authority::create("lung".parse().unwrap(), Validity::days(1)).unwrap();
    let transport = |principal: &str| {
        let issued = authority.issue(&principal.parse().unwrap(), Validity::days(1)).unwrap();
        let credentials = Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key).unwrap();
        let timing = Timing { handshake_timeout: std::time::Duration::from_secs(2), ..Timing::default() };
        Arc::new(transport(credentials, timing))
    };
    Members { coordinator: transport("coordinator/1"), site: transport("site/a") }
}

#[tokio::test]
async fn a_stream_over_tcp_that_is_never_used_takes_no_place() {
    let Connected { site, coordinator, listener: _listener } = tcp().connected().await;
    for _ in 0..3 * limits::STREAMS {
        drop(site.open_stream().await.unwrap());
    }
    site.open_stream().await.unwrap().send_frame(b"used").await.unwrap();
    assert_eq!(coordinator.accept_stream().await.unwrap().recv_frame(4).await.unwrap().unwrap(), b"used");
}

fn quic() -> Members {
    certified(QuicTransport::with_timing)
}

fn tcp() -> Members {
    certified(|credentials, timing| TcpTransport::with_timing(credentials, timing, None))
}

fn either_way() -> Members {
    certified(|credentials, timing| NetTransport::with_timing(credentials, timing, Network::default()))
}

/// Slow, but within the contract.
fn faulty() -> Members {
    let network = MemoryNetwork::default();
    let faults = Faults { max_delay: std::time::Duration::from_millis(1), ..Faults::default() };
    let transport = |text, seed| FaultyTransport::new(network.transport(identity(text)), faults.clone(), seed);
    Members {
        coordinator: Arc::new(transport("archipelago://lung/coordinator/1", 1)),
        site: Arc::new(transport("archipelago://lung/site/a", 2)),
    }
}

/// Writes one test per transport and promise.
macro_rules! every_transport_keeps {
    ($($promise:ident),* $(,)?) => {
        every_transport_keeps!(@transport over_memory memory $($promise)*);
        every_transport_keeps!(@transport over_quic quic $($promise)*);
        every_transport_keeps!(@transport over_tcp tcp $($promise)*);
        every_transport_keeps!(@transport either_way either_way $($promise)*);
        every_transport_keeps!(@transport over_a_slow_network faulty $($promise)*);
    };
    (@transport $module:ident $members:ident $($promise:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $promise() {
                    super::$promise(super::$members()).await;
                }
            )*
        }
    };
}

every_transport_keeps!(
    both_sides_know_each_other,
    frames_arrive_whole_and_in_order_both_ways,
    streams_do_not_mix,
    a_coordinator_may_open_streams_too,
    a_frame_over_the_limit_spoils_its_stream_only,
    a_receiver_that_goes_stops_the_sender_and_not_the_connection,
    a_receiver_that_has_answered_and_goes_stops_the_sender,
    a_place_comes_free_when_both_sides_have_done_with_a_stream,
    a_stream_that_its_peer_does_not_read_holds_up_no_other,
    the_reason_of_an_end_reaches_the_peer_and_its_streams,
    a_refusal_is_told_from_an_end,
    a_closed_listener_ends_its_connections_and_frees_its_address,
    nobody_at_an_address_is_unreachable,
    another_node_than_meant_is_the_wrong_peer,
);
