use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use anyhow::Context;
use tokio::time::Instant;

/// What the numbers were made on, as far as a reader needs it to judge them.
pub(crate) fn describe() -> anyhow::Result<String> {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().unwrap_or_default();
    let memory_kib = memory.split_whitespace().nth(1);
    let memory_gib = memory_kib
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        >> 20;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let build = if cfg!(debug_assertions) {
        "a DEBUG build: its numbers mean nothing"
    } else {
        "a release build"
    };
    Ok(format!(
        "{cpus} CPUs ({model}), {memory_gib} GiB, Linux {}, {}; {}\n\
         all servers and sysbench share this machine; {build}",
        kernel.trim(),
        disk()?,
        load()
    ))
}

/// How busy the machine was of late: above a little, others take part in the result.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = text.split(' ').next().unwrap_or("?");
    format!("load of the last minute {minute}")
}

/// The cost of a small durable write, which every commit here pays several times.
fn disk() -> anyhow::Result<String> {
    const WRITES: usize = 200;
    let mut file = tempfile::tempfile_in(".").context("make a file to sync")?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(WRITES);
    for n in 0..WRITES {
        times.push(timed_write(&file, n)?);
    }
    times.sort_unstable();
    let at = |percent: usize| times[(WRITES * percent / 100).min(WRITES - 1)];
    Ok(format!("fdatasync p50 {:?} p99 {:?}", at(50), at(99)))
}

fn timed_write(file: &File, n: usize) -> anyhow::Result<std::time::Duration> {
    let begun = Instant::now();
    file.write_all_at(&[1; 512], n as u64 * 512)?;
    file.sync_data()?;
    Ok(begun.elapsed())
}
