//! World of a test: a broker, and the test's own prefix on it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conformance_tests::brokers::{Broker as Container, KafkaServer, NatsServer, NatsVersion, background};
use futures_util::TryStreamExt as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;

use crate::program::{Ran, Running, run, run_with};

#[derive(Debug, Clone)]
pub(crate) struct Broker {
    pub(crate) name: String,
    from: From,
}

#[derive(Debug, Clone)]
enum From {
    /// A server that runs already.
    Url(String),
    Nats,
    Kafka,
}

/// Returns all brokers. Another kind of broker needs one more entry.
pub(crate) fn brokers() -> Vec<Broker> {
    let broker = |name: &str, otherwise: From| {
        let running = std::env::var(format!("EVENTBUS_TEST_{}_URL", name.to_uppercase()));
        Broker { name: name.into(), from: running.map_or(otherwise, From::Url) }
    };
    vec![broker("nats", From::Nats), broker("kafka", From::Kafka)]
}

impl Broker {
    /// Makes a world at a prefix that nobody else uses.
    pub(crate) fn world(&self) -> Result<World, String> {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let url = match &self.from {
            From::Url(url) => url.trim_end_matches('/').to_owned(),
            From::Nats => started(Container::shared(NatsServer::new(NatsVersion::Newest)), "nats")?,
            From::Kafka => started(Container::shared(KafkaServer::new()), "kafka")?,
        };
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let prefix = format!("c{millis:x}-{:x}-{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        Ok(World { url: format!("{url}?prefix={prefix}") })
    }
}

fn started<E: ToString>(broker: impl Future<Output = Result<Container, E>>, scheme: &str) -> Result<String, String> {
    let runtime = background().map_err(|error| error.to_string())?;
    let broker = runtime.block_on(broker).map_err(|error| error.to_string())?;
    Ok(format!("{scheme}://{}", broker.address()))
}

/// World of a test.
pub(crate) struct World {
    pub(crate) url: String,
}

impl World {
    fn with<'a>(&'a self, command: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
        [&[command, "--url", &self.url], arguments].concat()
    }

    pub(crate) fn run(&self, command: &str, arguments: &[&str]) -> Ran {
        run(&self.with(command, arguments))
    }

    pub(crate) fn run_with(&self, command: &str, arguments: &[&str], input: &str) -> Ran {
        run_with(&self.with(command, arguments), input)
    }

    pub(crate) fn start(&self, command: &str, arguments: &[&str]) -> Running {
        Running::start(&self.with(command, arguments))
    }

    pub(crate) fn start_into(&self, file: std::fs::File, command: &str, arguments: &[&str]) -> Running {
        Running::into_file(&self.with(command, arguments), file)
    }

    /// Publishes, and checks that everything was confirmed.
    pub(crate) fn publish(&self, topic: &str, input: &str) {
        self.run_with("publish", &["--topic", topic], input).ends_with(0);
    }

    /// Returns the names on the broker that contain `begin`, through the broker's own client.
    pub(crate) fn held(&self, begin: &str) -> Vec<String> {
        let server = self.url.split_once('?').unwrap().0.to_owned();
        if let Some(servers) = server.strip_prefix("kafka://") {
            let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
            let timeout = Duration::from_secs(10);
            let (topics, groups) =
                (client.fetch_metadata(None, timeout).unwrap(), client.fetch_group_list(None, timeout).unwrap());
            let topics = topics.topics().iter().map(|topic| topic.name());
            let names = topics.chain(groups.groups().iter().map(|group| group.name()));
            return names.filter(|name| name.contains(begin)).map(str::to_owned).collect();
        }
        let names = async {
            let client = async_nats::connect(server).await.unwrap();
            let names = async_nats::jetstream::new(client).stream_names();
            names.try_collect::<Vec<String>>().await.unwrap()
        };
        let mut names = background().unwrap().block_on(names);
        names.retain(|name| name.contains(begin));
        names
    }

    /// Leaves a topic on JetStream no room for more records than it has, and has it discard new ones.
    pub(crate) fn fill(&self, topic: &str) {
        let (server, prefix) = self.url.split_once("?prefix=").unwrap();
        let filled = async {
            let context = async_nats::jetstream::new(async_nats::connect(server).await.unwrap());
            let mut stream = context.get_stream(format!("{prefix}_T_{topic}")).await.unwrap();
            let info = stream.info().await.unwrap().clone();
            let mut config = info.config;
            config.discard = async_nats::jetstream::stream::DiscardPolicy::New;
            config.max_messages = i64::try_from(info.state.messages).unwrap();
            context.update_stream(config).await.unwrap();
        };
        background().unwrap().block_on(filled);
    }

    /// Reads all stored records, with a new group.
    pub(crate) fn stored(&self, topic: &str) -> Vec<Value> {
        static GROUPS: AtomicU32 = AtomicU32::new(0);
        let group = format!("stored-{}", GROUPS.fetch_add(1, Ordering::Relaxed));
        let arguments = ["--topic", topic, "--group", &group, "--idle-exit", "3"];
        self.run("subscribe", &arguments).ends_with(0).lines()
    }
}

/// Link to the broker, which falls silent when told to.
pub(crate) struct Link {
    pub(crate) url: String,
    silent: Arc<Silent>,
}

#[derive(Default)]
struct Silent {
    fallen: AtomicBool,
    /// Bytes that either side sent after the link fell silent.
    swallowed: Mutex<Vec<u8>>,
}

impl Link {
    /// Makes a link to the world's broker, whose clients must use this one address only.
    pub(crate) fn to(world: &World) -> Self {
        let (server, parameters) = world.url.split_once('?').unwrap();
        let (scheme, address) = server.split_once("://").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}?{parameters}", listener.local_addr().unwrap());
        let (silent, address) = (Arc::new(Silent::default()), address.to_owned());
        let is_silent = silent.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&address).unwrap());
                let ways = [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)];
                for (from, to) in ways {
                    let is_silent = is_silent.clone();
                    std::thread::spawn(move || carry(from, to, &is_silent));
                }
            }
        });
        Self { url, silent }
    }

    /// Carries nothing from now on; the connections stay open.
    pub(crate) fn fall_silent(&self) {
        self.silent.fallen.store(true, Ordering::Release);
    }

    /// Waits until these bytes were sent in vain.
    pub(crate) fn swallows(&self, what: &str) {
        let said = || self.silent.swallowed.lock().unwrap().windows(what.len()).any(|bytes| bytes == what.as_bytes());
        while !said() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, silent: &Silent) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if silent.fallen.load(Ordering::Acquire) {
            silent.swallowed.lock().unwrap().extend_from_slice(&bytes[..count]);
        } else if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

/// Removes what the test made.
impl Drop for World {
    fn drop(&mut self) {
        let remove = async {
            let bus = eventbus::connect(&self.url).await?;
            for topic in bus.list_topics().await? {
                bus.delete_topic(&topic).await?;
            }
            bus.close(Duration::from_secs(5)).await
        };
        let removed = background().map(|runtime| runtime.block_on(remove));
        if !matches!(removed, Ok(Ok(()))) && !std::thread::panicking() {
            panic!("a world could not be removed: {removed:?}");
        }
    }
}
