//! Which channel to use, as `STATEGATE_CHANNEL_PROVIDER` says it.

use std::sync::Arc;

use serde::Deserialize;

use crate::{Channel, Error, InMemory, InMemoryConfig, Log, StorageHeads, StorageHeadsConfig};

/// A channel and its settings: JSON with the provider's `name` and that provider's own fields.
/// Unknown names and fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum ChannelConfig {
    /// The memory of this process.
    Inmem(InMemoryConfig),
    /// The storage's own lane heads.
    Storage(StorageHeadsConfig),
}

impl ChannelConfig {
    /// Whether services in several processes can use it.
    pub fn crosses_processes(&self) -> bool {
        match self {
            Self::Inmem(_) => false,
            Self::Storage(_) => true,
        }
    }
}

/// Opens a channel that tells of `log`.
pub async fn open(config: &ChannelConfig, log: Log) -> Result<Arc<dyn Channel>, Error> {
    Ok(match config {
        ChannelConfig::Inmem(config) => Arc::new(InMemory::new(config)),
        ChannelConfig::Storage(config) => Arc::new(StorageHeads::new(config, log)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_strict() {
        let parse = serde_json::from_str::<ChannelConfig>;
        assert!(matches!(
            parse(r#"{"name":"inmem"}"#),
            Ok(ChannelConfig::Inmem(_))
        ));
        assert!(matches!(
            parse(r#"{"name":"storage","interval_ms":20}"#),
            Ok(ChannelConfig::Storage(_))
        ));
        for bad in [
            r#"{"name":"carrier-pigeon"}"#,
            r#"{"name":"inmem","adr":"x"}"#,
            r#"{"name":"storage","interval_ms":0}"#,
            "{}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
