//! The way to a node's admin service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_wire::v1::admin_client::AdminClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::args::Address;

const CONNECT_WAIT: Duration = Duration::from_secs(5);

pub(crate) async fn connect(at: &Address) -> anyhow::Result<AdminClient<Channel>> {
    let scheme = if at.certs.is_some() { "https" } else { "http" };
    let mut endpoint =
        Endpoint::from_shared(format!("{scheme}://{}", at.addr))?.connect_timeout(CONNECT_WAIT);
    if let Some(folder) = &at.certs {
        endpoint = endpoint.tls_config(tls(folder)?)?;
    }
    let channel = endpoint.connect().await.with_context(|| {
        format!(
            "connect to {}: is it a node's gRPC address, and does the node run?",
            at.addr
        )
    })?;
    Ok(AdminClient::new(channel))
}

/// What a node said instead of an answer.
pub(crate) fn refusal(at: &Address, status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!(
        "{} answered {:?}: {}",
        at.addr,
        status.code(),
        status.message()
    )
}

fn tls(folder: &Path) -> anyhow::Result<ClientTlsConfig> {
    let read =
        |path: PathBuf| std::fs::read(&path).with_context(|| format!("read {}", path.display()));
    let key = the_key(folder)?;
    let certificate = key
        .to_str()
        .and_then(|name| name.strip_suffix("-key.pem"))
        .map(|name| PathBuf::from(format!("{name}.pem")))
        .context("the folder's name is not UTF-8")?;
    Ok(ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(folder.join("ca.pem"))?))
        .identity(Identity::from_pem(read(certificate)?, read(key)?)))
}

/// The first node's key in the folder, by name: any member of the cluster may ask.
fn the_key(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut keys: Vec<PathBuf> = folder
        .read_dir()
        .with_context(|| format!("read the folder {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("node-") && name.ends_with("-key.pem"))
        })
        .collect();
    keys.sort();
    if keys.is_empty() {
        bail!("{} has no node-N-key.pem", folder.display());
    }
    Ok(keys.remove(0))
}
