//! A command line that makes no sense: said in one line, as every other error is.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;

use super::{Failure, failed};

/// Shows the help that was asked for, or says what is wrong with the command line `words`.
pub(super) fn exit(why: &clap::Error, words: impl Iterator<Item = OsString>) -> ExitCode {
    if !why.use_stderr() || why.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Who cannot be shown the help is told so by the exit code.
        let shown = why.print().is_ok();
        return ExitCode::from(if shown { why.exit_code().try_into().unwrap_or(2) } else { 1 });
    }
    // The words could not be parsed, so this one is looked for by itself; behind `--` it is a value.
    let json = words.take_while(|word| word != "--").any(|word| word == "--json");
    failed(&Failure::Usage(one_line(&why.render().to_string())), json)
}

/// The paragraphs of clap's message in a line; its last one only points at `--help`, as the usage does.
fn one_line(message: &str) -> String {
    let paragraphs = message.trim().split("\n\n").filter(|text| !text.starts_with("For more information"));
    let lines = paragraphs.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let line = lines.collect::<Vec<_>>().join("; ");
    line.strip_prefix("error: ").map(str::to_owned).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::Args;

    #[test]
    fn a_mistake_and_the_right_usage_are_one_line() {
        let said =
            |line: &str| one_line(&Args::try_parse_from(line.split(' ')).unwrap_err().render().to_string());
        for (line, mistake, usage) in [
            ("surrogate sleep", "required arguments were not provided: <NAME>; ", "surrogate sleep "),
            ("surrogate nap a", "unrecognized subcommand 'nap'; ", "surrogate "),
            ("surrogate release", "were not provided: --all; ", "surrogate release "),
            ("surrogate sleep a --depth deep", "'--depth <DEPTH>' [possible values: pause, save]", ""),
            ("surrogate wake a b", "unexpected argument 'b' found; ", "surrogate wake "),
        ] {
            let text = said(line);
            assert!(text.contains(mistake) && !text.contains('\n'), "{text}");
            assert!(usage.is_empty() || text.contains(&format!("Usage: {usage}")), "{text}");
            assert!(!text.starts_with("error") && !text.contains("For more"), "{text}");
        }
    }
}
