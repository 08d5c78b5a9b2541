//! What the command line may say.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::hypervisor::Depth;

/// Puts idle virtual machines to sleep and stands in for them on the network.
#[derive(Debug, Parser)]
#[command(name = "surrogate", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done; 1 refused or failed; 2 wrong usage or configuration; \
                        3 no daemon answers.")]
pub struct Args {
    /// The configuration file; commands that ask the daemon take its socket from it
    #[arg(long, global = true, value_name = "FILE", default_value_os_t = super::default_config())]
    pub config: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    Run {
        /// How to write the log to standard error; RUST_LOG says how much
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        log_format: LogFormat,
    },
    /// Check a configuration file and say everything that is wrong with it
    Check {
        /// The file; without it, the one of --config
        file: Option<PathBuf>,
    },
    /// Show all guests
    Guests,
    /// Show one guest: its state, its NICs, what became of its frames
    Status {
        /// The guest
        name: String,
    },
    /// Put a guest to sleep and wait until it sleeps
    Sleep {
        /// The guest
        name: String,
        /// How deep; without it, as configured
        #[arg(long)]
        depth: Option<SleepDepth>,
    },
    /// Wake a guest and wait until it runs and has everything that was held for it
    Wake {
        /// The guest
        name: String,
    },
    /// Wake every sleeper and put everything back on the bridges; without a daemon only put back
    Release {
        /// For all guests
        #[arg(long, required = true)]
        all: bool,
    },
    /// Show what happened
    Events {
        /// Go on showing what happens
        #[arg(long, short)]
        follow: bool,
        /// Only what came after the event of this number
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        since: u64,
    },
    /// Show what would have become of a capture's frames, had the configured guests slept: what is
    /// answered, what is held, what wakes whom. No daemon, no privileges; guests need their `mac`.
    /// A guest that was woken is awake until it was `idle_after`, and at least `min_awake`, without
    /// a frame to or from it; with `idle_after = "never"` to the end
    Replay(Replay),
}

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// A pcap or pcapng file of Ethernet frames
    pub capture: PathBuf,
    /// Only this guest sleeps
    #[arg(long, value_name = "NAME")]
    pub guest: Option<String>,
    /// Write the replies to this file, as pcapng; what is there is replaced once all are written
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Show the verdict about each frame
    #[arg(long, short)]
    pub verbose: bool,
    /// Take transport checksums as right: for captures made on the sending host, where offload left
    /// them unfilled
    #[arg(long)]
    pub trust_checksums: bool,
}

/// How deep to sleep.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SleepDepth {
    /// Its processors stop, its memory stays
    Pause,
    /// Its memory goes to disk
    Save,
}

impl From<SleepDepth> for Depth {
    fn from(depth: SleepDepth) -> Self {
        match depth {
            SleepDepth::Pause => Self::Pause,
            SleepDepth::Save => Self::Save,
        }
    }
}

/// How to write the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One object per line
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_takes_json_and_config() {
        for line in [
            "run",
            "check",
            "check f",
            "guests",
            "status a",
            "sleep a",
            "sleep a --depth save",
            "wake a",
            "release --all",
            "events --follow",
            "replay f -v --guest a --write o",
        ] {
            let line = format!("surrogate {line} --json --config x.toml");
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert!(args.json && args.config.as_os_str() == "x.toml", "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_a_usage_error() {
        for line in ["", "sleep", "sleep a --depth deep", "release", "wake", "replay", "nap a"] {
            let line = format!("surrogate {line}");
            let error = Args::try_parse_from(line.split_whitespace()).unwrap_err();
            assert!(
                error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand || error.exit_code() == 2
            );
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
