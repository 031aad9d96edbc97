use super::*;

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = (payload.len() as u32).to_le_bytes().to_vec();
    packet[3] = sequence;
    packet.extend_from_slice(payload);
    packet
}

fn login(capabilities: u32) -> Vec<u8> {
    let mut payload = capabilities.to_le_bytes().to_vec();
    payload.resize(32, 0);
    payload.extend_from_slice(b"app\0");
    packet(1, &payload)
}

/// A session after its login, idle.
fn session() -> Framing {
    let mut framing = Framing::default();
    framing.server_sent(&packet(0, &[10, b'9']));
    framing.client_sent(&login(0x0a00_0205 & !CLIENT_SSL));
    framing.server_sent(&packet(2, &[1, 3]));
    framing.server_sent(&packet(3, &[0, 0, 0, 2, 0, 0, 0]));
    assert!(framing.authenticated);
    framing
}

#[test]
fn before_the_greeting_an_error_takes_its_place() {
    assert_eq!(Framing::default().ending(), Ending::InsteadOfGreeting);
}

#[test]
fn the_sequence_id_follows_the_conversation() {
    let mut framing = Framing::default();
    framing.server_sent(&packet(0, &[10, b'9']));
    assert_eq!(framing.ending(), Ending::Packet(2));
    framing.client_sent(&login(0x0205));
    assert_eq!(framing.ending(), Ending::Packet(2));
    framing.server_sent(&packet(2, &[1, 3]));
    assert_eq!(framing.ending(), Ending::Packet(3));
    framing.server_sent(&packet(3, &[0, 0, 0, 2, 0, 0, 0]));
    // Idle: the client will send a command with number 0 and read number 1.
    assert_eq!(framing.ending(), Ending::Packet(1));
    framing.client_sent(&packet(0, b"\x03SELECT 1"));
    assert_eq!(framing.ending(), Ending::Packet(1));
    framing.server_sent(&packet(1, &[1]));
    assert_eq!(framing.ending(), Ending::Packet(2));
    framing.server_sent(&packet(2, b"column"));
    framing.server_sent(&packet(3, b"row"));
    assert_eq!(framing.ending(), Ending::Packet(4));
    framing.server_sent(&packet(4, &[0xfe, 0, 0, 2, 0, 0, 0]));
    assert_eq!(framing.ending(), Ending::Packet(1));
}

#[test]
fn nothing_is_said_amid_a_packet_however_it_was_cut() {
    let mut framing = session();
    framing.client_sent(&packet(0, b"\x03SELECT 1"));
    let answer = packet(1, b"0123456789");
    for byte in &answer[..answer.len() - 1] {
        framing.server_sent(&[*byte]);
        assert_eq!(framing.ending(), Ending::Silent);
    }
    framing.server_sent(&answer[answer.len() - 1..]);
    assert_eq!(framing.ending(), Ending::Packet(2));
}

#[test]
fn a_packet_that_is_continued_is_not_over() {
    let mut framing = session();
    framing.client_sent(&packet(0, b"\x03SELECT 1"));
    framing.server_sent(&packet(1, &vec![b'x'; 0xff_ffff]));
    assert_eq!(framing.ending(), Ending::Silent);
    framing.server_sent(&packet(2, b""));
    assert_eq!(framing.ending(), Ending::Packet(3));
}

#[test]
fn tls_and_compression_hide_the_stream() {
    for hiding in [
        CLIENT_SSL,
        CLIENT_COMPRESS,
        CLIENT_ZSTD_COMPRESSION_ALGORITHM,
    ] {
        let mut framing = Framing::default();
        framing.server_sent(&packet(0, &[10, b'9']));
        for byte in login(0x0205 | hiding) {
            framing.client_sent(&[byte]);
        }
        assert_eq!(framing.ending(), Ending::Silent);
        framing.server_sent(b"\x16\x03\x03 anything");
        assert_eq!(framing.ending(), Ending::Silent);
    }
}

#[test]
fn nothing_is_added_to_a_last_word() {
    let mut framing = session();
    framing.client_sent(&packet(0, &[COM_QUIT]));
    assert_eq!(framing.ending(), Ending::Silent);

    let mut framing = session();
    framing.client_sent(&packet(0, b"\x03SELECT 1"));
    framing.server_sent(&packet(1, b"\xff\x1d\x04#08S01bye"));
    assert_eq!(framing.ending(), Ending::Silent);
}
