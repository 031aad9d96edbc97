use std::io;
use std::sync::Arc;

use quorate_net::BoxIo;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::client::ClientTls;

/// TLS as the client, on a stream whose greeting was read and request for TLS was sent.
pub async fn connect(io: BoxIo, tls: &ClientTls) -> io::Result<BoxIo> {
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    Ok(BoxIo::new(
        connector.connect(tls.server_name.clone(), io).await?,
    ))
}

/// TLS as the server, on a stream whose client asked for it.
pub async fn accept(io: BoxIo, config: Arc<rustls::ServerConfig>) -> io::Result<BoxIo> {
    Ok(BoxIo::new(TlsAcceptor::from(config).accept(io).await?))
}
