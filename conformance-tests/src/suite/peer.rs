//! One process of a run.

use std::fmt;
use std::sync::Arc;

use eventbus_core::{BusConfig, EventBus, Subscribe, Subscription, TopicSpec};

use super::failure::Failure;
use super::fixture::{Connection, UnderWay};
use super::run::Run;
use crate::harness::{Node, Publisher, Script};

/// One process of a run.
pub struct Peer {
    run: Run,
    connection: Arc<dyn Connection>,
    node: Node,
}

impl Run {
    /// Starts a process: a connection and a bus of its own.
    ///
    /// # Errors
    /// What the broker or the bus says.
    pub async fn process(&self) -> Result<Peer, Failure> {
        self.process_with(self.config()).await
    }

    /// Starts a process whose bus has another configuration, made from [`config`](Self::config).
    ///
    /// # Errors
    /// What the broker or the bus says.
    pub async fn process_with(&self, config: BusConfig) -> Result<Peer, Failure> {
        let (connection, node) = self.connect(config).await?;
        Ok(Peer { run: self.clone(), connection, node })
    }
}

impl Peer {
    /// Its bus.
    #[must_use]
    pub fn bus(&self) -> &Arc<dyn EventBus> {
        self.node.bus()
    }

    /// Its publisher, on the record.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        self.node.publisher()
    }

    /// Its node of the harness.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its connection.
    #[must_use]
    pub fn connection(&self) -> &Arc<dyn Connection> {
        &self.connection
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// What the bus says.
    pub async fn topic(&self, spec: TopicSpec) -> Result<(), Failure> {
        self.bus().ensure_topic(&spec).await?;
        Ok(())
    }

    /// Subscribes with a recording handler.
    ///
    /// # Errors
    /// What the bus says.
    pub async fn subscribe(&self, options: Subscribe, script: impl Script) -> Result<Subscription, Failure> {
        Ok(self.node.subscribe(options, script).await?)
    }

    /// Publishes these numbers of envelopes of each key, a round of all keys after another, and awaits all confirmations.
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

    /// Kills the process, as kill -9 does.
    ///
    /// # Errors
    /// Where the fixture cannot.
    pub async fn kill(&self, under_way: UnderWay) -> Result<(), Failure> {
        self.node.process().kill();
        Ok(self.connection.kill(under_way).await?)
    }

    /// Cuts the process off, on the record.
    ///
    /// # Errors
    /// Where the fixture cannot.
    pub async fn cut(&self, under_way: UnderWay) -> Result<(), Failure> {
        self.run.fault(&self.fault_name("cut"), true);
        Ok(self.connection.cut(under_way).await?)
    }

    /// Ends a cut, on the record.
    ///
    /// # Errors
    /// Where the fixture cannot.
    pub async fn heal(&self) -> Result<(), Failure> {
        self.connection.heal().await?;
        self.run.healed(&self.fault_name("cut"));
        Ok(())
    }

    /// Freezes the process, on the record.
    ///
    /// # Errors
    /// Where the fixture cannot.
    pub async fn freeze(&self) -> Result<(), Failure> {
        self.run.fault(&self.fault_name("freeze"), true);
        Ok(self.connection.freeze().await?)
    }

    /// Ends a freeze, on the record.
    ///
    /// # Errors
    /// Where the fixture cannot.
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
