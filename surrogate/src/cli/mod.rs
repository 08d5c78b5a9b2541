//! The `surrogate` command: arguments in, an exit code out.
//!
//! Everything but `run`, `check` and `replay` is a question to a running daemon. Results go to
//! standard output, as text or with `--json` as JSON; an error is one line on standard error that
//! says what to do, of a configuration one for each mistake, and with `--json` an object on standard
//! output as well.

pub mod args;
mod ask;
mod frame_kind;
mod output;
pub mod replay;
mod replay_command;
mod replies;
mod usage;

use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use self::args::{Args, Command, LogFormat};
use crate::api::{ClientError, Refusal, RefusalCode};
use crate::config::{Config, ConfigError};
use crate::daemon;

/// Parses the command line, does it, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(why) => return usage::exit(&why, std::env::args_os()),
    };
    let json = args.json;
    match command(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(why)) if why.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => failed(&failure, json),
    }
}

/// Says why, once for people and with `json` once for programs.
fn failed(failure: &Failure, json: bool) -> ExitCode {
    if json {
        // If this cannot be written either, the line below still says it.
        let _ = output::json(&serde_json::json!({ "error": failure.refusal() }));
    }
    for line in failure.to_string().lines() {
        eprintln!("surrogate: {line}");
    }
    failure.exit_code()
}

/// Why a command came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration is wrong: exit code 2.
    Config(ConfigError),
    /// The command line asks for something that cannot be: exit code 2.
    Usage(String),
    /// The daemon refused or is not there: exit code 1 or 3.
    Client(ClientError),
    /// It was tried and failed, or was refused: exit code 1.
    Failed(String),
    /// The result could not be written: exit code 1.
    Output(io::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_)
            | Self::Output(_)
            | Self::Client(ClientError::Refused(_) | ClientError::Broken(_)) => 1,
            Self::Config(_) | Self::Usage(_) => 2,
            Self::Client(ClientError::Unreachable { .. }) => 3,
        })
    }

    fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Client(ClientError::Refused(refusal)) => return refusal.clone(),
            Self::Config(_) | Self::Usage(_) => RefusalCode::BadRequest,
            Self::Client(_) | Self::Failed(_) | Self::Output(_) => RefusalCode::Unavailable,
        };
        Refusal::new(code, self.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(why) => why.fmt(f),
            Self::Usage(why) | Self::Failed(why) => f.write_str(why),
            Self::Client(why) => why.fmt(f),
            Self::Output(why) => write!(f, "cannot write the result: {why}"),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(why: ConfigError) -> Self {
        Self::Config(why)
    }
}

impl From<ClientError> for Failure {
    fn from(why: ClientError) -> Self {
        Self::Client(why)
    }
}

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Self {
        Self::Output(why)
    }
}

fn command(args: Args) -> Result<(), Failure> {
    let Args { config, json, command } = args;
    match command {
        Command::Run { log_format } => run(&config, log_format),
        Command::Check { file } => check(&file.unwrap_or(config), json),
        Command::Replay(replay) => replay_command::replay(&config, &replay, json),
        asked => {
            let config = Config::load(&config)?;
            runtime(&mut Builder::new_current_thread())?.block_on(ask::ask(&config, asked, json))
        }
    }
}

fn run(config: &Path, log_format: LogFormat) -> Result<(), Failure> {
    let config = Config::load(config)?;
    log_to_stderr(log_format);
    let failed = |why: daemon::DaemonError| Failure::Failed(why.to_string());
    runtime(&mut Builder::new_multi_thread())?.block_on(daemon::run(config)).map_err(failed)
}

fn check(file: &Path, json: bool) -> Result<(), Failure> {
    let config = Config::load(file)?;
    if let Some(missing) = nothing_to_do(&config) {
        eprintln!("surrogate: {}: {missing}: there is nothing to do", file.display());
    }
    let counts = [
        (config.bridges.len(), "bridge"),
        (config.hypervisors.len(), "hypervisor"),
        (config.guests.len(), "guest"),
    ];
    if json {
        let [bridges, hypervisors, guests] = counts.map(|(n, _)| n);
        output::json(&serde_json::json!({
            "file": file, "ok": true, "bridges": bridges, "hypervisors": hypervisors, "guests": guests,
        }))?;
    } else {
        let counts = counts.map(|(n, what)| output::plural(n as u64, what)).join(", ");
        output::line(format_args!("{}: ok: {counts}", file.display()))?;
    }
    Ok(())
}

/// What is missing in a configuration by which no guest is ever put to sleep.
const fn nothing_to_do(config: &Config) -> Option<&'static str> {
    match (config.bridges.is_empty(), config.guests.is_empty()) {
        (true, true) => Some("no [[bridge]] and no [[guest]]"),
        (true, false) => Some("no [[bridge]]"),
        (false, true) => Some("no [[guest]]"),
        (false, false) => None,
    }
}

fn runtime(builder: &mut Builder) -> Result<Runtime, Failure> {
    builder.enable_all().build().map_err(|why| Failure::Failed(format!("cannot start: {why}")))
}

/// `RUST_LOG` says how much, as `debug` or `surrogate=trace,info`; without it, state changes.
fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Where the configuration is unless `--config` says otherwise.
fn default_config() -> PathBuf {
    PathBuf::from(crate::config::DEFAULT_PATH)
}
