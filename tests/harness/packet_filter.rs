use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use quorate_mysqld::PackageTree;

use crate::tools::{debian_tool, run_as_root};

const TABLE: &str = "inet quorate_tests";

/// Which packets of a port's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Both,
    /// To the port.
    Forth,
    /// From the port.
    Back,
}

impl Way {
    fn set(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Forth => "forth",
            Self::Back => "back",
        }
    }
}

/// Loses packets in a network namespace that only this process and what it starts are in: below TCP,
/// which sends them again, later and later, and whose connections end on neither side.
#[derive(Clone, Debug)]
pub struct PacketFilter {
    nft: PackageTree,
}

impl PacketFilter {
    /// Whether this user may make network namespaces.
    #[must_use]
    pub fn is_possible() -> bool {
        let made = Command::new("unshare").args(["--net", "true"]).output();
        made.is_ok_and(|output| output.status.success())
    }

    /// Begins this program again in a network of its own, unless it is in one. It reaches nothing
    /// beyond this machine from there, so everything that it needs must be fetched before.
    ///
    /// # Panics
    /// If that is not possible; it needs root and Linux.
    pub async fn enter() -> Self {
        let (nft, ip) = (debian_tool("nftables").await, debian_tool("iproute2").await);
        if !is_in_own_network() {
            let program = std::env::current_exe().expect("this program has a path");
            let error = Command::new("unshare")
                .args(["--net", "--"])
                .arg(program)
                .args(std::env::args_os().skip(1))
                .exec();
            panic!("unshare: {error}");
        }
        run_as_root(ip.tool("ip").args(["link", "set", "lo", "up"]));
        let filter = Self { nft };
        filter.nft(&format!(
            "add table {TABLE}
             add chain {TABLE} input {{ type filter hook input priority 0; }}
             add set {TABLE} both {{ type inet_service; }}
             add set {TABLE} forth {{ type inet_service; }}
             add set {TABLE} back {{ type inet_service; }}
             add rule {TABLE} input tcp dport @both drop
             add rule {TABLE} input tcp sport @both drop
             add rule {TABLE} input tcp dport @forth drop
             add rule {TABLE} input tcp sport @back drop"
        ));
        filter.prove();
        filter
    }

    /// Faults that break nothing would find nothing.
    fn prove(&self) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let at = listener.local_addr().expect("the address of a listener");
        for way in [Way::Both, Way::Forth, Way::Back] {
            assert!(connects(at), "loopback does not work");
            self.lose([(way, at.port())], true);
            assert!(!connects(at), "no packets are lost: {way:?}");
            self.lose([(way, at.port())], false);
        }
        assert!(connects(at), "packets are lost for ever");
    }

    /// Loses these packets from now on, all at once, or no longer.
    pub(crate) fn lose(&self, packets: impl IntoIterator<Item = (Way, u16)>, lost: bool) {
        let mut script = String::new();
        for (way, port) in packets {
            // Only what is there can be taken away.
            let element = format!("element {TABLE} {} {{ {port} }}\n", way.set());
            script.push_str(&format!("add {element}"));
            if !lost {
                script.push_str(&format!("delete {element}"));
            }
        }
        self.nft(&script);
    }

    pub(crate) fn lose_nothing(&self) {
        self.nft(&format!(
            "flush set {TABLE} both\nflush set {TABLE} forth\nflush set {TABLE} back"
        ));
    }

    fn nft(&self, script: &str) {
        run_as_root(self.nft.tool("nft").arg(script));
    }
}

fn connects(at: SocketAddr) -> bool {
    TcpStream::connect_timeout(&at, Duration::from_millis(200)).is_ok()
}

/// One that was just made has nothing but loopback.
fn is_in_own_network() -> bool {
    let devices = std::fs::read_to_string("/proc/self/net/dev").expect("list the network devices");
    let mut names = devices.lines().filter_map(|line| line.split_once(':'));
    names.all(|(name, _)| name.trim() == "lo")
}
