//! What happens to a server's files before it may start again.

use std::fmt::Write as _;
use std::io;

use quorate_binlog::{
    Class, CloneReason, Cut, CutPlan, FileScanner, Found, Planner, ScanError, TailGroup,
};
use quorate_types::{Gtid, GtidSet};

use crate::host::{BinlogFiles, Host, HostError, Signal};

/// How often the data folder's locks are looked at.
const POLL: std::time::Duration = std::time::Duration::from_millis(20);

/// Why a repair came to no end. Trying again is safe after any of them.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error("reach the data folder")]
    Host(#[from] HostError),
    #[error("{what} {file}")]
    Files {
        what: &'static str,
        file: String,
        source: io::Error,
    },
    #[error("read {file}")]
    Scan { file: String, source: ScanError },
}

/// What the log says of transactions: as of a read index obtained after the server was gone, and
/// after the end of the last epoch that the marker names.
pub trait AcceptedIndex: Send + 'static {
    fn is_accepted(&self, gtid: &Gtid) -> bool;

    /// The content's checksum; none if it was trimmed from the index.
    fn checksum(&self, gtid: &Gtid) -> Option<u32>;
}

/// What was found, and done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What was cut off, if anything was.
    pub cut: Option<Cut>,
    /// Transactions that are not accepted and stay, since they change no rows: the server may have
    /// them on top of the accepted ones.
    pub inert: GtidSet,
}

/// How a repair ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repaired {
    MayStart(RepairReport),
    /// Nothing was changed.
    MustClone(CloneReason),
}

/// Kills the server and returns when it is gone. The gate must be closed before: no byte of what it
/// still says may reach a client.
pub async fn kill_server<H: Host>(host: &H, process: &H::Process) -> Result<(), HostError> {
    host.signal(process, Signal::Kill)?;
    host.exited(process).await;
    wait_until_free(host).await
}

/// Returns when no process holds the locks of the data folder. It has no bound of its own.
pub async fn wait_until_free<H: Host>(host: &H) -> Result<(), HostError> {
    while !host.data_folder_is_free()? {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Kills whatever server of this data folder runs, known or not, and returns when none does.
pub async fn ensure_stopped<H: Host>(host: &H) -> Result<(), HostError> {
    loop {
        if let Some(process) = host.adopt().await? {
            kill_server(host, &process).await?;
        } else if host.data_folder_is_free()? {
            return Ok(());
        } else {
            // One that is just being started, or just ending.
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Judges the binlog of a server that is gone, and cuts off what is not accepted.
///
/// `label` names the copies of what is cut off. Safe to repeat after a crash at any point: the
/// files after the cut go first, so what is left of a tail is still recognised as one.
pub async fn cut_tail<H: Host>(
    host: &H,
    label: String,
    index: impl AcceptedIndex,
) -> Result<Repaired, RepairError> {
    if !host.data_folder_is_free()? {
        return Err(HostError::InUse.into());
    }
    let cut = move |binlogs: &H::Binlogs| judge_and_cut(binlogs, &label, &index);
    let repaired = host.with_binlogs(cut).await?;
    match &repaired {
        Repaired::MayStart(RepairReport { cut: Some(cut), .. }) => tracing::warn!(
            file = cut.file,
            offset = cut.offset,
            transactions = cut.tail.len(),
            files_dropped = cut.drop_files.len(),
            "cut what was never acknowledged off the binlog"
        ),
        Repaired::MayStart(_) => tracing::info!("the binlog holds accepted transactions only"),
        Repaired::MustClone(reason) => tracing::warn!(%reason, "the server must be cloned"),
    }
    Ok(repaired)
}

fn judge_and_cut<B: BinlogFiles>(
    binlogs: &B,
    label: &str,
    index: &impl AcceptedIndex,
) -> Result<Repaired, RepairError> {
    let (plan, inert) = judge(binlogs, index)?;
    let cut = match plan {
        CutPlan::Nothing => None,
        CutPlan::Clone { reason } => return Ok(Repaired::MustClone(reason)),
        CutPlan::Cut(cut) => {
            carry_out(binlogs, label, &cut)?;
            Some(cut)
        }
    };
    Ok(Repaired::MayStart(RepairReport { cut, inert }))
}

/// What cutting would do, without doing it. The server may run; its last transactions may then be
/// taken for torn ones.
pub fn judge<B: BinlogFiles>(
    binlogs: &B,
    index: &impl AcceptedIndex,
) -> Result<(CutPlan, GtidSet), RepairError> {
    let accepted = |gtid: &Gtid| index.is_accepted(gtid);
    let checksum = |gtid: &Gtid| index.checksum(gtid);
    let mut planner = Planner::new(&accepted, &checksum);
    let mut inert = GtidSet::new();
    let files = binlogs.list().map_err(at("list", "the binlog files"))?;
    'files: for file in files {
        let reader = binlogs.open(&file).map_err(at("open", &file))?;
        planner.begin_file(&file);
        let mut scanner = FileScanner::new(io::BufReader::with_capacity(256 << 10, reader));
        let scan = |source| RepairError::Scan {
            file: file.clone(),
            source,
        };
        while let Some(found) = scanner.next_found().map_err(scan)? {
            if let Found::Group(group) = &found
                && group.class == Class::Inert
                && !index.is_accepted(&group.gtid)
            {
                inert.insert(group.gtid);
            }
            if planner.push(found) {
                break 'files;
            }
        }
        planner.end_file(scanner.offset());
    }
    let plan = planner.finish();
    if let CutPlan::Cut(cut) = &plan {
        let tail: GtidSet = gtids(cut.tail.iter().map(|tail| tail.group.gtid));
        inert = inert.difference(&tail);
    }
    Ok((plan, inert))
}

fn gtids(of: impl Iterator<Item = Gtid>) -> GtidSet {
    let mut set = GtidSet::new();
    for gtid in of {
        set.insert(gtid);
    }
    set
}

fn carry_out<B: BinlogFiles>(binlogs: &B, label: &str, cut: &Cut) -> Result<(), RepairError> {
    let text = describe(cut);
    binlogs
        .describe_kept(label, &text)
        .map_err(at("describe what is cut of", &cut.file))?;
    let length = |file: &str| binlogs.length(file).map_err(at("measure", file));
    let keep = |file: &str, start: u64| {
        let end = length(file)?;
        let kept = binlogs.keep_aside(label, file, start..end);
        kept.map_err(at("keep a copy of the tail of", file))
    };
    keep(&cut.file, cut.offset)?;
    for file in &cut.drop_files {
        keep(file, 0)?;
    }
    binlogs
        .drop_after(&cut.file)
        .map_err(at("drop the files after", &cut.file))?;
    binlogs
        .truncate(&cut.file, cut.offset)
        .map_err(at("truncate", &cut.file))
}

/// For whoever looks at what was kept.
fn describe(cut: &Cut) -> String {
    let mut text = format!(
        "cut off before the server started, since nobody was told that it is committed\n\
         {} from byte {} on\n",
        cut.file, cut.offset
    );
    for file in &cut.drop_files {
        let _ = writeln!(text, "{file}, all of it");
    }
    for TailGroup { file, group } in &cut.tail {
        let (gtid, start, end) = (group.gtid, group.start, group.end);
        let _ = writeln!(text, "{gtid} {file} {start} to {end}, {}", group.class);
    }
    text
}

fn at(what: &'static str, file: &str) -> impl FnOnce(io::Error) -> RepairError {
    let file = file.to_owned();
    move |source| RepairError::Files { what, file, source }
}

#[cfg(test)]
pub(crate) mod tests;
