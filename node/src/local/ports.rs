//! Ports of loopback for a cluster.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use super::LocalError;

/// Lowest port that is picked.
const LOWEST: u16 = 10_240;
/// First port that the system hands out for outgoing connections, where it does not say.
const EPHEMERAL_DEFAULT: u16 = 32_768;

/// `count` ports from `base` on, or free ones when `base` is 0.
///
/// # Errors
/// One of them is in use, or there are not enough.
pub fn choose(base: u16, count: usize, seed: u64) -> Result<Vec<u16>, LocalError> {
    if base == 0 { pick(count, seed) } else { consecutive(base, count) }
}

fn consecutive(base: u16, count: usize) -> Result<Vec<u16>, LocalError> {
    let last = usize::from(base) + count - 1;
    if last > usize::from(u16::MAX) {
        let text = format!("{count} nodes from port {base} on would need port {last}; choose a lower --base-port");
        return Err(LocalError::Usage(text));
    }
    let ports: Vec<u16> = (base..=last as u16).collect();
    for port in &ports {
        if let Err(error) = probe(*port) {
            let text =
                format!("port {port} cannot be used: {error}; choose others with --base-port, 0 picks free ones");
            return Err(LocalError::Refused(text));
        }
    }
    Ok(ports)
}

/// Free ports below those that the system hands out for outgoing connections: one of these could be taken by any
/// connection while its node is down, and then the node could not come back.
fn pick(count: usize, seed: u64) -> Result<Vec<u16>, LocalError> {
    let end = ephemeral_start().max(LOWEST + 1_000);
    let span = u64::from(end - LOWEST);
    let candidates = (0..span).map(|step| LOWEST + ((seed % span + step) % span) as u16);
    let ports: Vec<u16> = candidates.filter(|port| probe(*port).is_ok()).take(count).collect();
    if ports.len() < count {
        return Err(LocalError::Refused(format!("fewer than {count} ports are free from {LOWEST} to {end}")));
    }
    Ok(ports)
}

fn probe(port: u16) -> io::Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop)
}

fn ephemeral_start() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|start| start.parse().ok()).unwrap_or(EPHEMERAL_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = choose(port, 1, 0).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} ")) && error.contains("--base-port"), "{error}");
    }

    #[test]
    fn picked_ports_are_free_distinct_and_not_handed_out_by_the_system() {
        let ports = choose(0, 7, 12_345).unwrap();
        let held: Vec<_> = ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port)).unwrap()).collect();
        assert_eq!(held.len(), 7);
        assert!(ports.iter().all(|port| *port < ephemeral_start().max(LOWEST + 1_000)));
        let others = choose(0, 7, 12_345).unwrap();
        assert!(others.iter().all(|port| !ports.contains(port)), "those in use are passed over");
    }

    #[test]
    fn ports_above_the_last_are_refused() {
        let error = choose(65_530, 7, 0).unwrap_err().to_string();
        assert!(error.contains("65536") && error.contains("--base-port"), "{error}");
    }
}
