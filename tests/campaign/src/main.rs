//! The campaign's program: `run` is the campaign, `site` one of its sites as a process of its own.

use std::process::ExitCode;

use archipelago_campaign::{
    args::{Args, Command},
    campaign, printer, site,
};
use archipelago_common::telemetry;
use clap::Parser as _;

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Run(args) => campaign::run(&args),
        Command::Site(args) => {
            telemetry::init("info", telemetry::LogFormat::Text);
            site::run(&args).map(|()| true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            printer::report_error(&error);
            ExitCode::FAILURE
        }
    }
}
