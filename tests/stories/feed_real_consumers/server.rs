use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quorate_mysql_wire::{ConnectOptions, Connection};
use quorate_mysqld::{Installation, Seed};
use quorate_net::{Endpoint, Net, TokioNet};
use tempfile::TempDir;

/// A stock mysqld with a folder of its own, reached by its socket only; stopped when dropped.
pub struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    pub async fn start(installation: &Installation, seed: &Seed, id: u32, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let data = folder.path().join("data");
        seed.plant(&data).expect("plant the seed");
        let at =
            |name: &str, file: &str| format!("--{name}={}", folder.path().join(file).display());
        let (program, args) = installation.mysqld.split_first().expect("a program");
        let log = std::fs::File::create(folder.path().join("error.log")).expect("a log");
        let mut command = Command::new(program);
        command
            .args(args)
            .arg("--no-defaults")
            .args(&installation.options)
            .args([
                at("datadir", "data"),
                at("socket", "s"),
                at("pid-file", "pid"),
            ])
            .args([format!("--server-id={id}")])
            .args(["--skip-networking", "--mysqlx=OFF", "--gtid-mode=ON"])
            .args(["--enforce-gtid-consistency=ON", "--log-bin=binlog"])
            .args(["--innodb-buffer-pool-size=64M", "--max-allowed-packet=256M"])
            .args(["--secure-file-priv=", "--performance-schema=OFF"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        let child = command.spawn().expect("start mysqld");
        let server = Self { child, folder };
        for _ in 0..600 {
            if server.try_connect().await.is_some() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("mysqld did not start: {}", server.log());
    }

    async fn try_connect(&self) -> Option<Connection> {
        let socket = Endpoint::Unix(self.folder.path().join("s"));
        let io = TokioNet.connect(&socket).await.ok()?;
        let options = ConnectOptions {
            user: "root".to_owned(),
            secure_transport: true,
            ..ConnectOptions::default()
        };
        Connection::connect(io, &options).await.ok()
    }

    pub async fn connect(&self) -> Connection {
        self.try_connect().await.expect("connect to mysqld")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
