use std::time::Duration;

use quorate_mysql_wire::ConnectOptions;
use quorate_net::{Endpoint, Net};

use crate::control::{ControlError, Session};
use crate::host::Host;

const RETRY: Duration = Duration::from_millis(20);

/// Why a server that was just started has no session.
#[derive(Debug, thiserror::Error)]
pub enum FirstSessionError {
    #[error("the server ended while it was starting; its log says why")]
    Exited,
    #[error("the server is up and refuses the session")]
    Refused(#[source] ControlError),
}

/// Opens a session as soon as the server takes one. The caller bounds it: recovery takes as long as
/// it takes.
pub async fn first_session<H: Host>(
    host: &H,
    process: &H::Process,
    net: &impl Net,
    endpoint: &Endpoint,
    options: &ConnectOptions,
) -> Result<Session, FirstSessionError> {
    let open = async {
        loop {
            match Session::open(net, endpoint, options).await {
                Ok(session) => return Ok(session),
                Err(ControlError::Login { source, .. }) if !source.is_retryable() => {
                    let endpoint = endpoint.clone();
                    let error = ControlError::Login { endpoint, source };
                    return Err(FirstSessionError::Refused(error));
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    };
    tokio::select! {
        biased;
        () = host.exited(process) => Err(FirstSessionError::Exited),
        result = open => result,
    }
}
