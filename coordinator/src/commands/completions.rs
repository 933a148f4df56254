//! `completions`: makes the shell complete commands and flags.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::{error::Result, output};

/// Write a completion script for a shell.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  archipelago-coordinator completions bash > ~/.local/share/bash-completion/completions/archipelago-coordinator"
)]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Runs the command.
///
/// # Errors  none
pub fn run(args: &CompletionsArgs, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "archipelago-coordinator", &mut script);
    output::raw(&script);
    Ok(())
}
