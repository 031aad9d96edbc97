use std::sync::Arc;
use std::time::Duration;

use quorate_net::{BoxIo, Net};
use quorate_types::NodeId;
use tokio::time::{Instant, sleep, timeout_at};

use crate::RoleWatch;
use crate::dial::GateDialer;
use crate::gate_protocol::Purpose;
use crate::proxy::{Proxy, ServedBy, refuse};
use crate::route::replicas;

/// A replica is fit now or it is not: its gate does not wait, we look at the next one.
const GATE_WAIT: Duration = Duration::ZERO;
/// When no node serves reads, until they are all asked again.
const RETRY: Duration = Duration::from_millis(50);

/// One connection to the read-only port.
pub(crate) async fn session<N: Net, R: RoleWatch, D: GateDialer>(
    proxy: Arc<Proxy<N, R, D>>,
    client: BoxIo,
) {
    let deadline = Instant::now() + proxy.parts.settings.wait_max;
    if let Ok((gate, node, served_by)) = timeout_at(deadline, find_reader(&proxy)).await {
        let _counted = proxy.count_from_here(node);
        proxy.pass(&proxy.read_only, client, gate, served_by).await;
        return;
    }
    proxy.read_only.refused("no_replica");
    let seconds = proxy.parts.settings.wait_max.as_secs_f32();
    let primary = if proxy.parts.settings.read_only_falls_back {
        ", and no primary either"
    } else {
        " (the setting does not allow the primary)"
    };
    refuse(
        client,
        &format!(
            "Quorate: no healthy replica within the lag bound in {seconds} s{primary}. \
             Connect again; if it lasts, see `quorate status`."
        ),
    )
    .await;
}

async fn find_reader<N: Net, R: RoleWatch, D: GateDialer>(
    proxy: &Proxy<N, R, D>,
) -> (BoxIo, NodeId, ServedBy) {
    let settings = &proxy.parts.settings;
    loop {
        let view = proxy.parts.role.view().borrow().clone();
        let mut candidates = replicas(
            &view,
            proxy.parts.node,
            settings.max_lag_transactions,
            |node| proxy.sessions_from_here(node),
        );
        if settings.read_only_falls_back && !proxy.holding.holds(&proxy.route.borrow()) {
            candidates.extend(view.primary);
        }
        for node in candidates {
            match proxy.open_gate(node, Purpose::ReadOnly, GATE_WAIT).await {
                Ok((gate, Some(epoch))) => return (gate, node, ServedBy::Epoch(epoch)),
                Ok((gate, None)) => return (gate, node, ServedBy::Replica(node)),
                Err(error) => tracing::debug!(%error, "a gate did not open for reads"),
            }
        }
        sleep(RETRY).await;
    }
}
