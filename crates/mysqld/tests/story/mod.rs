//! One server in a folder of its own, which is gone with the story.

#![allow(dead_code, reason = "each test uses a part")]

use std::path::PathBuf;
use std::time::Duration;

use quorate_mysql_wire::ConnectOptions;
use quorate_mysqld::{
    AcceptedIndex, ControlError, FileLock, FindOptions, Host, Installation, LocalHost,
    LocalHostOptions, Seed, ServerProcess, Session, Settings, default_cache, find_or_fetch,
    first_session, machine_lock, prepare_seed,
};
use quorate_net::{Endpoint, Net, TokioNet};
use quorate_types::{Gtid, GtidSet, Secret};
use tokio::time::timeout;

pub(crate) struct Story {
    _lock: FileLock,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) host: LocalHost,
    pub(crate) settings: Settings,
}

pub(crate) async fn mysql() -> (Installation, Seed) {
    let options = FindOptions {
        explicit: std::env::var_os("QUORATE_MYSQLD").map(PathBuf::from),
        cache: default_cache(),
    };
    let progress = |text: &str| eprintln!("{text}");
    let installation = find_or_fetch(&options, &progress)
        .await
        .expect("find or fetch MySQL");
    let seed = prepare_seed(&installation, &options.cache)
        .await
        .expect("prepare a seed");
    (installation, seed)
}

/// Cargo builds examples beside the tests' own folder.
pub(crate) fn launcher() -> PathBuf {
    let this = std::env::current_exe().expect("this program has a path");
    this.ancestors()
        .nth(2)
        .expect("deps is in a folder")
        .join("examples/exec-server")
}

impl Story {
    pub(crate) async fn begin() -> Self {
        let lock = machine_lock().await.expect("lock the machine");
        let (installation, seed) = mysql().await;
        let folder = tempfile::tempdir().expect("make a folder");
        let path = |name: &str| folder.path().join(name);
        let listener = TokioNet
            .listen(&Endpoint::Tcp("127.0.0.1:0".into()))
            .await
            .expect("bind a port");
        let port = listener.local.port().expect("TCP has ports");
        let host = LocalHost::new(LocalHostOptions {
            installation,
            seed,
            launcher: launcher(),
            data_folder: path("mysql"),
            cut_folder: path("cut"),
            log_file: path("mysqld.log"),
            pid_file: path("mysqld.pid"),
            manager: None,
        });
        let mut settings = Settings::new(7, port, path("mysql.sock"));
        settings.buffer_pool_bytes = 32 << 20;
        Self {
            _lock: lock,
            folder,
            host,
            settings,
        }
    }

    pub(crate) async fn session(
        &self,
        user: &str,
        password: &str,
    ) -> Result<Session, ControlError> {
        let options = ConnectOptions {
            user: user.into(),
            password: Secret::new(password.into()),
            secure_transport: true,
            ..ConnectOptions::default()
        };
        let endpoint = Endpoint::Unix(self.settings.socket.clone());
        Session::open(&TokioNet, &endpoint, &options).await
    }

    /// A new server that takes writes, after these statements; and root's session.
    pub(crate) async fn writable(&self, statements: &[&str]) -> (ServerProcess, Session) {
        self.host.plant().await.expect("make the data folder");
        let process = self.host.start(&self.settings).await;
        let process = process.expect("start the server");
        let mut root = self.root(&process).await;
        root.set_writable().await.expect("let it take writes");
        for sql in statements {
            root.run("prepare", sql).await.expect(sql);
        }
        (process, root)
    }

    pub(crate) async fn root(&self, process: &ServerProcess) -> Session {
        let options = ConnectOptions {
            user: "root".into(),
            secure_transport: true,
            ..ConnectOptions::default()
        };
        let endpoint = Endpoint::Unix(self.settings.socket.clone());
        let first = first_session(&self.host, process, &TokioNet, &endpoint, &options);
        match timeout(Duration::from_secs(60), first).await {
            Ok(Ok(session)) => session,
            error => {
                let log = std::fs::read_to_string(self.folder.path().join("mysqld.log"));
                panic!("{error:?}\n{}", log.unwrap_or_default());
            }
        }
    }
}

/// Where the server writes its binlog now.
pub(crate) async fn binlog_end(root: &mut Session) -> (String, u64) {
    let end = root.run("where the binlog ends", "SHOW BINARY LOG STATUS");
    let end = end.await.expect("binlog status");
    let row = &end.rows[0];
    let text = |column| row.text(column).expect("a name and a position");
    (text(0).to_string(), text(1).parse().expect("a position"))
}

/// Waits until a transaction that will hang is in the binlog, which ended here before; then a little for
/// it to end all the same.
pub(crate) async fn hangs_behind(root: &mut Session, end: (String, u64)) {
    let logged = async {
        while binlog_end(root).await == end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), logged)
        .await
        .expect("it is in the binlog");
    tokio::time::sleep(Duration::from_millis(300)).await;
}

impl Drop for Story {
    fn drop(&mut self) {
        // A story that failed must not leave its server behind.
        let pid = std::fs::read_to_string(self.folder.path().join("mysqld.pid"));
        let pid = pid.ok().and_then(|pid| pid.trim().parse::<i32>().ok());
        let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else {
            return;
        };
        let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
        let ours = self.folder.path().as_os_str().as_encoded_bytes();
        if line.is_ok_and(|line| line.windows(ours.len()).any(|window| window == ours)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Everything in the set is accepted, with whatever content.
pub(crate) struct Accepted(pub(crate) GtidSet);

impl AcceptedIndex for Accepted {
    fn is_accepted(&self, gtid: &Gtid) -> bool {
        self.0.contains(*gtid)
    }

    fn checksum(&self, _: &Gtid) -> Option<u32> {
        None
    }
}
