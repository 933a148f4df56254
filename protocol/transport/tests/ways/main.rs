//! Networks that let one way through and not the other, proxies, and strangers at the TCP port.

mod proxies;

use std::{net::Ipv4Addr, time::Duration};

use archipelago_common::NodeId;
use archipelago_transport::{
    Credentials, Error, Listener, Timing, Transport as _, Way,
    ca::{Authority, Validity},
    net::{NetTransport, Network, Ways},
    proxy::Proxy,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// A coordinator's and a site's certificate.
struct Members {
    coordinator: Credentials,
    site: Credentials,
}

impl Members {
    fn new() -> Self {
        let (authority, _) = Authority::create("lung".parse().unwrap(), Validity::days(1)).unwrap();
        let credentials = |principal: &str| {
            let issued = authority.issue(&principal.parse().unwrap(), Validity::days(1)).unwrap();
            Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key).unwrap()
        };
        Self { coordinator: credentials("coordinator/1"), site: credentials("site/a") }
    }

    async fn listen(&self, ways: Ways) -> Listener {
        let network = Network { ways, proxy: None };
        NetTransport::new(self.coordinator.clone(), network).listen("127.0.0.1:0").await.unwrap()
    }

    fn site(&self, ways: Ways, proxy: Option<Proxy>) -> NetTransport {
        NetTransport::with_timing(self.site.clone(), TIMING, Network { ways, proxy })
    }
}

/// Lets in whoever comes, and keeps them.
async fn hold(mut listener: Listener) {
    let mut held = Vec::new();
    while let Some(connection) = listener.accept().await {
        held.push(connection);
    }
}

const TIMING: Timing = Timing {
    keep_alive: Duration::from_millis(200),
    idle_timeout: Duration::from_secs(2),
    handshake_timeout: Duration::from_secs(2),
};

fn node() -> NodeId {
    NodeId::new(1).unwrap()
}

#[tokio::test]
async fn where_udp_does_not_come_through_tcp_does_and_comes_first_from_then_on() {
    let members = Members::new();
    let listener = members.listen(Ways::Tcp).await;
    let site = members.site(Ways::Auto, None);
    let address = listener.address().to_owned();
    // What a firewall does: first packets vanish.
    let silence = UdpSocket::bind(&address).await.unwrap();
    let knocked = || std::iter::from_fn(|| silence.try_recv(&mut [0; 2_048]).ok()).count() > 0;
    let accepting = tokio::spawn(hold(listener));
    let first = site.dial(&address, node()).await.unwrap();
    assert_eq!(first.way(), Way::Tcp);
    // QUIC is given its time, and has failed then.
    tokio::time::sleep(2 * TIMING.handshake_timeout).await;
    assert!(knocked(), "UDP was tried");
    assert_eq!(site.dial(&address, node()).await.unwrap().way(), Way::Tcp);
    assert!(!knocked(), "UDP is left alone where it has failed");
    accepting.abort();
}

#[tokio::test]
async fn where_udp_comes_through_it_is_taken() {
    let members = Members::new();
    for listening in [Ways::Auto, Ways::Quic] {
        let mut listener = members.listen(listening).await;
        let address = listener.address().to_owned();
        let site = members.site(Ways::Auto, None);
        let (dialled, accepted) = tokio::join!(site.dial(&address, node()), listener.accept());
        assert_eq!((dialled.unwrap().way(), accepted.unwrap().way()), (Way::Quic, Way::Quic));
    }
}

#[tokio::test]
async fn silence_on_both_ways_says_so_of_each() {
    let error = Members::new().site(Ways::Auto, None).dial("127.0.0.1:9", node()).await.unwrap_err().to_string();
    assert!(error.contains("over UDP, ") && error.contains("over TCP, Connection refused"), "{error}");
}

/// Forwards to `address` until told to stop, then holds its sockets and forwards nothing.
async fn forwarder(address: String) -> (String, JoinHandle<()>, tokio::sync::watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let task = tokio::spawn(async move {
        // Dropped with this task, it closes all sockets.
        let mut held = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(&address).await.unwrap();
            let mut stopped = stopped.clone();
            held.spawn(async move {
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = async { stopped.wait_for(|stopped| *stopped).await.is_ok() } => std::future::pending().await,
                }
            });
        }
    });
    (own, task, stop)
}

#[tokio::test]
async fn a_network_that_falls_silent_is_noticed_on_both_sides() {
    let members = Members::new();
    let network = Network { ways: Ways::Tcp, proxy: None };
    let coordinator = NetTransport::with_timing(members.coordinator.clone(), TIMING, network);
    let mut listener = coordinator.listen("127.0.0.1:0").await.unwrap();
    let (address, forwarding, stop) = forwarder(listener.address().to_owned()).await;
    let site = members.site(Ways::Tcp, None);
    let (dialled, accepted) = tokio::join!(site.dial(&address, node()), listener.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let quiet = timeout(2 * TIMING.idle_timeout, dialled.closed()).await;
    assert!(quiet.is_err(), "signs of life keep an idle connection: {quiet:?}");
    stop.send(true).unwrap();
    for connection in [&dialled, &accepted] {
        let error = timeout(3 * TIMING.idle_timeout, connection.closed()).await.unwrap();
        assert!(matches!(&error, Error::Lost { detail } if detail.contains("fell silent")), "{error}");
    }
    forwarding.abort();
}

#[tokio::test]
async fn of_two_patiences_the_shorter_counts_for_both_and_an_idle_connection_stands() {
    let members = Members::new();
    // The coordinator has the usual patience, the other side little.
    let mut listener = members.listen(Ways::Tcp).await;
    let (address, forwarding, stop) = forwarder(listener.address().to_owned()).await;
    let site = members.site(Ways::Tcp, None);
    let (dialled, accepted) = tokio::join!(site.dial(&address, node()), listener.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let quiet = timeout(2 * TIMING.idle_timeout, dialled.closed()).await;
    assert!(quiet.is_err(), "who asks is answered: {quiet:?}");
    stop.send(true).unwrap();
    let usual = Timing::default().idle_timeout;
    for connection in [&dialled, &accepted] {
        let error = timeout(usual - TIMING.idle_timeout, connection.closed()).await.unwrap();
        assert!(matches!(&error, Error::Lost { detail } if detail.contains("fell silent")), "{error}");
    }
    forwarding.abort();
}

#[tokio::test]
async fn a_network_that_breaks_loses_the_connection_and_no_stream_looks_finished() {
    let members = Members::new();
    let mut listener = members.listen(Ways::Tcp).await;
    let (address, forwarding, _stop) = forwarder(listener.address().to_owned()).await;
    let site = members.site(Ways::Tcp, None);
    let (dialled, accepted) = tokio::join!(site.dial(&address, node()), listener.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let mut stream = dialled.open_stream().await.unwrap();
    stream.send_frame(b"half of it").await.unwrap();
    let mut arriving = accepted.accept_stream().await.unwrap();
    assert_eq!(arriving.recv_frame(99).await.unwrap().unwrap(), b"half of it");
    forwarding.abort();
    let _ = forwarding.await;
    drop(dialled);
    let error = timeout(Duration::from_secs(15), arriving.recv_frame(99)).await.unwrap();
    assert!(error.is_err(), "{error:?}");
}

/// A proxy as hospitals have them; `needs` is what it wants to be told, and `allows` the one address that it lets through.
async fn http_proxy(needs: Option<&'static str>, allows: String) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let allows = allows.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(near.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let answer = match needs {
                    Some(line) if !head.contains(line) => "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                    _ if !head.starts_with(&format!("CONNECT {allows} HTTP/1.1\r\n")) => {
                        "HTTP/1.1 403 Forbidden\r\n\r\n"
                    }
                    _ => "HTTP/1.1 200 Connection established\r\nVia: 1.1 hospital\r\n\r\n",
                };
                near.write_all(answer.as_bytes()).await.unwrap();
                if answer.contains(" 200 ") {
                    let mut far = TcpStream::connect(allows).await.unwrap();
                    // Either side may hang up.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    (own, task)
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel_with_its_password_and_its_refusals_are_told() {
    let members = Members::new();
    let listener = members.listen(Ways::Tcp).await;
    let address = listener.address().to_owned();
    let accepting = tokio::spawn(hold(listener));
    let (proxy, serving) = http_proxy(Some("Proxy-Authorization: Basic YW5uOnM=\r\n"), address.clone()).await;
    let through = |proxy: String| members.site(Ways::Tcp, Some(Proxy::parse(&proxy).unwrap()));

    let connection = through(format!("http://ann:s@{proxy}")).dial(&address, node()).await.unwrap();
    let mut stream = connection.open_stream().await.unwrap();
    stream.send_frame(b"through").await.unwrap();
    let error = through(format!("http://{proxy}")).dial(&address, node()).await.unwrap_err().to_string();
    assert!(error.contains(&proxy) && error.contains("a user and a password"), "{error}");
    let error = through(format!("http://ann:s@{proxy}")).dial("127.0.0.1:9", node()).await.unwrap_err().to_string();
    assert!(error.contains("does not allow this address"), "{error}");
    serving.abort();
    accepting.abort();
}

#[tokio::test]
async fn strangers_at_the_tcp_port_are_refused_and_hold_up_nobody() {
    let members = Members::new();
    let mut listener = members.listen(Ways::Auto).await;
    let address = listener.address().to_owned();
    // A browser; half a handshake that is held open, and nothing at all, many times.
    let mut browser = TcpStream::connect(&address).await.unwrap();
    browser.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut held = Vec::new();
    for n_bytes in [0, 3].repeat(50) {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        socket.write_all(&[22, 3, 1][..n_bytes]).await.unwrap();
        held.push(socket);
    }
    let site = members.site(Ways::Tcp, None);
    let (dialled, accepted) = tokio::join!(site.dial(&address, node()), listener.accept());
    assert_eq!(dialled.unwrap().way(), Way::Tcp);
    assert_eq!(accepted.unwrap().peer().principal.to_string(), "site/a");
    // The browser is told that this is no place for it, and hung up on.
    let mut answer = Vec::new();
    timeout(Duration::from_secs(10), browser.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // So are those who say no more, when their time is over.
    let mut last = held.pop().unwrap();
    let n_read = timeout(2 * Timing::default().handshake_timeout, last.read(&mut [0; 64])).await.unwrap();
    assert!(matches!(n_read, Ok(0) | Err(_)), "{n_read:?}");
}

/// Whoever was here before gets in though strangers of many addresses hold every handshake that they may.
#[tokio::test]
async fn the_last_handshakes_are_for_those_who_were_here_before() {
    let members = Members::new();
    let far = Timing { handshake_timeout: Duration::from_secs(3_600), ..Timing::default() };
    let network = Network { ways: Ways::Tcp, proxy: None };
    let coordinator = NetTransport::with_timing(members.coordinator.clone(), far, network);
    let listener = coordinator.listen("127.0.0.1:0").await.unwrap();
    let address = listener.address().to_owned();
    let accepting = tokio::spawn(hold(listener));
    let site = members.site(Ways::Tcp, None);
    site.dial(&address, node()).await.unwrap();
    let mut held = JoinSet::new();
    for n in 0..HANDSHAKES as u32 {
        // From as many addresses as there are strangers: none has more handshakes than one may have.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + n), 0).into()).unwrap();
        let mut socket = socket.connect(address.parse().unwrap()).await.unwrap();
        held.spawn(async move { socket.read(&mut [0; 1]).await });
    }
    for _ in 0..RESERVED {
        let hung_up_on = timeout(Duration::from_secs(10), held.join_next()).await.expect("strangers are turned away");
        assert!(matches!(hung_up_on, Some(Ok(Ok(0) | Err(_)))), "{hung_up_on:?}");
    }
    site.dial(&address, node()).await.expect("there is a place for whoever was here");
    assert!(held.try_join_next().is_none(), "strangers have all the others");
    accepting.abort();
}

/// Handshakes that a listener has under way at once, and how many of them only those may begin who were here before.
const HANDSHAKES: usize = 256;
const RESERVED: usize = 64;
