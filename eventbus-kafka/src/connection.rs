//! Parts that all clients share: their log, whether brokers can be reached, and whether a client is stranded.
//!
//! A broker may tell its clients that the cluster has no brokers: for a moment, after it stood still for longer than
//! its session at the controller (`broker.session.timeout.ms`, 9 s). librdkafka then forgets all brokers, and about
//! every second time it does not begin again with the configured ones (confluentinc/librdkafka#5301): such a client is
//! stranded, and reaches no broker ever again. Its statistics show it, and another takes its place.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use eventbus_core::toolkit::{Connectivity, client_statistics, error_closed, poll_until_blocking};
use eventbus_core::{Error, ErrorKind, Result};
use rdkafka::Statistics;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;

use crate::config::KafkaConfig;
use crate::error::{out_of_reach, passes, to_core};

/// Statistics in a row that name no broker until a client counts as stranded. One alone may come from a client that
/// begins again.
const STRANDED: u32 = 2;

/// The owner of a client, which puts another in the place of a stranded one.
pub(crate) trait Owner: Send + Sync + 'static {
    /// Hears that the client knows of no broker, and will reach none any more. Called on the thread that polls it.
    fn stranded(&self) {}
}

impl Owner for () {}

/// The context of a client, which takes its log and its errors. Brokers that are away say so again and again: that is
/// state, not news.
#[derive(Debug, Default)]
pub(crate) struct Context<T = ()> {
    pub(crate) reached: Arc<Connectivity>,
    /// The client's owner.
    pub(crate) of: T,
    /// Whether statistics are metrics, too.
    metrics: bool,
    /// Statistics in a row that named no broker.
    bare: AtomicU32,
}

impl<T> Context<T> {
    pub(crate) fn of(link: &Link, of: T) -> Self {
        let metrics = !link.config.statistics_interval.is_zero();
        Self { reached: Arc::clone(&link.reached), of, metrics, bare: AtomicU32::new(0) }
    }
}

impl<T: Owner> ClientContext for Context<T> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "eventbus", facility, "{message}");
            }
            // Connections come and go; events tell what follows from it.
            _ => tracing::debug!(target: "eventbus", facility, "{message}"),
        }
    }

    fn stats(&self, said: Statistics) {
        // A coordinator's entry is a broker by another name.
        if said.brokers.values().any(|broker| broker.source != "logical" && broker.source != "internal") {
            self.bare.store(0, Ordering::Relaxed);
        } else if self.bare.fetch_add(1, Ordering::Relaxed) + 1 == STRANDED {
            tracing::warn!(target: "eventbus", client = said.name, "a client knows of no broker any more, and is replaced");
            self.of.stranded();
        }
        if !self.metrics {
            return;
        }
        // The slowest broker's round trip, in seconds.
        let slowest = said.brokers.values().filter_map(|broker| broker.rtt.as_ref()).map(|rtt| rtt.p99).max();
        let figures = [
            ("queue.messages", said.msg_cnt as f64),
            ("queue.bytes", said.msg_size as f64),
            ("sent.bytes", said.tx_bytes as f64),
            ("received.bytes", said.rx_bytes as f64),
            ("round_trip.p99", slowest.unwrap_or_default() as f64 / 1e6),
        ];
        client_statistics("kafka", &said.client_id, &figures);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown | Code::BrokerTransportFailure) => self.reached.set(false),
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL) => {
                self.reached.failed("the brokers refuse the credentials, or the encryption".into());
            }
            _ => {}
        }
        tracing::debug!(target: "eventbus", %error, "{reason}");
    }
}

impl ConsumerContext for Context {}

/// The records that a reader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Those that a member takes: none of an open transaction, none behind it, none that was taken back.
    Committed,
    /// All that are in the log.
    Uncommitted,
}

/// The client for everything but records.
pub(crate) type Admin = AdminClient<Context>;

/// The connection for everything but records: metadata, settings, ends of logs. Blocking calls run on a thread that may
/// block.
pub(crate) struct Link {
    pub(crate) config: KafkaConfig,
    pub(crate) reached: Arc<Connectivity>,
    /// The client, replaced where it was stranded: it is not polled, so it tells no statistics.
    admin: RwLock<Arc<Admin>>,
    /// The last client that asked in the name of a group. It is kept: progress is looked at again and again, and each
    /// client makes connections.
    asked: Mutex<Option<(String, BaseConsumer)>>,
}

impl Link {
    /// Connects: a broker must answer within the connect time-out.
    pub(crate) async fn connect(config: &KafkaConfig) -> Result<Arc<Self>> {
        config.validate()?;
        config.tls.check_files()?;
        let admin = RwLock::new(Arc::new(admin(config).map_err(|error| refused_setting(&error))?));
        let link = Arc::new(Self { config: config.clone(), reached: Arc::default(), admin, asked: Mutex::default() });
        let answer = link.run(|link| link.probe().map_err(|error| to_core(&error, "connect"))).await;
        match (answer, link.reached.trouble()) {
            (Ok(()), _) => Ok(link),
            (Err(_), Some(why)) => Err(Error::new(ErrorKind::Unauthorized, why).with("servers", &config.brokers)),
            (Err(error), None) => Err(error.with("servers", &config.brokers)),
        }
    }

    /// Asks until a broker answers or refuses. By a client that is polled: only such a client hears why it was refused.
    fn probe(&self) -> KafkaResult<()> {
        let mut settings = self.config.client();
        settings.set("group.id", "eventbus-probe");
        let context = Context::of(self, ());
        let probe: BaseConsumer<Context> = BaseConsumer::from_config_and_context(&settings, context)?;
        let again = |answer: &KafkaResult<()>| answer.is_err() && self.reached.trouble().is_none();
        poll_until_blocking(self.config.connect_timeout, again, |left| {
            let answer = probe.fetch_metadata(None, left.min(Duration::from_millis(500)));
            while probe.poll(Duration::ZERO).is_some() {}
            answer.map(|_| self.reached.connected())
        })
    }

    fn admin(&self) -> Arc<Admin> {
        Arc::clone(&self.admin.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks by the current client. Blocks.
    pub(crate) fn by_client<T>(&self, ask: impl FnOnce(&Client<Context>) -> KafkaResult<T>) -> KafkaResult<T> {
        ask(self.admin().inner())
    }

    /// Runs a request on the current client, and replaces the client where it may be stranded.
    pub(crate) async fn administer<T>(
        &self,
        ask: impl AsyncFnOnce(&Admin, &AdminOptions) -> KafkaResult<T>,
    ) -> KafkaResult<T> {
        let (admin, since) = (self.admin(), Instant::now());
        let answer = ask(&admin, &self.options()).await;
        self.replace_if_stranded(&admin, since, &answer);
        // Dropping the last handle of a client waits for its threads.
        if Arc::strong_count(&admin) == 1 {
            tokio::task::spawn_blocking(move || drop(admin));
        }
        answer
    }

    /// Replaces a client that reached no broker for about as long as an answer may take, and so may be stranded, unless
    /// it was replaced already.
    fn replace_if_stranded<T>(&self, used: &Arc<Admin>, since: Instant, answer: &KafkaResult<T>) {
        if !out_of_reach(answer) || since.elapsed() < self.timeout() / 2 {
            return;
        }
        let Ok(made) = admin(&self.config) else { return };
        let mut admin = self.admin.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&admin, used) {
            *admin = Arc::new(made);
        }
    }

    fn options(&self) -> AdminOptions {
        let timeout = Some(self.config.request_timeout);
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.config.request_timeout
    }

    /// Asks a blocking question on a thread that may block. Asks again, within the request time-out, after an answer
    /// that passes. Not cancelled with the future: the answer is then dropped.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        doing: &'static str,
        question: impl Fn(&Self) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T> {
        let asked = move |link: &Self| {
            let (used, since) = (link.admin(), Instant::now());
            let answer = poll_until_blocking(link.timeout(), passes, |_| question(link));
            link.replace_if_stranded(&used, since, &answer);
            answer
        };
        self.run(move |link| asked(link).map_err(|error| to_core(&error, doing))).await
    }

    /// Runs blocking work once, on a thread as [`ask`](Self::ask) does.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let link = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&link)).await.map_err(|_| error_closed())?
    }

    /// Makes a consumer that names a group and never joins it. It reads the records that are there, and says where a
    /// log ends: with an open transaction's records and what is behind them, or as the group's members would.
    pub(crate) fn outsider(&self, group: &str, reads: Isolation) -> KafkaResult<BaseConsumer> {
        let mut config = self.config.client();
        config
            .set("isolation.level", if reads == Isolation::Committed { "read_committed" } else { "read_uncommitted" });
        config.set("group.id", group).set("enable.auto.commit", "false");
        config.set("auto.offset.reset", "earliest").set("enable.partition.eof", "true").create()
    }

    /// Asks the coordinator in the name of a group, as an [`outsider`](Self::outsider).
    pub(crate) fn in_name_of<T>(
        &self,
        group: &str,
        ask: impl FnOnce(&BaseConsumer) -> KafkaResult<T>,
    ) -> KafkaResult<T> {
        let last = || self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last().take();
        let client = match known {
            Some((name, client)) if name == group => client,
            _ => self.outsider(group, Isolation::Committed)?,
        };
        // Its events would wait in its queue otherwise.
        while client.poll(Duration::ZERO).is_some() {}
        let answer = ask(&client);
        // A client that reached no broker may never do so; a refused one is as good as before, and is needed again
        // soon.
        if !out_of_reach(&answer) {
            *last() = Some((group.to_owned(), client));
        }
        answer
    }

    /// Fetches metadata of one topic, or of all without a name. Never makes a topic.
    pub(crate) async fn metadata(self: &Arc<Self>, name: Option<&str>) -> Result<Metadata> {
        let name = name.map(str::to_owned);
        let question =
            move |link: &Self| link.by_client(|client| client.fetch_metadata(name.as_deref(), link.timeout()));
        self.ask("asking for metadata", question).await
    }
}

fn admin(config: &KafkaConfig) -> KafkaResult<Admin> {
    // Nobody takes this client's log out of its queue.
    let mut quiet = config.client();
    quiet.set_log_level(RDKafkaLogLevel::Emerg);
    // The ends of logs are those of the logs: a record above an open transaction is there, though nobody reads it yet.
    quiet.set("isolation.level", "read_uncommitted");
    Admin::from_config_and_context(&quiet, Context::default())
}

/// The error of a client that cannot be made, since its settings are at fault. It names the property, not its value.
pub(crate) fn refused_setting(error: &KafkaError) -> Error {
    let KafkaError::ClientConfig(_, why, property, _) = error else {
        return Error::new(ErrorKind::InvalidConfig, error.to_string());
    };
    Error::new(ErrorKind::InvalidConfig, format!("{property}: {why}")).with("setting", property)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rdkafka::mocking::MockCluster;

    use super::*;

    /// Asks a question whose first answers are these errors. Returns the last answer, and how often it was asked.
    async fn asked(answers: &'static [Code]) -> (Result<()>, u32) {
        let cluster = MockCluster::new(1).unwrap();
        let link = Link::connect(&KafkaConfig::new(cluster.bootstrap_servers())).await.unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let question = move |_: &Link| match answers.get(counted.fetch_add(1, Ordering::Relaxed) as usize) {
            Some(code) => Err(KafkaError::MetadataFetch(*code)),
            None => Ok(()),
        };
        (link.ask("asking", question).await, count.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn what_passes_is_asked_again() {
        const PASSING: [Code; 4] = [
            Code::NotCoordinator,
            Code::CoordinatorLoadInProgress,
            Code::NotLeaderForPartition,
            Code::BrokerTransportFailure,
        ];
        let (answer, times) = asked(&PASSING).await;
        assert_eq!((answer.is_ok(), times), (true, 5), "{answer:?}");
    }

    #[tokio::test]
    async fn what_stays_is_told_at_once() {
        let (answer, times) = asked(&[Code::NotCoordinator, Code::UnknownTopicOrPartition]).await;
        assert_eq!((answer.unwrap_err().kind(), times), (ErrorKind::UnknownTopic, 2));
    }
}
