//! The gateway under test: one process, or one for each of its services. Who writes, reads and
//! subscribes is led to the process that serves it.

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::bail;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    channel::{Channel, ChannelName},
    load::Connections,
    process::{Process, READY},
};

/// The gateway in one process.
const WHOLE: &str = "stategate";
/// Its services in processes of their own.
const COMMAND: &str = "stategate-command";
const QUERY: &str = "stategate-query";
const STREAM: &str = "stategate-stream";

/// Where the binaries are: a folder that has those that the channel needs.
pub(crate) struct Binaries(PathBuf);

impl Binaries {
    /// In the folder that is named, or beside this one.
    pub(crate) fn find(named: Option<PathBuf>, channel: ChannelName) -> anyhow::Result<Self> {
        let this = env::current_exe()?;
        let beside = this.parent().unwrap_or(Path::new("")).to_owned();
        let folder = named.unwrap_or(beside);
        let needed: &[_] = match channel.crosses_processes() {
            true => &[COMMAND, QUERY, STREAM],
            false => &[WHOLE],
        };
        for name in needed {
            if !folder.join(name).is_file() {
                bail!(
                    "there is no {name} in {}; build it with `cargo build --release -p {}`, or name another folder with --gateway",
                    folder.display(),
                    needed.join(" -p ")
                );
            }
        }
        Ok(Self(folder))
    }

    fn start(
        &self,
        name: &'static str,
        arguments: &[&str],
        variables: &[(&str, String)],
    ) -> anyhow::Result<Process> {
        let mut command = Command::new(self.0.join(name));
        // What is measured is the defaults.
        for (variable, _) in env::vars_os() {
            if variable.to_string_lossy().starts_with("STATEGATE_") {
                command.env_remove(variable);
            }
        }
        command.args(arguments);
        command.envs(variables.iter().map(|(variable, value)| (variable, value)));
        Process::start(name, command)
    }
}

/// A running gateway.
pub(crate) enum Gateway {
    One(Process),
    Several(Services),
}

/// The services in processes of their own.
pub(crate) struct Services {
    commands: Vec<Process>,
    queries: Vec<Process>,
    streams: Vec<Process>,
}

/// How many processes each service has, where it has its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    command: usize,
    query: usize,
    stream: usize,
}

impl Counts {
    /// One of each.
    pub(crate) const ONE: Self = Self {
        command: 1,
        query: 1,
        stream: 1,
    };
    /// Several of each, as where none may be missed.
    pub(crate) const SEVERAL: Self = Self {
        command: 3,
        query: 2,
        stream: 2,
    };
}

impl Gateway {
    /// Starts it on free ports, with the storage that `storage` says.
    pub(crate) fn start(
        binaries: &Binaries,
        storage: &Value,
        channel: &Channel,
        counts: Counts,
    ) -> anyhow::Result<Self> {
        let mut variables = vec![
            ("STATEGATE_PORT", "0".to_owned()),
            ("STATEGATE_STORAGE_PROVIDER", storage.to_string()),
            ("STATEGATE_CHANNEL_PROVIDER", channel.provider().to_string()),
        ];
        if !channel.name().crosses_processes() {
            let whole = binaries.start(WHOLE, &["dev"], &variables)?;
            return Ok(Self::One(whole));
        }
        // As `stategate dev` has it.
        variables.push(("STATEGATE_HOST", "127.0.0.1".to_owned()));
        variables.push(("STATEGATE_AUTH_DISABLED", "true".to_owned()));
        let start = |name, count| -> anyhow::Result<Vec<Process>> {
            let processes = (0..count).map(|_| binaries.start(name, &[], &variables));
            processes.collect()
        };
        let gateway = Self::Several(Services {
            commands: start(COMMAND, counts.command)?,
            queries: start(QUERY, counts.query)?,
            streams: start(STREAM, counts.stream)?,
        });
        gateway.wait_for_channel()?;
        Ok(gateway)
    }

    /// Opens connections to those who serve.
    pub(crate) fn connect(&self, runtime: &Runtime) -> anyhow::Result<ByRole> {
        let open = |processes: &[Process]| {
            let addresses: Vec<_> = processes.iter().map(Process::address).collect();
            runtime.block_on(Connections::open(&addresses))
        };
        Ok(match self {
            Self::One(process) => {
                let shared = open(std::slice::from_ref(process))?;
                ByRole {
                    writers: shared.clone(),
                    readers: shared.clone(),
                    subscribers: shared,
                }
            }
            Self::Several(services) => ByRole {
                writers: open(&services.commands)?,
                readers: open(&services.queries)?,
                subscribers: open(&services.streams)?,
            },
        })
    }

    /// Where subscribers connect.
    pub(crate) fn stream_addresses(&self) -> Vec<SocketAddr> {
        self.streaming().iter().map(Process::address).collect()
    }

    /// How the events that are streamed came so far.
    pub(crate) fn came(&self) -> anyhow::Result<Came> {
        let mut came = Came::default();
        for stream in self.streaming() {
            let metrics = stream.ask("/metrics")?;
            came.by_channel += sum(&metrics, "stategate_channel_events_total");
            came.from_log += sum(&metrics, "stategate_tail_events_read_total");
        }
        Ok(came)
    }

    /// Waits until those that stream have their channel.
    pub(crate) fn wait_for_channel(&self) -> anyhow::Result<()> {
        self.streaming()
            .iter()
            .try_for_each(Process::wait_for_channel)
    }

    /// Fails if the channel is away.
    pub(crate) fn assert_channel_is_there(&self) -> anyhow::Result<()> {
        for stream in self.streaming() {
            let state = stream.readiness()?;
            if state != READY {
                bail!("the stream service says: {}", state.trim());
            }
        }
        Ok(())
    }

    /// The processor time that all of it took so far.
    pub(crate) fn processor_time(&self) -> Duration {
        self.processes()
            .into_iter()
            .map(Process::processor_time)
            .sum()
    }

    /// The most memory that its processes held so far, each at its own time, in MiB.
    pub(crate) fn peak_mib(&self) -> Option<u64> {
        self.processes().into_iter().map(Process::peak_mib).sum()
    }

    /// The memory that those hold who stream, in KiB.
    pub(crate) fn streaming_memory_kib(&self) -> anyhow::Result<u64> {
        self.streaming().iter().map(Process::memory_kib).sum()
    }

    /// Ends it, which must go well.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        match self {
            Self::One(process) => process.end(),
            Self::Several(services) => [services.streams, services.queries, services.commands]
                .into_iter()
                .flatten()
                .try_for_each(Process::end),
        }
    }

    fn streaming(&self) -> &[Process] {
        match self {
            Self::One(process) => std::slice::from_ref(process),
            Self::Several(services) => &services.streams,
        }
    }

    fn processes(&self) -> Vec<&Process> {
        match self {
            Self::One(process) => vec![process],
            Self::Several(services) => [&services.commands, &services.queries, &services.streams]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}

/// Connections to those who serve: the same ones, if one process serves everybody.
pub(crate) struct ByRole {
    pub(crate) writers: Connections,
    pub(crate) readers: Connections,
    pub(crate) subscribers: Connections,
}

/// How events came to the service that streams them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Came {
    by_channel: f64,
    from_log: f64,
}

impl Came {
    /// Whether there were events, and the channel had no part in it.
    pub(crate) fn all_from_log(self) -> bool {
        self.by_channel == 0.0 && self.from_log > 0.0
    }

    /// The share that came by the channel, in percent, since an earlier look; `None` if nothing came.
    pub(crate) fn by_channel_since(self, before: Self) -> Option<f64> {
        let by_channel = self.by_channel - before.by_channel;
        let all = by_channel + self.from_log - before.from_log;
        (all > 0.0).then(|| 100.0 * by_channel / all)
    }
}

/// The sum of a metric over its labels; 0 while it was never touched.
fn sum(metrics: &str, name: &str) -> f64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            Some(labels) => labels.split_once('}')?.1,
            None => rest,
        };
        rest.strip_prefix(' ')?.parse::<f64>().ok()
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_time_between() {
        let came = |by_channel: f64, from_log: f64| {
            let metrics = format!(
                "# TYPE a_total counter\na_total{{lane=\"0\"}} {by_channel}\na_total_else 7\nb_total {from_log}\n"
            );
            Came {
                by_channel: sum(&metrics, "a_total"),
                from_log: sum(&metrics, "b_total"),
            }
        };
        let before = came(100.0, 50.0);
        assert_eq!(came(130.0, 60.0).by_channel_since(before), Some(75.0));
        assert_eq!(before.by_channel_since(before), None);
    }
}
