use tokio::io::duplex;

use super::*;
use crate::handshake::{CACHING_SHA2, NATIVE};

const SCRAMBLE: Scramble = *b"abcdefghijklmnopqrst";
const KEY: &str = include_str!("../auth/test-key.pem");

/// A server by its packets: after the greeting, sends each answer, and takes one packet before it.
async fn scripted(
    plugin: &str,
    answers: &[&[u8]],
    secure: bool,
) -> (Result<Connection, ConnectError>, Vec<Bytes>) {
    let (ours, theirs) = duplex(1 << 16);
    let mut server = PacketStream::new(BoxIo::new(theirs), 1 << 16);
    let greeting = Greeting {
        version: "9.7.4".into(),
        connection_id: 3,
        capabilities: KNOWN,
        scramble: SCRAMBLE,
        plugin: plugin.into(),
    };
    let options = ConnectOptions {
        user: "app".into(),
        password: Secret::new("pw".into()),
        secure_transport: secure,
        ..ConnectOptions::default()
    };
    let serve = async {
        server.write(&greeting.to_payload()).await.unwrap();
        let mut heard = Vec::new();
        for answer in answers {
            heard.push(server.read().await.unwrap());
            server.write(answer).await.unwrap();
        }
        heard
    };
    let (connection, heard) = tokio::join!(Connection::connect(BoxIo::new(ours), &options), serve);
    (connection, heard)
}

const OK: &[u8] = b"\0\0\0\x02\0\0\0";

#[tokio::test]
async fn the_password_itself_goes_out_only_over_a_secure_transport() {
    let (connection, heard) = scripted(CACHING_SHA2, &[b"\x01\x04", OK], true).await;
    connection.unwrap();
    assert_eq!(heard[1], "pw\0");
}

#[tokio::test]
async fn over_plain_tcp_the_password_goes_out_under_the_server_s_key() {
    let key = [b"\x01", KEY.as_bytes()].concat();
    let (connection, heard) = scripted(CACHING_SHA2, &[b"\x01\x04", &key, OK], false).await;
    connection.unwrap();
    assert_eq!(heard[1], &b"\x02"[..]);
    assert_eq!(heard[2].len(), 256);

    let (connection, _) = scripted(CACHING_SHA2, &[b"\x01\x04", b"\x01no key"], false).await;
    assert!(matches!(connection, Err(ConnectError::PublicKey)));
}

#[tokio::test]
async fn a_switch_to_a_known_plugin_is_followed_and_to_another_refused() {
    let switch = AuthSwitch {
        plugin: NATIVE.into(),
        scramble: [7; 20],
    }
    .to_payload();
    let (connection, heard) = scripted(CACHING_SHA2, &[&switch, OK], false).await;
    connection.unwrap();
    assert_eq!(
        heard[1],
        Plugin::Native.response(&[7; 20], &Secret::new("pw".into()))
    );

    let (connection, _) = scripted("sha256_password", &[OK], false).await;
    assert!(connection.is_ok());

    let clear = AuthSwitch {
        plugin: "mysql_clear_password".into(),
        scramble: [7; 20],
    };
    let (connection, _) = scripted(CACHING_SHA2, &[&clear.to_payload()], true).await;
    assert!(
        matches!(connection, Err(ConnectError::Plugin(name)) if name == "mysql_clear_password")
    );
}

#[tokio::test]
async fn an_error_in_place_of_the_greeting_is_told() {
    let (ours, theirs) = duplex(1024);
    let error = ServerError::new(1040, "HY000", "Too many connections");
    let mut server = PacketStream::new(BoxIo::new(theirs), 1024);
    server
        .write(&error.to_payload_before_handshake())
        .await
        .unwrap();
    let result = Connection::connect(BoxIo::new(ours), &ConnectOptions::default()).await;
    assert!(matches!(result, Err(ConnectError::Server(found)) if found == error));
}

async fn answered(packets: &[&[u8]]) -> Result<QueryResult, QueryError> {
    let (ours, theirs) = duplex(1 << 16);
    let mut server = PacketStream::new(BoxIo::new(theirs), 1024);
    let greeting = Greeting::parse(&Bytes::from(
        Greeting {
            version: String::new(),
            connection_id: 0,
            capabilities: KNOWN,
            scramble: SCRAMBLE,
            plugin: CACHING_SHA2.into(),
        }
        .to_payload(),
    ))?;
    let mut client = Connection {
        stream: PacketStream::new(BoxIo::new(ours), 1024),
        greeting,
        busy: false,
    };
    let serve = async {
        server.start_command();
        server.read().await.unwrap();
        for packet in packets {
            server.write(packet).await.unwrap();
        }
        drop(server);
    };
    let (result, ()) = tokio::join!(client.query("SELECT 1"), serve);
    result
}

#[tokio::test]
async fn hostile_answers_are_errors() {
    // A request for a local file, a count beyond MySQL's limit, an empty packet, a cut answer.
    for packets in [
        &[&b"\xfb/etc/passwd"[..]][..],
        &[b"\xfd\xff\xff\xff"],
        &[b""],
        &[b"\x01", b"\x03def"],
    ] {
        assert!(answered(packets).await.is_err(), "{packets:?}");
    }
}
