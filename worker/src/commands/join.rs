//! `join`: comes into a consortium with an invitation.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use archipelago_client::{ClientConfig, Patience, invite::Invite};
use archipelago_common::{
    Fingerprint, Identity, Name, Principal, SiteId, enrolment::EnrolmentState, fs, limits, text::printable,
};
use archipelago_transport::{Credentials, ca, net::Network};
use clap::Args;
use serde::Serialize;

use crate::{
    config::SiteConfig,
    data::{DataSpec, SiteData},
    egress::enrolment::{Answer, Invited},
    error::{Error, Result},
    output::Output,
    secret::SiteSecret,
};

/// Come into a consortium with the invitation that its operator has sent.
///
/// Makes the site's key here, where it stays, asks to have it certified, writes site.toml and a policy.toml in which every entry is
/// explained, and waits until the operator has said yes. Tell the operator the fingerprint that is shown, on the telephone say: so
/// both know that nobody else has used the invitation. Interrupted, run it again: it goes on where it was.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker join north.invite --data cells.h5ad --batch-key batch\n  \
    archipelago-worker serve --config north/site.toml")]
pub struct JoinArgs {
    /// The file that the operator has sent.
    invite: PathBuf,
    /// The h5ad file with the cells to offer.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The obs column that names the batch.
    #[arg(long, value_name = "COLUMN")]
    batch_key: String,
    /// Name of the data set, the middle of each condition key [default: from the file's name]
    #[arg(long)]
    dataset: Option<Name>,
    /// The folder to write [default: the site's name]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The HTTP proxy that TCP goes through [default: HTTPS_PROXY]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

/// How it ended.
#[derive(Serialize)]
struct Joined {
    consortium: Name,
    site: SiteId,
    /// Of the site's key.
    fingerprint: Fingerprint,
    config: PathBuf,
}

/// The files of a site.
struct Folder {
    dir: PathBuf,
}

/// Runs the command.
///
/// # Errors  an invitation that cannot be used, cells that cannot be read, files of another site, an operator who says no
pub fn run(args: &JoinArgs, output: &Output) -> Result<()> {
    let invite = Invite::read(&args.invite, now_ms())?;
    let folder = Folder { dir: args.dir.clone().unwrap_or_else(|| invite.site.as_str().into()) };
    SiteData::open(DataSpec::new(&args.data, &args.batch_key))?.check_writable()?;
    let network = Network::configured(None, args.proxy.as_deref()).map_err(|detail| join_error("--proxy", detail))?;
    let (request, fingerprint) = folder.prepare(&invite, args, output)?;
    let joined = || Joined {
        consortium: invite.consortium.clone(),
        site: invite.site.clone(),
        fingerprint,
        config: folder.path(SITE),
    };
    if folder.is_certified(&invite) {
        output.show(&joined());
        return Ok(());
    }
    output.note(format!(
        "site `{}` of the consortium `{}`; the fingerprint of its key, for the operator to compare:\n\n    {fingerprint}\n",
        invite.site, invite.consortium
    ));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|source| Error::Runtime { source })?;
    let certificate = runtime.block_on(ask(&invite, network, request, output))?;
    folder.keep_certificate(&invite, fingerprint, &certificate)?;
    output.show(&joined());
    Ok(())
}

/// Hands the request in and waits for what the operator says.
async fn ask(invite: &Invite, network: Network, request: String, output: &Output) -> Result<String> {
    let config = ClientConfig {
        coordinators: invite.nodes().map_err(|detail| join_error("the invitation", detail))?,
        credentials: invite.credentials()?,
        software: concat!("archipelago-worker join ", env!("CARGO_PKG_VERSION")).to_owned(),
        patience: Patience::Within(PATIENCE),
        known: None,
        network,
    };
    let invited = Invited::connect(config).await?;
    let mut record = invited.ask(request).await?;
    let waits_since = Instant::now();
    let mut told = None;
    let _waiting = output.waiting(format!("`approve {}`, says the operator", invite.site));
    loop {
        match record.state {
            EnrolmentState::Approved { certificate, .. } => return Ok(certificate),
            EnrolmentState::Refused { reason, by, .. } => {
                let reason = printable(&reason, REASON_CHARS);
                return Err(join_error(invite.site.as_str(), format!("operator `{by}` said no: {reason}")));
            }
            EnrolmentState::Asked { .. } | EnrolmentState::Invited | EnrolmentState::Renewing { .. } => {
                if told.is_none_or(|told: Instant| told.elapsed() >= TELL) {
                    output.note(format!(
                        "asked; waiting for the operator to say `approve {}` ({} s so far; may be interrupted and run again)",
                        invite.site,
                        waits_since.elapsed().as_secs()
                    ));
                    told = Some(Instant::now());
                }
            }
        }
        tokio::time::sleep(LOOK).await;
        record = loop {
            match invited.look().await? {
                Answer::Record(record) => break record,
                Answer::Later(error) => output.note(format!("{error}; trying again")),
            }
        };
    }
}

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes what is not there yet: key, authority, configuration and policy. The request for a certificate, and the key's
    /// fingerprint.
    fn prepare(&self, invite: &Invite, args: &JoinArgs, output: &Output) -> Result<(String, Fingerprint)> {
        let principal = Principal::Site(invite.site.clone());
        fs::create_private_dir(&self.dir)?;
        let (key, site) = (self.path(KEY), self.path(SITE));
        if site.exists() {
            let config = SiteConfig::read(&site)?;
            if config.site != invite.site {
                let detail = format!(
                    "it is of site `{}`, and the invitation is for `{}`; give another --dir",
                    config.site, invite.site
                );
                return Err(join_error(&site.display().to_string(), detail));
            }
        }
        if !key.exists() {
            let (pem, _) = ca::signing_request(&principal)?;
            ca::write_key(&key, &pem)?;
        }
        let of_authority = self.path(CA);
        match fs::read_bounded(&of_authority, CA_BYTES) {
            Ok(known) if known != invite.authority.as_bytes() => {
                let detail = "it is another authority than the invitation's; give another --dir, or remove the folder to begin anew";
                return Err(join_error(&of_authority.display().to_string(), detail.to_owned()));
            }
            Ok(_) => {}
            Err(_) => fs::write_atomic(&of_authority, invite.authority.as_bytes())?,
        }
        // The secret that makes ids of names is made here too, so that the folder is whole before anything leaves.
        let state = self.path(STATE);
        fs::create_private_dir(&state)?;
        SiteSecret::of_site(&state)?;
        if !self.path(POLICY).exists() {
            fs::write_atomic(&self.path(POLICY), policy().as_bytes())?;
        }
        match site.exists() {
            true => output.note(format!("`{}` is there already and stays as it is", site.display())),
            false => fs::write_atomic(&site, site_toml(invite, args)?.as_bytes())?,
        }
        Ok(ca::signing_request_of(&key, &principal)?)
    }

    /// Whether the site has its certificate from an earlier run, good for longer than a warning: one that ends soon is asked for anew.
    fn is_certified(&self, invite: &Invite) -> bool {
        let loaded = Credentials::load(&self.path(CA), &self.path(CERTIFICATE), &self.path(KEY));
        let until_s = i64::try_from((now_ms() + limits::CERTIFICATE_WARNING_MS) / 1_000).unwrap_or(i64::MAX);
        loaded.is_ok_and(|credentials| {
            let is_ours = credentials.identity().principal == Principal::Site(invite.site.clone());
            is_ours && credentials.expires_unix_s() > until_s
        })
    }

    /// Keeps the certificate once it is known to be this site's, of this key, and signed by the authority of the invitation: what
    /// coordinators say is not believed.
    fn keep_certificate(&self, invite: &Invite, key: Fingerprint, certificate: &str) -> Result<()> {
        let wrong = |detail: String| join_error("the certificate that the coordinators gave", detail);
        let certified = ca::Certified::read(certificate).map_err(wrong)?;
        let expected =
            Identity { consortium: invite.consortium.clone(), principal: Principal::Site(invite.site.clone()) };
        if certified.identity != expected || certified.key != key {
            return Err(wrong(format!(
                "it is of `{}` with key {}; tell the operator",
                certified.identity, certified.key
            )));
        }
        let new = self.path("cert.pem.new");
        fs::write_atomic(&new, certificate.as_bytes())?;
        Credentials::load(&self.path(CA), &new, &self.path(KEY))?;
        Ok(fs::persist(&new, &self.path(CERTIFICATE))?)
    }
}

/// A site's configuration, with what is decided here.
fn site_toml(invite: &Invite, args: &JoinArgs) -> Result<String> {
    let data = std::path::absolute(&args.data).map_err(|source| Error::File {
        action: "find",
        path: args.data.clone(),
        source,
    })?;
    let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let proxy = args.proxy.as_deref().map_or(String::new(), |proxy| format!("proxy = {}\n", text(proxy)));
    let coordinators: String =
        invite.coordinators.iter().map(|(node, address)| format!("{node} = {}\n", text(address))).collect();
    let dataset = args.dataset.clone().map_or_else(|| dataset_of(&args.data), Ok)?;
    Ok(format!(
        "# Written by `archipelago-worker join`; paths are relative to this file. `archipelago-worker serve --help` shows all that can\n\
         # be said here.\n\
         site = \"{}\"\npolicy = \"{POLICY}\"             # what may leave: read it before you serve\n\
         state_dir = \"state\"                # secret, names, audit log, ledger: keep it in the backup\nout_dir = \"results\"                # mapped cells\n\
         ca = \"{CA}\"\ncertificate = \"{CERTIFICATE}\"\nkey = \"{KEY}\"\n{proxy}\n[coordinators]\n{coordinators}\n\
         [data]\npath = {}\ndataset = \"{dataset}\"            # stands in the consortium's log for ever\nbatch_key = {}\n\
         names = \"opaque\"                   # the consortium knows batches by ids; `archipelago-worker names` shows which is which.\n\
         \x20                                  # \"readable\": by their names, for ever; only where they name nobody\n",
        invite.site,
        text(&data.to_string_lossy()),
        text(&args.batch_key)
    ))
}

/// A name for a data set, from that of its file.
fn dataset_of(data: &Path) -> Result<Name> {
    let stem = data.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let sound: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    Name::parse("data set", sound.trim_start_matches(['.', '_', '-']))
        .map_err(|_| join_error("--dataset", format!("it is missing, and `{stem}` makes no name")))
}

/// The policy as `docs/policy.md` explains it, with every entry at rest: until one is changed the defaults hold.
fn policy() -> String {
    let block = POLICY_PAGE.split("```").nth(1).and_then(|block| block.strip_prefix("toml\n")).unwrap_or_default();
    let mut text = "# What may leave this site, and what a task may be: no task and no operator can override it. As it stands the defaults\n\
         # hold: columns and rounded figures leave, nothing else. Take the `# ` from a line to decide otherwise.\n\n"
        .to_owned();
    for line in block.lines() {
        let is_entry = !line.is_empty() && !line.starts_with('[');
        text += &format!("{}{line}\n", if is_entry { "# " } else { "" });
    }
    text
}

fn join_error(place: &str, detail: String) -> Error {
    Error::Join { place: place.to_owned(), detail }
}

/// This machine's time, Unix milliseconds.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl fmt::Display for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config.display();
        write!(
            f,
            "`{}` is in the consortium `{}` with the key {}\nread {} and change what you like, then:\n\n    \
             archipelago-worker serve --config {config}",
            self.site,
            self.consortium,
            self.fingerprint,
            self.config.with_file_name(POLICY).display()
        )
    }
}

/// The one place that explains the policy.
const POLICY_PAGE: &str = include_str!("../../../docs/policy.md");
const SITE: &str = "site.toml";
const POLICY: &str = "policy.toml";
const CA: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
const STATE: &str = "state";
/// An authority's certificate is under 1 KiB.
const CA_BYTES: u64 = 64 << 10;
/// How long coordinators may be silent.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what the operator has said.
const LOOK: Duration = Duration::from_secs(1);
/// Between two lines about it.
const TELL: Duration = Duration::from_secs(60);
/// Characters of a reason that are shown.
const REASON_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use archipelago_common::policy::SitePolicy;

    use super::*;

    #[test]
    fn the_policy_that_is_written_is_the_default_and_every_entry_can_be_uncommented() {
        let text = policy();
        assert_eq!(toml::from_str::<SitePolicy>(&text).unwrap(), SitePolicy::default());
        let entries: Vec<_> = text.lines().filter(|line| line.starts_with("# ") && line.contains(" = ")).collect();
        assert!(entries.len() > 20, "{text}");
        let all = text.lines().skip(2).map(|line| line.strip_prefix("# ").unwrap_or(line).to_owned() + "\n");
        let policy = toml::from_str::<SitePolicy>(&all.collect::<String>()).unwrap();
        assert_eq!(policy.donor_key.as_deref(), Some("donor"));
    }

    #[test]
    fn data_sets_are_named_by_their_files() {
        assert_eq!(dataset_of(Path::new("/x/Biopsies 2026.h5ad")).unwrap().as_str(), "biopsies-2026");
        assert!(dataset_of(Path::new("/x/---.h5ad")).unwrap_err().to_string().contains("--dataset"));
    }
}
