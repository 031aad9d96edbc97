//! Follows the packets of a MySQL session that passes by, to know whether and how an ERR packet of
//! our own would be understood in it. It reads headers, skips payloads, and copies nothing.

const HEADER_BYTES: usize = 4;
/// A packet of this length is continued in the next one.
const LENGTH_MAX: u32 = 0xff_ffff;
const CAPABILITIES_BYTES: usize = 4;

const CLIENT_COMPRESS: u32 = 1 << 5;
const CLIENT_SSL: u32 = 1 << 11;
const CLIENT_ZSTD_COMPRESSION_ALGORITHM: u32 = 1 << 26;

const COM_QUIT: u8 = 1;
const HEADER_OK: u8 = 0;
const HEADER_AUTH_MORE_DATA: u8 = 1;
const HEADER_EOF: u8 = 0xfe;
const HEADER_ERR: u8 = 0xff;

/// How the server's part of a session can be ended so that the client knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing was said yet.
    InsteadOfGreeting,
    /// Between two packets, by one with this sequence id.
    Packet(u8),
    /// Only by closing: amid a packet, under TLS or compression, or after the last word was said.
    Silent,
}

/// One direction's place in its packets.
#[derive(Debug, Default)]
struct Packets {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Of the payload, still to come.
    left: u32,
    /// Whether any header was complete.
    started: bool,
    length: u32,
    sequence: u8,
    /// First byte of the payload; zero until there is one.
    first: u8,
    first_seen: bool,
}

impl Packets {
    fn at_boundary(&self) -> bool {
        self.header_bytes == 0 && self.length != LENGTH_MAX
    }

    /// Goes on by these bytes; tells of each piece of payload, and whether a header was completed.
    fn advance(&mut self, mut bytes: &[u8], mut payload: impl FnMut(&Self, &[u8])) -> bool {
        let mut new_packet = false;
        while !bytes.is_empty() {
            if self.header_bytes < HEADER_BYTES {
                let take = bytes.len().min(HEADER_BYTES - self.header_bytes);
                self.header[self.header_bytes..][..take].copy_from_slice(&bytes[..take]);
                self.header_bytes += take;
                bytes = &bytes[take..];
                if self.header_bytes == HEADER_BYTES {
                    let [l0, l1, l2, sequence] = self.header;
                    self.length = u32::from_le_bytes([l0, l1, l2, 0]);
                    self.left = self.length;
                    self.sequence = sequence;
                    (self.first, self.first_seen) = (0, false);
                    self.started = true;
                    new_packet = true;
                }
            } else {
                let take = bytes.len().min(self.left as usize);
                if !self.first_seen {
                    (self.first, self.first_seen) = (bytes[0], true);
                }
                payload(self, &bytes[..take]);
                self.left -= take as u32;
                bytes = &bytes[take..];
            }
            if self.header_bytes == HEADER_BYTES && self.left == 0 {
                self.header_bytes = 0;
            }
        }
        new_packet
    }
}

/// Both directions of a session, as far as they were passed on.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    server: Packets,
    client: Packets,
    /// The packet whose header came last is the client's.
    client_spoke_last: bool,
    /// The server's packet that answers the client's last one is its first.
    answers_in_one: bool,
    /// The server ended the authentication with OK.
    authenticated: bool,
    capabilities: [u8; CAPABILITIES_BYTES],
    capabilities_bytes: usize,
    /// TLS or compression hides the packets.
    hidden: bool,
}

impl Framing {
    /// These bytes went to the server.
    pub(crate) fn client_sent(&mut self, bytes: &[u8]) {
        if self.hidden {
            return;
        }
        let (known, count) = (&mut self.capabilities, &mut self.capabilities_bytes);
        let new_packet = self.client.advance(bytes, |_, payload| {
            let take = payload.len().min(CAPABILITIES_BYTES - *count);
            known[*count..][..take].copy_from_slice(&payload[..take]);
            *count += take;
        });
        if new_packet {
            self.client_spoke_last = true;
        }
        if !self.authenticated && self.capabilities_bytes == CAPABILITIES_BYTES {
            let capabilities = u32::from_le_bytes(self.capabilities);
            let hiding = CLIENT_COMPRESS | CLIENT_SSL | CLIENT_ZSTD_COMPRESSION_ALGORITHM;
            self.hidden = capabilities & hiding != 0;
        }
    }

    /// These bytes went to the client.
    pub(crate) fn server_sent(&mut self, bytes: &[u8]) {
        if self.hidden {
            return;
        }
        let new_packet = self.server.advance(bytes, |_, _| {});
        if new_packet {
            self.answers_in_one = self.client_spoke_last;
            self.client_spoke_last = false;
        }
        if !self.authenticated && self.client.started && self.server.first_seen {
            self.authenticated = self.server.first == HEADER_OK;
            // This OK ends the exchange, even if other packets of the server came before it.
            self.answers_in_one |= self.authenticated;
        }
    }

    /// How the client could be told now that the session ends.
    pub(crate) fn ending(&self) -> Ending {
        if !self.server.started && self.server.header_bytes == 0 {
            return Ending::InsteadOfGreeting;
        }
        if self.hidden || !self.server.at_boundary() {
            return Ending::Silent;
        }
        if self.client_spoke_last {
            let quits = self.authenticated && self.client.length == 1;
            if quits && self.client.first == COM_QUIT {
                return Ending::Silent;
            }
            return Ending::Packet(self.client.sequence.wrapping_add(1));
        }
        let last = &self.server;
        let next = last.sequence.wrapping_add(1);
        match (self.authenticated, last.first) {
            // The server gave its own reason.
            (_, HEADER_ERR) if self.client.started => Ending::Silent,
            (false, HEADER_AUTH_MORE_DATA) => Ending::Packet(next),
            // The client's turn in the authentication: its packet takes the next number.
            (false, _) => Ending::Packet(next.wrapping_add(1)),
            // The answer is complete: the client's next command has number 0 and expects 1.
            (true, HEADER_EOF) => Ending::Packet(1),
            (true, HEADER_OK) if self.answers_in_one => Ending::Packet(1),
            (true, _) => Ending::Packet(next),
        }
    }
}

#[cfg(test)]
mod tests;
