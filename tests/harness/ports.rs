use std::net::TcpListener;
use std::ops::Range;
use std::sync::Mutex;

/// Outside the system's own ephemeral range as far as it goes, so that an outgoing connection does
/// not take one before its server does.
const RANGE: Range<u16> = 10_000..32_000;

/// Ports of loopback that were free a moment ago, all different, and not given before in this process
/// until all were: who asked first may not have bound its own yet.
///
/// # Panics
/// If there are not so many.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().expect("no panic while it is held");
    // Other processes begin elsewhere.
    let first = next.unwrap_or(20_000 + (std::process::id() % 97) as u16 * 100);
    let mut ports = Vec::with_capacity(count);
    for port in (first..RANGE.end).chain(RANGE.start..first) {
        if ports.len() == count {
            break;
        }
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
    }
    let enough = ports.len() == count;
    *next = ports.last().map(|last| last + 1).or(Some(first));
    drop(next);
    assert!(enough, "not enough free ports on loopback");
    ports
}
