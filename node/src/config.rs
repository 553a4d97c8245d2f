//! `cluster.toml`: what a cluster is, in one file that every node reads.
//!
//! The file is read key by key rather than into a struct, so that every refusal is a sentence that names the key, the
//! value found and what would be allowed. It holds the cluster's key, so it is written readable for its owner alone.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pygmy_proto::limits::{ADDRESS_LEN_MAX, NAME_LEN_MAX, REPLICAS_MAX};
use pygmy_proto::message::Role;
use toml::{Table, Value};

use crate::settings::{
    CACHE_BYTES_DEFAULT, ClusterSettings, INCARNATION_MAX, NodeSettings, TokenMode, incarnation_of, number_of,
};

/// Length of a cluster's key in bytes.
pub const KEY_LEN: usize = 32;
pub use pygmy_proto::limits::NODES_MAX;

/// Why a `cluster.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
    /// It is not TOML.
    #[error("this is not TOML: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A key that must be there is not.
    #[error("{key} is missing; allowed is {allowed}")]
    Missing {
        /// The key.
        key: String,
        /// What it takes.
        allowed: String,
    },
    /// A key that nothing reads. Most likely it is misspelt, and ignoring it would hide that.
    #[error("{key} = {value} is not a key of this file; allowed here are {allowed}")]
    Unknown {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The keys that are known.
        allowed: String,
    },
    /// A value that its key cannot have.
    #[error("{key} = {value} cannot be used; allowed is {allowed}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it takes.
        allowed: String,
    },
    /// Nodes that make no cluster together.
    #[error("{0}")]
    Cluster(String),
}

const CLUSTER_KEYS: &[&str] = &["id", "key", "token", "cache_bytes"];
const NODE_KEYS: &[&str] = &["name", "role", "address", "log", "incarnation"];

/// Reads and checks the file at `path`.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn read(path: &Path) -> Result<ClusterSettings, ConfigError> {
    parse(&std::fs::read_to_string(path)?)
}

/// Reads and checks the text of a `cluster.toml`.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn parse(text: &str) -> Result<ClusterSettings, ConfigError> {
    let root: Table = toml::from_str(text)?;
    refuse_unknown(&root, "", &["cluster", "node"])?;
    let cluster = table(&root, "cluster")?;
    refuse_unknown(cluster, "cluster.", CLUSTER_KEYS)?;
    let nodes = node_tables(&root)?
        .iter()
        .enumerate()
        .map(|(index, table)| parse_node(index, table))
        .collect::<Result<Vec<_>, _>>()?;
    let settings = ClusterSettings {
        id: hex_key(cluster, "cluster.", "id")?,
        key: hex_key::<KEY_LEN>(cluster, "cluster.", "key")?.to_vec(),
        token: parse_token(cluster)?,
        cache_bytes: parse_cache_bytes(cluster)?,
        nodes,
    };
    check_nodes(&settings)?;
    Ok(settings)
}

fn parse_token(cluster: &Table) -> Result<TokenMode, ConfigError> {
    const ALLOWED: &str = "\"demand\" or \"rotate\"";
    match text(cluster, "cluster.", "token", ALLOWED)? {
        "demand" => Ok(TokenMode::Demand),
        "rotate" => Ok(TokenMode::Rotate),
        other => Err(refused("cluster.token", other, ALLOWED)),
    }
}

fn parse_cache_bytes(cluster: &Table) -> Result<u64, ConfigError> {
    let Some(value) = cluster.get("cache_bytes") else { return Ok(CACHE_BYTES_DEFAULT) };
    value.as_integer().and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(|| ConfigError::Value {
        key: "cluster.cache_bytes".to_owned(),
        value: shown(value),
        allowed: "a number of bytes, or 0 for no cache".to_owned(),
    })
}

/// The name of a token mode as in the file.
pub fn token_name(token: TokenMode) -> &'static str {
    match token {
        TokenMode::Demand => "demand",
        TokenMode::Rotate => "rotate",
    }
}

fn parse_node(index: usize, table: &Table) -> Result<NodeSettings, ConfigError> {
    const ROLES: &str = "\"front\", \"order\" or \"catalog\"";
    let slot = index as u16 + 1;
    let prefix = format!("node[{slot}].");
    refuse_unknown(table, &prefix, NODE_KEYS)?;
    let name = parse_name(table, &prefix)?;
    let role = match text(table, &prefix, "role", ROLES)? {
        "front" => Role::Front,
        "order" => Role::Order,
        "catalog" => Role::Catalog,
        other => return Err(refused(&format!("{prefix}role"), other, ROLES)),
    };
    let address = parse_address(table, &prefix)?;
    let log_uuid = match (role, table.get("log")) {
        (Role::Front, None) => [0; 16],
        (Role::Front, Some(value)) => {
            let allowed = "nothing: a front keeps no log, leave the key out".to_owned();
            return Err(ConfigError::Value { key: format!("{prefix}log"), value: shown(value), allowed });
        }
        _ => hex_key(table, &prefix, "log")?,
    };
    let number = number_of(slot, parse_incarnation(table, &prefix, role)?);
    Ok(NodeSettings { number, name, role, address, log_uuid })
}

fn parse_incarnation(table: &Table, prefix: &str, role: Role) -> Result<u16, ConfigError> {
    let Some(value) = table.get("incarnation") else { return Ok(0) };
    let highest = if role == Role::Front { 0 } else { INCARNATION_MAX };
    let found = value.as_integer().and_then(|number| u16::try_from(number).ok());
    found.filter(|incarnation| *incarnation <= highest).ok_or_else(|| ConfigError::Value {
        key: format!("{prefix}incarnation"),
        value: shown(value),
        allowed: format!("0 to {highest}; `pygmy-node replace` counts it"),
    })
}

fn parse_name(table: &Table, prefix: &str) -> Result<String, ConfigError> {
    let allowed = format!(
        "1 to {NAME_LEN_MAX} of a-z A-Z 0-9 - _ ., the first a letter or digit, not ending in a dot and digits"
    );
    let name = text(table, prefix, "name", &allowed)?;
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let fits = name.len() <= NAME_LEN_MAX && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    // Names that end so are those of directories: each process of a slot has its own.
    let numbered = name.rsplit_once('.').is_some_and(|(_, end)| end.bytes().all(|byte| byte.is_ascii_digit()));
    if begins && fits && !numbered {
        Ok(name.to_owned())
    } else {
        Err(refused(&format!("{prefix}name"), name, &allowed))
    }
}

fn parse_address(table: &Table, prefix: &str) -> Result<String, ConfigError> {
    let address = text(table, prefix, "address", ADDRESS_FORM)?;
    if is_address(address) {
        Ok(address.to_owned())
    } else {
        Err(refused(&format!("{prefix}address"), address, ADDRESS_FORM))
    }
}

/// What an address looks like.
pub const ADDRESS_FORM: &str = "\"host:port\" with a port from 1 to 65535, an IPv6 address in brackets";

/// Whether `address` can be one.
pub fn is_address(address: &str) -> bool {
    let split = address.rsplit_once(':').filter(|_| address.len() <= ADDRESS_LEN_MAX);
    split.is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let host_fits = !host.is_empty() && (bracketed || !host.contains(':')) && !host.contains(char::is_whitespace);
        host_fits && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// Checks what only all nodes together can break.
fn check_nodes(settings: &ClusterSettings) -> Result<(), ConfigError> {
    if settings.id == [0; 16] {
        return Err(refused("cluster.id", &hex(&settings.id), "any 32 hex digits but all zero, which mean \"any\""));
    }
    for (index, node) in settings.nodes.iter().enumerate() {
        let key = |key: &str| format!("node[{}].{key}", node.slot());
        for other in &settings.nodes[..index] {
            let allowed = |what: &str| format!("one of its own: node[{}] has this {what}", other.slot());
            if other.name == node.name {
                return Err(refused(&key("name"), &node.name, &allowed("name")));
            }
            if other.address == node.address {
                return Err(refused(&key("address"), &node.address, &allowed("address")));
            }
            if node.is_replica() && other.log_uuid == node.log_uuid {
                return Err(refused(&key("log"), &hex(&node.log_uuid), &allowed("log")));
            }
        }
    }
    for role in [Role::Front, Role::Order, Role::Catalog] {
        if !settings.nodes.iter().any(|node| node.role == role) {
            let name = role.name();
            let text =
                format!("no [[node]] has role = \"{name}\"; a cluster needs at least one front, order and catalog");
            return Err(ConfigError::Cluster(text));
        }
    }
    let replicas = settings.replicas().count();
    if replicas > REPLICAS_MAX {
        let text = format!("{replicas} nodes are orders or catalogs; a cluster has at most {REPLICAS_MAX} of them");
        return Err(ConfigError::Cluster(text));
    }
    Ok(())
}

fn table<'a>(root: &'a Table, key: &str) -> Result<&'a Table, ConfigError> {
    let allowed = || format!("a table, begun by [{key}]");
    match root.get(key) {
        Some(Value::Table(table)) => Ok(table),
        Some(other) => Err(ConfigError::Value { key: key.to_owned(), value: shown(other), allowed: allowed() }),
        None => Err(ConfigError::Missing { key: key.to_owned(), allowed: allowed() }),
    }
}

fn node_tables(root: &Table) -> Result<Vec<&Table>, ConfigError> {
    let allowed = || format!("1 to {NODES_MAX} tables, each begun by [[node]]");
    let key = || "node".to_owned();
    let found = root.get("node").ok_or_else(|| ConfigError::Missing { key: key(), allowed: allowed() })?;
    let wrong = || ConfigError::Value { key: key(), value: shown(found), allowed: allowed() };
    let list = found.as_array().filter(|list| (1..=NODES_MAX).contains(&list.len())).ok_or_else(wrong)?;
    list.iter().map(|node| node.as_table().ok_or_else(wrong)).collect()
}

fn refuse_unknown(table: &Table, prefix: &str, known: &[&str]) -> Result<(), ConfigError> {
    match table.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        Some((key, value)) => {
            Err(ConfigError::Unknown { key: format!("{prefix}{key}"), value: shown(value), allowed: known.join(", ") })
        }
        None => Ok(()),
    }
}

fn text<'a>(table: &'a Table, prefix: &str, key: &str, allowed: &str) -> Result<&'a str, ConfigError> {
    let (key_shown, allowed) = (format!("{prefix}{key}"), allowed.to_owned());
    match table.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(ConfigError::Value { key: key_shown, value: shown(other), allowed }),
        None => Err(ConfigError::Missing { key: key_shown, allowed }),
    }
}

fn hex_key<const N: usize>(table: &Table, prefix: &str, key: &str) -> Result<[u8; N], ConfigError> {
    let allowed = format!("{} hex digits in quotes", 2 * N);
    let digits = text(table, prefix, key, &allowed)?;
    unhex(digits).ok_or_else(|| {
        // A key that is nearly right is still a secret.
        let value = if key == "key" { format!("{} characters", digits.len()) } else { digits.to_owned() };
        refused(&format!("{prefix}{key}"), &value, &allowed)
    })
}

fn refused(key: &str, value: &str, allowed: &str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), value: format!("{value:?}"), allowed: allowed.to_owned() }
}

/// A value as far as it helps to find it.
fn shown(value: &Value) -> String {
    const SHOWN_MAX: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Exactly `N` bytes from hex digits.
pub fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The text of a `cluster.toml`, with what each key means.
pub fn render(settings: &ClusterSettings) -> String {
    let mut text = format!(
        "\
# A cluster of Pygmy. Every node reads this file; all must have the same one, but for the addresses,
# which each may see differently. Check it with: pygmy-node config check --config FILE

[cluster]
# Drawn when the cluster was made: 32 hex digits. A client or node of another cluster is turned away.
id = \"{id}\"
# What servers show each other to be let in: 64 hex digits. A secret; keep this file readable for its owner alone.
key = \"{key}\"
# How the right to order writes moves: \"demand\", to who has writes, or \"rotate\", round and round, for tests.
token = \"{token}\"
# Bytes that each front may take to keep answers, so that it need not ask for them again; 0: it keeps none.
cache_bytes = {cache_bytes}

# One [[node]] for each server. A node's slot is its place here, from 1: add at the end, never reorder.
#   name         unique; what commands and logs call it, and the directory it works in, beside this file
#   role         \"front\" (takes clients), \"order\" or \"catalog\" (both keep the log and vote)
#   address      \"host:port\" on which it listens and others reach it; names are resolved at every connect
#   log          order and catalog only: the identity with which the log of its first process was born, 32 hex digits
#   incarnation  of a node that was replaced: which process has its place; it works in the directory NAME.INCARNATION.
#                `pygmy-node replace` writes it, and the address, when the new one votes
",
        id = hex(&settings.id),
        key = hex(&settings.key),
        token = token_name(settings.token),
        cache_bytes = settings.cache_bytes,
    );
    for node in &settings.nodes {
        text.push_str(&render_node(node));
    }
    text
}

fn render_node(node: &NodeSettings) -> String {
    let NodeSettings { name, address, .. } = node;
    let role = node.role.name();
    let mut text = format!("\n[[node]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"{address}\"\n");
    if node.is_replica() {
        text.push_str(&format!("log = \"{}\"\n", hex(&node.log_uuid)));
    }
    if incarnation_of(node.number) > 0 {
        text.push_str(&format!("incarnation = {}\n", incarnation_of(node.number)));
    }
    text
}

/// Writes the file at `path`, whole or not at all, readable for its owner alone.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, settings: &ClusterSettings) -> Result<(), ConfigError> {
    let temporary = path.with_extension("toml.new");
    // Made anew, because the mode is only given to a file that is created.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(render(settings).as_bytes()).and_then(|()| file.sync_all())?;
    std::fs::rename(&temporary, path)?;
    // The name is on the disk only when the directory is.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(dir)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn node(number: u16, name: &str, role: Role) -> NodeSettings {
        let log_uuid = if role == Role::Front { [0; 16] } else { [number as u8; 16] };
        NodeSettings { number, name: name.into(), role, address: format!("127.0.0.1:{}", 7400 + number), log_uuid }
    }

    fn settings() -> ClusterSettings {
        ClusterSettings {
            id: [0xab; 16],
            key: vec![0xcd; KEY_LEN],
            token: TokenMode::Rotate,
            cache_bytes: 1_234_567,
            nodes: vec![
                node(1, "front-1", Role::Front),
                node(2, "order-1", Role::Order),
                node(3, "catalog-1", Role::Catalog),
            ],
        }
    }

    #[test]
    fn what_is_written_is_what_is_read_and_only_the_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.toml");
        for _ in 0..2 {
            write(&path, &settings()).unwrap();
            let mut replaced = settings();
            replaced.nodes[2].number = number_of(3, 2);
            assert_eq!(replaced.hash(), settings().hash(), "who is in a slot is no setting");
            write(&path, &replaced).unwrap();
            assert_eq!(read(&path).unwrap(), replaced);
            write(&path, &settings()).unwrap();
            assert_eq!(read(&path).unwrap(), settings());
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_from_before_there_were_caches_means_the_usual_one() {
        let text = render(&settings()).replace("cache_bytes = 1234567", "");
        assert_eq!(parse(&text).unwrap().cache_bytes, CACHE_BYTES_DEFAULT);
        assert_eq!(parse(&text).unwrap().hash(), settings().hash(), "nodes may have caches of different sizes");
    }

    /// The error of the example file after `from` was replaced by `to`.
    fn error_with(from: &str, to: &str) -> String {
        let text = render(&settings());
        assert!(text.contains(from), "{from}");
        parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn every_refusal_names_key_value_and_what_is_allowed() {
        let cases = [
            (
                "token = \"rotate\"",
                "token = \"sometimes\"",
                "cluster.token = \"sometimes\"",
                "\"demand\" or \"rotate\"",
            ),
            ("log = \"0303", "incarnation = 256\nlog = \"0303", "node[3].incarnation = 256", "0 to 255"),
            ("role = \"front\"", "role = \"front\"\nincarnation = 1", "node[1].incarnation = 1", "0 to 0"),
            ("name = \"order-1\"", "name = \"order.1\"", "node[2].name = \"order.1\"", "not ending in a dot"),
            ("token = \"rotate\"", "", "cluster.token is missing", "\"demand\" or \"rotate\""),
            (
                "token = \"rotate\"",
                "token = \"demand\"\ntokens = 3",
                "cluster.tokens = 3",
                "id, key, token, cache_bytes",
            ),
            ("cache_bytes = 1234567", "cache_bytes = -1", "cluster.cache_bytes = -1", "0 for no cache"),
            ("[cluster]", "[extra]\na = 1\n[cluster]", "extra = { a = 1 }", "cluster, node"),
            ("id = \"abab", "id = \"abxb", "cluster.id = \"abxb", "32 hex digits"),
            ("id = \"abab", "id = \"ab", "cluster.id = \"ab", "32 hex digits"),
            (
                "role = \"order\"",
                "role = \"client\"",
                "node[2].role = \"client\"",
                "\"front\", \"order\" or \"catalog\"",
            ),
            ("name = \"order-1\"", "name = \"../up\"", "node[2].name = \"../up\"", "a letter or digit"),
            ("name = \"order-1\"", "name = 7", "node[2].name = 7", "a letter or digit"),
            ("name = \"order-1\"", "name = \"front-1\"", "node[2].name = \"front-1\"", "node[1] has this name"),
            ("127.0.0.1:7402", "127.0.0.1:0", "node[2].address = \"127.0.0.1:0\"", "1 to 65535"),
            ("127.0.0.1:7402", "127.0.0.1", "node[2].address = \"127.0.0.1\"", "1 to 65535"),
            ("127.0.0.1:7402", "127.0.0.1:+80", "node[2].address = \"127.0.0.1:+80\"", "1 to 65535"),
            ("127.0.0.1:7402", "::1:80", "node[2].address = \"::1:80\"", "in brackets"),
            ("127.0.0.1:7402", "127.0.0.1:7401", "node[2].address = \"127.0.0.1:7401\"", "node[1] has this address"),
            ("role = \"order\"", "role = \"front\"", "node[2].log = \"0202", "leave the key out"),
            ("log = \"0303", "log = \"03", "node[3].log = \"03", "32 hex digits"),
            (
                "log = \"03030303030303030303030303030303\"",
                "log = \"02020202020202020202020202020202\"",
                "node[3].log = \"0202",
                "node[2] has this log",
            ),
            ("role = \"catalog\"", "role = \"order\"", "no [[node]] has role = \"catalog\"", "at least one"),
        ];
        for (from, to, found, allowed) in cases {
            let error = error_with(from, to);
            assert!(error.contains(found) && error.contains(allowed), "{to}: {error}");
        }
    }

    #[test]
    fn a_wrong_key_is_not_repeated_in_the_error() {
        let error = error_with("key = \"cdcd", "key = \"cd");
        assert!(error.contains("cluster.key = \"62 characters\"") && !error.contains("cdcd"), "{error}");
    }

    #[test]
    fn the_all_zero_id_is_taken() {
        let error = error_with(&"ab".repeat(16), &"00".repeat(16));
        assert!(error.contains("cluster.id"), "{error}");
    }

    #[test]
    fn nodes_may_have_names_for_addresses() {
        let text = render(&settings()).replacen("127.0.0.1:7402", "orders.example.org:80", 1);
        assert_eq!(parse(&text).unwrap().nodes[1].address, "orders.example.org:80");
        let text = render(&settings()).replacen("127.0.0.1:7402", "[::1]:80", 1);
        assert_eq!(parse(&text).unwrap().nodes[1].address, "[::1]:80");
    }

    #[test]
    fn too_many_replicas_are_refused() {
        let mut many = settings();
        many.nodes.extend((4..=40).map(|number| node(number, &format!("order-{number}"), Role::Order)));
        let error = parse(&render(&many)).unwrap_err().to_string();
        assert!(error.contains("39 nodes") && error.contains("at most 32"), "{error}");
    }
}
