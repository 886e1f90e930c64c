//! `stategate dev`: command, query and stream service in one process.

/// What `stategate dev` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the gateway until it is told to stop.
pub(crate) async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("`stategate dev` is not built yet")
}
