//! The coordinator's program: serves a node, and asks a cluster on behalf of an operator. All of it is in the library;
//! this prints an error once.

use std::process::ExitCode;

use archipelago_coordinator::{cli, output};

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::show_error(&error);
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}
