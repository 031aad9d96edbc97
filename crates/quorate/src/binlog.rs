//! `quorate binlog`.

use std::path::Path;

use anyhow::Context;
use quorate_mysqld::{AcceptedIndex, LocalBinlogs};
use quorate_types::{Gtid, GtidSet};

use crate::args::{Address, InspectArgs};
use crate::status;

pub(crate) async fn inspect(args: InspectArgs) -> anyhow::Result<()> {
    let (accepted, says) = accepted(&args).await?;
    let binlogs = find(&args.dir)?;
    println!("{}: {says}\n", binlogs.index());
    let inspection = quorate_mysqld::inspect(&binlogs, &accepted)
        .with_context(|| format!("read the binlog in {}", args.dir.display()))?;
    println!("{inspection}");
    Ok(())
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
