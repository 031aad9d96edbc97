use proptest::prelude::*;

use super::*;

/// From a source of MySQL 9.7.4.
const GREETING: &[u8] = b"\n9.7.4-2\x00\n\x00\x00\x00a+I\t?Vc\"\x00\xff\xff\xff\x02\x00\xff\xdf\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17Yw3\tN\x16b:%|{\x00caching_sha2_password\x00";
/// From a replica of MySQL 9.7.4.
const RESPONSE: &[u8] = b"\x85\xa2\xb8\x99g\x10\x00@\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00repl\x00 v\x8b1Bv\xb0RJ'~\x08,\xce\xd9\xa8\xeca\xe3|c\xc4\xc7\x803\xf8$\xe64JXA}caching_sha2_password\x00\xa9\t_platform\x06x86_64\x03_os\x05Linux\x0c_client_name\x08libmysql _client_replication_channel_name\x00\x04_pid\x0514543\x0c_client_role\x13binary_log_listener\x0f_client_version\x059.7.4\x0cprogram_name\x06mysqld";

#[test]
fn the_greeting_of_a_real_source_is_understood() {
    let greeting = Greeting::parse(&Bytes::from_static(GREETING)).unwrap();
    assert_eq!(
        greeting,
        Greeting {
            version: "9.7.4-2".into(),
            connection_id: 10,
            capabilities: 0xdfff_ffff,
            scramble: *b"a+I\t?Vc\"\x17Yw3\tN\x16b:%|{",
            plugin: CACHING_SHA2.into(),
        }
    );
}

#[test]
fn the_response_of_a_real_replica_is_understood() {
    let Ok(ClientHello::Response(response)) = ClientHello::parse(&Bytes::from_static(RESPONSE))
    else {
        panic!("no response");
    };
    assert_eq!(response.user, "repl");
    assert_eq!(response.auth.len(), 32);
    assert_eq!(response.database, None);
    assert_eq!(response.plugin, CACHING_SHA2);
    let last = response.attributes.last().cloned();
    assert_eq!(last, Some(("program_name".into(), "mysqld".into())));
}

#[test]
fn packets_survive_the_round_trip() {
    let greeting = Greeting::parse(&Bytes::from_static(GREETING)).unwrap();
    assert_eq!(
        Greeting::parse(&greeting.to_payload().into()).unwrap(),
        greeting
    );

    let response = HandshakeResponse {
        capabilities: KNOWN,
        user: "app".into(),
        auth: Bytes::from_static(b"\0hash"),
        database: Some("t".into()),
        plugin: NATIVE.into(),
        attributes: vec![("program_name".into(), "quorate".into())],
    };
    let parsed = ClientHello::parse(&response.to_payload(1 << 24).into());
    assert!(matches!(parsed, Ok(ClientHello::Response(found)) if found == response));

    let request = ssl_request(KNOWN | SSL, 1 << 24);
    assert!(matches!(
        ClientHello::parse(&request.into()),
        Ok(ClientHello::Tls)
    ));

    let switch = AuthSwitch {
        plugin: NATIVE.into(),
        scramble: [7; 20],
    };
    assert_eq!(
        AuthSwitch::parse(&switch.to_payload().into()).unwrap(),
        switch
    );
}

fn mutated(golden: &'static [u8]) -> impl Strategy<Value = Bytes> {
    let changes = prop::collection::vec((0..golden.len(), any::<u8>()), 0..6);
    (changes, 0..=golden.len()).prop_map(move |(changes, len)| {
        let mut bytes = golden.to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(len);
        bytes.into()
    })
}

proptest! {
    #[test]
    fn mutated_packets_never_panic(
        greeting in mutated(GREETING),
        response in mutated(RESPONSE),
        any in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let _ = Greeting::parse(&greeting);
        let _ = ClientHello::parse(&response);
        let any = Bytes::from(any);
        let _ = Greeting::parse(&any);
        let _ = ClientHello::parse(&any);
        let _ = AuthSwitch::parse(&any);
    }
}
