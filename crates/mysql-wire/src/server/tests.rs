use std::time::Duration;

use proptest::prelude::*;
use quorate_types::GtidSet;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::client::{ClientTls, ConnectError, ConnectOptions, Connection, QueryError};
use crate::handshake::{HandshakeResponse, NATIVE};

fn passwords(user: &str) -> Option<Secret> {
    match user {
        "repl" => Some(Secret::new("s3cret".into())),
        "open" => Some(Secret::default()),
        _ => None,
    }
}

fn options() -> ServerOptions<'static> {
    ServerOptions {
        version: "9.7.4-quorate".into(),
        connection_id: 77,
        scramble: clean_scramble(*b"\0$cdefghij\xff\x80lmnopqrs"),
        tls: None,
        tls_required: false,
        authenticate: &passwords,
    }
}

fn login(user: &str, password: &str) -> ConnectOptions {
    ConnectOptions {
        user: user.into(),
        password: Secret::new(password.into()),
        attributes: vec![("program_name".into(), "test".into())],
        ..ConnectOptions::default()
    }
}

async fn meet(
    client: &ConnectOptions,
    server: &ServerOptions<'_>,
) -> (
    Result<Connection, ConnectError>,
    Result<ServerConnection, AcceptError>,
) {
    let (ours, theirs) = duplex(1 << 16);
    tokio::join!(
        Connection::connect(BoxIo::new(ours), client),
        ServerConnection::accept(BoxIo::new(theirs), server),
    )
}

fn tls() -> (Arc<rustls::ServerConfig>, ClientTls) {
    let key = rcgen::generate_simple_self_signed(vec!["feed".to_owned()]).unwrap();
    let certificate = CertificateDer::from(key.cert.der().to_vec());
    let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private.into())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientTls {
        config: Arc::new(config),
        server_name: ServerName::try_from("feed").unwrap(),
    };
    (Arc::new(server), client)
}

#[tokio::test]
async fn who_knows_the_password_comes_in() {
    let (client, server) = meet(&login("repl", "s3cret"), &options()).await;
    let (client, server) = (client.unwrap(), server.unwrap());
    assert_eq!(client.connection_id(), 77);
    assert_eq!(client.server_version(), "9.7.4-quorate");
    assert_eq!(server.user(), "repl");
    assert_eq!(
        server.attributes(),
        [("program_name".to_owned(), "test".to_owned())]
    );

    let (client, server) = meet(&login("open", ""), &options()).await;
    assert!(client.is_ok() && server.is_ok());
}

#[tokio::test]
async fn who_does_not_is_told_1045() {
    for (user, password) in [
        ("repl", "wrong"),
        ("repl", ""),
        ("nobody", "s3cret"),
        ("open", "x"),
    ] {
        let (client, server) = meet(&login(user, password), &options()).await;
        let Err(ConnectError::Server(error)) = client else {
            panic!("{user} came in with `{password}`");
        };
        assert_eq!((error.code, error.state.as_str()), (1045, "28000"));
        assert!(matches!(server, Err(AcceptError::Denied { .. })));
    }
}

#[tokio::test]
async fn tls_is_started_when_both_want_it() {
    let (config, client_tls) = tls();
    let server = ServerOptions {
        tls: Some(config),
        tls_required: true,
        ..options()
    };
    let plain = login("repl", "s3cret");
    let client = ConnectOptions {
        tls: Some(client_tls),
        ..plain.clone()
    };

    let (client_side, server_side) = meet(&client, &server).await;
    let (mut client_side, mut server_side) = (client_side.unwrap(), server_side.unwrap());
    let serve = async {
        assert_eq!(server_side.next_command().await.unwrap(), Command::Ping);
        server_side.ok().await.unwrap();
    };
    let (pong, ()) = tokio::join!(client_side.ping(), serve);
    pong.unwrap();

    let (refused, _) = meet(&plain, &server).await;
    assert!(matches!(refused, Err(ConnectError::Server(error)) if error.code == 3159));
    let (no_tls, _) = meet(&client, &options()).await;
    assert!(matches!(no_tls, Err(ConnectError::NoTls)));
}

#[tokio::test]
async fn clear_text_behind_the_request_for_tls_is_refused() {
    let (config, _) = tls();
    let server = ServerOptions {
        tls: Some(config),
        ..options()
    };
    let (mut raw, io) = duplex(1 << 16);
    let mut packet = crate::handshake::ssl_request(KNOWN | SSL, 1 << 24);
    packet.splice(0..0, [32, 0, 0, 1]);
    packet.extend_from_slice(b"\x01\0\0\x02x");
    raw.write_all(&packet).await.unwrap();
    let result = ServerConnection::accept(BoxIo::new(io), &server).await;
    assert!(matches!(result, Err(AcceptError::Tls(_))));
}

/// Sends what a client of another plugin would send, and answers the switch.
async fn other_plugin(raw: DuplexStream, scramble: Scramble, password: &str) -> Bytes {
    let mut stream = PacketStream::new(BoxIo::new(raw), 1 << 16);
    stream.read().await.unwrap();
    let response = HandshakeResponse {
        capabilities: KNOWN,
        user: "repl".into(),
        auth: Bytes::from_static(&[7; 20]),
        database: None,
        plugin: NATIVE.into(),
        attributes: Vec::new(),
    };
    stream.write(&response.to_payload(1 << 24)).await.unwrap();
    let switch = AuthSwitch::parse(&stream.read().await.unwrap()).unwrap();
    assert_eq!(
        switch,
        AuthSwitch {
            plugin: CACHING_SHA2.into(),
            scramble
        }
    );
    let proof = auth::Plugin::CachingSha2.response(&scramble, &Secret::new(password.into()));
    stream.write(&proof).await.unwrap();
    stream.read().await.unwrap()
}

#[tokio::test]
async fn a_client_of_another_plugin_is_asked_to_switch() {
    for (password, first) in [("s3cret", 0x01), ("wrong", 0xff)] {
        let (raw, io) = duplex(1 << 16);
        let server = options();
        let (answer, result) = tokio::join!(
            other_plugin(raw, server.scramble, password),
            ServerConnection::accept(BoxIo::new(io), &server),
        );
        assert_eq!(answer[0], first);
        assert_eq!(result.is_ok(), password == "s3cret");
    }
}

#[tokio::test]
async fn statements_are_answered_in_turn() {
    let (client, server) = meet(&login("repl", "s3cret"), &options()).await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let long = "y".repeat(70_000);
    let serve = async {
        assert_eq!(
            server.next_command().await.unwrap(),
            Command::Query("SELECT a, b".into())
        );
        let rows = [
            Row::from_iter([Some("1".to_owned()), None]),
            Row::from_iter([Some(String::new()), Some(long.clone())]),
        ];
        server.rows(&["a", "b"], &rows).await.unwrap();
        server.next_command().await.unwrap();
        server.rows(&["empty"], &[]).await.unwrap();
        server.next_command().await.unwrap();
        server
            .err(&ServerError::new(1193, "HY000", "Unknown system variable"))
            .await
            .unwrap();
        server.next_command().await.unwrap();
        server.ok().await.unwrap();
        assert_eq!(server.next_command().await.unwrap(), Command::Quit);
        assert!(matches!(
            server.next_command().await,
            Err(CommandError::Packet(PacketError::Closed))
        ));
    };
    let ask = async {
        let result = client.query("SELECT a, b").await.unwrap();
        assert_eq!(result.columns, ["a", "b"]);
        assert_eq!(result.scalar().as_deref(), Some("1"));
        assert_eq!(result.named("B"), None);
        assert_eq!(result.rows[1].text(0).as_deref(), Some(""));
        assert_eq!(result.rows[1].text(1), Some(long.clone()));
        assert!(
            client
                .query("SELECT nothing")
                .await
                .unwrap()
                .rows
                .is_empty()
        );
        let error = client.query("SELECT @@x").await.unwrap_err();
        assert_eq!(error.server().unwrap().code, 1193);
        client.execute("SET x = 1").await.unwrap();
        client.close().await.unwrap();
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn no_statement_gets_the_answer_of_a_cancelled_one() {
    let (client, server) = meet(&login("repl", "s3cret"), &options()).await;
    let (mut client, _server) = (client.unwrap(), server.unwrap());
    let cancelled = tokio::time::timeout(Duration::ZERO, client.query("SELECT 1")).await;
    assert!(cancelled.is_err());
    assert!(matches!(
        client.query("SELECT 2").await,
        Err(QueryError::Interrupted)
    ));
}

#[tokio::test]
async fn a_bad_command_leaves_the_connection_usable() {
    let (client, server) = meet(&login("repl", "s3cret"), &options()).await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let ask = async {
        client.stream.start_command();
        client.stream.write(b"\x1e\xff").await.unwrap();
        client.stream.read().await.unwrap();
        client.ping().await.unwrap();
    };
    let serve = async {
        assert!(matches!(
            server.next_command().await,
            Err(CommandError::Parse(_))
        ));
        server
            .err(&ServerError::new(1047, "08S01", "Malformed"))
            .await
            .unwrap();
        assert_eq!(server.next_command().await.unwrap(), Command::Ping);
        server.ok().await.unwrap();
    };
    tokio::join!(ask, serve);
}

#[tokio::test]
async fn a_password_is_never_printed() {
    let text = format!("{:?}", login("repl", "s3cret"));
    assert!(text.contains("repl") && !text.contains("s3cret"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_clients_and_servers_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        framed in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let options = options();
            for as_server in [true, false] {
                let (mut raw, io) = duplex(1 << 16);
                let mut packet = bytes.clone();
                if framed {
                    packet.splice(0..0, [bytes.len() as u8, 0, 0, u8::from(as_server)]);
                }
                raw.write_all(&packet).await.unwrap();
                raw.shutdown().await.unwrap();
                let drain = async { raw.read_to_end(&mut Vec::new()).await };
                if as_server {
                    let _ = tokio::join!(ServerConnection::accept(BoxIo::new(io), &options), drain);
                } else {
                    let login = login("repl", "s3cret");
                    let _ = tokio::join!(Connection::connect(BoxIo::new(io), &login), drain);
                }
            }
        });
    }
}

#[tokio::test]
async fn a_dump_request_reaches_the_server_whole() {
    let (client, server) = meet(&login("repl", "s3cret"), &options()).await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let request = crate::BinlogDumpGtid {
        flags: 2,
        server_id: 5,
        file: String::new(),
        position: 4,
        executed: "2afd0cd9-e529-11f1-a6e9-02fc00000001:1-5"
            .parse::<GtidSet>()
            .unwrap(),
    };
    client.stream.start_command();
    client.stream.write(&request.to_payload()).await.unwrap();
    assert_eq!(
        server.next_command().await.unwrap(),
        Command::BinlogDumpGtid(request)
    );
}
