//! The node's mysqld as the jobs find it: its process, its sessions, and capture.

use std::sync::Arc;
use std::time::Duration;

use quorate_mysql_wire::{
    ChecksumRequest, ConnectOptions, Connection, ReplicaConnection, ReplicaOptions,
};
use quorate_mysqld::{
    CAPTURE_USER, CONTROL_USER, ControlError, Host, Identity, Session, Settings, Signal,
};
use quorate_net::{Endpoint, Net};
use quorate_replication::Capture;
use quorate_types::{Secret, Uuid, chain};
use tokio::sync::watch;
use tokio::time::timeout;

/// A login on the server's own socket: longer means that logins are blocked or the server hangs.
const LOGIN_MAX: Duration = Duration::from_secs(2);
/// How long a starting server may take: it recovers first, a large redo log takes its time.
pub(crate) const START_MAX: Duration = Duration::from_secs(600);
pub(crate) const START_LOOK: Duration = Duration::from_millis(20);

/// Why the server could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("{0} took longer than {1:?}")]
    Late(&'static str, Duration),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Host(#[from] quorate_mysqld::HostError),
    #[error("mysqld ended while it started; its own log says why")]
    Ended,
    #[error("attach capture: {0}")]
    Capture(String),
}

/// How the sidecar gets into its server.
#[derive(Clone, Debug)]
pub(crate) struct Logins {
    pub(crate) socket: Endpoint,
    pub(crate) control: Secret,
    pub(crate) capture: Secret,
}

impl Logins {
    fn options(user: &str, password: &Secret) -> ConnectOptions {
        ConnectOptions {
            user: user.to_owned(),
            password: password.clone(),
            // The server's own socket, which only this machine's users reach.
            secure_transport: true,
            ..ConnectOptions::default()
        }
    }

    pub(crate) async fn control(&self, net: &impl Net) -> Result<Session, ServerError> {
        self.session(net, CONTROL_USER, &self.control).await
    }

    /// `root`, who has no password on the socket of a server made from the seed.
    pub(crate) async fn root(&self, net: &impl Net) -> Result<Session, ServerError> {
        self.session(net, "root", &Secret::default()).await
    }

    async fn session(
        &self,
        net: &impl Net,
        user: &str,
        password: &Secret,
    ) -> Result<Session, ServerError> {
        let options = Self::options(user, password);
        let open = Session::open(net, &self.socket, &options);
        Ok(timeout(LOGIN_MAX, open)
            .await
            .map_err(|_| ServerError::Late("login", LOGIN_MAX))??)
    }

    /// A connection that is registered as the primary's semi-sync replica and waits to dump.
    pub(crate) async fn replica(
        &self,
        net: &impl Net,
        server_id: u32,
        server_uuid: Uuid,
    ) -> Result<ReplicaConnection, ServerError> {
        let prepare = async {
            let failed = |error: &dyn std::error::Error| ServerError::Capture(chain(error));
            let io = net
                .connect(&self.socket)
                .await
                .map_err(|error| failed(&error))?;
            let options = Self::options(CAPTURE_USER, &self.capture);
            let connection = Connection::connect(io, &options)
                .await
                .map_err(|error| failed(&error))?;
            let options = ReplicaOptions {
                server_id,
                server_uuid,
                heartbeat_period: Duration::from_secs(1),
                checksum: ChecksumRequest::AsSource,
                semi_sync: true,
            };
            ReplicaConnection::prepare(connection, &options)
                .await
                .map_err(|error| failed(&error))
        };
        timeout(LOGIN_MAX, prepare)
            .await
            .map_err(|_| ServerError::Late("attach capture", LOGIN_MAX))?
    }
}

/// What is known to run, for those who watch it.
#[derive(Clone)]
pub(crate) struct Running<H: Host> {
    pub(crate) process: Arc<H::Process>,
    pub(crate) identity: Option<Identity>,
    /// A job ends it: that it exits is no news.
    pub(crate) doomed: bool,
}

/// The server as jobs leave it to each other. One job at a time works on it.
pub(crate) struct ServerState<H: Host> {
    pub(crate) host: H,
    pub(crate) settings: Settings,
    pub(crate) logins: Logins,
    /// None when no process of ours is known.
    pub(crate) running: watch::Sender<Option<Running<H>>>,
    /// Opened before the port that needs them opens: account statements that wait for their ACK
    /// block every login (A21).
    pub(crate) control: Option<Session>,
    pub(crate) spare: Option<Session>,
    pub(crate) capture: Option<Capture>,
}

impl<H: Host> ServerState<H> {
    pub(crate) fn process(&self) -> Option<Arc<H::Process>> {
        self.running
            .borrow()
            .as_ref()
            .map(|running| running.process.clone())
    }

    /// A session that works: the one at hand, the spare one, or a new one.
    pub(crate) async fn session(&mut self, net: &impl Net) -> Result<&mut Session, ServerError> {
        if let Some(session) = &mut self.control {
            // A session that a dropped job interrupted refuses everything at once.
            let probe = timeout(LOGIN_MAX, session.probe()).await;
            if !matches!(probe, Ok(Ok(()))) {
                self.control = self.spare.take();
            }
        }
        if self.control.is_none() {
            self.control = Some(self.logins.control(net).await?);
        }
        Ok(self.control.as_mut().expect("it was just put there"))
    }

    /// Starts mysqld and waits until it answers on its socket.
    pub(crate) async fn start(&mut self, net: &impl Net) -> Result<(), ServerError> {
        let process = Arc::new(self.host.start(&self.settings).await?);
        self.running.send_replace(Some(Running {
            process: process.clone(),
            identity: None,
            doomed: false,
        }));
        let host = self.host.clone();
        let answers = async {
            loop {
                if net.connect(&self.logins.socket).await.is_ok() {
                    return;
                }
                tokio::time::sleep(START_LOOK).await;
            }
        };
        tokio::select! {
            biased;
            () = host.exited(&process) => Err(ServerError::Ended),
            answered = timeout(START_MAX, answers) => {
                answered.map_err(|_| ServerError::Late("start of mysqld", START_MAX))
            }
        }
    }

    /// SIGKILL, and everything of the old process is gone when this returns.
    pub(crate) async fn kill(&mut self) -> Result<(), ServerError> {
        self.forget_sessions();
        if let Some(process) = self.process() {
            self.running.send_if_modified(|running| {
                if let Some(running) = running {
                    running.doomed = true;
                }
                false
            });
            self.host.signal(&process, Signal::Kill)?;
            self.host.exited(&process).await;
            self.running.send_replace(None);
        }
        Ok(())
    }

    pub(crate) fn forget_sessions(&mut self) {
        self.capture = None;
        self.control = None;
        self.spare = None;
    }
}
