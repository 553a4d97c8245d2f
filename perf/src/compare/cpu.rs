//! Processor time of whole families of processes, as the kernel counts it.

use std::fs;

use hashbrown::HashMap;

/// Seconds of processor time that processes, all that descend from them, and those of both that have ended have used.
pub(super) fn of_families(roots: &[u32]) -> f64 {
    let all: HashMap<u32, Process> = pids().filter_map(|pid| Some((pid, Process::read(pid)?))).collect();
    let is_in = |pid: u32| {
        let mut at = pid;
        // The chain of parents ends at 0; a process that has just ended cuts it.
        while at != 0 && !roots.contains(&at) {
            at = all.get(&at).map_or(0, |process| process.parent);
        }
        at != 0
    };
    let ticks: u64 = all.iter().filter(|(pid, _)| is_in(**pid)).map(|(_, process)| process.ticks).sum();
    seconds(ticks)
}

/// Those of this process and of its children that have ended; not of those that run.
pub(super) fn of_this_process() -> f64 {
    Process::read(std::process::id()).map_or(0.0, |process| seconds(process.ticks))
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64
}

fn pids() -> impl Iterator<Item = u32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// Of it and of its children that have ended.
    ticks: u64,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Field 4 and fields 14 to 17. The second field, the name, may hold spaces and brackets itself.
    fn parse(stat: &str) -> Option<Self> {
        let (_, after_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
        Some(Self { parent: fields.get(1)?.parse().ok()?, ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 7 2 3 4 5 6 7 8 9 10 120 30 4 5 20 0 1 0 5 6 7";
        assert_eq!(Process::parse(stat), Some(Process { parent: 7, ticks: 159 }));
        assert_eq!(Process::parse("42 (x) S 1"), None);
    }

    #[test]
    fn a_family_is_found_by_its_head_alone() {
        let own = Process::read(std::process::id()).unwrap();
        let family = of_families(&[own.parent]);
        assert!(family >= seconds(own.ticks) && of_this_process() >= seconds(own.ticks), "{family}");
        assert_eq!(of_families(&[]), 0.0);
    }
}
