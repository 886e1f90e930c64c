//! The machine that the figures are from.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::json;

/// Bytes written before each sync: a page of a write-ahead log.
const SYNCED_BYTES: usize = 4_096;
/// Pages of the file that is synced.
const SYNCED_PAGES: usize = 1_024;

/// What has to be known about a machine to read its figures.
#[derive(Debug)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    memory_mib: u64,
    kernel: String,
    filesystem: String,
    build: String,
    load: String,
}

impl Machine {
    /// This machine, with its files in `directory`.
    pub(crate) fn here(directory: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or_else(
                || "unknown".to_owned(),
                |(_, value)| value.trim().to_owned(),
            )
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib = memory
            .trim_end_matches("kB")
            .trim()
            .parse()
            .unwrap_or(0_u64);
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            memory_mib: kib / 1_024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&read("/proc/mounts"), directory),
            build: format!(
                "{}, profile {}, opt-level {}",
                env!("LOADTEST_COMPILER"),
                env!("LOADTEST_PROFILE"),
                env!("LOADTEST_OPT_LEVEL")
            ),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        format!(
            "machine     {} × {}, {} MiB, Linux {}\nfiles       {}\nbuild       {}\nload before {}",
            self.cores,
            self.processor,
            self.memory_mib,
            self.kernel,
            self.filesystem,
            self.build,
            self.load
        )
    }

    /// For programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "cores": self.cores,
            "processor": self.processor,
            "memory_mib": self.memory_mib,
            "kernel": self.kernel,
            "filesystem": self.filesystem,
            "build": self.build,
            "load_before": self.load,
        })
    }
}

/// Type and device of the file system that a directory is on.
fn filesystem(mounts: &str, directory: &Path) -> String {
    let directory = directory
        .canonicalize()
        .unwrap_or_else(|_| directory.to_owned());
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        directory
            .starts_with(point)
            .then_some((point.len(), kind, device))
    });
    mounted.max_by_key(|(depth, ..)| *depth).map_or_else(
        || "unknown".to_owned(),
        |(_, kind, device)| format!("{kind} on {device}, {}", directory.display()),
    )
}

/// How long the disk takes to make a page durable, in nanoseconds.
pub(crate) fn sync_latency(directory: &Path, during: Duration) -> anyhow::Result<Histogram<u64>> {
    let path = directory.join("sync");
    let mut file = File::create(&path).context("cannot make a file to sync")?;
    // As a write-ahead log, which is overwritten in place once it has its size.
    file.write_all(&vec![0; SYNCED_BYTES * SYNCED_PAGES])?;
    file.sync_all()?;
    let mut taken = Histogram::new(3)?;
    let begun = Instant::now();
    for page in (0..SYNCED_PAGES).cycle() {
        if begun.elapsed() >= during {
            break;
        }
        let write = Instant::now();
        file.write_all_at(&[1; SYNCED_BYTES], (page * SYNCED_BYTES) as u64)?;
        file.sync_data()?;
        taken.record(nanoseconds(write.elapsed()))?;
    }
    drop(file);
    fs::remove_file(path)?;
    Ok(taken)
}

/// A duration as histograms take it.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_is_the_files_own() {
        let mounts =
            "/dev/a / ext4 rw 0 0\ntmpfs /nowhere/deep tmpfs rw 0 0\n/dev/b /nowhere xfs rw 0 0\n";
        let of = |path: &str| filesystem(mounts, Path::new(path));
        assert!(of("/nowhere/deep/x").starts_with("tmpfs on tmpfs"));
        assert!(of("/nowhere/else").starts_with("xfs on /dev/b"));
        assert!(of("/other").starts_with("ext4 on /dev/a"));
    }
}
