use std::sync::atomic::{AtomicU8, Ordering};

use quorate_types::ClusterId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;
use crate::ProxySettings;
use crate::gate_protocol::HandshakeError;
use crate::testing::{
    CLUSTER, Client, FakeRole, FakeSessions, MemoryNet, TestCluster, epoch, gate_port,
};

fn hello(purpose: Purpose) -> Hello {
    Hello {
        cluster: CLUSTER,
        from: NodeId(2),
        to: NodeId(1),
        purpose,
        wait_ms: 0,
    }
}

async fn one_node() -> TestCluster {
    TestCluster::start(1, ProxySettings::default()).await
}

async fn ask(cluster: &TestCluster, hello: Hello) -> (Client, Result<Answer, HandshakeError>) {
    let mut io = cluster.net.connect(&gate_port(NodeId(1))).await.unwrap();
    hello.write(&mut io).await.unwrap();
    let answer = Answer::read(&mut io).await;
    (Client(io), answer)
}

async fn open(cluster: &TestCluster, purpose: Purpose) -> Client {
    let (mut client, answer) = ask(cluster, hello(purpose)).await;
    assert!(matches!(answer, Ok(Answer::Open { .. })), "{answer:?}");
    client.greeted_by().await;
    client
}

async fn refusal(cluster: &TestCluster, hello: Hello) -> RefusalReason {
    match ask(cluster, hello).await.1 {
        Ok(Answer::Refused(refusal)) => refusal.reason,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_arrives_after_the_lease_ended_never_reaches_the_server() {
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    let node = cluster.node(1);
    let mut client = open(&cluster, Purpose::ReadWrite).await;
    client.round_trip(b"before").await;

    // Nobody has noticed yet: only the clock says that the lease is over.
    *node.role.lease_until.lock().unwrap() = cluster.net.boot_time() + Duration::from_millis(100);
    sleep(Duration::from_millis(99)).await;
    client.round_trip(b", in time").await;
    sleep(Duration::from_millis(1)).await;
    client.send(b", too late").await;

    assert_eq!(client.rest().await, b"");
    assert_eq!(*node.received.lock().unwrap(), b"before, in time");
}

/// What is sent meanwhile waits, and an idle session notices nothing.
#[tokio::test(start_paused = true)]
async fn a_lease_that_comes_back_soon_ends_no_session_and_lets_nothing_pass_meanwhile() {
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    let node = cluster.node(1);
    let mut busy = open(&cluster, Purpose::ReadWrite).await;
    let mut idle = open(&cluster, Purpose::ReadWrite).await;

    *node.role.lease_until.lock().unwrap() = Duration::ZERO;
    busy.send(b"held").await;
    sleep(LEASE_BACK_MAX - Duration::from_millis(20)).await;
    assert_eq!(*node.received.lock().unwrap(), b"");
    node.role.renew_lease();
    assert_eq!(busy.read(4).await, b"held");
    idle.round_trip(b", idle").await;
    assert_eq!(*node.received.lock().unwrap(), b"held, idle");

    // An order to close waits for nothing.
    node.role.end_lease();
    busy.send(b"never").await;
    sleep(Duration::from_millis(20)).await;
    let ordered = Instant::now();
    node.role.order(None);
    node.gate.closed().await;
    assert_eq!(ordered.elapsed(), Duration::ZERO);
    assert_eq!(busy.rest().await, b"");
    assert_eq!(*node.received.lock().unwrap(), b"held, idle");
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_when_the_lease_stays_away() {
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    let role = &cluster.node(1).role;
    let mut client = open(&cluster, Purpose::ReadWrite).await;
    for _ in 0..3 {
        role.end_lease();
        sleep(LEASE_BACK_MAX - Duration::from_millis(1)).await;
        role.renew_lease();
        sleep(Duration::from_millis(1)).await;
    }
    role.end_lease();
    let ended = Instant::now();
    assert_eq!(client.rest().await, b"");
    assert_eq!(ended.elapsed(), LEASE_BACK_MAX);
}

/// The greeting of a session, as far as the gate reads it.
fn greeting(id: u8) -> [u8; 11] {
    [7, 0, 0, 0, 10, b'9', 0, id, 0, 0, 0]
}

/// A server that needs this long for what it was asked before it sees that its client is gone.
async fn start_slow(net: &MemoryNet, at: Endpoint, needs: Duration) {
    let mut listener = net.listen(&at).await.unwrap();
    tokio::spawn(async move {
        let mut id = 0;
        while let Some(Ok(mut io)) = listener.incoming.next().await {
            id += 1;
            tokio::spawn(async move {
                io.write_all(&greeting(id)).await.unwrap();
                let _ = io.read_to_end(&mut Vec::new()).await;
                sleep(needs).await;
            });
        }
    });
}

/// For how long the leases of [`begins_after_lease_came_back`] are away once sessions end.
const AWAY: Duration = Duration::from_millis(1800);

/// A gate before a server that needs so long, and whose commits may take until so long after the lease
/// came back. How long after that a third session begins, where two were lost with the lease; and whose
/// statements were stopped.
async fn begins_after_lease_came_back(needs: Duration, commits: Duration) -> (Duration, Vec<u32>) {
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    let role = cluster.node(1).role.clone();
    let server = Endpoint::Tcp("slow:1".to_owned());
    start_slow(&cluster.net, server.clone(), needs).await;
    let sessions = Arc::new(FakeSessions::default());
    let (gate, handle) = Gate::new(GateParts {
        net: cluster.net.clone(),
        role: role.clone(),
        tls: None,
        node: NodeId(1),
        is_member: Arc::new(|_| true),
        may_clone: Arc::new(|_| false),
        server,
        server_sessions: sessions.clone(),
        metrics: Metrics::default(),
        left_out: None,
    });
    let listener = cluster.net.listen(&gate_port(NodeId(1))).await.unwrap();
    tokio::spawn(gate.run(listener));
    let patient = Hello {
        wait_ms: 10_000,
        ..hello(Purpose::ReadWrite)
    };
    let mut lost = Vec::new();
    for id in [1, 2] {
        let (mut client, answer) = ask(&cluster, patient).await;
        assert!(matches!(answer, Ok(Answer::Open { .. })), "{answer:?}");
        assert_eq!(client.read(11).await, greeting(id));
        lost.push(client);
    }

    role.end_lease();
    for mut lost in lost {
        assert_eq!(lost.rest().await, b"");
    }
    handle.closed().await;
    assert_eq!(
        handle.primary_sessions(),
        0,
        "no byte reaches them any more"
    );
    sleep(AWAY).await;
    role.renew_lease();
    let back = Instant::now();
    *sessions.commit_until.lock().unwrap() = Some(back + commits);
    let (_, answer) = ask(&cluster, patient).await;
    assert!(matches!(answer, Ok(Answer::Open { .. })), "{answer:?}");
    let stopped = sessions.stopped.lock().unwrap().iter().copied().collect();
    (back.elapsed(), stopped)
}

#[tokio::test(start_paused = true)]
async fn after_a_lease_came_back_sessions_begin_when_those_that_ended_can_commit_nothing() {
    let zero = Duration::ZERO;
    let begun = begins_after_lease_came_back(zero, zero).await;
    assert_eq!(begun, (zero, vec![]), "idle ones end by themselves");
    let begun = begins_after_lease_came_back(AWAY, zero).await;
    assert_eq!(begun, (zero, vec![1, 2]), "they were gone before");
    let waits = Duration::from_millis(700);
    let begun = begins_after_lease_came_back(AWAY + waits, zero).await;
    assert_eq!(begun, (waits, vec![1, 2]));
    let for_ever = Duration::from_secs(3600);
    let begun = begins_after_lease_came_back(for_ever, zero).await;
    assert_eq!(begun, (LEFT_MAX, vec![1, 2]), "a rollback keeps nobody out");
    let commits = Duration::from_secs(4);
    let begun = begins_after_lease_came_back(for_ever, commits).await;
    assert_eq!(begun, (commits, vec![1, 2]), "a commit that hangs does");
}

#[tokio::test(start_paused = true)]
async fn every_chunk_is_asked_for() {
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    let asked = Arc::clone(&cluster.node(1).role.asked);
    let mut client = open(&cluster, Purpose::ReadWrite).await;
    for _ in 0..10 {
        let before = asked.load(Ordering::SeqCst);
        client.round_trip(b"chunk").await;
        assert!(asked.load(Ordering::SeqCst) > before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_on_hold_takes_no_session_and_keeps_those_that_it_has() {
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    let mut old = open(&cluster, Purpose::ReadWrite).await;
    cluster.node(1).gate.hold(Some(epoch(5)));
    let not_serving = RefusalReason::NotServing;
    assert_eq!(
        refusal(&cluster, hello(Purpose::ReadWrite)).await,
        not_serving
    );
    old.round_trip(b"goes on").await;

    let patient = Hello {
        wait_ms: 1000,
        ..hello(Purpose::ReadWrite)
    };
    let release = async {
        sleep(Duration::from_millis(300)).await;
        cluster.node(1).gate.hold(None);
    };
    let ((_, answer), ()) = tokio::join!(ask(&cluster, patient), release);
    assert!(matches!(answer, Ok(Answer::Open { .. })), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_at_once_with_its_epoch() {
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    let role = &cluster.node(1).role;
    for over in [None, Some(epoch(9))] {
        role.order(Some(epoch(5)));
        let mut client = open(&cluster, Purpose::ReadWrite).await;
        let start = Instant::now();
        role.order(over);
        assert_eq!(client.rest().await, b"");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

/// A server that writes without end what `mark` holds at the moment of writing.
async fn start_flood(net: &MemoryNet, at: Endpoint, mark: Arc<AtomicU8>) {
    let mut listener = net.listen(&at).await.unwrap();
    tokio::spawn(async move {
        while let Some(Ok(mut io)) = listener.incoming.next().await {
            let mark = Arc::clone(&mark);
            tokio::spawn(async move {
                loop {
                    let chunk = [mark.load(Ordering::SeqCst); 64];
                    if io.write_all(&chunk).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_that_the_server_writes_after_the_gate_closed_reaches_a_client() {
    let view = Arc::new(watch::Sender::new(Arc::new(quorate_types::ClusterView {
        cluster: Some(CLUSTER),
        ..Default::default()
    })));
    let net = MemoryNet::new();
    let role = FakeRole::new(&view);
    let mark = Arc::new(AtomicU8::new(0));
    let server = Endpoint::Tcp("flood:1".to_owned());
    start_flood(&net, server.clone(), Arc::clone(&mark)).await;
    let (gate, handle) = Gate::new(GateParts {
        net: net.clone(),
        role: role.clone(),
        tls: None,
        node: NodeId(1),
        is_member: Arc::new(|_| true),
        may_clone: Arc::new(|_| false),
        server,
        server_sessions: Arc::new(FakeSessions::default()),
        metrics: Metrics::default(),
        left_out: None,
    });
    tokio::spawn(gate.run(net.listen(&gate_port(NodeId(1))).await.unwrap()));

    let mut delivered = 0;
    for round in 0..50 {
        mark.store(0, Ordering::SeqCst);
        role.order(Some(epoch(round)));
        let mut readers = Vec::new();
        for _ in 0..4 {
            let mut io = net.connect(&gate_port(NodeId(1))).await.unwrap();
            hello(Purpose::ReadWrite).write(&mut io).await.unwrap();
            let answer = Answer::read(&mut io).await.unwrap();
            assert_eq!(
                answer,
                Answer::Open {
                    epoch: Some(epoch(round))
                }
            );
            readers.push(tokio::spawn(async move {
                let (mut chunk, mut total) = ([0; 4096], 0);
                while let Ok(count @ 1..) = io.read(&mut chunk).await {
                    assert!(chunk[..count].iter().all(|byte| *byte == 0));
                    total += count;
                }
                total
            }));
        }
        assert!(handle.primary_sessions() > 0);
        sleep(Duration::from_millis(2)).await;
        role.order(None);
        handle.closed().await;
        assert_eq!(handle.primary_sessions(), 0);
        mark.store(1, Ordering::SeqCst);
        for reader in readers {
            delivered += reader.await.unwrap();
        }
    }
    assert!(delivered > 0);
}

#[tokio::test(start_paused = true)]
async fn strangers_and_strays_are_refused_with_the_reason() {
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    let ours = hello(Purpose::ReadWrite);
    let cases = [
        (
            Hello {
                cluster: ClusterId(1),
                ..ours
            },
            RefusalReason::WrongCluster,
        ),
        (
            Hello {
                to: NodeId(3),
                ..ours
            },
            RefusalReason::WrongNode,
        ),
        (
            Hello {
                from: NodeId(9),
                ..ours
            },
            RefusalReason::NotAMember,
        ),
        (hello(Purpose::Clone), RefusalReason::NotServing),
    ];
    for (hello, reason) in cases {
        assert_eq!(refusal(&cluster, hello).await, reason);
    }
    assert_eq!(*cluster.node(1).received.lock().unwrap(), b"");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_does_not_speak_the_protocol_gets_nothing() {
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"QRGT\x01\xff\xff",
        b"QRGT\x01\x01\x00x",
    ] {
        let mut io = cluster.net.connect(&gate_port(NodeId(1))).await.unwrap();
        io.write_all(bytes).await.unwrap();
        assert_eq!(Client(io).rest().await, b"");
    }
    // And one who says nothing is not waited for.
    let start = Instant::now();
    let io = cluster.net.connect(&gate_port(NodeId(1))).await.unwrap();
    assert_eq!(Client(io).rest().await, b"");
    assert!(start.elapsed() <= HANDSHAKE_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_gate_waits_for_its_node_as_long_as_it_is_asked_to() {
    let cluster = one_node().await;
    let patient = Hello {
        wait_ms: 1000,
        ..hello(Purpose::ReadWrite)
    };
    let start = Instant::now();
    let reason = refusal(&cluster, patient).await;
    assert_eq!(reason, RefusalReason::NotServing);
    assert_eq!(start.elapsed(), Duration::from_secs(1));

    let role = cluster.node(1).role.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(300)).await;
        role.order(Some(epoch(7)));
    });
    let (_, answer) = ask(&cluster, patient).await;
    let open = Answer::Open {
        epoch: Some(epoch(7)),
    };
    assert_eq!(answer.unwrap(), open);
}

#[tokio::test(start_paused = true)]
async fn a_read_only_session_ends_when_the_replica_is_no_longer_fit() {
    let cluster = one_node().await;
    let role = &cluster.node(1).role;
    role.set_reads(true);
    let mut client = open(&cluster, Purpose::ReadOnly).await;
    client.round_trip(b"select").await;
    assert_eq!(cluster.node(1).gate.read_only_sessions(), 1);
    role.set_reads(false);
    assert_eq!(client.rest().await, b"");
    let reason = refusal(&cluster, hello(Purpose::ReadOnly)).await;
    assert_eq!(reason, RefusalReason::NotServing);
    assert_eq!(cluster.node(1).gate.read_only_sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn reads_on_a_primary_live_with_its_epoch() {
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    let mut client = open(&cluster, Purpose::ReadOnly).await;
    client.round_trip(b"select").await;
    cluster.node(1).role.order(None);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_said_to_be_down() {
    let cluster = one_node().await;
    let role = cluster.node(1).role.clone();
    role.order(Some(epoch(5)));
    let (gate, handle) = Gate::new(GateParts {
        net: cluster.net.clone(),
        role,
        tls: None,
        node: NodeId(1),
        is_member: Arc::new(|_| true),
        may_clone: Arc::new(|_| false),
        server: Endpoint::Tcp("nowhere:1".to_owned()),
        server_sessions: Arc::new(FakeSessions::default()),
        metrics: Metrics::default(),
        left_out: None,
    });
    let listener = cluster.net.listen(&gate_port(NodeId(1))).await.unwrap();
    tokio::spawn(gate.run(listener));
    let reason = refusal(&cluster, hello(Purpose::ReadWrite)).await;
    assert_eq!(reason, RefusalReason::ServerDown);
    assert_eq!(handle.primary_sessions(), 0);
}

/// A gate with TLS in front of a server that greets; what each node loads.
async fn start_with_tls() -> (MemoryNet, impl Fn(u64) -> Tls) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
    let load = move |node: u64| {
        let path = |name: &str| folder.path().join(name);
        let key = KeyPair::generate().unwrap();
        let name = quorate_net::node_server_name(NodeId(node));
        let params = CertificateParams::new(vec![name]).unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(path("node.pem"), certificate.pem()).unwrap();
        std::fs::write(path("node.key"), key.serialize_pem()).unwrap();
        Tls::load(&path("ca.pem"), &path("node.pem"), &path("node.key")).unwrap()
    };
    let cluster = one_node().await;
    cluster.make_primary(1, 5);
    let (gate, _) = Gate::new(GateParts {
        net: cluster.net.clone(),
        role: cluster.node(1).role.clone(),
        tls: Some(load(1)),
        node: NodeId(1),
        is_member: Arc::new(|_| true),
        may_clone: Arc::new(|_| false),
        server: Endpoint::Tcp("node-1:5".to_owned()),
        server_sessions: Arc::new(FakeSessions::default()),
        metrics: Metrics::default(),
        left_out: None,
    });
    let listener = cluster.net.listen(&gate_port(NodeId(1))).await.unwrap();
    tokio::spawn(gate.run(listener));
    (cluster.net, load)
}

#[tokio::test]
async fn with_tls_a_member_cannot_speak_for_another() {
    let (net, load) = start_with_tls().await;
    for (certificate_of, served) in [(2, true), (3, false)] {
        let io = net.connect(&gate_port(NodeId(1))).await.unwrap();
        let tls = load(certificate_of);
        let name = quorate_net::node_server_name(NodeId(1));
        let mut io = tls.connect(io, &name).await.unwrap();
        // Says that it is node 2.
        hello(Purpose::ReadWrite).write(&mut io).await.unwrap();
        let answer = Answer::read(&mut io).await;
        assert_eq!(matches!(answer, Ok(Answer::Open { .. })), served);
        if served {
            let mut client = Client(io);
            client.greeted_by().await;
            client.0.write_all(b"question").await.unwrap();
            client.0.flush().await.unwrap();
            assert_eq!(client.read(8).await, b"question");
        }
    }
}

/// The permit decides and nothing else: neither a lease nor a role.
#[tokio::test(start_paused = true)]
async fn clone_traffic_passes_while_the_permit_is_open_and_no_longer() {
    let cluster = one_node().await;
    let node = cluster.node(1);
    *node.permit.lock().unwrap() = Some(NodeId(3));
    let not_its_permit = refusal(&cluster, hello(Purpose::Clone)).await;
    assert_eq!(not_its_permit, RefusalReason::NotServing);

    *node.permit.lock().unwrap() = Some(NodeId(2));
    let mut client = open(&cluster, Purpose::Clone).await;
    client.round_trip(b"a page").await;
    assert_eq!(node.gate.primary_sessions(), 0, "no epoch waits for it");

    *node.permit.lock().unwrap() = None;
    client.send(b"another").await;
    assert_eq!(client.rest().await, b"");
    assert_eq!(*node.received.lock().unwrap(), b"a page");
}

#[tokio::test(start_paused = true)]
async fn a_recipient_waits_for_the_donor_to_learn_of_the_permit() {
    let cluster = one_node().await;
    let listener = cluster.net.listen(&Endpoint::Tcp("way".to_owned())).await;
    let received = Arc::default();
    let way = crate::CloneWay {
        net: cluster.net.clone(),
        tls: None,
        cluster: CLUSTER,
        recipient: NodeId(2),
        donor: NodeId(1),
        gate: Some(gate_port(NodeId(1))),
        received: Arc::clone(&received),
        failure: Arc::default(),
    };
    tokio::spawn(way.run(listener.unwrap()));
    let connected = cluster.net.connect(&Endpoint::Tcp("way".to_owned())).await;
    let mut client = Client(connected.unwrap());
    sleep(Duration::from_secs(1)).await;
    *cluster.node(1).permit.lock().unwrap() = Some(NodeId(2));
    client.greeted_by().await;
    client.round_trip(b"a page").await;
    assert!(received.load(Ordering::Relaxed) > 0);
}
