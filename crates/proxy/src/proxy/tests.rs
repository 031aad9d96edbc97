use tokio::time::{Instant, sleep};

use super::*;
use crate::testing::{Client, TestCluster, packet};

const ER: [u8; 3] = [0xff, 0x1d, 0x04];

async fn cluster() -> TestCluster {
    TestCluster::start(3, ProxySettings::default()).await
}

/// The text of the ERR packet that ends an open session.
fn ending(bytes: &[u8], sequence: u8) -> String {
    assert_eq!(bytes[3], sequence, "{bytes:?}");
    assert_eq!(bytes[4..7], ER);
    assert_eq!(&bytes[7..13], b"#08S01");
    assert_eq!(
        usize::from(bytes[0]) | usize::from(bytes[1]) << 8,
        bytes.len() - 4
    );
    String::from_utf8(bytes[13..].to_vec()).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    assert_eq!(bytes[3..7], [0, ER[0], ER[1], ER[2]]);
    assert_ne!(bytes[7], b'#');
    String::from_utf8(bytes[7..].to_vec()).unwrap()
}

/// Logs in through the echoing server: its greeting, our login echoed, its OK is ours echoed.
async fn log_in(client: &mut Client, capabilities: u32) {
    client.greeted_by().await;
    let mut login = capabilities.to_le_bytes().to_vec();
    login.resize(36, 1);
    // The echo must look like an OK, which the first byte of the capabilities decides.
    client.round_trip(&packet(1, &login)).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_through_any_node_to_the_primary() {
    let cluster = cluster().await;
    cluster.make_primary(2, 5);
    for id in 1..=3 {
        let mut client = cluster.read_write(id).await;
        assert_eq!(client.greeted_by().await, 2);
        client.round_trip(b"anything").await;
    }
    assert_eq!(cluster.node(2).received.lock().unwrap().len(), 3 * 8);
}

#[tokio::test(start_paused = true)]
async fn without_a_primary_a_connection_waits_and_is_told_why() {
    let cluster = cluster().await;
    let start = Instant::now();
    let text = refusal(&cluster.read_write(1).await.rest().await);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    assert!(
        text.contains("no primary") && text.contains("within 10 s"),
        "{text}"
    );
    assert!(text.contains("quorate status"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_connection_is_served_by_the_primary_that_comes() {
    let cluster = cluster().await;
    let mut client = cluster.read_write(1).await;
    sleep(Duration::from_secs(4)).await;
    // First the view names a node whose gate stays closed, then another takes over.
    cluster.change_view(|view| view.primary = Some(NodeId(3)));
    sleep(Duration::from_secs(3)).await;
    let start = Instant::now();
    cluster.make_primary(2, 5);
    assert_eq!(client.greeted_by().await, 2);
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_does_not_serve_is_named_in_the_error() {
    let cluster = cluster().await;
    cluster.change_view(|view| view.primary = Some(NodeId(3)));
    let text = refusal(&cluster.read_write(1).await.rest().await);
    assert!(
        text.contains("node 3 is not a primary with a lease"),
        "{text}"
    );
    cluster.change_view(|view| view.primary = Some(NodeId(7)));
    let text = refusal(&cluster.read_write(1).await.rest().await);
    assert!(text.contains("node 7 cannot be reached"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn when_the_primary_changes_a_session_ends_at_once_with_the_reason() {
    let cluster = cluster().await;
    cluster.make_primary(2, 5);
    let mut client = cluster.read_write(1).await;
    log_in(&mut client, 0).await;
    client.round_trip(&packet(0, b"\x03SELECT 1")).await;

    // The old primary is cut off: its gate says nothing, only the view changes.
    let start = Instant::now();
    cluster.make_primary(3, 6);
    let text = ending(&client.rest().await, 1);
    assert!(text.contains("may or may not have happened"), "{text}");
    assert_eq!(start.elapsed(), Duration::ZERO);
    let proxy = &cluster.node(1).proxy;
    assert_eq!(proxy.read_write.closes("primary_changed"), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_gate_closes_a_session_ends_at_once_with_the_reason() {
    let cluster = cluster().await;
    cluster.make_primary(2, 5);
    let mut client = cluster.read_write(1).await;
    log_in(&mut client, 0).await;
    cluster.node(2).role.order(None);
    let text = ending(&client.rest().await, 1);
    assert!(text.contains("lost its lease"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn amid_a_packet_a_session_ends_in_silence() {
    let cluster = cluster().await;
    cluster.make_primary(2, 5);
    let mut client = cluster.read_write(1).await;
    log_in(&mut client, 0).await;
    let half = &packet(0, b"\x03SELECT 1")[..9];
    client.round_trip(half).await;
    cluster.make_primary(3, 6);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test(start_paused = true)]
async fn under_tls_a_session_ends_in_silence() {
    const CLIENT_SSL: u32 = 1 << 11;
    let cluster = cluster().await;
    cluster.make_primary(2, 5);
    let mut client = cluster.read_write(1).await;
    log_in(&mut client, CLIENT_SSL).await;
    cluster.make_primary(3, 6);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test(start_paused = true)]
async fn while_held_new_connections_wait_and_old_ones_go_on() {
    let cluster = cluster().await;
    cluster.make_primary(2, 5);
    let mut old = cluster.read_write(1).await;
    old.greeted_by().await;
    let held = cluster.node(2).role.serving.borrow().unwrap();
    let long = Duration::from_secs(60);
    cluster.node(1).handle.hold(held, long);
    let mut new = cluster.read_write(1).await;
    tokio::select! {
        _ = new.greeted_by() => panic!("a held connection was served"),
        () = sleep(Duration::from_secs(3)) => {}
    }
    old.round_trip(b"still here").await;
    assert_eq!(cluster.node(1).handle.read_write_sessions(), 1);
    cluster.node(1).handle.release(held);
    assert_eq!(new.greeted_by().await, 2);

    cluster.node(1).handle.hold(held, long);
    let text = refusal(&cluster.read_write(1).await.rest().await);
    assert!(text.contains("switchover"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_hold_ends_with_the_next_epoch_or_with_its_time_though_nobody_releases_it() {
    let cluster = cluster().await;
    cluster.make_primary(2, 5);
    let epoch = cluster.node(2).role.serving.borrow().unwrap();
    let start = Instant::now();
    cluster.node(1).handle.hold(epoch, Duration::from_secs(2));
    let mut client = cluster.read_write(1).await;
    assert_eq!(client.greeted_by().await, 2, "the switchover never came");
    assert_eq!(start.elapsed(), Duration::from_secs(2));

    cluster.node(1).handle.hold(epoch, Duration::from_secs(60));
    let mut client = cluster.read_write(1).await;
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    cluster.make_primary(3, 6);
    assert_eq!(client.greeted_by().await, 3);
    assert_eq!(start.elapsed(), Duration::ZERO);

    // An order that comes late is of an epoch that is over.
    cluster.node(1).handle.hold(epoch, Duration::from_secs(60));
    assert_eq!(cluster.read_write(1).await.greeted_by().await, 3);
}

#[tokio::test(start_paused = true)]
async fn reads_go_to_the_local_replica_and_move_on_when_it_is_unfit() {
    let cluster = cluster().await;
    cluster.make_primary(1, 5);
    cluster.make_replica(2, 0, 7);
    cluster.make_replica(3, 0, 0);
    let mut client = cluster.read_only(2).await;
    log_in(&mut client, 0).await;
    assert_eq!(cluster.node(2).gate.read_only_sessions(), 1);

    let start = Instant::now();
    cluster.make_replica(2, 1_000_000, 7);
    let text = ending(&client.rest().await, 1);
    assert!(text.contains("unfit"), "{text}");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(cluster.read_only(2).await.greeted_by().await, 3);
}

#[tokio::test(start_paused = true)]
async fn reads_from_elsewhere_are_spread_over_the_replicas() {
    let cluster = cluster().await;
    cluster.make_primary(1, 5);
    cluster.make_replica(2, 0, 0);
    cluster.make_replica(3, 0, 0);
    let mut open = Vec::new();
    let mut served = Vec::new();
    for _ in 0..4 {
        let mut client = cluster.read_only(1).await;
        served.push(client.greeted_by().await);
        open.push(client);
    }
    assert_eq!(served, [2, 3, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_gate_refuses_is_passed_over() {
    let cluster = cluster().await;
    cluster.make_primary(1, 5);
    cluster.make_replica(2, 0, 0);
    cluster.make_replica(3, 0, 9);
    cluster.node(2).role.set_reads(false);
    assert_eq!(cluster.read_only(2).await.greeted_by().await, 3);
}

#[tokio::test(start_paused = true)]
async fn reads_fall_back_to_the_primary_only_if_allowed() {
    let allowed = cluster().await;
    allowed.make_primary(1, 5);
    assert_eq!(allowed.read_only(3).await.greeted_by().await, 1);

    let settings = ProxySettings {
        read_only_falls_back: false,
        ..ProxySettings::default()
    };
    let strict = TestCluster::start(3, settings).await;
    strict.make_primary(1, 5);
    let start = Instant::now();
    let text = refusal(&strict.read_only(3).await.rest().await);
    assert!(text.contains("no healthy replica"), "{text}");
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_frees_its_way() {
    let cluster = cluster().await;
    cluster.make_primary(2, 5);
    let mut client = cluster.read_write(1).await;
    client.greeted_by().await;
    assert_eq!(cluster.node(2).gate.primary_sessions(), 1);
    drop(client);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(cluster.node(2).gate.primary_sessions(), 0);
    assert_eq!(cluster.node(1).handle.read_write_sessions(), 0);
    assert_eq!(cluster.node(1).proxy.read_write.closes("client"), 1);
}
