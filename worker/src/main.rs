//! The site's program: trains, maps and serves. All of it is in the library; this prints an error once.

use std::process::ExitCode;

use archipelago_worker::{cli, output};

mod hypot;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(cli::Failure { error, hint }) => {
            let code = error.exit_code();
            output::show_error(&error, hint.as_deref());
            ExitCode::from(code)
        }
    }
}
