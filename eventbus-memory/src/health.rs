//! Capabilities and health: what the backend tells of itself.

use eventbus_core::backend::{Capabilities, Health};

use crate::config::{Copies, MemoryConfig, Positions};
use crate::state::MemoryState;

/// The capabilities of a world with these settings.
pub(crate) fn capabilities(config: &MemoryConfig) -> Capabilities {
    let mut capabilities = Capabilities::default();
    capabilities.pipelining = config.pipelining;
    capabilities.in_flight = config.in_flight;
    capabilities.resend_window = match config.copies {
        Copies::Window => Some(std::time::Duration::from_secs(120)),
        Copies::Stored => Some(std::time::Duration::ZERO),
        Copies::Dropped => None,
    };
    capabilities.max_record_bytes = Some(config.max_record_bytes);
    capabilities.note_bytes = config.note_bytes;
    capabilities.overshoot = config.overshoot;
    capabilities.memory_storage = true;
    capabilities.durable = false;
    capabilities
}

impl MemoryState {
    pub(crate) fn health(&self, connection: u64) -> Health {
        let mut health = Health::new(self.connections.link_state(connection));
        health.server = Some(concat!("eventbus-memory ", env!("CARGO_PKG_VERSION")).to_owned());
        let positions = match self.config.positions {
            Positions::PerPartition => "per partition",
            Positions::Shared => "shared by a topic's partitions",
        };
        health.details = vec![
            ("positions".to_owned(), positions.to_owned()),
            ("topics".to_owned(), self.topics.len().to_string()),
            ("storage".to_owned(), "this process's memory; lost with it".to_owned()),
        ];
        health
    }
}
