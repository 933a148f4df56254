//! `completions`: a script that teaches a shell the commands and flags.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::Result;

/// Write a completion script for a shell to stdout.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  archipelago-worker completions bash > ~/.local/share/bash-completion/completions/archipelago-worker"
)]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Runs the command.
///
/// # Errors  none
pub fn run(args: &CompletionsArgs, command: &mut Command) -> Result<()> {
    clap_complete::generate(args.shell, command, "archipelago-worker", &mut std::io::stdout());
    Ok(())
}
