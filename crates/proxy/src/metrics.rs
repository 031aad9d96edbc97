use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Open sessions; label `port`: `read_write`, `read_only`, `gate`.
pub const SESSIONS: &str = "quorate_proxy_sessions";
/// Bytes of clients passed on to a server; label `port`.
pub const BYTES_TO_SERVER: &str = "quorate_proxy_to_server_bytes";
/// Bytes of servers passed on to a client; label `port`.
pub const BYTES_TO_CLIENT: &str = "quorate_proxy_to_client_bytes";
/// Connections turned away; labels `port` and `reason`: at the gate
/// `handshake`, `not_serving`, `wrong_cluster`, `wrong_node`, `not_a_member`, `server_down`,
/// `unsupported`; at the ports `no_primary`, `no_replica`.
pub const REFUSALS: &str = "quorate_proxy_refusals";
/// Sessions ended; labels `port` and `reason`: `client`, `server`, `fenced`, `primary_changed`,
/// `replica_unfit`.
pub const CLOSES: &str = "quorate_proxy_closes";

type ByPort = [(&'static str, &'static str); 1];
type ByReason = [(&'static str, &'static str); 2];

/// The counters of this crate, for both ports and the gate of a node.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    sessions: Family<ByPort, Gauge>,
    to_server: Family<ByPort, Counter>,
    to_client: Family<ByPort, Counter>,
    refusals: Family<ByReason, Counter>,
    closes: Family<ByReason, Counter>,
}

impl Metrics {
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(SESSIONS, "Open sessions", metrics.sessions.clone());
        registry.register(
            BYTES_TO_SERVER,
            "Bytes of clients passed on to a server",
            metrics.to_server.clone(),
        );
        registry.register(
            BYTES_TO_CLIENT,
            "Bytes of servers passed on to a client",
            metrics.to_client.clone(),
        );
        registry.register(
            REFUSALS,
            "Connections turned away",
            metrics.refusals.clone(),
        );
        registry.register(CLOSES, "Sessions ended", metrics.closes.clone());
        metrics
    }

    pub(crate) fn port(&self, name: &'static str) -> PortMetrics {
        let by_port = [("port", name)];
        PortMetrics {
            name,
            sessions: self.sessions.get_or_create_owned(&by_port),
            to_server: self.to_server.get_or_create_owned(&by_port),
            to_client: self.to_client.get_or_create_owned(&by_port),
            all: self.clone(),
        }
    }
}

/// The counters of one port, found once: what is counted for every chunk takes no lock.
#[derive(Clone, Debug)]
pub(crate) struct PortMetrics {
    name: &'static str,
    sessions: Gauge,
    pub(crate) to_server: Counter,
    pub(crate) to_client: Counter,
    all: Metrics,
}

impl PortMetrics {
    /// Counts a session as open until it is dropped.
    pub(crate) fn open(&self) -> OpenSession {
        self.sessions.inc();
        OpenSession(self.sessions.clone())
    }

    pub(crate) fn open_sessions(&self) -> u64 {
        u64::try_from(self.sessions.get()).unwrap_or(0)
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        let labels = [("port", self.name), ("reason", reason)];
        self.all.refusals.get_or_create(&labels).inc();
    }

    pub(crate) fn closed(&self, reason: &'static str) {
        let labels = [("port", self.name), ("reason", reason)];
        self.all.closes.get_or_create(&labels).inc();
    }

    #[cfg(test)]
    pub(crate) fn closes(&self, reason: &'static str) -> u64 {
        let labels = [("port", self.name), ("reason", reason)];
        self.all.closes.get_or_create(&labels).get()
    }
}

pub(crate) struct OpenSession(Gauge);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.dec();
    }
}
