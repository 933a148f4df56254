//! What is wrong between here and the coordinators, before anybody is called: one finding for each step of each way.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use archipelago_common::{
    NodeId,
    finding::{Findings, in_words},
};
use archipelago_protocol::message::{Refusal, Reply, Request};
use archipelago_transport::{
    Credentials, Error as TransportError,
    net::Ways,
    probe::{Presented, Probe},
};
use time::OffsetDateTime;

use crate::{Client, ClientConfig, ClientError, Patience, Result};

/// Looks at the ways to all coordinators, then begins a session and looks at that. `None` where there is none.
pub async fn look(mut config: ClientConfig, findings: &mut Findings) -> Option<Client> {
    let probe = Arc::new(Probe::new(config.credentials.clone(), config.network.clone()));
    let ways = config.coordinators.iter().map(|(&node, address)| {
        let way = Way { probe: probe.clone(), node, address: address.clone() };
        // Beside each other: silence takes its time.
        tokio::spawn(async move { way.look().await })
    });
    for way in ways.collect::<Vec<_>>() {
        match way.await {
            Ok(of_way) => findings.extend(of_way),
            Err(error) => findings.fail("coordinators", error.to_string(), None::<String>),
        }
    }
    config.patience = Patience::Within(PATIENCE);
    let begun = Client::connect(config).await;
    let client = match begun {
        Ok(client) => client,
        Err(error) => {
            let hint = error.hint();
            findings.fail("session", in_words(&error), hint);
            return None;
        }
    };
    look_at_session(&client, findings).await;
    Some(client)
}

/// Own certificate and key.
pub fn look_at_credentials(credentials: &Credentials, certificate: &Path, key: &Path, findings: &mut Findings) {
    let identity = credentials.identity();
    let expires = OffsetDateTime::from_unix_timestamp(credentials.expires_unix_s());
    let days = expires.map_or(0, |expires| (expires - OffsetDateTime::now_utc()).whole_days());
    let found = format!("`{}`: {identity}, {days} days left", certificate.display());
    match days < SOON_DAYS {
        true => findings.warn("certificate", found, "ask an operator for a new one before it ends"),
        false => findings.ok("certificate", found),
    }
    look_at_key(key, findings);
}

/// Who may read the key.
fn look_at_key(key: &Path, findings: &mut Findings) {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = key.display();
    match std::fs::metadata(key) {
        Ok(of_key) if of_key.permissions().mode() & 0o077 != 0 => {
            let found = format!("`{shown}` has mode {:03o}: others can read it", of_key.permissions().mode() & 0o777);
            findings.warn("key", found, format!("chmod 600 {shown}"));
        }
        Ok(_) => findings.ok("key", format!("`{shown}` is readable by its owner alone")),
        Err(error) => findings.fail("key", format!("`{shown}`: {error}"), None::<String>),
    }
}

/// The way to one coordinator.
struct Way {
    probe: Arc<Probe>,
    node: NodeId,
    address: String,
}

impl Way {
    async fn look(&self) -> Findings {
        let mut findings = Findings::default();
        let proxy = self.probe.proxy_for(&self.address).map(ToString::to_string);
        match self.probe.resolve(&self.address).await {
            Ok(places) => {
                let places: Vec<_> = places.iter().map(|place| place.ip().to_string()).collect();
                findings.ok(self.what("name"), format!("`{}` is {}", self.address, places.join(", ")));
            }
            // A proxy looks names up itself.
            Err(error) if proxy.is_some() => {
                let advice = "QUIC needs the name; over the proxy TCP does without";
                findings.warn(self.what("name"), in_words(&error), advice);
            }
            Err(error) => {
                findings.fail(self.what("name"), in_words(&error), error.hint());
                return findings;
            }
        }
        // Each way is looked at to its end: one that comes through does not excuse the other.
        let udp = match self.probe.ways() {
            Ways::Tcp => None,
            Ways::Auto | Ways::Quic => Some(self.probe.over_udp(&self.address, self.node).await),
        };
        let tcp = match self.probe.ways() {
            Ways::Quic => None,
            Ways::Auto | Ways::Tcp => Some(self.over_tcp(proxy.as_deref()).await),
        };
        let comes_through = matches!(udp, Some(Ok(_))) || matches!(tcp, Some(Ok(_)));
        match udp {
            Some(Ok(took)) => {
                findings.ok(self.what("UDP"), format!("certificates accepted on both sides after {}", Millis(took)))
            }
            Some(Err(error)) if comes_through && is_silence(&error) => {
                findings.warn(
                    self.what("UDP"),
                    in_words(&error),
                    "TCP is used; let UDP out for faster transfers (docs/firewalls.md)",
                );
            }
            Some(Err(error)) => self.fail("UDP", &error, &mut findings).await,
            None => {}
        }
        match tcp {
            Some(Ok(took)) => {
                let through = proxy.map_or(String::new(), |proxy| format!(" through the proxy {proxy}"));
                findings.ok(
                    self.what("TCP"),
                    format!("certificates accepted on both sides{through} after {}", Millis(took)),
                );
            }
            Some(Err(error)) if comes_through && is_silence(&error) => {
                findings.warn(self.what("TCP"), in_words(&error), "UDP is used; without it there would be no way");
            }
            Some(Err(error)) => self.fail("TCP", &error, &mut findings).await,
            None => {}
        }
        findings
    }

    async fn over_tcp(&self, proxy: Option<&str>) -> Result<Duration, TransportError> {
        // What a proxy says is told before what TLS makes of its silence.
        if proxy.is_some() {
            self.probe.to_port(&self.address).await?;
        }
        self.probe.over_tcp(&self.address, self.node).await
    }

    async fn fail(&self, way: &str, error: &TransportError, findings: &mut Findings) {
        let is_strange = matches!(error, TransportError::UntrustedPeer { .. } | TransportError::BadPeer { .. });
        if is_strange && let Ok(Presented { subject, issuer }) = self.probe.presented(&self.address).await {
            let found = format!("{error}: who answers is `{subject}`, certified by `{issuer}`");
            let advice = "if that is a proxy of this network which opens TLS, ask for an exception for this host; \
                          else this is another consortium (docs/firewalls.md)";
            findings.fail(self.what(way), found, Some(advice));
        } else {
            findings.fail(self.what(way), in_words(error), error.hint());
        }
    }

    fn what(&self, step: &str) -> String {
        format!("coordinator {}, {step}", self.node)
    }
}

/// Nobody said anything: the other way may still come through.
fn is_silence(error: &TransportError) -> bool {
    matches!(error, TransportError::Unreachable { .. } | TransportError::Lost { .. })
}

/// The role and the clock, over a session that stands.
async fn look_at_session(client: &Client, findings: &mut Findings) {
    match client.request(Request::Status).await {
        Ok(Reply::Status(status)) => {
            let leader =
                status.leader.map_or("no leader yet".to_owned(), |leader| format!("coordinator {leader} leads"));
            findings.ok("session", format!("stands, and the role is accepted; {leader}, {} vote", status.voters.len()));
        }
        Ok(_) => findings.fail("session", "an answer that does not fit the question", None::<String>),
        Err(error) => findings.fail("session", in_words(&error), error.hint()),
    }
    look_at_clock(client, findings).await;
}

async fn look_at_clock(client: &Client, findings: &mut Findings) {
    let before_ms = now_ms();
    let theirs_ms = match client.request(Request::ShowTime).await {
        Ok(Reply::Time(theirs_ms)) => i128::from(theirs_ms),
        Err(ClientError::Refused(Refusal::Busy { .. } | Refusal::NotLeader { .. }) | ClientError::TimedOut { .. }) => {
            return findings.warn("clock", "the coordinators have not agreed on the time yet", "ask again in a while");
        }
        // Coordinators of an earlier version.
        Ok(_) | Err(_) => {
            return findings.ok("clock", "the coordinators do not tell the time: they are of an earlier version");
        }
    };
    let ours_ms = (before_ms + now_ms()) / 2;
    let apart_s = (ours_ms - theirs_ms) as f64 / 1e3;
    let found = match apart_s.abs() < 1.0 {
        true => "within a second of the coordinators'".to_owned(),
        false if apart_s > 0.0 => format!("{apart_s:.0} s ahead of the coordinators'"),
        false => format!("{:.0} s behind the coordinators'", -apart_s),
    };
    match apart_s.abs() > SKEW_S {
        true => findings.warn("clock", found, "set this machine's clock (NTP): certificates and leases go by it"),
        false => findings.ok("clock", found),
    }
}

fn now_ms() -> i128 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0.as_millis().max(1))
    }
}

/// How long a session may take to stand, and a question to be answered.
const PATIENCE: Duration = Duration::from_secs(15);
/// A certificate with fewer days left is worth a word.
const SOON_DAYS: i64 = 30;
/// Clocks further apart than this are worth a word.
const SKEW_S: f64 = 30.0;
