//! Whom a server runs as that refuses to run as root, and where programs are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// The name.
    pub(super) name: String,
    /// The number.
    pub(super) uid: u32,
    /// That of the first group.
    pub(super) gid: u32,
}

impl Account {
    /// The first of these that there is, when this program runs as root; else nobody else.
    pub(super) fn instead_of_root(names: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        names.iter().find_map(|name| Self::find(&users, name))
    }

    fn find(users: &str, name: &str) -> Option<Self> {
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
        Some(Self { name: name.into(), uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    }
}

/// A program on the PATH.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// A program of PostgreSQL: on the PATH, or where Debian keeps those of the highest version.
pub(super) fn postgres_program(name: &str) -> Option<PathBuf> {
    program(name).or_else(|| highest_version(Path::new("/usr/lib/postgresql"), name))
}

/// The first line of what a program prints; nothing when it cannot be run.
pub(super) fn first_line(program: &Path, args: &[&str]) -> String {
    let printed = Command::new(program).args(args).stdin(Stdio::null()).output();
    let printed = printed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    printed.lines().next().unwrap_or_default().trim().to_string()
}

fn highest_version(root: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(root).ok()?.flatten();
    let versions = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    let programs = versions.map(|(version, dir)| (version, dir.join("bin").join(name)));
    programs.filter(|(_, path)| path.is_file()).max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:8::/:/bin/sh\npostgres:x:101:104:a:/b:/c\n";
        let found = Account::find(users, "postgres").unwrap();
        assert_eq!((found.uid, found.gid), (101, 104));
        assert_eq!(Account::find(users, "post"), None);
    }

    #[test]
    fn version_15_is_above_version_9() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["9", "15", "8", "old"] {
            let bin = dir.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            std::fs::write(bin.join("postgres"), "").unwrap();
        }
        assert_eq!(highest_version(dir.path(), "postgres"), Some(dir.path().join("15/bin/postgres")));
        assert_eq!(highest_version(dir.path(), "psql"), None);
    }
}
