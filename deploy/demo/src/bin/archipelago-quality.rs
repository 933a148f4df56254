//! How good mappings are over several seeds, beside a peer's figures: all of it is in the library; this prints.

use std::process::ExitCode;

use archipelago_demo::{
    printer,
    quality_runs::{QualityArgs, run},
};
use clap::Parser as _;

fn main() -> ExitCode {
    match run(&QualityArgs::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer::report_error(&error);
            ExitCode::FAILURE
        }
    }
}
