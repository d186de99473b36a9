//! Apache Kafka: one node that is broker and controller.

use async_trait::async_trait;
use testcontainers::{ContainerRequest, GenericImage, ImageExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::container::Server;

/// The release, by the tag of its image.
const RELEASE: &str = "4.3.1";

/// Settings for short times, so that a test need not wait, and little memory. Sessions may be as short as the cases ask
/// for; a group under KIP-848 has the broker's. Many cases connect at once: beyond the default backlog of fifty,
/// connections stand for as long as TCP repeats itself.
const SETTINGS: &[(&str, &str)] = &[
    ("NODE_ID", "1"),
    ("PROCESS_ROLES", "broker,controller"),
    ("CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
    ("INTER_BROKER_LISTENER_NAME", "BROKER"),
    ("LOG_DIRS", DATA),
    ("AUTO_CREATE_TOPICS_ENABLE", "false"),
    ("SOCKET_LISTEN_BACKLOG_SIZE", "4096"),
    ("BROKER_HEARTBEAT_INTERVAL_MS", "300"),
    ("GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
    ("GROUP_MIN_SESSION_TIMEOUT_MS", "500"),
    ("GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS", "500"),
    ("GROUP_CONSUMER_SESSION_TIMEOUT_MS", "6000"),
    ("GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS", "100"),
    ("GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS", "200"),
    ("GROUP_CONSUMER_ASSIGNMENT_INTERVAL_MS", "0"),
    ("OFFSETS_TOPIC_REPLICATION_FACTOR", "1"),
    ("OFFSETS_TOPIC_NUM_PARTITIONS", "4"),
    ("TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1"),
    ("TRANSACTION_STATE_LOG_MIN_ISR", "1"),
    ("SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR", "1"),
    ("SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR", "1"),
    ("LOG4J_ROOT_LOGLEVEL", "WARN"),
];

/// Java's options for tests: little memory, and no compiler that takes minutes, since a broker runs for seconds.
const SMALL: &[(&str, &str)] =
    &[("HEAP_OPTS", "-Xmx512m"), ("JVM_PERFORMANCE_OPTS", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")];

/// Java's options for measurements: those of Kafka's own scripts.
const FULL: &[(&str, &str)] =
    &[("HEAP_OPTS", "-Xms1g -Xmx1g"), ("JVM_PERFORMANCE_OPTS", "-XX:+UseG1GC -XX:MaxGCPauseMillis=20")];

/// Settings by which permissions are asked for. What has none is open to all.
const AUTHORIZER: &[(&str, &str)] = &[
    ("AUTHORIZER_CLASS_NAME", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
    ("ALLOW_EVERYONE_IF_NO_ACL_FOUND", "true"),
];

/// The folder of the data.
const DATA: &str = "/var/lib/kafka/data";

/// An Apache Kafka broker.
#[derive(Clone, Debug, Default)]
pub struct KafkaServer {
    credentials: Option<(String, String)>,
    measured: bool,
    governed: bool,
}

impl KafkaServer {
    /// The image's tag.
    pub const TAG: &'static str = RELEASE;

    /// A broker that lets everybody in.
    #[must_use]
    pub const fn new() -> Self {
        Self { credentials: None, measured: false, governed: false }
    }

    /// A broker that demands this user and password, by SASL PLAIN.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// A broker whose permissions can be changed while it runs: who is not told about by any may do everything.
    #[must_use]
    pub const fn governed(mut self) -> Self {
        self.governed = true;
        self
    }

    /// Whether permissions can be changed.
    pub(crate) const fn is_governed(&self) -> bool {
        self.governed
    }

    /// The ports for clients, for brokers and for controllers, if clients reach it at this port of the host.
    const fn ports(&self, port: u16) -> (u16, u16, u16) {
        // On the host's network the other two are its own as well: nobody else derives ports from the first.
        if self.measured { (port, port + 2_000, port + 4_000) } else { (9092, 9094, 9093) }
    }

    /// A broker that is measured: with the memory and the compiler that a broker in use has, and on the host's own
    /// network, since a published port takes each byte through a process of the engine's.
    #[must_use]
    pub const fn measured(mut self) -> Self {
        self.measured = true;
        self
    }
}

#[async_trait]
impl Server for KafkaServer {
    fn kind(&self) -> String {
        format!("kafka-{RELEASE}")
    }

    fn variant(&self) -> String {
        let open = match (self.governed, self.measured) {
            (true, _) => "governed",
            (_, true) => "open, measured",
            _ => "open",
        };
        self.credentials.as_ref().map_or(open.into(), |(user, password)| format!("{user}:{password}"))
    }

    fn inside(&self) -> u16 {
        9092
    }

    fn data(&self) -> &'static str {
        DATA
    }

    fn is_on_host(&self) -> bool {
        self.measured
    }

    fn image(&self) -> (&'static str, &'static str) {
        ("apache/kafka", RELEASE)
    }

    fn request(&self, image: GenericImage, port: u16, shared: bool) -> ContainerRequest<GenericImage> {
        // A broker that was killed is let in again when its former session has ended. A shared one may stand still for
        // longer, as on a busy machine, and would then tell its clients that there is no broker.
        let session = if shared { "60000" } else { "1500" };
        // Clients go to the address that the broker advertises.
        let (inside, broker, controller) = self.ports(port);
        let advertised = format!("CLIENT://127.0.0.1:{port},BROKER://127.0.0.1:{broker}");
        let to_all = if self.measured { "127.0.0.1" } else { "0.0.0.0" };
        let listeners =
            format!("CLIENT://{to_all}:{inside},BROKER://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}");
        let client = if self.credentials.is_some() { "SASL_PLAINTEXT" } else { "PLAINTEXT" };
        let protocols = format!("CLIENT:{client},BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT");
        let request = image
            .with_env_var("KAFKA_ADVERTISED_LISTENERS", advertised)
            .with_env_var("KAFKA_LISTENERS", listeners)
            .with_env_var("KAFKA_BROKER_SESSION_TIMEOUT_MS", session)
            .with_env_var("KAFKA_CONTROLLER_QUORUM_VOTERS", format!("1@127.0.0.1:{controller}"))
            .with_env_var("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", protocols);
        let machine = if self.measured { FULL } else { SMALL };
        let request = SETTINGS
            .iter()
            .chain(machine)
            .fold(request, |request, (name, value)| request.with_env_var(format!("KAFKA_{name}"), *value));
        let rights = if self.governed { AUTHORIZER } else { &[] };
        let request =
            rights.iter().fold(request, |request, (name, value)| request.with_env_var(format!("KAFKA_{name}"), *value));
        let Some((user, password)) = &self.credentials else { return request };
        let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
        request.with_env_var("KAFKA_LISTENER_NAME_CLIENT_SASL_ENABLED_MECHANISMS", "PLAIN").with_env_var(
            "KAFKA_LISTENER_NAME_CLIENT_PLAIN_SASL_JAAS_CONFIG",
            format!("{module} required user_{user}=\"{password}\";"),
        )
    }

    /// Asks which requests the broker knows: it answers under the number of the question.
    async fn answers(&self, mut stream: TcpStream) -> std::io::Result<bool> {
        // Length; ApiVersions, version 0; number 7; no client.
        stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]).await?;
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).await?;
        Ok(answer[4..] == [0, 0, 0, 7, 0, 0])
    }
}
