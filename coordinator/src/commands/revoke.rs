//! `revoke`: shuts somebody out for good, or one key of theirs.

use archipelago_common::{Fingerprint, Principal};
use archipelago_protocol::message::{Reply, Request};
use archipelago_transport::Credentials;
use clap::Args;

use super::{Connection, certified, invite::coordinators_time, unexpected};
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Shut a person, a site or a coordinator out for good, or one key of theirs, and cut their sessions.
///
/// A name that was shut out never comes back; what it contributed stays until it is withdrawn. With --fingerprint the name stays, and goes on
/// with a certificate of another key: what to do where a laptop was stolen. `status` shows keys. A coordinator that is a member is
/// taken out with `members remove`. Enrollers shut sites out, administrators everybody else. Who has certificates with several sets of roles is
/// shut out by each.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-coordinator revoke operator/ben --reason \"has left\" --config operator.toml\n  \
    archipelago-coordinator revoke coordinator/3 --fingerprint 0b4c-… --config operator.toml")]
pub struct RevokeArgs {
    /// Role and name, such as operator/ben, publisher+enroller/ben, auditor/eva, site/north or coordinator/3.
    who: Principal,
    /// Only the key with this fingerprint, which is not to be that of the one who says it.
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<Fingerprint>,
    /// Why, for everybody to read.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  one's own key, the cluster's refusal, or that it cannot be reached
pub fn run(args: &RevokeArgs, output: &Output) -> Result<()> {
    let config = args.connection.resolve()?;
    let own = Credentials::load(&config.ca, &config.certificate, &config.key)?.certified().key;
    if args.fingerprint == Some(own) {
        let detail =
            "it is the key that this command comes with; use another certificate, or have another operator do it";
        return Err(Error::Config { place: "--fingerprint".to_owned(), detail: detail.to_owned() });
    }
    let request = Request::Revoke { who: args.who.clone(), key: args.fingerprint, reason: args.reason.clone() };
    let (standing, now_ms) = args.connection.talk(async |client| match client.request(request).await? {
        Reply::Standing(standing) => Ok((standing, coordinators_time(client).await?)),
        reply => Err(unexpected(reply)),
    })?;
    output.show(&standing, certified::line(&standing, now_ms));
    Ok(())
}
