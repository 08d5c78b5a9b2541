//! The `surrogate` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    surrogate::cli::main()
}
