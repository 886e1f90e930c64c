//! The gateway under test: one process, or one or more for each of its services. Writers, readers and
//! subscribers connect to the service that serves them.

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
    process::{Process, READY},
    protection,
    workload::Connections,
};

/// The binary of the gateway in one process.
const GATEWAY: &str = "stategate";
/// The binaries of its services.
const COMMAND: &str = "stategate-command";
const QUERY: &str = "stategate-query";
const STREAM: &str = "stategate-stream";

/// The folder with the gateway's binaries.
pub(crate) struct Binaries(PathBuf);

impl Binaries {
    /// The folder that was named, or that of this binary. It has to have the binaries that the channel needs.
    pub(crate) fn find(named: Option<PathBuf>, channel: ChannelName) -> anyhow::Result<Self> {
        let this = env::current_exe()?;
        let own = this.parent().unwrap_or(Path::new("")).to_owned();
        let folder = named.unwrap_or(own);
        let needed: &[_] = match channel.crosses_processes() {
            true => &[COMMAND, QUERY, STREAM],
            false => &[GATEWAY],
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
        // Whatever the user's environment sets: the defaults are measured.
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
    OneProcess(Process),
    Services(Services),
}

/// The processes of each service.
pub(crate) struct Services {
    commands: Vec<Process>,
    queries: Vec<Process>,
    streams: Vec<Process>,
}

/// How many processes each service has, if the services are not in one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessCounts {
    command: usize,
    query: usize,
    stream: usize,
}

impl ProcessCounts {
    /// One of each.
    pub(crate) const ONE: Self = Self {
        command: 1,
        query: 1,
        stream: 1,
    };
    /// Several of each, as in a deployment where any one may fail.
    pub(crate) const SEVERAL: Self = Self {
        command: 3,
        query: 2,
        stream: 2,
    };
}

impl Gateway {
    /// Starts it on free ports. `storage` is the value of `STATEGATE_STORAGE_PROVIDER`.
    pub(crate) fn start(
        binaries: &Binaries,
        storage: &Value,
        channel: &Channel,
        counts: ProcessCounts,
    ) -> anyhow::Result<Self> {
        let mut variables = vec![
            ("STATEGATE_PORT", "0".to_owned()),
            ("STATEGATE_STORAGE_PROVIDER", storage.to_string()),
            ("STATEGATE_CHANNEL_PROVIDER", channel.settings().to_string()),
        ];
        let is_open = ("STATEGATE_AUTH_DISABLED", "true".to_owned());
        variables.extend(protection::variables().unwrap_or_else(|| vec![is_open]));
        if !channel.name().crosses_processes() {
            let process = binaries.start(GATEWAY, &["dev"], &variables)?;
            return Ok(Self::OneProcess(process));
        }
        // As in `stategate dev`.
        variables.push(("STATEGATE_HOST", "127.0.0.1".to_owned()));
        let start = |name, count| -> anyhow::Result<Vec<Process>> {
            let processes = (0..count).map(|_| binaries.start(name, &[], &variables));
            processes.collect()
        };
        let gateway = Self::Services(Services {
            commands: start(COMMAND, counts.command)?,
            queries: start(QUERY, counts.query)?,
            streams: start(STREAM, counts.stream)?,
        });
        gateway.wait_until_ready()?;
        Ok(gateway)
    }

    /// Opens connections to its services.
    pub(crate) fn connect(&self, runtime: &Runtime) -> anyhow::Result<GatewayConnections> {
        let open = |processes: &[Process]| {
            let addresses: Vec<_> = processes.iter().map(Process::address).collect();
            runtime.block_on(Connections::open(&addresses))
        };
        Ok(match self {
            Self::OneProcess(process) => {
                let shared = open(std::slice::from_ref(process))?;
                GatewayConnections {
                    writers: shared.clone(),
                    readers: shared.clone(),
                    subscribers: shared,
                }
            }
            Self::Services(services) => GatewayConnections {
                writers: open(&services.commands)?,
                readers: open(&services.queries)?,
                subscribers: open(&services.streams)?,
            },
        })
    }

    /// The addresses of the stream services.
    pub(crate) fn stream_addresses(&self) -> Vec<SocketAddr> {
        self.stream_processes()
            .iter()
            .map(Process::address)
            .collect()
    }

    /// How many events the stream services have received so far, through the channel and from the log.
    pub(crate) fn event_counts(&self) -> anyhow::Result<EventCounts> {
        let mut counts = EventCounts::default();
        for stream in self.stream_processes() {
            let metrics = stream.http_get("/metrics")?;
            counts.by_channel += sum(&metrics, "stategate_channel_events_total");
            counts.from_log += sum(&metrics, "stategate_tail_events_read_total");
        }
        Ok(counts)
    }

    /// Waits until the stream services are connected to the channel.
    pub(crate) fn wait_until_ready(&self) -> anyhow::Result<()> {
        self.stream_processes()
            .iter()
            .try_for_each(Process::wait_until_ready)
    }

    /// Fails if a stream service is not connected to the channel.
    pub(crate) fn ensure_ready(&self) -> anyhow::Result<()> {
        for stream in self.stream_processes() {
            let state = stream.readiness()?;
            if state != READY {
                bail!("the stream service says: {}", state.trim());
            }
        }
        Ok(())
    }

    /// The processor time of its processes so far.
    pub(crate) fn processor_time(&self) -> Duration {
        self.processes()
            .into_iter()
            .map(Process::processor_time)
            .sum()
    }

    /// The sum of its processes' highest memory uses so far, in MiB. They need not have been at the same time.
    pub(crate) fn peak_mib(&self) -> Option<u64> {
        self.processes().into_iter().map(Process::peak_mib).sum()
    }

    /// The memory of the stream services, in KiB.
    pub(crate) fn stream_memory_kib(&self) -> anyhow::Result<u64> {
        self.stream_processes()
            .iter()
            .map(Process::memory_kib)
            .sum()
    }

    /// Stops it; anything but a clean exit is an error.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::OneProcess(process) => process.stop(),
            Self::Services(services) => [services.streams, services.queries, services.commands]
                .into_iter()
                .flatten()
                .try_for_each(Process::stop),
        }
    }

    fn stream_processes(&self) -> &[Process] {
        match self {
            Self::OneProcess(process) => std::slice::from_ref(process),
            Self::Services(services) => &services.streams,
        }
    }

    fn processes(&self) -> Vec<&Process> {
        match self {
            Self::OneProcess(process) => vec![process],
            Self::Services(services) => [&services.commands, &services.queries, &services.streams]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}

/// Connections to the gateway's services. If one process serves all, these are the same connections.
pub(crate) struct GatewayConnections {
    pub(crate) writers: Connections,
    pub(crate) readers: Connections,
    pub(crate) subscribers: Connections,
}

/// How many events the stream services received.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EventCounts {
    by_channel: f64,
    from_log: f64,
}

impl EventCounts {
    /// Whether there were events and none of them came through the channel.
    pub(crate) fn all_from_log(self) -> bool {
        self.by_channel == 0.0 && self.from_log > 0.0
    }

    /// Percent of the events since an earlier count that came through the channel; `None` without events.
    pub(crate) fn percent_by_channel_since(self, before: Self) -> Option<f64> {
        let by_channel = self.by_channel - before.by_channel;
        let all = by_channel + self.from_log - before.from_log;
        (all > 0.0).then(|| 100.0 * by_channel / all)
    }
}

/// The sum of a metric over its labels; 0 if the metric is absent, because nothing was counted yet.
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
    fn the_share_is_of_the_events_since_the_earlier_count() {
        let counts = |by_channel: f64, from_log: f64| {
            let metrics = format!(
                "# TYPE a_total counter\na_total{{lane=\"0\"}} {by_channel}\na_total_else 7\nb_total {from_log}\n"
            );
            EventCounts {
                by_channel: sum(&metrics, "a_total"),
                from_log: sum(&metrics, "b_total"),
            }
        };
        let before = counts(100.0, 50.0);
        assert_eq!(
            counts(130.0, 60.0).percent_by_channel_since(before),
            Some(75.0)
        );
        assert_eq!(before.percent_by_channel_since(before), None);
    }
}
