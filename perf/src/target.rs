//! Where the cluster is: its `cluster.toml`, or one address given by hand.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use pygmy_proto::message::Role;

use crate::error::Error;

/// How a command is told where the cluster is.
#[derive(Debug, Clone, clap::Args)]
pub struct TargetArgs {
    /// The cluster's `cluster.toml`, as written by `pygmy-node up`, or the directory that holds it [default:
    /// $PYGMY_CLUSTER, else the one that `up` starts by default]
    #[arg(long, value_name = "PATH")]
    pub cluster: Option<PathBuf>,
    /// A front end, instead of all those of the cluster's file; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    pub front: Vec<String>,
}

impl TargetArgs {
    /// The cluster's file.
    fn path(&self) -> Result<PathBuf, Error> {
        let variable = || std::env::var_os("PYGMY_CLUSTER").filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = self.cluster.clone().or_else(variable);
        let path = named.map_or_else(default_path, Ok)?;
        Ok(if path.is_dir() { path.join("cluster.toml") } else { path })
    }

    /// The directory of a cluster on this machine.
    ///
    /// # Errors
    /// When there is no telling where it is.
    pub fn dir(&self) -> Result<PathBuf, Error> {
        let path = self.path()?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(parent.map_or_else(|| PathBuf::from("."), Path::to_path_buf))
    }
}

/// One server, as its cluster's file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its number: its place in the file, from 1. 0 for an address given by hand.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// `host:port`.
    pub address: String,
}

#[derive(Debug, serde::Deserialize)]
struct File {
    node: Vec<FileNode>,
}

#[derive(Debug, serde::Deserialize)]
struct FileNode {
    name: String,
    role: String,
    address: String,
}

/// The servers of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// In the order of the file.
    pub servers: Vec<Server>,
}

impl Target {
    /// Finds out where the cluster is.
    ///
    /// # Errors
    /// When neither a file nor an address leads to a front end.
    pub fn find(args: &TargetArgs) -> Result<Self, Error> {
        if !args.front.is_empty() {
            let front = |address: &String| Server {
                number: 0,
                name: address.clone(),
                role: Role::Front,
                address: address.clone(),
            };
            return Ok(Self { servers: args.front.iter().map(front).collect() });
        }
        let path = args.path()?;
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Error::Usage(format!("{}: {error}: start a cluster, or name its file with --cluster", path.display()))
        })?;
        Self::parse(&text, &path)
    }

    /// Reads the text of a cluster's file.
    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::Usage(format!("{}: {why}", path.display()));
        let file: File = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let mut servers = Vec::with_capacity(file.node.len());
        for (number, node) in (1..=u16::MAX).zip(file.node) {
            let role = [Role::Front, Role::Order, Role::Catalog].into_iter().find(|role| role.name() == node.role);
            let role = role.ok_or_else(|| wrong(format!("{} has the unknown role {:?}", node.name, node.role)))?;
            servers.push(Server { number, name: node.name, role, address: node.address });
        }
        match servers.iter().any(|server| server.role == Role::Front) {
            true => Ok(Self { servers }),
            false => Err(wrong("it names no front end".into())),
        }
    }

    /// The front ends.
    pub fn fronts(&self) -> Vec<&Server> {
        self.servers.iter().filter(|server| server.role == Role::Front).collect()
    }

    /// Those that hold a copy of the log.
    pub fn replicas(&self) -> Vec<&Server> {
        self.servers.iter().filter(|server| matches!(server.role, Role::Order | Role::Catalog)).collect()
    }

    /// The front ends' addresses, resolved.
    ///
    /// # Errors
    /// When a name does not resolve.
    pub fn front_addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        self.fronts().into_iter().map(resolve).collect()
    }
}

/// A server's address, its name resolved.
///
/// # Errors
/// When it does not resolve.
pub fn resolve(server: &Server) -> Result<SocketAddr, Error> {
    let unreachable = |why: String| Error::Unreachable { address: server.address.clone(), why };
    let mut found = server.address.to_socket_addrs().map_err(|error| unreachable(error.to_string()))?;
    found.next().ok_or_else(|| unreachable("the name has no address".into()))
}

/// The file of the cluster that `pygmy-node up` starts when it is not told where.
fn default_path() -> Result<PathBuf, Error> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data = data.or_else(|| set("HOME").map(|home| home.join(".local/share")));
    let data = data.ok_or_else(|| Error::Usage("neither XDG_DATA_HOME nor HOME is set: name --cluster FILE".into()))?;
    Ok(data.join("pygmy/default/cluster.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [cluster]
        id = "00112233445566778899aabbccddeeff"
        [[node]]
        name = "front-1"
        role = "front"
        address = "127.0.0.1:7001"
        [[node]]
        name = "order-1"
        role = "order"
        address = "127.0.0.1:7002"
    "#;

    #[test]
    fn numbers_are_places_in_the_file() {
        let target = Target::parse(TEXT, Path::new("c")).unwrap();
        let found: Vec<_> = target.servers.iter().map(|s| (s.number, s.name.as_str(), s.role)).collect();
        assert_eq!(found, [(1, "front-1", Role::Front), (2, "order-1", Role::Order)]);
        assert_eq!(target.replicas()[0].address, "127.0.0.1:7002");
        assert_eq!(target.front_addresses().unwrap(), ["127.0.0.1:7001".parse().unwrap()]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let no_front = TEXT.replace("\"front\"", "\"catalog\"");
        assert!(Target::parse(&no_front, Path::new("c")).unwrap_err().to_string().contains("no front"));
        let role = TEXT.replace("\"order\"", "\"till\"");
        assert!(Target::parse(&role, Path::new("c")).unwrap_err().to_string().contains("\"till\""));
    }
}
