//! The machine and the build that the figures come from.

use std::{fs, path::Path};

use serde_json::json;

/// What one has to know about the machine to judge the figures.
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
    /// Describes this machine. The file system is the one of `directory`.
    pub(crate) fn describe(directory: &Path) -> Self {
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

    /// As lines of text.
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

    /// As JSON.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_on_the_deepest_mount_above_it() {
        let mounts =
            "/dev/a / ext4 rw 0 0\ntmpfs /nowhere/deep tmpfs rw 0 0\n/dev/b /nowhere xfs rw 0 0\n";
        let of = |path: &str| filesystem(mounts, Path::new(path));
        assert!(of("/nowhere/deep/x").starts_with("tmpfs on tmpfs"));
        assert!(of("/nowhere/else").starts_with("xfs on /dev/b"));
        assert!(of("/other").starts_with("ext4 on /dev/a"));
    }
}
