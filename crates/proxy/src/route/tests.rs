use super::*;
use crate::testing::epoch;

fn view(nodes: &[(u64, u64, u64)]) -> ClusterView {
    let mut view = ClusterView::default();
    for (id, lag_transactions, sessions) in nodes {
        let node = NodeView {
            role: Role::Replica,
            healthy: true,
            lag_transactions: *lag_transactions,
            sessions: *sessions,
            ..NodeView::default()
        };
        view.nodes.insert(NodeId(*id), node);
    }
    view
}

#[test]
fn the_local_replica_comes_first_then_the_least_loaded() {
    let view = view(&[(1, 0, 3), (2, 0, 9), (3, 0, 1), (4, 101, 0)]);
    let ids = |local, from_here: fn(NodeId) -> u64| -> Vec<u64> {
        let found = replicas(&view, NodeId(local), 100, from_here);
        found.into_iter().map(|id| id.0).collect()
    };
    assert_eq!(ids(2, |_| 0), [2, 3, 1]);
    assert_eq!(ids(4, |_| 0), [3, 1, 2]);
    // What we sent there ourselves counts before the view tells of it.
    assert_eq!(ids(4, |id| if id.0 == 3 { 5 } else { 0 }), [1, 3, 2]);
}

#[test]
fn only_healthy_replicas_within_the_bound_are_fit() {
    let mut view = view(&[(1, 100, 0), (2, 201, 0), (3, 200, 0), (4, 0, 0)]);
    view.nodes.get_mut(&NodeId(4)).unwrap().healthy = false;
    assert_eq!(replicas(&view, NodeId(9), 100, |_| 0), [NodeId(1)]);
    let fit = Route::of(&view, 100).fit;
    assert_eq!(fit, BTreeSet::from([NodeId(1), NodeId(3)]));
}

#[tokio::test]
async fn a_view_that_lags_behind_the_gate_ends_nothing() {
    let route = |index: Option<u64>| Route {
        epoch: index.map(epoch),
        ..Route::default()
    };
    let (sender, receiver) = watch::channel(route(Some(3)));
    let mut over = Box::pin(epoch_over(receiver, epoch(5)));
    let mut step = async |next: Route| {
        sender.send_replace(next);
        tokio::select! {
            biased;
            () = &mut over => true,
            () = tokio::task::yield_now() => false,
        }
    };
    assert!(!step(route(None)).await);
    assert!(!step(route(Some(4))).await);
    assert!(!step(route(Some(5))).await);
    assert!(step(route(None)).await);
}
