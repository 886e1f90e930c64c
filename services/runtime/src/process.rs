//! One process: opened, served, ended.

use std::{
    future::Future,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use stategate_auth::Authenticator;
use stategate_channel::{Channel, ChannelConfig, Key, Log};
use stategate_policy::PolicySource;
use stategate_server::{
    AccessControl, Config, Drain, Running, Services, Tasks, Telemetry, config, serve, variables,
};
use stategate_storage::{Storage, StorageConfig, Work};

use crate::{Positions, foundation::Foundations};

/// How far a channel has to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// From one process to others.
    BetweenProcesses,
    /// From one part of this process to another, at least.
    WithinProcess,
}

/// Where a storage is configured.
#[derive(Debug, Clone)]
pub enum Source {
    /// By the variable.
    Variable,
    /// By an option of the command line, which errors name.
    Option(&'static str, StorageConfig),
}

/// A process with its storage open.
#[derive(Debug)]
pub struct Process {
    config: Config,
    telemetry: Telemetry,
    drain: Drain,
    tasks: Tasks,
    storage: Arc<dyn Storage>,
    channel: Option<Arc<dyn Channel>>,
    positions: Arc<Positions>,
    control: AccessControl,
}

impl Process {
    /// Opens the storage that a configuration names.
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        Self::open_from(config, Source::Variable).await
    }

    /// The same, and a channel.
    pub async fn open_with_channel(
        config: Config,
        storage: Source,
        scope: Scope,
    ) -> anyhow::Result<(Self, Arc<dyn Channel>)> {
        // What is wrong with it is said before a storage is opened, and perhaps made.
        let channel: ChannelConfig = config.channel.parse()?;
        if scope == Scope::BetweenProcesses && !channel.crosses_processes() {
            let problem = "is a channel within one process; separate services need another, such as {\"name\":\"storage\"}";
            return Err(config::Error::of(&variables::CHANNEL_PROVIDER, problem).into());
        }
        let mut process = Self::open_from(config, storage).await?;
        let log = Log {
            log_id: process.storage.info().log_id,
            heads: Arc::new(stategate_storage::heads_of(&process.storage)),
        };
        let key = process.config.channel_key.as_ref();
        let key = key.map(|key| Key::new(key.expose()));
        let channel = stategate_channel::open(&channel, log, key)
            .await
            .map_err(|error| process.config.channel.unusable(error))?;
        process.drain.on_close("channel", {
            let channel = Arc::clone(&channel);
            async move { channel.close().await }
        });
        process.channel = Some(Arc::clone(&channel));
        Ok((process, channel))
    }

    async fn open_from(config: Config, storage: Source) -> anyhow::Result<Self> {
        let (storage, option) = match storage {
            Source::Variable => (config.storage.parse()?, None),
            Source::Option(name, storage) => (storage, Some(name)),
        };
        let telemetry = Telemetry::install(config.debug)?;
        let drain = Drain::new();
        let tasks = Tasks::of(&drain);
        // What is wrong with it is said before a storage is opened, and perhaps made.
        let control = access_control(&config, &tasks)?;
        let storage = stategate_storage::open(&storage).await;
        let storage = storage.map_err(|error| match option {
            Some(name) => anyhow::anyhow!("{name} cannot be used: {}", error.reason()),
            None => config.storage.unusable(error.reason()).into(),
        })?;
        drain.on_close("storage", {
            let storage = Arc::clone(&storage);
            async move { storage.close().await }
        });
        let positions = Arc::new(Positions::new(
            storage.info().lanes,
            config.max_calls,
            Arc::new(stategate_storage::heads_of(&storage)),
        ));
        Ok(Self {
            tasks,
            config,
            telemetry,
            drain,
            storage,
            channel: None,
            positions,
            control,
        })
    }

    /// What was configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The storage.
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.storage)
    }

    /// The positions of its log, for whoever waits for them.
    pub fn positions(&self) -> Arc<Positions> {
        Arc::clone(&self.positions)
    }

    /// What runs tasks that the process cannot do without.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Has something ended when the process ends: what was named last first, and the channel and the
    /// storage after all of it.
    pub fn on_close(&self, name: &'static str, close: impl Future<Output = ()> + Send + 'static) {
        self.drain.on_close(name, close);
    }

    /// Begins to serve what stands on the storage and channel of the process; an error names what is in the
    /// way.
    pub async fn start(&self, mut services: Services) -> Result<Running, serve::Error> {
        services.foundation = Some(Arc::new(Foundations {
            storage: Arc::clone(&self.storage),
            // Writes do without it.
            channel: self.channel.clone().filter(|_| services.stream.is_some()),
            work: match services.command {
                Some(_) => Work::Write,
                None => Work::Read,
            },
            control: self.control.clone(),
        }));
        let control = self.control.clone();
        stategate_server::start(
            &self.config,
            services,
            control,
            &self.telemetry,
            &self.drain,
        )
        .await
    }

    /// Serves until the process is told to end, and ends it well.
    pub async fn serve(&self, services: Services) -> anyhow::Result<()> {
        let running = self.start(services).await?;
        running.ready().await;
        Ok(running.ended().await?)
    }
}

/// Who may do what, and the tasks that keep keys and policies as they are published.
fn access_control(config: &Config, tasks: &Tasks) -> anyhow::Result<AccessControl> {
    let Some(protected) = &config.protection else {
        return Ok(AccessControl::open());
    };
    let (policies, reloader) = protected
        .policies
        .clone()
        .load()
        .map_err(|error| protected.unusable(&error))?;
    for (policy, variable) in [
        (&protected.policies.request, &variables::REQUEST_POLICY),
        (&protected.policies.response, &variables::RESPONSE_POLICY),
    ] {
        if *policy == PolicySource::None {
            tracing::warn!(
                variable = variable.name,
                "there is no such policy, so everything is denied; set it, or its _FILE"
            );
        }
    }
    if reloader.has_files() {
        tasks.essential("the reading of policies", reloader.run());
    }
    let (authenticator, refresher) = Authenticator::new(protected.tokens.clone())
        .map_err(|error| protected.keys_unusable(&error))?;
    tasks.essential("the fetching of keys", refresher.run());
    let control = AccessControl::on(Arc::new(authenticator), policies, protected.rates);
    tasks.essential("the forgetting of rates", control.clone().tidy());
    Ok(control)
}

/// The main of a process: what it ends with, and on standard error why.
pub async fn main(name: &str, run: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    match run.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
