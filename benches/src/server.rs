use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_mysqld::{Installation, Seed, Settings};
use quorate_tests::{Sql, wait_for};
use tempfile::TempDir;

/// A mysqld with the options that Quorate gives its own, and more; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) async fn start(
        installation: &Installation,
        seed: &Seed,
        id: u32,
        port: u16,
        more: &[String],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for a server")?;
        let data = folder.path().join("data");
        seed.plant(&data)?;
        let mut settings = Settings::new(id, port, folder.path().join("s"));
        settings.buffer_pool_bytes = 64 << 20;
        let (program, args) = installation.mysqld.split_first().context("a program")?;
        let log = std::fs::File::create(folder.path().join("error.log"))?;
        // As a node starts its own: Linux shares processors out between sessions first, so servers of one
        // session would be given them otherwise than servers that have one each.
        let mut command = Command::new("setsid");
        command
            .arg(program)
            .args(args)
            .arg("--no-defaults")
            .args(&installation.options)
            .args(settings.argv(installation.version, &data))
            // A peer's primary is writable from the start; the last option of a name counts.
            .arg("--super-read-only=OFF")
            .arg("--read-only=OFF")
            // Theirs must have the history in their binlogs, to be sources one day.
            .arg("--log-replica-updates=ON")
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        let child = command.spawn().context("start mysqld")?;
        let server = Self {
            child,
            folder,
            port,
        };
        let bound = Duration::from_secs(60);
        if !wait_for(bound, async || Sql::socket(&server.socket()).await.is_ok()).await {
            bail!("a server does not start: {}", server.log());
        }
        Ok(server)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }

    /// Runs the statements in one session of root.
    pub(crate) async fn run(&self, statements: &[String]) -> anyhow::Result<()> {
        let mut sql = Sql::socket(&self.socket()).await?;
        for statement in statements {
            let done = sql.run_within(statement, Duration::from_secs(60)).await;
            done.with_context(|| format!("{statement}\n{}", self.log()))?;
        }
        Ok(())
    }

    pub(crate) async fn value(&self, query: &str) -> anyhow::Result<String> {
        Ok(Sql::socket(&self.socket()).await?.value(query).await?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
