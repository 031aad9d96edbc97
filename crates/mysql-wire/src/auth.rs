use bytes::Bytes;
use mysql_common::auth::plugins::caching_sha2_password::scramble_sha256;
use mysql_common::auth::plugins::mysql_native_password::scramble_native;
use mysql_common::crypto;
use mysql_common::crypto::der::{PubKeyFileType, pem_to_der};
use quorate_types::Secret;

use crate::handshake::{CACHING_SHA2, NATIVE, Scramble};

/// How a client proves that it knows the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plugin {
    CachingSha2,
    Native,
}

impl Plugin {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            CACHING_SHA2 => Some(Self::CachingSha2),
            NATIVE => Some(Self::Native),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CachingSha2 => CACHING_SHA2,
            Self::Native => NATIVE,
        }
    }

    /// The hash to send; empty for an empty password.
    pub(crate) fn response(self, scramble: &Scramble, password: &Secret) -> Bytes {
        let password = password.expose().as_bytes();
        let response = match self {
            Self::CachingSha2 => scramble_sha256(scramble, password).map(|hash| hash.to_vec()),
            Self::Native => scramble_native(scramble, password).map(|hash| hash.to_vec()),
        };
        response.unwrap_or_default().into()
    }
}

/// Whether `response` is the hash of the password; takes the same time wherever they differ.
pub(crate) fn verify(scramble: &Scramble, password: &Secret, response: &[u8]) -> bool {
    let expected = Plugin::CachingSha2.response(scramble, password);
    if expected.is_empty() {
        return response.is_empty() || response == [0];
    }
    expected.len() == response.len()
        && expected
            .iter()
            .zip(response)
            .fold(0, |differ, (a, b)| differ | (a ^ b))
            == 0
}

/// The password for the server's eyes: XORed with the scramble, under its RSA key.
///
/// None if the key is not one: the parser of `mysql_common` panics on such, so it sees checked ones
/// only. Password and padding must fit the key, hence its least size.
pub(crate) fn encrypt(password: &Secret, scramble: &Scramble, pem: &[u8]) -> Option<Vec<u8>> {
    if !is_rsa_key(pem) {
        return None;
    }
    let mut text = password.expose().as_bytes().to_vec();
    text.push(0);
    if text.len() > PASSWORD_BYTES_MAX {
        return None;
    }
    for (byte, mask) in text.iter_mut().zip(scramble.iter().cycle()) {
        *byte ^= mask;
    }
    crypto::encrypt(&text, pem).ok()
}

/// A 1024 bit key holds 86 bytes beside the padding.
const KEY_BYTES_MIN: usize = 128;
const KEY_BYTES_MAX: usize = 2048;
const PASSWORD_BYTES_MAX: usize = KEY_BYTES_MIN - 42;

fn is_rsa_key(pem: &[u8]) -> bool {
    if pem.len() > 16 * KEY_BYTES_MAX {
        return false;
    }
    let Ok((der, kind)) = pem_to_der(pem) else {
        return false;
    };
    let key = match kind {
        PubKeyFileType::Pkcs1 => Some(der.as_slice()),
        PubKeyFileType::Pkcs8 => inner_key(&der),
    };
    key.is_some_and(|key| is_pkcs1(key).is_some())
}

fn inner_key(der: &[u8]) -> Option<&[u8]> {
    let (outer, rest) = value(0x30, der)?;
    let (_algorithm, outer_rest) = value(0x30, outer)?;
    let (bits, none) = value(0x03, outer_rest)?;
    let (unused, key) = bits.split_first()?;
    (rest.is_empty() && none.is_empty() && *unused == 0).then_some(key)
}

fn is_pkcs1(der: &[u8]) -> Option<()> {
    let (fields, rest) = value(0x30, der)?;
    let (modulus, fields) = value(0x02, fields)?;
    let (exponent, none) = value(0x02, fields)?;
    // A leading zero keeps the number positive.
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let sound = rest.is_empty()
        && none.is_empty()
        && (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&modulus.len())
        && modulus[0] & 0x80 != 0
        && (1..=8).contains(&exponent.len());
    sound.then_some(())
}

/// The content of a DER value with this tag, and what follows it.
fn value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [found, len, rest @ ..] = der else {
        return None;
    };
    if *found != tag {
        return None;
    }
    let (len, rest) = match len {
        0..=0x7f => (usize::from(*len), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(len & 0x7f))?;
            let len = digits
                .iter()
                .fold(0, |len, digit| len << 8 | usize::from(*digit));
            (len, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests;
