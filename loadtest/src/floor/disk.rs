//! The sync floor: how long the disk takes to make a page durable.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;

use crate::statistics::nanoseconds;

/// Bytes written before each sync: a page of a write-ahead log.
const PAGE_BYTES: usize = 4_096;
/// Pages of the file.
const PAGES: usize = 1_024;

/// Latencies of a write and an `fdatasync` of a page, in nanoseconds.
pub(crate) fn sync_latency(directory: &Path, duration: Duration) -> anyhow::Result<Histogram<u64>> {
    let path = directory.join("sync");
    let mut file = File::create(&path).context("cannot make a file to sync")?;
    // The file keeps its size and is overwritten in place, as a write-ahead log is that no longer grows.
    file.write_all(&vec![0; PAGE_BYTES * PAGES])?;
    file.sync_all()?;
    let mut latencies = Histogram::new(3)?;
    let begun = Instant::now();
    for page in (0..PAGES).cycle() {
        if begun.elapsed() >= duration {
            break;
        }
        let started = Instant::now();
        file.write_all_at(&[1; PAGE_BYTES], (page * PAGE_BYTES) as u64)?;
        file.sync_data()?;
        latencies.record(nanoseconds(started.elapsed()))?;
    }
    drop(file);
    fs::remove_file(path)?;
    Ok(latencies)
}
