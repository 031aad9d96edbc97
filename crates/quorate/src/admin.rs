//! The way to a node's admin service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use quorate_net::{Net, Tls, TokioNet};
use quorate_wire::v1::admin_client::AdminClient;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::args::Address;

const CONNECT_WAIT: Duration = Duration::from_secs(5);

pub(crate) async fn connect(at: &Address) -> anyhow::Result<AdminClient<Channel>> {
    let tls = at.certs.as_deref().map(tls).transpose()?;
    let to = quorate_net::Endpoint::Tcp(at.addr.to_string());
    // Nodes speak TLS below HTTP/2, without saying which protocol follows: so do their tools.
    let open = tower::service_fn(move |_: Uri| {
        let (to, tls) = (to.clone(), tls.clone());
        async move {
            let io = TokioNet.connect(&to).await?;
            let io = match tls {
                Some(tls) => tls.connect(io, &host(&to)).await?,
                None => io,
            };
            Ok::<_, std::io::Error>(TokioIo::new(io))
        }
    });
    let endpoint = Endpoint::from_static("http://quorate").connect_timeout(CONNECT_WAIT);
    let channel = endpoint
        .connect_with_connector(open)
        .await
        .with_context(|| {
            format!(
                "connect to {}: is it a node's gRPC address, and does the node run?",
                at.addr
            )
        })?;
    Ok(AdminClient::new(channel))
}

/// The name or address in front of the port: a node's certificate is for it.
fn host(at: &quorate_net::Endpoint) -> String {
    let text = at.to_string();
    let host = text
        .rsplit_once(':')
        .map_or(text.as_str(), |(host, _)| host);
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
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

fn tls(folder: &Path) -> anyhow::Result<Tls> {
    let key = the_key(folder)?;
    let certificate = key
        .to_str()
        .and_then(|name| name.strip_suffix("-key.pem"))
        .map(|name| PathBuf::from(format!("{name}.pem")))
        .context("the folder's name is not UTF-8")?;
    Ok(Tls::load(&folder.join("ca.pem"), &certificate, &key)?)
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
