//! `quorate binlog`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, bail};
use quorate_mysqld::{AcceptedIndex, LocalBinlogs};
use quorate_types::{Gtid, GtidSet};
use quorate_wire::v1::ExportRequest;

use crate::args::{Address, ExportArgs, InspectArgs};
use crate::{admin, status};

pub(crate) async fn inspect(args: InspectArgs) -> anyhow::Result<()> {
    let (accepted, says) = accepted(&args).await?;
    let binlogs = find(&args.dir)?;
    println!("{}: {says}\n", binlogs.index());
    let inspection = quorate_mysqld::inspect(&binlogs, &accepted)
        .with_context(|| format!("read the binlog in {}", args.dir.display()))?;
    println!("{inspection}");
    Ok(())
}

pub(crate) async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let executed = parse(&args.without)?.to_wire().into();
    std::fs::create_dir_all(&args.out).with_context(|| format!("make {}", args.out.display()))?;
    if args.out.read_dir()?.next().is_some() {
        bail!("{} is not empty", args.out.display());
    }
    let mut client = admin::connect(&args.at).await?;
    let request = ExportRequest {
        executed_gtid_set: executed,
    };
    let refused = |status: tonic::Status| admin::refusal(&args.at, &status);
    let reply = client.export_binlog(request).await.map_err(refused)?;
    let mut replies = reply.into_inner();
    let mut files = Files::new(&args.out);
    while let Some(piece) = replies.message().await.map_err(refused)? {
        files.write(&piece.file, &piece.data)?;
    }
    files.finish()
}

/// Writes file after file; the index comes last, so that a folder with one is whole.
struct Files<'a> {
    folder: &'a Path,
    open: Option<BufWriter<File>>,
    index: String,
    bytes: u64,
}

impl<'a> Files<'a> {
    fn new(folder: &'a Path) -> Self {
        Self {
            folder,
            open: None,
            index: String::new(),
            bytes: 0,
        }
    }

    fn write(&mut self, begins: &str, data: &[u8]) -> anyhow::Result<()> {
        if !begins.is_empty() {
            self.close()?;
            // A name from elsewhere must not lead out of the folder.
            if Path::new(begins).file_name() != Some(begins.as_ref()) {
                bail!("`{begins}` is no file's name");
            }
            let path = self.folder.join(begins);
            let file = File::create_new(&path);
            let file = file.with_context(|| format!("make {}", path.display()))?;
            self.open = Some(BufWriter::new(file));
            self.index.push_str(&format!("./{begins}\n"));
        }
        let file = self.open.as_mut().context("there is no file yet")?;
        self.bytes += data.len() as u64;
        file.write_all(data).context("write a binlog file")
    }

    fn close(&mut self) -> anyhow::Result<()> {
        if let Some(mut file) = self.open.take() {
            file.flush().context("write a binlog file")?;
            file.get_ref().sync_all().context("sync a binlog file")?;
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.close()?;
        let path = self.folder.join("binlog.index");
        std::fs::write(&path, &self.index).with_context(|| format!("write {}", path.display()))?;
        let (files, bytes) = (self.index.lines().count(), self.bytes);
        println!("{files} files, {bytes} bytes, in {}", self.folder.display());
        Ok(())
    }
}

/// The binlog of a data folder, or of the one in a node's folder.
fn find(dir: &Path) -> anyhow::Result<LocalBinlogs> {
    let inner = dir.join("mysql");
    let folder = match inner.is_dir() && !dir.join("ibdata1").exists() {
        true => inner,
        false => dir.to_owned(),
    };
    LocalBinlogs::find(&folder)
        .with_context(|| format!("look for a binlog in {}", folder.display()))
}

/// What counts as accepted; the contents are not compared, since only nodes know them.
enum Accepted {
    Everything,
    Set(GtidSet),
}

impl AcceptedIndex for Accepted {
    fn is_accepted(&self, gtid: &Gtid) -> bool {
        match self {
            Self::Everything => true,
            Self::Set(set) => set.contains(*gtid),
        }
    }

    fn checksum(&self, _: &Gtid) -> Option<u32> {
        None
    }
}

async fn accepted(args: &InspectArgs) -> anyhow::Result<(Accepted, String)> {
    if let Some(addr) = &args.addr {
        let at = Address {
            addr: addr.clone(),
            certs: args.certs.clone(),
        };
        let committed = status::fetch(&at).await?.committed;
        let set = parse(&committed.gtid_set)?;
        let says = format!(
            "judged by what {addr} knows to be accepted, up to log index {}; contents are not compared",
            committed.index
        );
        return Ok((Accepted::Set(set), says));
    }
    match &args.accepted {
        Some(text) => {
            let says = "judged by the given set; contents are not compared";
            Ok((Accepted::Set(parse(text)?), says.to_owned()))
        }
        None => {
            let says = "every whole transaction counts as accepted (see --addr and --accepted)";
            Ok((Accepted::Everything, says.to_owned()))
        }
    }
}

fn parse(text: &str) -> anyhow::Result<GtidSet> {
    text.parse()
        .ok()
        .with_context(|| format!("`{text}` is no GTID set"))
}
