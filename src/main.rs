//! The `upload-broker` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    upload_broker::cli::main()
}
