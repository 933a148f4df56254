//! `decline`: a person at the site says no to a task.

use archipelago_common::{hash::Digest, id::TaskId};
use clap::Args;

use super::tasks::SiteArgs;
use crate::{
    consent::{Answer, Because},
    error::Result,
    output::Output,
};

/// Say no to a task: it is returned with a word of why, and nothing of the cells is computed.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker decline 3 --because purpose --config site.toml")]
pub struct DeclineArgs {
    /// The task.
    task: TaskId,
    /// Why; this word goes to the coordinators, and nothing else.
    #[arg(long, value_enum, value_name = "WORD")]
    because: Because,
    /// The offer that was looked at, as `tasks` shows it; another one is refused.
    #[arg(long, value_name = "DIGEST")]
    offer: Option<Digest>,
    #[command(flatten)]
    site: SiteArgs,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::NoTask`], [`crate::Error::OfferChanged`]; a configuration or cells that cannot be used, coordinators that
/// cannot be reached
pub fn run(args: &DeclineArgs, output: &Output) -> Result<()> {
    args.site.with(async |desk| {
        let seen = desk.one(args.task, args.offer).await?;
        output.show(&desk.decide(seen, Answer::Declined(args.because))?);
        Ok(())
    })
}
