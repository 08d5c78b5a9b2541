//! The commands that ask a running daemon.

use super::Failure;
use super::args::Command;
use super::output;
use crate::api::{Client, ClientError, Released};
use crate::config::Config;
use crate::io::clock;
use crate::io::netlink::Netlink;
use crate::io::steering::{self, ReleaseReport};

/// Asks the daemon of `config` and shows what it says.
pub(super) async fn ask(config: &Config, command: Command, json: bool) -> Result<(), Failure> {
    let client = Client::new(&config.daemon.socket);
    match command {
        Command::Guests => {
            let guests = client.guests().await?;
            if json {
                output::json(&guests)?
            } else {
                output::text(&output::guests(&guests, clock::unix_ms()))?
            }
        }
        Command::Status { name } => {
            let guest = client.guest(&name).await?;
            if json {
                output::json(&guest)?
            } else {
                output::text(&output::status(&guest, clock::unix_ms()))?
            }
        }
        Command::Sleep { name, depth } => {
            let slept = client.sleep(&name, depth.map(Into::into)).await?;
            if json { output::json(&slept)? } else { output::text(&output::transition(&slept))? }
        }
        Command::Wake { name } => {
            let woken = client.wake(&name).await?;
            if json { output::json(&woken)? } else { output::text(&output::transition(&woken))? }
        }
        Command::Events { follow, since } => events(&client, since, follow, json).await?,
        Command::Release { .. } => release(&client, config, json).await?,
        Command::Run { .. } | Command::Check { .. } | Command::Replay(_) => {
            return Err(Failure::Usage("this command asks no daemon".to_owned()));
        }
    }
    Ok(())
}

async fn events(client: &Client, since: u64, follow: bool, json: bool) -> Result<(), Failure> {
    let mut written = Ok(());
    let told = client
        .events(since, follow, |record| {
            written = if json {
                output::json(&record)
            } else {
                output::line(format_args!("{}", output::event(&record)))
            };
            written.is_ok()
        })
        .await;
    written?;
    told?;
    if follow {
        return Err(Failure::Failed("the daemon stopped".to_owned()));
    }
    Ok(())
}

/// Through the daemon if one answers, else by what its journal says.
async fn release(client: &Client, config: &Config, json: bool) -> Result<(), Failure> {
    let released = match client.release_all().await {
        Err(ClientError::Unreachable { why, .. }) if why.kind() != std::io::ErrorKind::PermissionDenied => {
            offline(config).await?
        }
        answer => answer?,
    };
    if json {
        output::json(&released)?;
    } else {
        output::text(&output::released(&released))?;
    }
    match released.failed.as_slice() {
        [] => Ok(()),
        failed => Err(Failure::Failed(format!(
            "{} could not be put back",
            output::plural(failed.len() as u64, "change")
        ))),
    }
}

async fn offline(config: &Config) -> Result<Released, Failure> {
    let failed =
        |why: &dyn std::error::Error| Failure::Failed(format!("no daemon answers, and without one: {why}"));
    let netlink = Netlink::connect().map_err(|why| failed(&why))?;
    let report =
        steering::release_all(&config.daemon.state_dir, &netlink).await.map_err(|why| failed(&why))?;
    Ok(summary(&report))
}

fn summary(report: &ReleaseReport) -> Released {
    let failed: Vec<String> = report
        .released
        .iter()
        .filter_map(|one| one.failed.as_ref().map(|why| format!("{}: {}: {why}", one.guest, one.what)))
        .collect();
    let restored = report.released.len().saturating_sub(failed.len()) as u64;
    Released { guests: 0, restored, failed }
}
