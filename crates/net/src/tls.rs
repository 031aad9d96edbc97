use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_types::NodeId;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{BoxIo, Endpoint};

/// The DNS name that the certificate of a node carries, and that its peers insist on.
#[must_use]
pub fn node_server_name(node: NodeId) -> String {
    format!("node-{node}.quorate")
}

/// Why the certificates of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read certificates from {}", path.display())]
    ReadCertificates {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("{} holds no PEM certificate (-----BEGIN CERTIFICATE-----)", path.display())]
    NoCertificate { path: PathBuf },
    #[error("read a private key from {} (PKCS#8, SEC1 or PKCS#1 in PEM)", path.display())]
    ReadKey {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("{} holds a certificate that cannot be a certificate authority", path.display())]
    Authority {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("build a client verifier from {}", path.display())]
    Verifier {
        path: PathBuf,
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    #[error("certificate {} and private key {} do not go together", certificate.display(), key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
}

/// One node's certificate, and the authority that it and its peers are signed by.
///
/// Both ends show a certificate and check the other's: who holds none that the authority signed
/// gets no further than the handshake. A handshake has no time limit of its own.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads PEM files: the authority's certificate, this node's chain, and its private key.
    ///
    /// # Errors
    /// Names the file that is missing, is no PEM, or does not go with the others.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> std::result::Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in read_certificates(ca)? {
            roots.add(authority).map_err(|source| TlsError::Authority {
                path: ca.to_owned(),
                source,
            })?;
        }
        let roots = Arc::new(roots);
        let chain = read_certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::ReadKey {
            path: key.to_owned(),
            source,
        })?;
        let not_a_pair = |source| TlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        };
        // Named, not the process default: a dependency may have installed another provider.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|source| TlsError::Verifier {
                    path: ca.to_owned(),
                    source,
                })?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of TLS 1.2 and 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), private.clone_key())
            .map_err(not_a_pair)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, private)
            .map_err(not_a_pair)?;
        Ok(Self {
            acceptor: Arc::new(server).into(),
            connector: Arc::new(client).into(),
        })
    }

    /// For servers that begin a handshake in the middle of a protocol of their own.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(self.acceptor.config())
    }

    /// The server's side of a handshake.
    ///
    /// # Errors
    /// If the peer shows no certificate of the authority, or speaks no TLS.
    pub async fn accept(&self, io: BoxIo) -> Result<(BoxIo, PeerCertificate)> {
        let stream = self.acceptor.accept(io).await?;
        let certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or_else(|| Error::new(ErrorKind::PermissionDenied, "peer has no certificate"))?;
        let certificate = PeerCertificate(certificate.clone().into_owned());
        Ok((BoxIo::new(stream), certificate))
    }

    /// The client's side of a handshake with the server of that name ([`node_server_name`]).
    ///
    /// # Errors
    /// If the peer's certificate is not the authority's or not for this name, or the peer refuses.
    pub async fn connect(&self, io: BoxIo, server_name: &str) -> Result<BoxIo> {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
        Ok(BoxIo::new(self.connector.connect(name, io).await?))
    }
}

fn read_certificates(path: &Path) -> std::result::Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::ReadCertificates {
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

/// The verified certificate of a client.
#[derive(Clone, Debug)]
pub struct PeerCertificate(CertificateDer<'static>);

impl PeerCertificate {
    /// Whether it was issued to this node: what a peer says of itself is checked against it.
    #[must_use]
    pub fn is_node(&self, node: NodeId) -> bool {
        let Ok(name) = ServerName::try_from(node_server_name(node)) else {
            return false;
        };
        ParsedCertificate::try_from(&self.0)
            .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
    }
}

/// A listener that others could reach without showing a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} would be open to the network without TLS. Either listen on 127.0.0.1, or give every node \
     certificates (`quorate certs` makes a set) and name them in the configuration: \
     [tls] ca, cert, key",
    exposed.join(", ")
)]
pub struct ExposedListener {
    /// `NAME on ADDRESS`, each.
    pub exposed: Vec<String>,
}

/// Refuses listeners beyond this machine unless peers must show certificates.
///
/// # Errors
/// Names every listener that is too open.
pub fn require_tls_or_loopback(
    listeners: &[(&str, &Endpoint)],
    tls: Option<&Tls>,
) -> std::result::Result<(), ExposedListener> {
    if tls.is_some() {
        return Ok(());
    }
    let exposed: Vec<_> = listeners
        .iter()
        .filter(|(_, endpoint)| !endpoint.is_local())
        .map(|(name, endpoint)| format!("{name} on {endpoint}"))
        .collect();
    if exposed.is_empty() {
        Ok(())
    } else {
        Err(ExposedListener { exposed })
    }
}

#[cfg(test)]
mod tests;
