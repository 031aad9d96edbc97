use std::sync::Arc;
use std::time::Duration;

use quorate_net::{BoxIo, Net};
use quorate_types::Epoch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::RoleWatch;
use crate::dial::GateDialer;
use crate::gate_protocol::Purpose;
use crate::proxy::{Proxy, ServedBy, refuse};

/// How long one gate may keep us waiting before we look again who is primary.
const GATE_WAIT_MAX: Duration = Duration::from_secs(1);
/// After a gate failed: mostly the view is about to change, and the gate about to open.
const RETRY: Duration = Duration::from_millis(25);

/// One connection to the read-write port.
pub(crate) async fn session<N: Net, R: RoleWatch, D: GateDialer>(
    proxy: Arc<Proxy<N, R, D>>,
    client: BoxIo,
) {
    match find_primary(&proxy).await {
        Ok((gate, epoch)) => {
            let served_by = ServedBy::Epoch(epoch);
            proxy.pass(&proxy.read_write, client, gate, served_by).await;
        }
        Err(why) => {
            proxy.read_write.refused("no_primary");
            let seconds = proxy.parts.settings.wait_max.as_secs_f32();
            refuse(
                client,
                &format!(
                    "Quorate: no primary to serve this connection within {seconds} s: {why}. \
                     Connect again; if it lasts, see `quorate status`."
                ),
            )
            .await;
        }
    }
}

/// The open gate of the primary, or what was in the way when the time was up.
async fn find_primary<N: Net, R: RoleWatch, D: GateDialer>(
    proxy: &Proxy<N, R, D>,
) -> Result<(BoxIo, Epoch), String> {
    let deadline = Instant::now() + proxy.parts.settings.wait_max;
    let mut route = proxy.route.subscribe();
    let mut why = String::new();
    loop {
        let attempt = async {
            proxy.holding.over(proxy.route.subscribe()).await;
            let known = match route.wait_for(|route| route.primary.is_some()).await {
                Ok(route) => route.primary,
                Err(_) => None,
            };
            let Some(primary) = known else {
                return std::future::pending().await;
            };
            let wait = GATE_WAIT_MAX.min(deadline - Instant::now());
            let opened = tokio::select! {
                biased;
                _ = route.wait_for(|route| route.primary != known) => return Ok(None),
                opened = proxy.open_gate(primary, Purpose::ReadWrite, wait) => opened,
            };
            match opened {
                Ok((gate, Some(epoch))) => Ok(Some((gate, epoch))),
                Ok((_, None)) => Err(format!("node {primary} serves in no epoch")),
                Err(error) => Err(error.to_string()),
            }
        };
        match timeout_at(deadline, attempt).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::debug!(error, "the primary's gate did not open");
                // An attempt that fails at once is never timed out.
                if Instant::now() >= deadline {
                    return Err(error);
                }
                why = error;
                tokio::select! {
                    _ = route.changed() => {}
                    () = sleep(RETRY) => {}
                }
            }
            Err(_) if proxy.holding.holds(&route.borrow()) => {
                return Err("a switchover holds new connections".to_owned());
            }
            Err(_) if route.borrow().primary.is_none() => {
                let node = proxy.parts.node;
                return Err(format!(
                    "node {node} knows of none, a majority of the nodes may be out of reach"
                ));
            }
            Err(_) if why.is_empty() => return Err("its gate does not answer".to_owned()),
            Err(_) => return Err(why),
        }
    }
}
