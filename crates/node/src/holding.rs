//! A switchover's order to keep new connections waiting, told to everybody.

use std::sync::Arc;
use std::time::Duration;

use quorate_proxy::{GateHandle, ProxyHandle};
use quorate_types::Epoch;
use quorate_wire::v1::HoldRequest;
use tokio::time::timeout;

use crate::addresses::AddressBook;
use crate::admin::Forward;

/// A node that does not take the order within this is cut off, or too slow to matter: the gate
/// keeps its connections waiting as well.
const TELL_MAX: Duration = Duration::from_millis(500);
/// No order holds connections for longer, whoever gives it.
const LONGEST: Duration = Duration::from_secs(30);

/// Gives the order to this node's gate and proxy, and to the proxies of all others.
pub(crate) struct Holding {
    pub(crate) gate: GateHandle,
    pub(crate) proxy: ProxyHandle,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) forward: Forward,
    /// What a switchover takes at most: a proxy that hears no more of it holds nobody for longer.
    pub(crate) longest: Duration,
}

impl Holding {
    pub(crate) fn hold(&self, epoch: Epoch) {
        self.gate.hold(Some(epoch));
        self.proxy.hold(epoch, self.longest);
        self.tell(epoch, self.longest);
    }

    pub(crate) fn release(&self, epoch: Epoch) {
        self.gate.hold(None);
        self.proxy.release(epoch);
        self.tell(epoch, Duration::ZERO);
    }

    fn tell(&self, epoch: Epoch, longest: Duration) {
        let request = HoldRequest {
            epoch: Some(epoch.into()),
            longest_ms: longest.as_millis().try_into().unwrap_or(u32::MAX),
        };
        for peer in self.book.nodes() {
            let Some(mut client) = (self.forward)(peer) else {
                continue;
            };
            tokio::spawn(async move {
                let told = timeout(TELL_MAX, client.hold(request)).await;
                if !matches!(told, Ok(Ok(_))) {
                    tracing::info!(%peer, "a node was not told to hold its new connections");
                }
            });
        }
    }
}

/// Carries out what another node ordered.
pub(crate) fn obey(proxy: &ProxyHandle, epoch: Epoch, longest_ms: u32) {
    match Duration::from_millis(longest_ms.into()) {
        Duration::ZERO => proxy.release(epoch),
        longest => proxy.hold(epoch, longest.min(LONGEST)),
    }
}
