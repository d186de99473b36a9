//! A process of a run.

use std::fmt;
use std::sync::Arc;

use eventbus_core::{BusConfig, EventBus, Subscribe, Subscription, TopicSpec};

use super::failure::Failure;
use super::fixture::{Connection, UnderWay};
use super::run::Run;
use crate::harness::{Node, Publisher, Script};

/// A process of a run, with a connection and a bus of its own.
pub struct Peer {
    run: Run,
    connection: Arc<dyn Connection>,
    node: Node,
}

impl Run {
    /// Starts a process with a connection and a bus of its own.
    ///
    /// # Errors
    /// An error of the broker or the bus.
    pub async fn process(&self) -> Result<Peer, Failure> {
        self.process_with(self.config()).await
    }

    /// Starts a process whose bus has another configuration, made from [`config`](Self::config).
    ///
    /// # Errors
    /// An error of the broker or the bus.
    pub async fn process_with(&self, config: BusConfig) -> Result<Peer, Failure> {
        let (connection, node) = self.connect(config).await?;
        Ok(Peer { run: self.clone(), connection, node })
    }
}

impl Peer {
    /// The process's bus.
    #[must_use]
    pub fn bus(&self) -> &Arc<dyn EventBus> {
        self.node.bus()
    }

    /// The process's publisher, which records what it does.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        self.node.publisher()
    }

    /// The process's node of the harness.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The process's connection.
    #[must_use]
    pub fn connection(&self) -> &Arc<dyn Connection> {
        &self.connection
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// The bus's error.
    pub async fn topic(&self, spec: TopicSpec) -> Result<(), Failure> {
        self.bus().ensure_topic(&spec).await?;
        Ok(())
    }

    /// Subscribes with a recording handler.
    ///
    /// # Errors
    /// The bus's error.
    pub async fn subscribe(&self, options: Subscribe, script: impl Script) -> Result<Subscription, Failure> {
        Ok(self.node.subscribe(options, script).await?)
    }

    /// Publishes `rounds` envelopes of each key, one round of all keys after another, and awaits all confirmations.
    ///
    /// # Errors
    /// The first error of a publish.
    pub async fn publish_rounds(&self, topic: &str, keys: &[String], rounds: usize) -> Result<(), Failure> {
        let mut outcomes = Vec::with_capacity(keys.len() * rounds);
        for _ in 0..rounds {
            outcomes.extend(keys.iter().map(|key| self.publisher().publish(topic, key, 0)));
        }
        for outcome in outcomes {
            outcome.await?;
        }
        Ok(())
    }

    /// Kills the process, as SIGKILL does.
    ///
    /// # Errors
    /// The fixture's error, if it cannot.
    pub async fn kill(&self, under_way: UnderWay) -> Result<(), Failure> {
        self.node.process().kill();
        Ok(self.connection.kill(under_way).await?)
    }

    /// Cuts the process off, and records it.
    ///
    /// # Errors
    /// The fixture's error, if it cannot.
    pub async fn cut(&self, under_way: UnderWay) -> Result<(), Failure> {
        self.run.fault(&self.fault_name("cut"), true);
        Ok(self.connection.cut(under_way).await?)
    }

    /// Ends a cut, and records it.
    ///
    /// # Errors
    /// The fixture's error, if it cannot.
    pub async fn heal(&self) -> Result<(), Failure> {
        self.connection.heal().await?;
        self.run.healed(&self.fault_name("cut"));
        Ok(())
    }

    /// Freezes the process, and records it.
    ///
    /// # Errors
    /// The fixture's error, if it cannot.
    pub async fn freeze(&self) -> Result<(), Failure> {
        self.run.fault(&self.fault_name("freeze"), true);
        Ok(self.connection.freeze().await?)
    }

    /// Ends a freeze, and records it.
    ///
    /// # Errors
    /// The fixture's error, if it cannot.
    pub async fn thaw(&self) -> Result<(), Failure> {
        self.connection.thaw().await?;
        self.run.healed(&self.fault_name("freeze"));
        Ok(())
    }

    fn fault_name(&self, what: &str) -> String {
        format!("{what} of process {}", self.node.process().number())
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("node", &self.node).finish_non_exhaustive()
    }
}
