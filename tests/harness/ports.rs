use std::net::TcpListener;

/// Ports of loopback that were free a moment ago, all different.
///
/// They are taken outside the system's own ephemeral range as far as it goes, so that an outgoing
/// connection does not take one before its server does.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    let first = 20_000 + (std::process::id() % 97) as u16 * 100;
    let mut ports = Vec::with_capacity(count);
    for port in (first..32_000).chain(10_000..first) {
        if ports.len() == count {
            break;
        }
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
    }
    assert_eq!(ports.len(), count, "not enough free ports on loopback");
    ports
}
