//! Certificates end, are replaced and are revoked while everything runs.

use std::time::Duration;

use archipelago_common::{NodeId, Principal};
use archipelago_protocol::{
    frame,
    message::{Hello, Request, StreamOpen},
    version,
};
use archipelago_transport::{
    Connection, Credentials, Stream, Transport as _,
    ca::{Authority, Certified, Validity},
    net::{NetTransport, Network},
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    consortium::{Consortium, wait_until},
    roles::Session,
};

impl Consortium {
    /// What `status` says of somebody's certificate.
    fn standing(&self, who: &str) -> Option<Value> {
        let output = self.try_ask(&["status"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let principal = serde_json::to_value(who.parse::<Principal>().unwrap()).unwrap();
        status["certificates"].as_array()?.iter().find(|standing| standing["who"] == principal).cloned()
    }

    /// Waits until the coordinators know somebody by a key.
    fn wait_for_key(&self, who: &str, key: &str) {
        wait_until("a certificate is known", 60, || {
            self.standing(who).is_some_and(|standing| standing["certified"]["key"] == key)
        });
    }

    /// The fingerprint of the key in a folder that `issue` wrote.
    fn key_in(&self, folder: &str) -> String {
        let certificate = std::fs::read_to_string(self.path(folder).join("cert.pem")).unwrap();
        Certified::read(&certificate).unwrap().key.to_string()
    }

    /// Copies files of one folder over those of another, as a person does: one after the other.
    fn put(&self, files: &[&str], from: &str, to: &str) {
        for file in files {
            std::fs::copy(self.path(from).join(file), self.path(to).join(file)).unwrap();
        }
    }

    /// A connection that stands, to whoever leads.
    pub(crate) fn dial(&self, credentials: Credentials) -> Connection {
        self.try_dial(credentials).unwrap()
    }

    fn try_dial(&self, credentials: Credentials) -> Result<Connection, archipelago_transport::Error> {
        let leader = NodeId::new(self.leader()).unwrap();
        let transport = NetTransport::new(credentials, Network::default());
        let address = self.addresses()[&leader].clone();
        runtime().block_on(async { transport.dial(&address, leader).await })
    }

    /// Asks with the credentials in a folder.
    pub(crate) fn ask_as(&self, folder: &str, args: &[&str]) -> Result<String, String> {
        let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|file| format!("{folder}/{file}"));
        let connection = ["--coordinators", self.peers(), "--ca", &ca, "--cert", &cert, "--key", &key];
        let output = self.command(args).args(connection).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }
}

/// Begins a session, so that the connection is not ended for want of one.
pub(crate) fn begin_session(connection: &Connection) -> Stream {
    let hello = StreamOpen::Control(Hello { protocol: version::NEWEST, software: "test".to_owned() });
    runtime().block_on(async {
        let mut stream = connection.open_stream().await.unwrap();
        stream.send_frame(&frame::encode(&hello).unwrap()).await.unwrap();
        stream
    })
}

/// One for all connections of a test.
pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> = std::sync::LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    });
    &RUNTIME
}

/// How a connection ends that the other side ends.
pub(crate) fn end_of(connection: &Connection) -> String {
    let ended = runtime().block_on(async { tokio::time::timeout(Duration::from_secs(60), connection.closed()).await });
    ended.expect("it was cut").to_string()
}

#[test]
fn a_certificate_that_is_replaced_on_disk_is_taken_up_by_a_running_coordinator() {
    let consortium = Consortium::new(3);
    for node in consortium.nodes() {
        let (who, home, new) = (format!("coordinator/{node}"), format!("node{node}"), format!("new{node}"));
        consortium.wait_for_key(&who, &consortium.key_in(&home));
        consortium.issue(&who, &new);
        consortium.put(&["cert.pem", "key.pem"], &new, &home);
    }
    for node in consortium.nodes() {
        consortium.wait_for_key(&format!("coordinator/{node}"), &consortium.key_in(&format!("new{node}")));
    }
    // Somebody else's is not.
    consortium.put(&["cert.pem", "key.pem"], "anna", "node1");
    wait_until("it is said why", 60, || {
        let log = std::fs::read_to_string(consortium.path("node1.log")).unwrap();
        log.contains("it is of `archipelago://lung/operator/anna`, expected `archipelago://lung/coordinator/1`")
    });
    consortium.leader();
    consortium.ask(&["site", "add", "north"]);
}

#[test]
fn who_is_revoked_is_cut_off_and_does_not_come_back() {
    let consortium = Consortium::new(3);
    for (who, folder) in [
        ("auditor/eve", "eve"),
        ("operator/ben", "ben"),
        ("publisher/paul", "paul"),
        ("enroller/ed", "ed"),
        ("administrator/adam", "adam"),
        ("publisher+auditor/pia", "pia"),
        ("coordinator/9", "nine"),
        ("site/north", "north"),
    ] {
        consortium.issue(who, folder);
        if folder == "north" {
            consortium.ask(&["site", "add", "north"]);
        }
        let connection = consortium.dial(consortium.credentials(folder));
        // A coordinator has none, and is sent away soon if it does not say what it is there for.
        let mut session = (folder != "nine").then(|| Session(begin_session(&connection)));
        let mut read = |id| session.as_mut().map(|session| session.try_ask(id, Request::ListReferences));
        assert!(read(1).is_none_or(|answer| answer.is_some()), "{who} reads");
        let standing = consortium.ask(&["revoke", who, "--reason", "has left"]);
        assert!(standing["revoked"]["at_ms"].is_u64(), "{standing}");
        let end = end_of(&connection);
        assert!(end.contains("was revoked") || folder == "nine", "{who}: {end}");
        assert!(read(2).is_none_or(|answer| answer.is_none()), "{who} reads on in the session that stood");
        // The coordinator may say so while it is dialled, or just after.
        let end = match consortium.try_dial(consortium.credentials(folder)) {
            Ok(connection) => end_of(&connection),
            Err(refused) => refused.to_string(),
        };
        assert!(end.contains("was revoked"), "{who} came back: {end}");
    }
    let error = consortium.ask_as("ben", &["site", "add", "south"]).unwrap_err();
    assert!(error.contains("`operator/ben` was revoked by operator `anna`: has left"), "{error}");
    // It outlives everybody who heard of it.
    let mut consortium = consortium;
    for node in consortium.nodes() {
        consortium.kill(node);
    }
    consortium.nodes().for_each(|node| consortium.start(node));
    consortium.leader();
    let error = consortium.ask_as("ben", &["site", "add", "south"]).unwrap_err();
    assert!(error.contains("was revoked by operator `anna`"), "{error}");
    let error = consortium.refused(&["revoke", "operator/anna"]);
    assert!(error.contains("another operator is to say this"), "{error}");
    let error = consortium.refused(&["revoke", "coordinator/2"]);
    assert!(error.contains("`members remove 2`"), "{error}");
}

#[test]
fn a_stolen_key_is_revoked_and_its_owner_goes_on_with_another() {
    let consortium = Consortium::new(1);
    consortium.issue("operator/ben", "stolen");
    let stolen = consortium.key_in("stolen");
    let connection = consortium.dial(consortium.credentials("stolen"));
    let _session = begin_session(&connection);
    consortium.wait_for_key("operator/ben", &stolen);
    consortium.ask(&["revoke", "operator/ben", "--fingerprint", &stolen, "--reason", "a laptop on a train"]);
    let end = end_of(&connection);
    assert!(
        end.contains(&format!("key {stolen} of `operator/ben` was revoked by operator `anna`: a laptop on a train")),
        "{end}"
    );
    consortium.issue("operator/ben", "ben");
    consortium.ask_as("ben", &["site", "add", "north"]).unwrap();
    consortium.wait_for_key("operator/ben", &consortium.key_in("ben"));
    let error = consortium.refused(&["revoke", "operator/anna", "--fingerprint", &consortium.key_in("anna")]);
    assert!(error.contains("the key that this command comes with"), "{error}");
}

#[test]
fn whose_certificate_ends_soon_is_said_everywhere_and_at_its_end_nothing_more_is_answered() {
    let consortium = Consortium::new(1);
    consortium.done(&["ca", "issue", "auditor/eve", "--ca", "ca", "--out", "eve", "--days", "5"]);
    consortium.ask_as("eve", &["status"]).unwrap();
    for (who, folder) in [("auditor/eve", "eve"), ("operator/anna", "anna"), ("coordinator/1", "node1")] {
        consortium.wait_for_key(who, &consortium.key_in(folder));
    }
    let shown = consortium.ask_as("anna", &["status"]).unwrap();
    let line = shown.lines().find(|line| line.starts_with("auditor/eve")).unwrap();
    assert!(line.contains("its certificate ENDS") && line.contains("in 4 days: `ca issue auditor/eve`"), "{line}");
    assert!(shown.contains("coordinator/1  key") && shown.contains("operator/anna  key"), "{shown}");
    assert_eq!(consortium.metric(1, "archipelago_certificates_ending{role=\"auditor\"}"), Some(1.0));
    assert_eq!(consortium.metric(1, "archipelago_certificates_ending{role=\"operator\"}"), Some(0.0));
    let left = consortium.metric(1, "archipelago_certificate_left_seconds{role=\"auditor\"}").unwrap();
    assert!((4.0 * 86_400.0..5.0 * 86_400.0).contains(&left), "{left}");
    wait_until("the log says so", 60, || {
        let log = std::fs::read_to_string(consortium.path("node1.log")).unwrap();
        log.lines().any(|line| line.contains("a certificate ends soon") && line.contains("who=auditor/eve"))
    });

    let now = OffsetDateTime::now_utc();
    let soon = Validity { not_before: now - Duration::from_secs(60), not_after: now + Duration::from_secs(12) };
    let authority = Authority::load(&consortium.path("ca/ca.pem"), &consortium.path("ca/ca.key")).unwrap();
    let issued = authority.issue(&"auditor/max".parse().unwrap(), soon).unwrap();
    std::fs::create_dir(consortium.path("max")).unwrap();
    issued.write(&consortium.path("max/cert.pem"), &consortium.path("max/key.pem")).unwrap();
    consortium.put(&["ca.pem"], "anna", "max");
    let error = runtime().block_on(async {
        // A read over the session that stands.
        let client = consortium.client("max").await.unwrap();
        loop {
            if let Err(error) = client.request(Request::ListReferences).await {
                break error.to_string();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(OffsetDateTime::now_utc() >= now + Duration::from_secs(11), "not before its time");
    assert!(error.contains("certificate has expired: it was valid until") && error.contains("shows"), "{error}");
}

#[test]
fn a_lost_authority_is_replaced_by_a_second_one_while_everything_runs() {
    let consortium = Consortium::new(3);
    consortium.done(&["ca", "init", "lung", "--out", "second"]);
    let both = ["ca", "second"].map(|ca| std::fs::read_to_string(consortium.path(ca).join("ca.pem")).unwrap());
    std::fs::create_dir(consortium.path("both")).unwrap();
    std::fs::write(consortium.path("both/ca.pem"), both.concat()).unwrap();
    let issue = |who: &str, out: &str| consortium.done(&["ca", "issue", who, "--ca", "second", "--out", out]);
    issue("operator/cleo", "cleo");
    let error = consortium.ask_as("cleo", &["site", "list"]).unwrap_err();
    assert!(error.contains("not signed by the authority") || error.contains("consortium's authority"), "{error}");
    let passes = |who: &str| consortium.ask_as(who, &["site", "list"]).is_ok();

    // 1. Everybody accepts both.
    for home in ["node1", "node2", "node3", "anna", "cleo"] {
        consortium.put(&["ca.pem"], "both", home);
    }
    wait_until("both authorities are accepted", 60, || passes("cleo") && passes("anna"));
    // 2. Everybody gets a certificate of the second.
    for node in consortium.nodes() {
        let (home, new) = (format!("node{node}"), format!("new{node}"));
        issue(&format!("coordinator/{node}"), &new);
        consortium.put(&["cert.pem", "key.pem"], &new, &home);
        consortium.wait_for_key(&format!("coordinator/{node}"), &consortium.key_in(&new));
    }
    // 3. The first is accepted no more, and whoever has its key is nobody.
    let thief = consortium.dial(consortium.credentials("anna"));
    let _session = begin_session(&thief);
    for home in ["node1", "node2", "node3", "cleo"] {
        consortium.put(&["ca.pem"], "second", home);
    }
    let end = end_of(&thief);
    assert!(end.contains("other authorities are accepted"), "{end}");
    wait_until("the first authority is out", 60, || passes("cleo") && !passes("anna"));
    consortium.leader();
    consortium.ask_as("cleo", &["site", "add", "north"]).unwrap();
}

#[test]
fn a_request_that_names_somebody_else_is_not_signed_unless_that_is_meant() {
    let consortium = Consortium::founded(1, |_| 1..=1);
    let asked = consortium.done(&["ca", "request", "site/north", "--out", "north"]);
    let key = asked.lines().find_map(|line| line.strip_prefix("key   ")).unwrap().to_owned();
    let sign = |who, further: &[&str]| {
        let args = ["ca", "sign", "north/request.pem", "--as", who, "--ca", "ca", "--out", "north/cert.pem"];
        consortium.command(&[&args[..], further].concat()).output().unwrap()
    };
    let refused = sign("site/south", &[]);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{error}");
    for part in ["north/request.pem", "it asks for `site/north`, expected `site/south`", &key, "--renamed"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
    assert!(!consortium.path("north/cert.pem").exists());
    for (who, further) in [("site/north", &[][..]), ("site/south", &["--renamed"])] {
        let signed = sign(who, further);
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
        assert!(String::from_utf8_lossy(&signed.stdout).contains(&key), "the fingerprint is there to be compared");
        let certified = Certified::read(&std::fs::read_to_string(consortium.path("north/cert.pem")).unwrap()).unwrap();
        assert_eq!(certified.identity.principal.to_string(), who);
    }
}
