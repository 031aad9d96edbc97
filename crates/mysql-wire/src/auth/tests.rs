use proptest::prelude::*;

use super::*;

/// A 2048 bit key made for this test.
const KEY: &str = include_str!("test-key.pem");

fn secret() -> Secret {
    Secret::new("p4ss word".into())
}

#[test]
fn only_the_password_itself_is_verified() {
    let scramble = [9; 20];
    let response = Plugin::CachingSha2.response(&scramble, &secret());
    assert!(verify(&scramble, &secret(), &response));
    assert!(!verify(&[8; 20], &secret(), &response));
    assert!(!verify(&scramble, &Secret::new("other".into()), &response));
    assert!(!verify(&scramble, &secret(), &response[..31]));
    assert!(!verify(&scramble, &secret(), b""));
    assert!(verify(&scramble, &Secret::default(), b""));
    assert!(!verify(&scramble, &Secret::default(), &response));
}

#[test]
fn a_password_is_encrypted_for_a_real_key_only() {
    assert_eq!(
        encrypt(&secret(), &[1; 20], KEY.as_bytes()).map(|bytes| bytes.len()),
        Some(256)
    );
    assert_eq!(encrypt(&secret(), &[1; 20], b"no key"), None);
    let long = Secret::new("x".repeat(200));
    assert_eq!(encrypt(&long, &[1; 20], KEY.as_bytes()), None);
}

proptest! {
    #[test]
    fn a_mutated_key_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        len in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let (mut der, _) = pem_to_der(KEY).unwrap();
        for (at, byte) in changes {
            // Where the lengths are, not only in the number.
            let at = at.index(64) % der.len();
            der[at] = byte;
        }
        if cut {
            der.truncate(len.index(der.len()));
        }
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64(&der));
        let _ = encrypt(&secret(), &[1; 20], pem.as_bytes());
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .chain(&[0; 2])
            .take(3)
            .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        for place in 0..4 {
            let digit = DIGITS[bits >> (18 - 6 * place) & 63] as char;
            out.push(if place <= group.len() { digit } else { '=' });
        }
    }
    out
}
