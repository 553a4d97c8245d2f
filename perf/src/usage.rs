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

/// What a process has used of time and disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Time that its threads ran, in nanoseconds. What ended threads ran is gone with them.
    pub cpu_ns: u64,
    /// Times that one of them gave its processor up, or was made to.
    pub switches: u64,
    /// Bytes that the kernel wrote, or will write, to disks for it.
    pub written: u64,
}

/// Reads what the threads of a process have used.
///
/// # Errors
/// When there is no such process, or this user may not look into it.
pub fn spent(pid: u32) -> Result<Spent, Error> {
    let dir = format!("/proc/{pid}/task");
    let read = |path: String| std::fs::read_to_string(&path).map_err(Error::io(path));
    let mut spent = Spent::default();
    for task in std::fs::read_dir(&dir).map_err(Error::io(dir.clone()))? {
        let task = task.map_err(Error::io(dir.clone()))?.path();
        let file = |name: &str| read(task.join(name).display().to_string());
        // A thread may end between its being listed and its being read.
        let (Ok(schedstat), Ok(status)) = (file("schedstat"), file("status")) else { continue };
        let unreadable = || Error::Usage(format!("{}: this is not in the form this program knows", task.display()));
        spent.cpu_ns += run_ns(&schedstat).ok_or_else(unreadable)?;
        spent.switches += switches(&status).ok_or_else(unreadable)?;
    }
    let io = format!("/proc/{pid}/io");
    let written = field(&read(io.clone())?, "write_bytes");
    spent.written = written.ok_or_else(|| Error::Usage(format!("{io}: this is not in the form this program knows")))?;
    Ok(spent)
}

/// The first field of `schedstat`: nanoseconds on a processor.
fn run_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

fn switches(status: &str) -> Option<u64> {
    Some(field(status, "voluntary_ctxt_switches")? + field(status, "nonvoluntary_ctxt_switches")?)
}

/// The number behind `name:`.
fn field(text: &str, name: &str) -> Option<u64> {
    let (_, value) = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| *key == name)?;
    value.trim().parse().ok()
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
    fn what_threads_used_is_read_by_its_names() {
        assert_eq!(run_ns("123456789 42 7\n"), Some(123_456_789));
        assert_eq!(run_ns("\n"), None);
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t30\nnonvoluntary_ctxt_switches:\t4\n";
        assert_eq!(switches(status), Some(34));
        assert_eq!(switches("voluntary_ctxt_switches:\t30\n"), None);
        assert_eq!(field("write_bytes: 4096\ncancelled_write_bytes: 1\n", "write_bytes"), Some(4_096));
    }

    #[test]
    fn this_process_has_run() {
        assert!(spent(std::process::id()).unwrap().cpu_ns > 0);
    }

    #[test]
    fn resident_memory_is_found_by_its_name() {
        assert_eq!(rss_kib("VmHWM:\t  900 kB\nVmRSS:\t  812 kB\n"), Some(812));
        assert_eq!(rss_kib("Name:\tx\n"), None);
    }
}
