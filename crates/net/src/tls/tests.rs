use std::path::PathBuf;

use quorate_types::NodeId;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, node: u64) -> Tls {
        Tls::load(
            &self.path("ca.pem"),
            &self.path(&format!("{node}.pem")),
            &self.path(&format!("{node}.key")),
        )
        .unwrap()
    }
}

fn certificates(nodes: &[u64]) -> Folder {
    let folder = Folder(tempfile::tempdir().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.path("ca.pem"), ca.pem()).unwrap();
    for node in nodes {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![node_server_name(NodeId(*node))]).unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(folder.path(&format!("{node}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.path(&format!("{node}.key")), key.serialize_pem()).unwrap();
    }
    folder
}

fn pipe() -> (BoxIo, BoxIo) {
    let (left, right) = tokio::io::duplex(64 * 1024);
    (BoxIo::new(left), BoxIo::new(right))
}

#[tokio::test]
async fn both_ends_know_which_node_they_talk_to() {
    let folder = certificates(&[1, 2]);
    let (near, far) = pipe();
    let (one, two) = (folder.load(1), folder.load(2));
    let name = node_server_name(NodeId(2));
    let (client, server) = tokio::join!(one.connect(near, &name), two.accept(far));
    let (mut client, (mut server, peer)) = (client.unwrap(), server.unwrap());

    assert!(peer.is_node(NodeId(1)));
    assert!(!peer.is_node(NodeId(2)));
    client.write_all(b"hello").await.unwrap();
    client.flush().await.unwrap();
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello");
}

#[tokio::test]
async fn another_node_than_the_one_dialled_is_refused() {
    let folder = certificates(&[1, 2]);
    let (near, far) = pipe();
    let (one, two) = (folder.load(1), folder.load(2));
    let name = node_server_name(NodeId(3));
    let (client, _) = tokio::join!(one.connect(near, &name), two.accept(far));
    assert!(client.is_err());
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (ours, theirs) = (certificates(&[1]), certificates(&[2]));
    // The stranger trusts our authority, so that only our refusal can end the handshake.
    std::fs::copy(ours.path("ca.pem"), theirs.path("ca.pem")).unwrap();
    let (near, far) = pipe();
    let (stranger, server) = (theirs.load(2), ours.load(1));
    let name = node_server_name(NodeId(1));
    let (_client, accepted) = tokio::join!(stranger.connect(near, &name), server.accept(far));
    assert!(accepted.is_err());
}

#[test]
fn an_error_names_the_file_that_is_wrong() {
    let folder = certificates(&[1, 2]);
    let load = |ca: &str, certificate: &str, key: &str| {
        Tls::load(
            &folder.path(ca),
            &folder.path(certificate),
            &folder.path(key),
        )
        .unwrap_err()
        .to_string()
    };
    assert!(load("none.pem", "1.pem", "1.key").contains("none.pem"));
    assert!(load("ca.pem", "1.key", "1.key").contains("1.key holds no PEM certificate"));
    assert!(load("ca.pem", "1.pem", "2.pem").contains("2.pem"));
    let pair = load("ca.pem", "1.pem", "2.key");
    assert!(pair.contains("1.pem") && pair.contains("2.key"), "{pair}");
}

#[test]
fn a_listener_beyond_this_machine_needs_tls() {
    let (open, local) = (
        "0.0.0.0:7013".parse().unwrap(),
        "127.0.0.1:7014".parse().unwrap(),
    );
    let listeners = [("gRPC", &open), ("HTTP", &local)];
    let refused = require_tls_or_loopback(&listeners, None).unwrap_err();
    assert_eq!(refused.exposed, ["gRPC on 0.0.0.0:7013"]);
    assert!(refused.to_string().contains("quorate certs"));

    let folder = certificates(&[1]);
    assert_eq!(
        require_tls_or_loopback(&listeners, Some(&folder.load(1))),
        Ok(())
    );
    assert_eq!(require_tls_or_loopback(&listeners[1..], None), Ok(()));
}
