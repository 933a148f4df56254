//! The demonstration's program: all of it is in the library; this prints an error once.

use std::process::ExitCode;

use archipelago_demo::{args::Args, printer, story::Story};
use clap::Parser as _;

fn main() -> ExitCode {
    let args = Args::parse();
    let out = args.out.clone();
    match Story::new(args).and_then(Story::tell) {
        Ok(summary) => {
            printer::report(&summary, &out);
            if summary.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            printer::report_error(&error);
            ExitCode::FAILURE
        }
    }
}
