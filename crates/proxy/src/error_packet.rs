//! The MySQL ERR packet, in the two forms that a port needs.

/// `ER_SERVER_SHUTDOWN`: connectors take it for a lost connection (08S01) and connect again.
const ER_SERVER_SHUTDOWN: u16 = 1053;
const SQLSTATE: &[u8] = b"#08S01";
/// Well below one packet, and what a client's message buffer holds (512).
const TEXT_BYTES_MAX: usize = 480;

/// In place of a server's greeting: capabilities are not negotiated yet, so without an SQLSTATE.
pub(crate) fn instead_of_greeting(text: &str) -> Vec<u8> {
    packet(0, b"", text)
}

/// Amid a session, as the packet with this sequence id.
pub(crate) fn connection_ends(sequence: u8, text: &str) -> Vec<u8> {
    packet(sequence, SQLSTATE, text)
}

fn packet(sequence: u8, sqlstate: &[u8], text: &str) -> Vec<u8> {
    let text = clip(text, TEXT_BYTES_MAX).as_bytes();
    let length = 3 + sqlstate.len() + text.len();
    let mut packet = vec![length as u8, (length >> 8) as u8, 0, sequence, 0xff];
    packet.extend_from_slice(&ER_SERVER_SHUTDOWN.to_le_bytes());
    packet.extend_from_slice(sqlstate);
    packet.extend_from_slice(text);
    packet
}

/// The longest beginning of the text that has so many bytes at most and ends between characters.
pub(crate) fn clip(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_what_the_protocol_says() {
        assert_eq!(
            instead_of_greeting("no"),
            [5, 0, 0, 0, 0xff, 0x1d, 0x04, b'n', b'o']
        );
        assert_eq!(
            connection_ends(7, "no"),
            [
                11, 0, 0, 7, 0xff, 0x1d, 0x04, b'#', b'0', b'8', b'S', b'0', b'1', b'n', b'o'
            ]
        );
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let packet = instead_of_greeting(&"é".repeat(400));
        assert_eq!(packet.len(), 4 + 3 + TEXT_BYTES_MAX);
        let length = usize::from(packet[0]) | usize::from(packet[1]) << 8;
        assert_eq!(length + 4, packet.len());
    }
}
