//! What the server's processes have used, read from `/proc`: from outside, so that any server can be measured.

use std::{fs, iter::Sum, ops::Add, time::Duration};

/// The kernel tells times to user space in hundredths of a second on every Linux there is.
const TICK: Duration = Duration::from_millis(10);

/// CPU time and memory at one moment.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// User and system time since the start.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub rss: u64,
    /// Resident memory, shared pages counted by share, in bytes.
    pub pss: u64,
}

/// Adds up some processes; the first that cannot be read is the error.
pub fn usage(pids: &[u32]) -> std::io::Result<Usage> {
    pids.iter().map(|pid| process(*pid)).sum()
}

/// CPU time alone, which is cheap to read.
pub fn cpu(pids: &[u32]) -> std::io::Result<Duration> {
    pids.iter().map(|pid| Ok(cpu_of(&fs::read_to_string(format!("/proc/{pid}/stat"))?))).sum()
}

fn process(pid: u32) -> std::io::Result<Usage> {
    let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Usage { cpu: cpu(&[pid])?, rss: kibibytes(&memory, "Rss:"), pss: kibibytes(&memory, "Pss:") })
}

/// The 14th and 15th field of proc_pid_stat(5), counted behind the name, which may hold anything.
fn cpu_of(stat: &str) -> Duration {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok());
    TICK * ticks.sum::<u32>()
}

fn kibibytes(rollup: &str, name: &str) -> u64 {
    let value = rollup.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    value.and_then(|value| value.parse::<u64>().ok()).unwrap_or_default() * 1024
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, rss: self.rss + other.rss, pss: self.pss + other.pss }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(usages: I) -> Self {
        usages.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_spaces_and_brackets() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 7 8 20 0 3 0 99 1000 200";
        assert_eq!(cpu_of(stat), Duration::from_secs(2));
    }

    #[test]
    fn memory_is_found_by_its_name() {
        let rollup =
            "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:    1024 kB\nPss:     512 kB\nPss_Dirty:  1 kB\n";
        assert_eq!((kibibytes(rollup, "Rss:"), kibibytes(rollup, "Pss:")), (1024 * 1024, 512 * 1024));
    }

    #[test]
    fn this_process_can_be_read() {
        let usage = usage(&[std::process::id()]).unwrap();
        assert!(usage.rss >= usage.pss && usage.pss > 0);
    }
}
