use std::sync::Arc;

use quorate_net::BoxIo;
use quorate_types::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::client::ConnectOptions;
use crate::command::Command;
use crate::resultset::Row;
use crate::server::{CommandReader, EventWriter, ServerConnection, ServerOptions};

const UUID: &str = "30b06607-e52b-11f1-b1db-02fc00000001";

fn options(semi_sync: bool) -> ReplicaOptions {
    ReplicaOptions {
        server_id: 2,
        server_uuid: UUID.parse().unwrap(),
        heartbeat_period: Duration::from_secs(1),
        checksum: ChecksumRequest::AsSource,
        semi_sync,
    }
}

async fn meet() -> (Connection, ServerConnection) {
    let (ours, theirs) = duplex(1 << 20);
    let client = ConnectOptions {
        user: "repl".into(),
        ..ConnectOptions::default()
    };
    let server = ServerOptions {
        version: "9.7.4".into(),
        connection_id: 1,
        scramble: [b'x'; 20],
        tls: None,
        tls_required: false,
        authenticate: &|_| Some(Secret::default()),
    };
    let (client, server) = tokio::join!(
        Connection::connect(BoxIo::new(ours), &client),
        ServerConnection::accept(BoxIo::new(theirs), &server),
    );
    (client.unwrap(), server.unwrap())
}

/// Answers as a source would until the dump is asked for; returns what was said.
async fn serve(mut server: ServerConnection, plugin: bool) -> (ServerConnection, Vec<String>) {
    let mut said = Vec::new();
    loop {
        match server.next_command().await.unwrap() {
            Command::Query(sql) => {
                if sql.contains("rpl_semi_sync") && sql.starts_with("SELECT") && !plugin {
                    let error = ServerError::new(1193, "HY000", "Unknown system variable");
                    server.err(&error).await.unwrap();
                } else if sql.starts_with("SELECT") {
                    let row = Row::from_iter([Some("1")]);
                    server.rows(&["value"], &[row]).await.unwrap();
                } else {
                    server.ok().await.unwrap();
                }
                said.push(sql);
            }
            Command::RegisterReplica(replica) => {
                said.push(format!("register {}", replica.server_id));
                server.ok().await.unwrap();
            }
            Command::BinlogDumpGtid(dump) => {
                said.push(format!(
                    "dump {:?}:{} {}",
                    dump.file, dump.position, dump.executed
                ));
                return (server, said);
            }
            Command::Quit => return (server, said),
            other => panic!("{other:?}"),
        }
    }
}

async fn dump(semi_sync: bool) -> (DumpReader, AckWriter, CommandReader, EventWriter) {
    let (client, server) = meet().await;
    let attach = async {
        let replica = ReplicaConnection::prepare(client, &options(semi_sync))
            .await
            .unwrap();
        replica.dump_gtid(&GtidSet::new()).await.unwrap()
    };
    let ((reader, acks), (server, _)) = tokio::join!(attach, serve(server, true));
    let (commands, events) = server.split();
    (reader, acks, commands, events)
}

#[tokio::test]
async fn it_says_what_a_replica_of_mysql_says_in_that_order() {
    let (client, server) = meet().await;
    let set: GtidSet = format!("{UUID}:1-5").parse().unwrap();
    let attach = async {
        let replica = ReplicaConnection::prepare(client, &options(true))
            .await
            .unwrap();
        assert_eq!(replica.source().semi_sync_enabled, Some(true));
        replica.dump_gtid(&set).await.unwrap()
    };
    let (_halves, (_server, said)) = tokio::join!(attach, serve(server, true));
    let expected = [
        "SET SESSION net_write_timeout = 31536000, SESSION wait_timeout = 31536000".to_owned(),
        "SELECT UNIX_TIMESTAMP()".to_owned(),
        "SELECT @@GLOBAL.SERVER_ID".to_owned(),
        "SET @master_heartbeat_period = 1000000000, @source_heartbeat_period = 1000000000".to_owned(),
        "SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum".to_owned(),
        "SELECT @source_binlog_checksum".to_owned(),
        "SELECT @@GLOBAL.GTID_MODE".to_owned(),
        "SELECT @@GLOBAL.SERVER_UUID".to_owned(),
        format!("SET @slave_uuid = '{UUID}', @replica_uuid = '{UUID}'"),
        "SELECT @@global.rpl_semi_sync_source_enabled".to_owned(),
        "SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1".to_owned(),
        "register 2".to_owned(),
        format!("dump \"\":4 {UUID}:1-5"),
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_source_without_the_plugin_is_no_semi_sync_source() {
    let (client, server) = meet().await;
    let attach = async {
        let wanted = options(true);
        let result = ReplicaConnection::prepare(client, &wanted).await;
        assert!(matches!(result, Err(PrepareError::NoSemiSync)));
    };
    tokio::select! {
        () = attach => {}
        _ = serve(server, false) => panic!("it went on to dump"),
    }
}

#[tokio::test]
async fn events_come_with_what_the_source_wants_of_them() {
    let (mut reader, _acks, _commands, mut events) = dump(true).await;
    for event in [&b"\xef\x00plain"[..], b"\xef\x01end of a transaction"] {
        events.event(&[Bytes::from_static(event)]).await.unwrap();
    }
    events.eof().await.unwrap();
    let event = |ack_wanted, bytes: &'static [u8]| {
        DumpPacket::Event(EventChunk {
            ack_wanted,
            first: true,
            last: true,
            bytes: bytes.into(),
        })
    };
    assert_eq!(reader.next().await.unwrap(), event(false, b"plain"));
    assert_eq!(
        reader.next().await.unwrap(),
        event(true, b"end of a transaction")
    );
    assert_eq!(reader.next().await.unwrap(), DumpPacket::Eof);
}

#[tokio::test]
async fn an_event_of_many_frames_comes_in_pieces() {
    let (mut reader, _acks, _commands, mut events) = dump(true).await;
    let bytes = Bytes::from(vec![3; (16 << 20) + 9]);
    let write = async {
        let parts = [
            Bytes::from_static(b"\xef\x01"),
            bytes.slice(..100),
            bytes.slice(100..),
        ];
        events.event(&parts).await.unwrap();
        events.begin_event(3).await.unwrap();
        events.append(b"\xef\x00").await.unwrap();
        events.append(b"z").await.unwrap();
        events.flush().await.unwrap();
    };
    let read = async {
        let mut found = 0;
        loop {
            let DumpPacket::Event(chunk) = reader.next().await.unwrap() else {
                panic!("no event");
            };
            assert!(chunk.ack_wanted && chunk.bytes.iter().all(|byte| *byte == 3));
            assert_eq!(chunk.first, found == 0);
            found += chunk.bytes.len();
            if chunk.last {
                break;
            }
        }
        assert_eq!(found, bytes.len());
        assert!(matches!(reader.next().await.unwrap(), DumpPacket::Event(one) if one.bytes == "z"));
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn the_source_s_reason_for_an_end_is_told() {
    let (mut reader, _acks, _commands, mut events) = dump(false).await;
    let error = ServerError::new(1236, "HY000", "purged");
    events.event(&[Bytes::from_static(b"one")]).await.unwrap();
    events.err(&error).await.unwrap();
    drop(events);
    assert!(matches!(reader.next().await.unwrap(), DumpPacket::Event(one) if one.bytes == "one"));
    assert_eq!(reader.next().await.unwrap(), DumpPacket::Error(error));
    drop(_commands);
    assert!(matches!(
        reader.next().await,
        Err(DumpError::Packet(PacketError::Closed))
    ));
}

#[tokio::test]
async fn an_event_without_the_semi_sync_header_ends_the_dump() {
    let (mut reader, _acks, _commands, mut events) = dump(true).await;
    events
        .event(&[Bytes::from_static(b"\0\0\0\0")])
        .await
        .unwrap();
    events.flush().await.unwrap();
    assert!(matches!(
        reader.next().await,
        Err(DumpError::NoSemiSyncHeader)
    ));
}

#[tokio::test]
async fn a_closed_dump_is_seen_by_the_server() {
    let (reader, acks, mut commands, _events) = dump(true).await;
    drop((reader, acks));
    assert!(matches!(commands.next().await, Err(PacketError::Closed)));
}

/// Counts writes: each `read` of a duplex gives what is there, so one write is one read.
async fn one_read(raw: &mut DuplexStream) -> Vec<u8> {
    let mut buffer = vec![0; 256];
    let len = raw.read(&mut buffer).await.unwrap();
    buffer.truncate(len);
    buffer
}

#[tokio::test]
async fn an_ack_is_one_write_with_sequence_id_0() {
    let (mut raw, io) = duplex(1024);
    let stream = crate::PacketStream::new(BoxIo::new(io), 1024);
    let (_reader, packets) = stream.split(SequenceCheck::Lenient);
    let mut acks = AckWriter { packets };
    for offset in [0x0235_u64, 5 << 32] {
        let position = BinlogPosition {
            file: Arc::from("binlog.000002"),
            offset,
        };
        acks.ack(&position).await.unwrap();
        let mut expected = b"\x16\0\0\0\xef".to_vec();
        expected.extend_from_slice(&offset.to_le_bytes());
        expected.extend_from_slice(b"binlog.000002");
        assert_eq!(one_read(&mut raw).await, expected);
    }
    raw.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_dump_goes_on_when_the_source_starts_its_sequence_over() {
    let (mut raw, io) = duplex(1024);
    let stream = crate::PacketStream::new(BoxIo::new(io), 1024);
    let (packets, _writer) = stream.split(SequenceCheck::Lenient);
    let mut reader = DumpReader {
        packets,
        semi_sync: true,
        ack_wanted: false,
    };
    raw.write_all(b"\x04\0\0\x09\0\xef\x01a\x04\0\0\x01\0\xef\0b")
        .await
        .unwrap();
    for (ack_wanted, bytes) in [(true, "a"), (false, "b")] {
        let DumpPacket::Event(chunk) = reader.next().await.unwrap() else {
            panic!("no event");
        };
        assert_eq!(
            (chunk.ack_wanted, &chunk.bytes[..]),
            (ack_wanted, bytes.as_bytes())
        );
    }
}
