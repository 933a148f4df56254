//! Sites that come and go while everything is killed: each is invited, asks, is approved, asks for another key over its session and comes
//! with that, and every second one is shut out. What is acknowledged is written down, and looked for in the end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use archipelago_client::{Client, ClientConfig, ClientError, Patience};
use archipelago_common::{Fingerprint, NodeId, Principal, SiteId, signature::Statement};
use archipelago_protocol::message::{Reply, Request};
use archipelago_transport::{
    Credentials,
    ca::{Asked, Authority, Validity, signing_request},
    net::Network,
};
use tokio::sync::watch;

use crate::{event::now_us, journal::OperatorEntry, operator::Operator};

/// The work with guests.
pub struct Guests {
    operator: Operator,
    /// Where the authority is: with the operator, who is not killed.
    authority: PathBuf,
    coordinators: BTreeMap<u64, String>,
}

/// Whose key it is that is certified, and both as PEM text.
struct Certified {
    key: Fingerprint,
    secret: String,
    certificate: String,
}

impl Guests {
    /// Guests of the consortium whose authority is in `authority`.
    pub fn new(operator: Operator, authority: &Path, coordinators: BTreeMap<u64, String>) -> Self {
        Self { operator, authority: authority.to_owned(), coordinators }
    }

    /// One guest after the other, until it is told to stop; the last one is seen through.
    pub async fn run(self, stopped: watch::Receiver<bool>) -> Result<()> {
        let file = |name: &str| self.authority.join(name);
        let authority = Authority::load(&file("ca.pem"), &file("ca.key"))?;
        for number in 1_u64.. {
            if *stopped.borrow() {
                break;
            }
            let site: SiteId = format!("guest{number}").parse()?;
            self.receive(&authority, &site, number.is_multiple_of(2)).await.with_context(|| format!("`{site}`"))?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn receive(&self, authority: &Authority, site: &SiteId, is_to_leave: bool) -> Result<()> {
        let first = self.enrol(authority, site).await.context("enrolment")?;
        self.operator.note(&OperatorEntry::Enrolled { site: site.clone(), key: first.key })?;
        let second = self.renew(authority, site, &first).await.context("renewal")?;
        self.operator.note(&OperatorEntry::Renewed { site: site.clone(), key: second.key })?;
        if is_to_leave {
            self.operator.ask(Request::RevokeSite { site: site.clone() }).await.context("revocation")?;
            self.operator.note(&OperatorEntry::Revoked { site: site.clone() })?;
        }
        Ok(())
    }

    /// Invited, asking, approved.
    async fn enrol(&self, authority: &Authority, site: &SiteId) -> Result<Certified> {
        let (invitation, issued) = authority.invite(Validity::days(1))?;
        let Reply::Time(now_ms) = self.operator.ask(Request::ShowTime).await? else { bail!("it is no time") };
        let expires_ms = now_ms + INVITATION_MS;
        self.operator.ask(Request::Invite { site: site.clone(), invitation, expires_ms }).await?;
        let (secret, request) = signing_request(&Principal::Site(site.clone()))?;
        let invited = self.connect(authority, &issued.certificate, &issued.key).await?;
        invited.request(Request::RequestCertificate { request: request.clone() }).await?;
        self.approve(authority, site, secret, &request).await
    }

    /// Asks for another key with the one that it has, and comes with the other until that one counts.
    async fn renew(&self, authority: &Authority, site: &SiteId, has: &Certified) -> Result<Certified> {
        let guest = self.connect(authority, &has.certificate, &has.secret).await?;
        guest.request(Request::ListReferenceHeads { after: None }).await.context("a read with the first key")?;
        let (secret, request) = signing_request(&Principal::Site(site.clone()))?;
        let credentials = Credentials::from_pem(authority.certificate(), &has.certificate, &has.secret)?;
        let signature = Box::new(credentials.sign(&Statement::of_renewal(site, &request, now_us() / 1_000))?);
        guest.request(Request::RenewCertificate { request: request.clone(), signature }).await?;
        let renewed = self.approve(authority, site, secret, &request).await?;
        for _ in 0..LOOKS {
            let guest = self.connect(authority, &renewed.certificate, &renewed.secret).await?;
            guest.request(Request::ListReferenceHeads { after: None }).await.context("a read with the second key")?;
            tokio::time::sleep(LOOK).await;
            if self.operator.keys().await?.get(site).map(|certified| certified.key) == Some(renewed.key) {
                return Ok(renewed);
            }
        }
        bail!("its second key did not count after it had come {LOOKS} times")
    }

    async fn approve(&self, authority: &Authority, site: &SiteId, secret: String, request: &str) -> Result<Certified> {
        let certificate = authority.sign_request(request, &Principal::Site(site.clone()), Validity::days(1))?;
        let key = Asked::read(request).map_err(anyhow::Error::msg)?.key;
        let approval = Request::ApproveSite { site: site.clone(), certificate: certificate.clone() };
        let reply = self.operator.ask(approval).await?;
        ensure!(matches!(reply, Reply::Enrolment(_)), "it was approved as {reply:?}");
        Ok(Certified { key, secret, certificate })
    }

    async fn connect(&self, authority: &Authority, certificate: &str, secret: &str) -> Result<Client> {
        let coordinators = self.coordinators.iter();
        let config = ClientConfig {
            coordinators: coordinators.filter_map(|(node, at)| Some((NodeId::new(*node)?, at.clone()))).collect(),
            credentials: Credentials::from_pem(authority.certificate(), certificate, secret)?,
            software: "campaign".to_owned(),
            patience: Patience::Within(PATIENCE),
            known: None,
            network: Network::configured(None, None).map_err(anyhow::Error::msg)?,
        };
        let until = Instant::now() + PATIENCE;
        loop {
            match Client::connect(config.clone()).await {
                // Some are killed or cut off at any time; only a refusal by all is one.
                Err(ClientError::Unreachable { tried })
                    if tried.0.iter().any(|attempt| attempt.said.is_transient()) && Instant::now() < until =>
                {
                    tokio::time::sleep(LOOK).await;
                }
                connected => return Ok(connected?),
            }
        }
    }
}

/// Between two guests.
const PAUSE: Duration = Duration::from_millis(300);
/// Between two looks whether a key counts.
const LOOK: Duration = Duration::from_millis(300);
/// Comings of a new key until it must count: who leads writes it down, and may die before that.
const LOOKS: u32 = 200;
const INVITATION_MS: u64 = 3_600_000;
/// A cluster that is silent for this long has failed, whatever was done to it.
const PATIENCE: Duration = Duration::from_secs(60);
