//! What a process uses, as the kernel counts it.

use std::fmt;

use serde::Serialize;

use crate::error::Error;

/// A process's memory and time at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The process.
    pub pid: u32,
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// CPU time used so far, user and system, in milliseconds; the kernel counts it in steps of 10.
    pub cpu_ms: u64,
    /// Open descriptors, where they may be counted.
    pub descriptors: Option<u64>,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, rss_kib, cpu_ms, descriptors } = self;
        write!(f, "pid {pid}: {rss_kib} KiB resident, {cpu_ms} ms of CPU time so far")?;
        descriptors.map_or(Ok(()), |count| write!(f, ", {count} descriptors"))
    }
}

/// Reads what a process uses.
///
/// # Errors
/// When there is no such process, or no `/proc` (only Linux has one).
pub fn of(pid: u32) -> Result<Usage, Error> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).map_err(Error::io(path))
    };
    let unreadable = |file: &str| Error::Usage(format!("/proc/{pid}/{file} is not in the form this program knows"));
    let cpu_ms = cpu_ms(&read("stat")?, ticks_per_second()).ok_or_else(|| unreadable("stat"))?;
    let rss_kib = rss_kib(&read("status")?).ok_or_else(|| unreadable("status"))?;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|dir| dir.count() as u64);
    Ok(Usage { pid, rss_kib, cpu_ms, descriptors })
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// User and system time, fields 14 and 15. The second field, the name, may hold spaces and brackets itself.
fn cpu_ms(stat: &str, ticks_per_second: u64) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks * 1_000 / ticks_per_second)
}

fn rss_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ms(stat, 100), Some(1_500));
        assert_eq!(cpu_ms("42 (x) S 1", 100), None);
    }

    #[test]
    fn resident_memory_is_found_by_its_name() {
        assert_eq!(rss_kib("VmHWM:\t  900 kB\nVmRSS:\t  812 kB\n"), Some(812));
        assert_eq!(rss_kib("Name:\tx\n"), None);
    }
}
