//! `approve`: a person at the site says yes to a task.

use archipelago_common::{hash::Digest, id::TaskId};
use clap::Args;

use super::tasks::SiteArgs;
use crate::{consent::Answer, error::Result, output::Output};

/// Say yes to a task: the worker takes it within seconds.
///
/// It holds for exactly what is shown. When the task, its reference, the policy or the cells change, it is asked again.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker approve 3 --config site.toml")]
pub struct ApproveArgs {
    /// The task.
    task: TaskId,
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
pub fn run(args: &ApproveArgs, output: &Output) -> Result<()> {
    args.site.with(async |desk| {
        let seen = desk.one(args.task, args.offer).await?;
        output.show(&desk.decide(seen, Answer::Approved)?);
        Ok(())
    })
}
