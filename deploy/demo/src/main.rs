//! The demonstration's program: all of it is in the library; this prints an error once.

use std::process::ExitCode;

use anyhow::Result;
use archipelago_demo::{
    args::Args,
    printer,
    space_story::{self, SpaceStory},
    story::Story,
    tree_story::{self, TreeStory},
};
use clap::Parser as _;

fn main() -> ExitCode {
    match tell(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            printer::report_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs the demonstration that is asked for; whether everything holds that it claims.
fn tell(args: Args) -> Result<bool> {
    let out = args.out.clone();
    if args.model == tree_story::MODEL {
        let summary = TreeStory::new(args)?.tell()?;
        printer::print(&summary.text(&out));
        return Ok(summary.holds());
    }
    if args.model == space_story::MODEL {
        let summary = SpaceStory::new(args)?.tell()?;
        printer::print(&summary.text(&out));
        return Ok(summary.holds());
    }
    let summary = Story::new(args)?.tell()?;
    printer::report(&summary, &out);
    Ok(summary.holds())
}
