//! Where the servers are: `cluster.toml`, as far as clients need it.

use std::path::{Path, PathBuf};

use pygmy_proto::message::Role;
use serde::Deserialize;

/// Name of the file in a cluster's directory.
pub const FILE_NAME: &str = "cluster.toml";

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its slot, from 1 in the order of the file.
    pub number: u16,
    /// Its name, such as `catalog-2`.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// `host:port`.
    pub address: String,
}

/// The servers of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its id, which every server repeats in its greeting.
    pub id: [u8; 16],
    /// Its servers.
    pub nodes: Vec<Node>,
}

/// Why the servers are not known.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no such file.
    #[error(
        "there is no cluster file {0}; start a cluster with `pygmy-node up`, or name one with --cluster or --front"
    )]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("cannot read the cluster file {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path} is not a cluster file: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// Neither a directory for it is known nor was one named.
    #[error("neither XDG_DATA_HOME nor HOME is set; name the cluster file with --cluster, or a server with --front")]
    NoHome,
}

#[derive(Deserialize)]
struct File {
    cluster: FileCluster,
    #[serde(default)]
    node: Vec<FileNode>,
}

#[derive(Deserialize)]
struct FileCluster {
    id: String,
}

#[derive(Deserialize)]
struct FileNode {
    name: String,
    role: String,
    address: String,
}

impl Cluster {
    /// Reads a cluster file, or the one in a cluster's directory.
    ///
    /// # Errors
    /// [`ClusterError`], which names the file and the next step.
    pub fn load(path: &Path) -> Result<Self, ClusterError> {
        let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        let text = std::fs::read_to_string(&path).map_err(|why| match why.kind() {
            std::io::ErrorKind::NotFound => ClusterError::Missing(path.clone()),
            _ => ClusterError::Unreadable { path: path.clone(), why },
        })?;
        Self::parse(&text).map_err(|why| ClusterError::Malformed { path, why })
    }

    /// Takes the text of a cluster file.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let id = id_of(&file.cluster.id)
            .ok_or_else(|| format!("cluster.id is {:?}, it should be 32 hex digits", file.cluster.id))?;
        if file.node.is_empty() {
            return Err("it names no [[node]]".to_owned());
        }
        let nodes =
            file.node.into_iter().enumerate().map(|(index, node)| Node::new(index, node)).collect::<Result<_, _>>()?;
        Ok(Self { id, nodes })
    }

    /// Where the file is when nothing names one: in the directory that `pygmy-node up` uses by itself.
    ///
    /// # Errors
    /// [`ClusterError::NoHome`].
    pub fn default_path() -> Result<PathBuf, ClusterError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // What is not absolute there is to be ignored, by the specification of these variables.
        let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
        let data = data.or_else(|| Some(variable("HOME")?.join(".local/share")));
        Ok(data.ok_or(ClusterError::NoHome)?.join("pygmy/default").join(FILE_NAME))
    }

    /// Addresses of the front ends.
    pub fn fronts(&self) -> Vec<String> {
        self.nodes.iter().filter(|node| node.role == Role::Front).map(|node| node.address.clone()).collect()
    }

    /// The node with this name.
    pub fn node_named(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

impl Node {
    fn new(index: usize, node: FileNode) -> Result<Self, String> {
        let number = u16::try_from(index + 1).map_err(|_| "it names more nodes than there can be".to_owned())?;
        let role = match node.role.as_str() {
            "front" => Role::Front,
            "order" => Role::Order,
            "catalog" => Role::Catalog,
            other => {
                return Err(format!("node {:?} has the role {other:?}; roles are front, order, catalog", node.name));
            }
        };
        Ok(Self { number, name: node.name, role, address: node.address })
    }
}

fn id_of(hex: &str) -> Option<[u8; 16]> {
    if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(hex, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [cluster]
        id = "000102030405060708090a0b0c0d0e0f"
        key = "00"
        token = "demand"
        [[node]]
        name = "front-1"
        role = "front"
        address = "127.0.0.1:7401"
        log_uuid = "unknown to clients"
        [[node]]
        name = "catalog-1"
        role = "catalog"
        address = "localhost:7402"
    "#;

    #[test]
    fn a_cluster_file_is_read_and_what_clients_do_not_know_is_skipped() {
        let cluster = Cluster::parse(TEXT).unwrap();
        assert_eq!(cluster.id, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(cluster.fronts(), ["127.0.0.1:7401"]);
        let catalog = cluster.node_named("catalog-1").unwrap();
        assert_eq!((catalog.number, catalog.role, catalog.address.as_str()), (2, Role::Catalog, "localhost:7402"));
    }

    #[test]
    fn what_is_wrong_with_a_cluster_file_is_said() {
        let wrong = |from: &str, to: &str| Cluster::parse(&TEXT.replace(from, to)).expect_err("it is wrong");
        assert!(wrong("0001", "001").contains("32 hex digits"));
        assert!(wrong("\"catalog\"", "\"cook\"").contains("front, order, catalog"));
        assert!(wrong("[[node]]", "[[member]]").contains("no [[node]]"));
        assert!(wrong("id =", "number =").contains("id"));
        let missing = Cluster::load(Path::new("/nowhere/cluster.toml")).expect_err("it is not there");
        assert!(missing.to_string().contains("pygmy-node up"), "{missing}");
    }
}
