//! What the kernel says of this very process, for the metrics.

use std::fs;

/// Figures of this process. What cannot be read is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Processor time used, user and system.
    pub cpu_seconds: f64,
    /// Memory in RAM.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessFigures {
    /// Reads them from /proc.
    #[must_use]
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            cpu_seconds: cpu_seconds(&stat).unwrap_or_default(),
            resident_bytes: field(&status, "VmRSS:").unwrap_or_default().saturating_mul(1024),
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
            threads: field(&status, "Threads:").unwrap_or_default(),
        }
    }
}

/// utime and stime of a line as in proc(5). Its unit, `USER_HZ`, is 100 wherever we run.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The command name, second field, may hold anything, blanks and brackets too.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_ascii_whitespace().skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / 100.0)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes > 100_000, "{figures:?}");
        assert!(figures.open_fds >= 3 && figures.threads >= 1, "{figures:?}");
    }

    #[test]
    fn a_command_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 100";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("garbage"), None);
    }
}
