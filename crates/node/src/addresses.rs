//! Where the other nodes are: what the configuration says, and what the log says of those that moved
//! or came later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use quorate_consensus::AppliedState;
use quorate_net::Endpoint;
use quorate_types::{Members, NodeId, Standing};
use tokio::sync::watch;

use crate::config::Config;

/// Every node's addresses, as far as they are known here.
///
/// The configuration alone would leave out who was added later, and the log alone could lock a
/// cluster out whose nodes all moved while it was down: nobody would reach a quorum to say so. So
/// both are tried, in turn, until one answers.
pub(crate) struct AddressBook {
    config: Arc<Config>,
    state: OnceLock<watch::Receiver<Arc<AppliedState>>>,
    /// How often another address of a node was tried, since one did not answer.
    turned: Mutex<BTreeMap<NodeId, usize>>,
    /// Where other nodes said that a leader is: a node that was away knows an old address at most.
    hints: Mutex<BTreeMap<NodeId, Endpoint>>,
}

impl AddressBook {
    pub(crate) fn new(config: Arc<Config>) -> Arc<Self> {
        Arc::new(Self {
            config,
            state: OnceLock::new(),
            turned: Mutex::default(),
            hints: Mutex::default(),
        })
    }

    /// From now on what the log says counts too.
    pub(crate) fn follow(&self, state: watch::Receiver<Arc<AppliedState>>) {
        // Once is enough: a node has one log.
        let _ = self.state.set(state);
    }

    /// The other nodes that are members, or may become some.
    pub(crate) fn nodes(&self) -> BTreeSet<NodeId> {
        let members = self.members();
        let listed = members.keys().chain(self.config.peers.keys()).copied();
        let gone = |node: &NodeId| {
            let member = members.get(node);
            member.is_some_and(|member| member.standing == Standing::Removed)
        };
        listed
            .filter(|node| *node != self.config.node && !gone(node))
            .collect()
    }

    /// Where to dial a node for Raft and admin.
    pub(crate) fn grpc(&self, node: NodeId) -> Option<Endpoint> {
        let peer = self.config.peers.get(&node);
        let fixed = peer.and_then(|peer| peer.dial.as_ref()?.grpc.clone());
        if fixed.is_some() {
            return fixed;
        }
        let members = self.members();
        let member = members.get(&node).map(|member| member.address.as_str());
        let member = member.and_then(|address| self.usable(address));
        let configured = peer.map(|peer| peer.grpc.clone());
        let hint = lock(&self.hints).get(&node).cloned();
        let mut candidates: Vec<Endpoint> = Vec::new();
        for candidate in [hint, configured, member].into_iter().flatten() {
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        let turn = lock(&self.turned).get(&node).copied().unwrap_or_default();
        let count = candidates.len().max(1);
        candidates.into_iter().nth(turn % count)
    }

    /// Another node says where one is.
    pub(crate) fn hint(&self, node: NodeId, address: &str) {
        if let Some(endpoint) = self.usable(address) {
            let mut hints = lock(&self.hints);
            if hints.insert(node, endpoint.clone()) != Some(endpoint) {
                lock(&self.turned).remove(&node);
            }
        }
    }

    /// Where to dial a node's gate. The log knows best: a node that moved says so to its leader.
    pub(crate) fn gate(&self, node: NodeId) -> Option<Endpoint> {
        let peer = self.config.peers.get(&node);
        let fixed = peer.and_then(|peer| peer.dial.as_ref()?.gate.clone());
        let members = self.members();
        let member = members
            .get(&node)
            .map(|member| member.gate_address.as_str());
        fixed
            .or_else(|| member.and_then(|address| self.usable(address)))
            .or_else(|| peer.map(|peer| peer.gate.clone()))
    }

    /// The node does not answer: its next address is tried, if it has more than one.
    pub(crate) fn turn(&self, node: NodeId) {
        *lock(&self.turned).entry(node).or_default() += 1;
    }

    /// Where a node's admin service is, for people.
    pub(crate) fn for_people(&self, node: NodeId) -> String {
        if node == self.config.node {
            return self.config.listen.grpc.to_string();
        }
        let endpoint = self.grpc(node);
        endpoint.map(|to| to.to_string()).unwrap_or_default()
    }

    fn members(&self) -> Arc<Members> {
        let state = self.state.get();
        state.map_or_else(Arc::default, |state| state.borrow().members.clone())
    }

    /// What a node said of itself may be no address that others can use; and without certificates
    /// nothing would prove who answers beyond this machine.
    fn usable(&self, address: &str) -> Option<Endpoint> {
        let endpoint: Endpoint = address.parse().ok()?;
        let allowed = self.config.tls.is_some() || endpoint.is_local();
        (allowed && is_reachable(&endpoint)).then_some(endpoint)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether others can dial what a node listens on: not "every interface", and not "any port".
pub(crate) fn is_reachable(endpoint: &Endpoint) -> bool {
    let Endpoint::Tcp(address) = endpoint else {
        return false;
    };
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let every = host
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_unspecified());
    !every && port != "0"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::GOOD;

    const THIRD: &str = r#"
[peers.3]
grpc = "127.0.0.1:7033"
gate = "127.0.0.1:7036"
dial = { grpc = "127.0.0.1:1", gate = "127.0.0.1:2" }
"#;

    fn tcp(port: u16) -> Option<Endpoint> {
        Some(Endpoint::Tcp(format!("127.0.0.1:{port}")))
    }

    /// Which addresses a test's members have.
    fn members_at(addresses: &BTreeMap<u64, &str>) -> Arc<AppliedState> {
        let member = |address: &&str| quorate_types::Member {
            address: (*address).to_owned(),
            gate_address: (*address).to_owned(),
            ..quorate_types::Member::default()
        };
        let members: Members = addresses
            .iter()
            .map(|(node, address)| (NodeId(*node), member(address)))
            .collect();
        Arc::new(AppliedState {
            members: Arc::new(members),
            ..AppliedState::default()
        })
    }

    #[test]
    fn a_node_that_moved_is_found_by_the_log_and_one_that_all_moved_by_the_configuration() {
        let text = format!("{GOOD}{THIRD}").replace("dial = { grpc = \"127.0.0.1:9001\" }\n", "");
        let config = Config::parse(&text, std::path::Path::new("/nowhere")).unwrap();
        let book = AddressBook::new(Arc::new(config));
        assert_eq!(book.grpc(NodeId(2)), tcp(7023));
        assert_eq!(book.grpc(NodeId(4)), None);
        let addresses = BTreeMap::from([
            (2, "127.0.0.1:8023"),
            (3, "127.0.0.1:8033"),
            (4, "127.0.0.1:8043"),
            (5, "0.0.0.0:8053"),
            (6, "10.0.0.6:8063"),
        ]);
        let (_sender, state) = watch::channel(members_at(&addresses));
        book.follow(state);
        assert_eq!(book.grpc(NodeId(2)), tcp(7023));
        book.turn(NodeId(2));
        assert_eq!(book.grpc(NodeId(2)), tcp(8023));
        book.turn(NodeId(2));
        assert_eq!(book.grpc(NodeId(2)), tcp(7023));
        assert_eq!(book.gate(NodeId(2)), tcp(8023));
        // Who was away is told by others where a leader is.
        book.hint(NodeId(2), "127.0.0.1:9023");
        assert_eq!(book.grpc(NodeId(2)), tcp(9023));
        book.hint(NodeId(3), "127.0.0.1:9033");
        // A relay between is never gone around.
        book.turn(NodeId(3));
        assert_eq!(
            (book.grpc(NodeId(3)), book.gate(NodeId(3))),
            (tcp(1), tcp(2))
        );
        assert_eq!(book.grpc(NodeId(4)), tcp(8043));
        // What nobody can dial, and what nothing would prove, is no address.
        assert_eq!(book.grpc(NodeId(5)), None);
        assert_eq!(book.grpc(NodeId(6)), None);
        let nodes: Vec<u64> = book.nodes().into_iter().map(|node| node.0).collect();
        assert_eq!(nodes, [2, 3, 4, 5, 6]);
    }
}
