//! The packets that open a connection, both ways.

use bytes::{BufMut, Bytes};

use crate::cursor::{Cursor, ParseError, put_lenenc, put_lenenc_bytes, put_nul_bytes, text};

pub(crate) const CONNECT_WITH_DB: u32 = 1 << 3;
pub(crate) const SSL: u32 = 1 << 11;
pub(crate) const SECURE_CONNECTION: u32 = 1 << 15;
pub(crate) const PLUGIN_AUTH: u32 = 1 << 19;
pub(crate) const CONNECT_ATTRS: u32 = 1 << 20;
pub(crate) const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
pub(crate) const PROTOCOL_41: u32 = 1 << 9;
const LONG_PASSWORD: u32 = 1;
const LONG_FLAG: u32 = 1 << 2;
const TRANSACTIONS: u32 = 1 << 13;

/// What both our ends know. `CLIENT_DEPRECATE_EOF` and `CLIENT_QUERY_ATTRIBUTES` are left out on
/// purpose: every client can do without them, and each would make two forms of answers or queries.
pub(crate) const KNOWN: u32 = LONG_PASSWORD
    | LONG_FLAG
    | CONNECT_WITH_DB
    | PROTOCOL_41
    | TRANSACTIONS
    | SECURE_CONNECTION
    | PLUGIN_AUTH
    | CONNECT_ATTRS
    | PLUGIN_AUTH_LENENC;

/// `utf8mb4_general_ci`: known to MySQL and MariaDB of all ages.
pub(crate) const CHARSET: u8 = 45;
pub(crate) const STATUS_AUTOCOMMIT: u16 = 2;
pub(crate) const CACHING_SHA2: &str = "caching_sha2_password";
pub(crate) const NATIVE: &str = "mysql_native_password";

/// The bytes that a password is hashed with.
pub type Scramble = [u8; 20];

/// A server's first packet (handshake v10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub version: String,
    pub connection_id: u32,
    pub capabilities: u32,
    pub scramble: Scramble,
    /// Empty if the server knows no plugins.
    pub plugin: String,
}

impl Greeting {
    /// # Errors
    /// If it is no greeting of protocol 10 with a whole scramble.
    pub fn parse(packet: &Bytes) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(packet, "greeting");
        if cursor.peek() != Some(10) {
            return Err(cursor.error());
        }
        cursor.u8()?;
        let version = text(&cursor.nul_bytes()?);
        let connection_id = cursor.u32()?;
        let first = cursor.bytes(8)?;
        cursor.u8()?;
        let low = cursor.u16()?;
        cursor.bytes(3)?;
        let high = cursor.u16()?;
        let capabilities = u32::from(high) << 16 | u32::from(low);
        cursor.bytes(1 + 10)?;
        let second = cursor.bytes(12)?;
        let mut scramble = [0; 20];
        scramble[..8].copy_from_slice(&first);
        scramble[8..].copy_from_slice(&second);
        let plugin = if capabilities & PLUGIN_AUTH != 0 {
            cursor.u8()?;
            // Some old servers leave out the last NUL.
            let name = cursor.rest();
            text(name.split(|byte| *byte == 0).next().unwrap_or_default())
        } else {
            String::new()
        };
        Ok(Self {
            version,
            connection_id,
            capabilities,
            scramble,
            plugin,
        })
    }

    #[must_use]
    pub fn to_payload(&self) -> Vec<u8> {
        let mut out = vec![10];
        put_nul_bytes(&mut out, self.version.as_bytes());
        out.put_u32_le(self.connection_id);
        out.put_slice(&self.scramble[..8]);
        out.put_u8(0);
        out.put_u16_le(self.capabilities as u16);
        out.put_u8(CHARSET);
        out.put_u16_le(STATUS_AUTOCOMMIT);
        out.put_u16_le((self.capabilities >> 16) as u16);
        out.put_u8(21);
        out.put_bytes(0, 10);
        put_nul_bytes(&mut out, &self.scramble[8..]);
        put_nul_bytes(&mut out, self.plugin.as_bytes());
        out
    }
}

/// A client's answer to the greeting.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HandshakeResponse {
    pub(crate) capabilities: u32,
    pub(crate) user: String,
    pub(crate) auth: Bytes,
    pub(crate) database: Option<String>,
    pub(crate) plugin: String,
    pub(crate) attributes: Vec<(String, String)>,
}

/// What a client says first: a request for TLS is the front of the answer to the greeting.
pub(crate) enum ClientHello {
    Tls,
    Response(HandshakeResponse),
}

/// The front of a response, which alone is a request for TLS.
pub(crate) fn ssl_request(capabilities: u32, packet_bytes_max: u32) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32_le(capabilities);
    out.put_u32_le(packet_bytes_max);
    out.put_u8(CHARSET);
    out.put_bytes(0, 23);
    out
}

impl HandshakeResponse {
    pub(crate) fn to_payload(&self, packet_bytes_max: u32) -> Vec<u8> {
        let mut out = ssl_request(self.capabilities, packet_bytes_max);
        put_nul_bytes(&mut out, self.user.as_bytes());
        if self.capabilities & PLUGIN_AUTH_LENENC != 0 {
            put_lenenc_bytes(&mut out, &self.auth);
        } else {
            out.put_u8(self.auth.len() as u8);
            out.put_slice(&self.auth);
        }
        if let Some(database) = &self.database {
            put_nul_bytes(&mut out, database.as_bytes());
        }
        if self.capabilities & PLUGIN_AUTH != 0 {
            put_nul_bytes(&mut out, self.plugin.as_bytes());
        }
        if self.capabilities & CONNECT_ATTRS != 0 {
            let mut list = Vec::new();
            for (name, value) in &self.attributes {
                put_lenenc_bytes(&mut list, name.as_bytes());
                put_lenenc_bytes(&mut list, value.as_bytes());
            }
            put_lenenc(&mut out, list.len() as u64);
            out.put_slice(&list);
        }
        out
    }

    fn parse_rest(capabilities: u32, cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let user = text(&cursor.nul_bytes()?);
        let auth = if capabilities & PLUGIN_AUTH_LENENC != 0 {
            cursor.lenenc_bytes()?
        } else if capabilities & SECURE_CONNECTION != 0 {
            let len = cursor.u8()?;
            cursor.bytes(usize::from(len))?
        } else {
            cursor.nul_bytes()?
        };
        let database = if capabilities & CONNECT_WITH_DB != 0 && !cursor.is_empty() {
            Some(text(&cursor.nul_bytes()?)).filter(|name| !name.is_empty())
        } else {
            None
        };
        let plugin = if capabilities & PLUGIN_AUTH != 0 && !cursor.is_empty() {
            text(&cursor.nul_bytes()?)
        } else {
            String::new()
        };
        let attributes = if capabilities & CONNECT_ATTRS != 0 && !cursor.is_empty() {
            let list = cursor.lenenc_bytes()?;
            parse_attributes(&list)?
        } else {
            Vec::new()
        };
        Ok(Self {
            capabilities,
            user,
            auth,
            database,
            plugin,
            attributes,
        })
    }
}

impl ClientHello {
    pub(crate) fn parse(packet: &Bytes) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(packet, "handshake response");
        let capabilities = cursor.u32()?;
        if capabilities & PROTOCOL_41 == 0 {
            return Err(cursor.error());
        }
        cursor.u32()?;
        cursor.bytes(1 + 23)?;
        if cursor.is_empty() && capabilities & SSL != 0 {
            return Ok(Self::Tls);
        }
        HandshakeResponse::parse_rest(capabilities, &mut cursor).map(Self::Response)
    }
}

fn parse_attributes(list: &Bytes) -> Result<Vec<(String, String)>, ParseError> {
    let mut cursor = Cursor::new(list, "connection attributes");
    let mut attributes = Vec::new();
    while !cursor.is_empty() {
        let name = text(&cursor.lenenc_bytes()?);
        let value = text(&cursor.lenenc_bytes()?);
        attributes.push((name, value));
    }
    Ok(attributes)
}

/// The server wants another plugin than the client used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthSwitch {
    pub(crate) plugin: String,
    pub(crate) scramble: Scramble,
}

impl AuthSwitch {
    pub(crate) fn parse(packet: &Bytes) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(packet, "auth switch request");
        if cursor.u8()? != 0xfe {
            return Err(cursor.error());
        }
        let plugin = text(&cursor.nul_bytes()?);
        let bytes = cursor.bytes(20)?;
        let mut scramble = [0; 20];
        scramble.copy_from_slice(&bytes);
        Ok(Self { plugin, scramble })
    }

    pub(crate) fn to_payload(&self) -> Vec<u8> {
        let mut out = vec![0xfe];
        put_nul_bytes(&mut out, self.plugin.as_bytes());
        put_nul_bytes(&mut out, &self.scramble);
        out
    }
}

#[cfg(test)]
mod tests;
