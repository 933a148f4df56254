//! Who is let in and who is not, over real sockets and real certificates.

use std::time::Duration;

use archipelago_common::{NodeId, Principal};
use archipelago_transport::{
    Connection, Credentials, Error, Timing, Transport as _,
    ca::{self, Authority, Issued, Validity},
    net::{NetTransport, Network, Ways},
    quic::QuicTransport,
};
use time::OffsetDateTime;

fn authority(consortium: &str) -> Authority {
    Authority::create(consortium.parse().unwrap(), Validity::days(1)).unwrap().0
}

fn principal(text: &str) -> Principal {
    text.parse().unwrap()
}

/// Credentials that trust `trusted` and were issued by `by`.
fn credentials(trusted: &Authority, by: &Authority, who: &str, validity: Validity) -> Credentials {
    let Issued { certificate, key } = by.issue(&principal(who), validity).unwrap();
    Credentials::from_pem(trusted.certificate(), &certificate, &key).unwrap()
}

fn good(authority: &Authority, who: &str) -> Credentials {
    credentials(authority, authority, who, Validity::days(1))
}

fn past() -> Validity {
    let now = OffsetDateTime::now_utc();
    Validity { not_before: now - Duration::from_secs(7_200), not_after: now - Duration::from_secs(3_600) }
}

fn future() -> Validity {
    let now = OffsetDateTime::now_utc();
    Validity { not_before: now + Duration::from_secs(3_600), not_after: now + Duration::from_secs(7_200) }
}

fn over(ways: Ways, credentials: Credentials) -> NetTransport {
    NetTransport::new(credentials, Network { ways, proxy: None })
}

/// Dials node 1 over loopback.
async fn dial(ways: Ways, server: Credentials, client: Credentials) -> Result<Connection, Error> {
    let mut listener = over(ways, server).listen("127.0.0.1:0").await.unwrap();
    let client = over(ways, client);
    let address = listener.address().to_owned();
    let dialling = client.dial(&address, NodeId::new(1).unwrap());
    tokio::pin!(dialling);
    tokio::select! {
        dialled = &mut dialling => dialled,
        _accepted = listener.accept() => dialling.await,
    }
}

/// Writes one test per way.
macro_rules! both_ways {
    ($($rule:ident),* $(,)?) => {
        both_ways!(@way over_quic Quic $($rule)*);
        both_ways!(@way over_tcp Tcp $($rule)*);
    };
    (@way $module:ident $way:ident $($rule:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $rule() {
                    super::$rule(archipelago_transport::net::Ways::$way).await;
                }
            )*
        }
    };
}

both_ways!(
    members_of_one_consortium_connect,
    a_coordinator_of_another_authority_is_untrusted_even_under_the_same_name,
    a_site_of_another_authority_is_refused_and_told_why,
    an_expired_coordinator_is_told_from_one_not_yet_valid,
    an_expired_site_is_refused_and_told_why,
    a_connection_ends_when_its_peers_certificate_does,
    a_site_that_poses_as_a_coordinator_is_the_wrong_peer,
    a_certificate_that_was_replaced_counts_for_the_next_handshake_on_both_sides,
    a_second_authority_is_accepted_beside_the_first,
);

async fn members_of_one_consortium_connect(ways: Ways) {
    let lung = authority("lung");
    let connection = dial(ways, good(&lung, "coordinator/1"), good(&lung, "site/a")).await.unwrap();
    assert_eq!(connection.peer().to_string(), "archipelago://lung/coordinator/1");
}

async fn a_coordinator_of_another_authority_is_untrusted_even_under_the_same_name(ways: Ways) {
    let (ours, forged) = (authority("lung"), authority("lung"));
    let error = dial(ways, good(&forged, "coordinator/1"), good(&ours, "site/a")).await.unwrap_err();
    assert!(matches!(error, Error::UntrustedPeer { .. }), "{error}");
    assert!(!error.is_transient());
}

async fn a_site_of_another_authority_is_refused_and_told_why(ways: Ways) {
    let (ours, other) = (authority("lung"), authority("lung"));
    let site = credentials(&ours, &other, "site/a", Validity::days(1));
    let error = dial(ways, good(&ours, "coordinator/1"), site).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason } if reason.contains("authority")), "{error}");
}

async fn an_expired_coordinator_is_told_from_one_not_yet_valid(ways: Ways) {
    let lung = authority("lung");
    let server = |validity| credentials(&lung, &lung, "coordinator/1", validity);
    let error = dial(ways, server(past()), good(&lung, "site/a")).await.unwrap_err();
    assert!(matches!(error, Error::PeerExpired { .. }), "{error}");
    assert!(error.to_string().contains("and this machine's clock shows"), "{error}");
    let error = dial(ways, server(future()), good(&lung, "site/a")).await.unwrap_err();
    assert!(matches!(error, Error::PeerNotYetValid { .. }), "{error}");
}

async fn an_expired_site_is_refused_and_told_why(ways: Ways) {
    let lung = authority("lung");
    let site = credentials(&lung, &lung, "site/a", past());
    let error = dial(ways, good(&lung, "coordinator/1"), site).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason } if reason.contains("expired")), "{error}");
}

async fn a_connection_ends_when_its_peers_certificate_does(ways: Ways) {
    let lung = authority("lung");
    let now = OffsetDateTime::now_utc();
    let soon = Validity { not_before: now - Duration::from_secs(60), not_after: now + Duration::from_secs(3) };
    let mut listener = over(ways, good(&lung, "coordinator/1")).listen("127.0.0.1:0").await.unwrap();
    let address = listener.address().to_owned();
    let client = over(ways, credentials(&lung, &lung, "operator/bert", soon));
    let (dialled, _accepted) = tokio::join!(client.dial(&address, NodeId::new(1).unwrap()), listener.accept());
    let ended = tokio::time::timeout(Duration::from_secs(20), dialled.unwrap().closed()).await.unwrap();
    assert!(matches!(&ended, Error::Refused { reason } if reason.contains("expired")), "{ended}");
    assert!(OffsetDateTime::now_utc() >= now + Duration::from_secs(2), "not before its time");
}

async fn a_site_that_poses_as_a_coordinator_is_the_wrong_peer(ways: Ways) {
    let lung = authority("lung");
    let error = dial(ways, good(&lung, "site/b"), good(&lung, "site/a")).await.unwrap_err();
    assert!(matches!(&error, Error::WrongPeer { found, .. } if found.ends_with("site/b")), "{error}");
}

async fn a_certificate_that_was_replaced_counts_for_the_next_handshake_on_both_sides(ways: Ways) {
    let lung = authority("lung");
    let (server, client) = (good(&lung, "coordinator/1"), good(&lung, "site/a"));
    let mut listener = over(ways, server.clone()).listen("127.0.0.1:0").await.unwrap();
    let (address, node, dialler) = (listener.address().to_owned(), NodeId::new(1).unwrap(), over(ways, client.clone()));
    let mut earlier: Vec<Connection> = Vec::new();
    for _ in 0..3 {
        let dialled = loop {
            let (dialled, accepted) = tokio::join!(dialler.dial(&address, node), listener.accept());
            let dialled = dialled.unwrap();
            assert_eq!(accepted.unwrap().certified(), Some(client.certified()));
            // The listener hears of it in its own time.
            if dialled.certified() == Some(server.certified()) {
                break dialled;
            }
        };
        assert!(earlier.iter().all(|other| other.certified() != dialled.certified()));
        earlier.push(dialled);
        server.replace(&good(&lung, "coordinator/1")).unwrap();
        client.replace(&good(&lung, "site/a")).unwrap();
    }
    let refused = server.replace(&good(&lung, "coordinator/2")).unwrap_err().to_string();
    assert!(refused.contains("it is of `archipelago://lung/coordinator/2`"), "{refused}");
}

async fn a_second_authority_is_accepted_beside_the_first(ways: Ways) {
    let (first, second) = (authority("lung"), authority("lung"));
    let both = format!("{}{}", first.certificate(), second.certificate());
    let of = |by: &Authority, who: &str| {
        let Issued { certificate, key } = by.issue(&principal(who), Validity::days(1)).unwrap();
        Credentials::from_pem(&both, &certificate, &key).unwrap()
    };
    for (server, client) in [(&first, &second), (&second, &first), (&second, &second)] {
        dial(ways, of(server, "coordinator/1"), of(client, "site/a")).await.unwrap();
    }
    // Where the first is taken out again, nothing that it certified counts.
    let late = good(&second, "coordinator/1");
    let error = dial(ways, late, of(&first, "site/a")).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason } if reason.contains("authority")), "{error}");
}

#[tokio::test]
async fn garbage_and_failed_handshakes_leave_the_listener_unharmed() {
    let (lung, other) = (authority("lung"), authority("heart"));
    let mut listener = QuicTransport::new(good(&lung, "coordinator/1")).listen("127.0.0.1:0").await.unwrap();
    let address = listener.address().to_owned();
    let node = NodeId::new(1).unwrap();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for size in [1, 20, 1_200] {
        // The first bytes look like a long QUIC header of a version that exists.
        let mut garbage = vec![0xa5; size];
        garbage.iter_mut().zip([0xc0, 0, 0, 0, 1]).for_each(|(byte, header)| *byte = header);
        socket.send_to(&garbage, &address).await.unwrap();
    }
    assert!(QuicTransport::new(good(&other, "site/a")).dial(&address, node).await.is_err());
    let site = QuicTransport::new(good(&lung, "site/a"));
    let (dialled, accepted) = tokio::join!(site.dial(&address, node), listener.accept());
    dialled.unwrap();
    assert_eq!(accepted.unwrap().peer().principal, principal("site/a"));
}

/// Kills a coordinator's runtime, which sends nobody a farewell, and starts it again at the same address.
#[test]
fn peers_of_a_killed_coordinator_learn_of_its_restart_before_their_idle_timeout() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let lung = authority("lung");
    let server = good(&lung, "coordinator/1");
    let timing = Timing { keep_alive: Duration::from_millis(100), ..Timing::default() };
    let node = NodeId::new(1).unwrap();

    let (ours, first_life) = (runtime(), runtime());
    let listener = first_life.block_on(QuicTransport::new(server.clone()).listen("127.0.0.1:0")).unwrap();
    let address = listener.address().to_owned();
    let site = QuicTransport::with_timing(good(&lung, "site/a"), timing);
    let connection = ours.block_on(site.dial(&address, node)).unwrap();
    // The runtime goes first, so that nothing is left to say a farewell when the socket closes.
    first_life.shutdown_timeout(Duration::from_secs(5));
    drop(listener);

    let error = ours.block_on(async {
        let again = QuicTransport::new(server);
        let _listener = again.listen(&address).await.unwrap();
        tokio::time::timeout(timing.idle_timeout / 2, connection.closed()).await.expect("notices before the timeout")
    });
    assert!(matches!(&error, Error::Lost { detail } if detail.contains("restarted")), "{error}");
}

#[test]
fn files_round_trip_and_keys_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (_, root) = Authority::create("lung".parse().unwrap(), Validity::days(1)).unwrap();
    root.write(&path("ca.pem"), &path("ca.key")).unwrap();
    let authority = Authority::load(&path("ca.pem"), &path("ca.key")).unwrap();
    assert_eq!(authority.consortium().as_str(), "lung");
    let issued = authority.issue(&principal("site/a"), Validity::days(2)).unwrap();
    issued.write(&path("a.pem"), &path("a.key")).unwrap();
    let credentials = Credentials::load(&path("ca.pem"), &path("a.pem"), &path("a.key")).unwrap();
    assert_eq!(credentials.identity().to_string(), "archipelago://lung/site/a");
    let in_two_days = OffsetDateTime::now_utc().unix_timestamp() + 2 * 86_400;
    assert!((credentials.expires_unix_s() - in_two_days).abs() < 60);
    for key in ["ca.key", "a.key"] {
        assert_eq!(std::fs::metadata(path(key)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(issued.write(&path("a.pem"), &path("a.key")).is_err(), "existing keys are not overwritten");
}

#[tokio::test]
async fn a_site_that_made_its_own_key_connects_with_the_certificate_it_was_sent() {
    let lung = authority("lung");
    let (key, request) = ca::signing_request(&principal("site/a")).unwrap();
    let certificate = lung.sign_request(&request, &principal("site/a"), Validity::days(1)).unwrap();
    let site = Credentials::from_pem(lung.certificate(), &certificate, &key).unwrap();
    dial(Ways::Auto, good(&lung, "coordinator/1"), site).await.unwrap();
}

#[test]
fn a_signing_request_cannot_choose_its_own_identity_and_must_be_intact() {
    let lung = authority("lung");
    let (key, request) = ca::signing_request(&principal("operator/eve")).unwrap();
    let certificate = lung.sign_request(&request, &principal("site/a"), Validity::days(1)).unwrap();
    let site = Credentials::from_pem(lung.certificate(), &certificate, &key).unwrap();
    assert_eq!(site.identity().principal, principal("site/a"));
    let middle = request.len() / 2;
    let spoilt = if &request[middle..=middle] == "A" { "B" } else { "A" };
    let broken = format!("{}{spoilt}{}", &request[..middle], &request[middle + 1..]);
    assert!(lung.sign_request(&broken, &principal("site/a"), Validity::days(1)).is_err());
}

#[test]
fn credentials_that_do_not_fit_are_refused_with_the_file_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (lung, other) = (authority("lung"), authority("lung"));
    std::fs::write(path("ca.pem"), lung.certificate()).unwrap();
    let write = |name: &str, by: &Authority, validity| {
        let issued = by.issue(&principal("site/a"), validity).unwrap();
        issued.write(&path(&format!("{name}.pem")), &path(&format!("{name}.key"))).unwrap();
    };
    write("good", &lung, Validity::days(1));
    write("old", &lung, past());
    write("early", &lung, future());
    write("foreign", &other, Validity::days(1));
    std::fs::write(path("text.pem"), "hello").unwrap();
    let check = |certificate: &str, key: &str, expected: &[&str]| {
        let error = Credentials::load(&path("ca.pem"), &path(certificate), &path(key)).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "`{error}` should say `{part}`");
        }
    };
    check("missing.pem", "good.key", &["missing.pem", "No such file"]);
    check("text.pem", "good.key", &["text.pem", "PEM"]);
    check("good.pem", "old.key", &["old.key", "not the key of", "good.pem"]);
    check("good.pem", "good.pem", &["good.pem"]);
    check("old.pem", "old.key", &["old.pem", "site/a", "expired on"]);
    check("early.pem", "early.key", &["early.pem", "not valid yet"]);
    check("foreign.pem", "foreign.key", &["foreign.pem", "not signed by the given authority"]);
    check("ca.pem", "good.key", &["ca.pem", "no identity"]);
}

/// Today's fault: 256 first packets that nobody stands behind, one a few milliseconds, shut a coordinator to everybody.
#[tokio::test(flavor = "multi_thread")]
async fn first_packets_that_nobody_stands_behind_keep_nobody_out() {
    let lung = authority("lung");
    let mut listener = QuicTransport::new(good(&lung, "coordinator/1")).listen("127.0.0.1:0").await.unwrap();
    let address = listener.address().to_owned();
    // Packets of real clients, sent on by a socket that never hears an answer.
    let mute = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dead_end = mute.local_addr().unwrap().to_string();
    let client = std::sync::Arc::new(QuicTransport::new(good(&lung, "site/mallory")));
    let mut dialling = tokio::task::JoinSet::new();
    for _ in 0..N_MUTE {
        let (client, dead_end) = (client.clone(), dead_end.clone());
        dialling.spawn(async move { client.dial(&dead_end, NodeId::new(1).unwrap()).await.is_ok() });
    }
    let (mut n_sent, mut packet) = (0, [0; 2_048]);
    while n_sent < N_MUTE {
        let (n_bytes, _) = mute.recv_from(&mut packet).await.unwrap();
        n_sent += mute.send_to(&packet[..n_bytes], &address).await.map_or(0, |_| 1);
    }
    let honest = QuicTransport::new(good(&lung, "site/a"));
    let accepting = tokio::spawn(async move {
        while let Some(connection) = listener.accept().await {
            if connection.peer().principal == principal("site/a") {
                return connection.closed().await;
            }
        }
        panic!("the listener ended");
    });
    let dialled = tokio::time::timeout(Duration::from_secs(5), honest.dial(&address, NodeId::new(1).unwrap())).await;
    assert!(matches!(dialled, Ok(Ok(_))), "{dialled:?}");
    accepting.abort();
}

/// First packets, more than handshakes that may be under way.
const N_MUTE: usize = 300;

/// A first packet is answered, and then nothing more comes: the handshake stands where no certificate has been seen yet. It
/// is given up at its deadline, long before the peer counts as gone, and so is the one that dials somebody who is mute.
#[tokio::test]
async fn a_handshake_that_never_goes_on_ends_at_its_deadline_on_both_sides() {
    let (complaints, mut complained) = tokio::sync::mpsc::unbounded_channel();
    let _listens = tracing::subscriber::set_default(Complaints(complaints));
    let lung = authority("lung");
    let far = Duration::from_secs(3_600);
    let timing = Timing { handshake_timeout: Duration::from_millis(200), idle_timeout: far, ..Timing::default() };
    let server = QuicTransport::with_timing(good(&lung, "coordinator/1"), timing);
    let mut listener = server.listen("127.0.0.1:0").await.unwrap();
    let (address, node) = (listener.address().to_owned(), NodeId::new(1).unwrap());
    let mute = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dead_end = mute.local_addr().unwrap().to_string();
    let client = QuicTransport::with_timing(good(&lung, "site/mallory"), timing);
    let sent_on = async {
        let mut packet = [0; 2_048];
        let (n_bytes, _) = mute.recv_from(&mut packet).await.unwrap();
        mute.send_to(&packet[..n_bytes], &address).await.unwrap();
    };
    let (dialled, ()) = tokio::join!(client.dial(&dead_end, node), sent_on);
    assert!(matches!(&dialled, Err(Error::Unreachable { detail, .. }) if detail.contains("nothing within")));
    assert_eq!(complained.recv().await.unwrap(), "it took too long");
    let honest = QuicTransport::new(good(&lung, "site/a"));
    let (dialled, accepted) = tokio::join!(honest.dial(&address, node), listener.accept());
    assert_eq!(accepted.unwrap().peer().principal, principal("site/a"));
    dialled.unwrap();
}

/// Hears why handshakes failed.
struct Complaints(tokio::sync::mpsc::UnboundedSender<String>);

impl tracing::Subscriber for Complaints {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Reason(Option<String>);
        impl tracing::field::Visit for Reason {
            fn record_str(&mut self, field: &tracing::field::Field, text: &str) {
                if field.name() == "error" {
                    self.0 = Some(text.to_owned());
                }
            }

            fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
        }
        let mut reason = Reason(None);
        if event.metadata().target().starts_with("archipelago_transport") {
            event.record(&mut reason);
        }
        if let Some(reason) = reason.0 {
            // Nobody hears the last ones.
            let _ = self.0.send(reason);
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
