//! The first packet of a mysqld, which passes by: it tells the id of the session.

/// Protocol, version and id are in it: versions are short.
const BYTES_MAX: usize = 256;
const HEADER_BYTES: usize = 4;
const PROTOCOL: u8 = 10;

/// Looks for a session's id in what the server sends first.
#[derive(Debug)]
pub(crate) enum Greeting {
    Begun(Vec<u8>),
    /// None: this is no greeting.
    Over(Option<u32>),
}

impl Default for Greeting {
    fn default() -> Self {
        Self::Begun(Vec::new())
    }
}

impl Greeting {
    pub(crate) fn server_sent(&mut self, bytes: &[u8]) {
        let Self::Begun(begun) = self else {
            return;
        };
        let room = BYTES_MAX - begun.len();
        begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let whole = begun.len() == BYTES_MAX;
        match session_id(begun) {
            Ok(id) => *self = Self::Over(Some(id)),
            Err(Incomplete::Broken) => *self = Self::Over(None),
            Err(Incomplete::Short) if whole => *self = Self::Over(None),
            Err(Incomplete::Short) => {}
        }
    }

    /// The id that the server has for this session, if it has told it.
    pub(crate) fn session_id(&self) -> Option<u32> {
        match self {
            Self::Begun(_) => None,
            Self::Over(id) => *id,
        }
    }
}

enum Incomplete {
    Short,
    Broken,
}

/// Header, protocol, version up to a zero, id in little endian.
fn session_id(bytes: &[u8]) -> Result<u32, Incomplete> {
    let payload = bytes.get(HEADER_BYTES..).ok_or(Incomplete::Short)?;
    let (protocol, rest) = payload.split_first().ok_or(Incomplete::Short)?;
    if *protocol != PROTOCOL {
        return Err(Incomplete::Broken);
    }
    let version_end = rest.iter().position(|byte| *byte == 0);
    let after = &rest[version_end.ok_or(Incomplete::Short)? + 1..];
    let id = after.first_chunk().ok_or(Incomplete::Short)?;
    Ok(u32::from_le_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: &[u8] = b"\x4e\0\0\0\x0a9.7.4-2\0\x0b\x01\0\0scramble";

    #[test]
    fn the_session_s_id_is_found_however_the_greeting_is_cut() {
        for cut in 0..BYTES.len() {
            let mut greeting = Greeting::default();
            greeting.server_sent(&BYTES[..cut]);
            assert_eq!(greeting.session_id(), (cut >= 17).then_some(267), "{cut}");
            greeting.server_sent(&BYTES[cut..]);
            assert_eq!(greeting.session_id(), Some(267));
            greeting.server_sent(b"\0\0\0\0\x0a\0\x01\0\0\0");
            assert_eq!(greeting.session_id(), Some(267), "the first packet only");
        }
    }

    #[test]
    fn what_is_no_greeting_has_no_id() {
        let long = [[10; 300].as_slice(), b"\0\x01\0\0\0"].concat();
        for bytes in [
            b"\x09\0\0\0\xff\x10\x04Too many\0\x01\0\0\0".as_slice(),
            &long,
        ] {
            let mut greeting = Greeting::default();
            for byte in bytes {
                greeting.server_sent(&[*byte]);
            }
            assert_eq!(greeting.session_id(), None);
            let mut greeting = Greeting::default();
            greeting.server_sent(bytes);
            assert_eq!(greeting.session_id(), None);
        }
    }
}
