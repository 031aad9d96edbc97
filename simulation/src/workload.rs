//! Clients of the ports: they write rows and registers, and read what others wrote.

use std::time::Duration;

use quorate_mysql_wire::{ConnectOptions, Connection, QueryError};
use quorate_net::{Endpoint, Net};
use quorate_types::{NodeId, Secret};
use tokio::time::timeout;

use crate::history::{Missing, Reply, Request};
use crate::mysqld::Change;
use crate::network::{MachineNet, address};
use crate::node::{READ_ONLY_PORT, READ_WRITE_PORT};
use crate::random::Random;
use crate::world::World;

/// The simulated host of the applications. It reaches every node at any time.
pub(crate) const APPLICATIONS: &str = "apps";
/// Registers that clients contend for.
pub(crate) const REGISTERS: u64 = 4;
/// A client that waits longer gives its connection up.
const ANSWER_MAX: Duration = Duration::from_secs(4);
const PAUSE_MAX: Duration = Duration::from_millis(30);
/// So often a client tries to find out what became of a row.
const LOOKS: u64 = 4;
/// One request in so many is a transaction of many rows.
const LOADS: u64 = 60;
/// Requests on one connection, about.
const REQUESTS: u64 = 20;

/// One client, for as long as the simulation runs.
pub(crate) async fn run_client(world: World, client: u64, mut random: Random) {
    let mut connection: Option<(NodeId, Connection)> = None;
    let mut next = 0;
    loop {
        let pause = random.duration(PAUSE_MAX);
        tokio::time::sleep(pause).await;
        if !world.with(|state| state.load) {
            connection = None;
            continue;
        }
        if connection.is_none() || random.chance(REQUESTS) {
            connection = connect(&world, READ_WRITE_PORT, &mut random).await;
        }
        let Some((node, open)) = &mut connection else {
            continue;
        };
        let by_itself = serves(&world, *node);
        next += 1;
        let unique = client << 32 | next;
        let key = random.below(REGISTERS);
        let request = match random.below(5) {
            _ if random.chance(LOADS) => {
                let rows = 20 + random.below(200);
                next += rows;
                Request::Load { key: unique, rows }
            }
            0 => Request::Read { key },
            1 => Request::Write(Change::Set { key, value: unique }),
            _ => Request::Write(Change::Insert {
                key: unique,
                value: random.below(1 << 40),
            }),
        };
        let reply = ask(&world, client, open, request).await;
        if !matches!(reply, Reply::Done | Reply::Value(_)) {
            connection = None;
        }
        if let (Request::Write(Change::Insert { key, .. }), Reply::Unknown) = (request, reply)
            && by_itself
        {
            look_for(&world, key, &mut random).await;
        }
    }
}

/// Whether a node's gate passes writes now.
fn serves(world: &World, node: NodeId) -> bool {
    let now = turmoil::sim_elapsed().unwrap_or_default();
    world.with(|state| {
        let probe = state.probes.get(&node);
        probe.is_some_and(|probe| probe.serves(state.nets[&node].time(now)).is_some())
    })
}

/// Looks for a row whose session ended without an answer. To be called for one that a primary's own
/// port served: what ends between two nodes ends as any MySQL's connection does, and its row may come
/// at any time.
async fn look_for(world: &World, key: u64, random: &mut Random) {
    for _ in 0..LOOKS {
        let Some((_, mut open)) = connect(world, READ_WRITE_PORT, random).await else {
            continue;
        };
        let sql = format!("SELECT v FROM t WHERE k = {key}");
        let Ok(Ok(answer)) = timeout(ANSWER_MAX, open.query(&sql)).await else {
            continue;
        };
        let at = turmoil::sim_elapsed().unwrap_or_default();
        if answer.scalar().is_none() {
            world.trace(&format!("row {key} is looked for and not there"));
            world.with(|state| state.history.missing.push(Missing { key, at }));
        }
        return;
    }
}

/// A client that reads rows from replicas, where they must be as they were written.
pub(crate) async fn run_reader(world: World, mut random: Random) {
    let mut connection: Option<(NodeId, Connection)> = None;
    loop {
        let pause = random.duration(PAUSE_MAX);
        tokio::time::sleep(pause).await;
        if connection.is_none() || random.chance(REQUESTS) {
            connection = connect(&world, READ_ONLY_PORT, &mut random).await;
        }
        let rows = world.with(|state| {
            let operations = &state.history.operations;
            let recent = operations.iter().rev().take(50);
            let rows = recent.filter_map(|operation| match operation.request {
                Request::Write(Change::Insert { key, value }) => Some((key, value)),
                _ => None,
            });
            rows.collect::<Vec<_>>()
        });
        let (Some((_, open)), false) = (&mut connection, rows.is_empty()) else {
            continue;
        };
        let (key, value) = *random.pick(&rows);
        let sql = format!("SELECT v FROM t WHERE k = {key}");
        match timeout(ANSWER_MAX, open.query(&sql)).await {
            Ok(Ok(answer)) => {
                let found = answer.scalar().and_then(|found| found.parse().ok());
                if found.is_some_and(|found: u64| found != value) {
                    world.trace(&format!("VIOLATION a replica shows {found:?} for {key}"));
                }
            }
            Ok(Err(_)) | Err(_) => connection = None,
        }
    }
}

async fn connect(world: &World, port: u16, random: &mut Random) -> Option<(NodeId, Connection)> {
    let nodes = world.nodes();
    let node = *random.pick(&nodes);
    Some((node, open(node, port).await?))
}

/// A connection through a node's port.
pub(crate) async fn open(node: NodeId, port: u16) -> Option<Connection> {
    let options = ConnectOptions {
        user: crate::mysqld::APP_USER.to_owned(),
        password: Secret::new(crate::mysqld::APP_PASSWORD.to_owned()),
        ..ConnectOptions::default()
    };
    let connect = async {
        let endpoint = Endpoint::Tcp(address(node, port));
        let io = MachineNet::new(node).connect(&endpoint).await.ok()?;
        Connection::connect(io, &options).await.ok()
    };
    timeout(ANSWER_MAX, connect).await.ok()?
}

/// Asks, and writes down what came of it.
pub(crate) async fn ask(
    world: &World,
    client: u64,
    connection: &mut Connection,
    request: Request,
) -> Reply {
    let sql = match request {
        Request::Write(Change::Insert { key, value }) => {
            format!("INSERT INTO t VALUES ({key}, {value})")
        }
        Request::Write(Change::Set { key, value }) => {
            format!("UPDATE r SET v = {value} WHERE k = {key}")
        }
        Request::Load { key, rows } => {
            let rows: Vec<String> = (key..key + rows)
                .map(|key| format!("({key}, {key})"))
                .collect();
            format!("INSERT INTO t VALUES {}", rows.join(", "))
        }
        Request::Read { key } => format!("SELECT v FROM r WHERE k = {key}"),
    };
    let now = || turmoil::sim_elapsed().unwrap_or_default();
    let number = world.with(|state| state.history.begin(client, request, now()));
    let answer = timeout(ANSWER_MAX, connection.query(&sql)).await;
    let reply = match (&answer, request) {
        (Ok(Ok(answer)), Request::Read { .. }) => {
            let value = answer.scalar().and_then(|value| value.parse().ok());
            value.map_or(Reply::Unknown, Reply::Value)
        }
        (Ok(Ok(_)), Request::Write(_) | Request::Load { .. }) => Reply::Done,
        // What the server itself says of a statement: it takes no writes.
        (Ok(Err(QueryError::Server(error))), _) if error.code == 1290 => Reply::Refused,
        (_, Request::Read { .. }) => Reply::Refused,
        (Err(_), _) => Reply::GaveUp,
        (Ok(_), _) => Reply::Unknown,
    };
    world.with(|state| state.history.end(number, now(), reply));
    world.trace(&format!("client {client} {request:?}: {reply:?}"));
    reply
}
