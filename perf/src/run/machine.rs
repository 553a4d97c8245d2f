//! Where a run was made.

use serde::{Deserialize, Serialize};

/// A machine, as far as figures depend on it. It has no name: that is nobody's business who reads a report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model, as the kernel names it.
    pub cpu: String,
    /// Processors that this program may use.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// The kernel and its version.
    pub kernel: String,
    /// Processes that were runnable when the run began, as the load average of a minute.
    pub load_average: String,
}

impl Machine {
    /// This one. What cannot be found out stays empty.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory: field(&read("/proc/meminfo"), "MemTotal").and_then(|text| kib(&text)).unwrap_or(0),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or_default().into(),
        }
    }
}

/// The value behind the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let (_, value) = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name)?;
    Some(value.trim().into())
}

fn kib(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The command line of this process; of the program only the name.
pub(super) fn command() -> Vec<String> {
    let mut words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(program) = words.first_mut() {
        *program = "pygmy-perf".into();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "processor\t: 0\nmodel\t\t: 106\nmodel name\t: A Chip: fast\nmodel name\t: another\n";
        assert_eq!(field(text, "model name"), Some("A Chip: fast".into()));
        assert_eq!(field(text, "model n"), None);
        assert_eq!(kib("16 kB"), Some(16_384));
        assert_eq!(kib("16"), None);
    }

    #[test]
    fn this_machine_has_a_processor() {
        assert!(Machine::here().cpus > 0);
    }
}
