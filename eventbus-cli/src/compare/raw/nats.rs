//! Bare client of JetStream, by `async-nats`: another task awaits the acknowledgements of the publishes, and each
//! stream has a pull consumer.

use std::str::FromStr as _;
use std::sync::Arc;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::{Context, ContextBuilder, Message, stream};
use async_nats::{Client, ConnectOptions, ServerAddr};
use eventbus::config::NatsSection;
use eventbus::nats::BINDING;
use eventbus::wire::{self, Mode};
use eventbus::{Error, ErrorKind, Result};
use futures_util::StreamExt as _;
use percent_encoding::percent_decode_str;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::race::{IN_FLIGHT, Race, Send1, unavailable};
use crate::compare::workloads::INDEX;
use crate::interrupt::Interrupt;

/// The most records that a consumer has asked for and not yet taken: the bus's default.
const BATCH: usize = 1_000;

pub(super) async fn run(race: &Arc<Race>, section: &NatsSection, interrupt: &Interrupt) -> Result<bool> {
    let client = connect(section).await?;
    let context = ContextBuilder::new().max_ack_inflight(IN_FLIGHT).backpressure_on_inflight(true).build(client);
    let streams: Vec<String> = (0..race.plan.topics.len() as u32).map(|topic| race.topic(topic)).collect();
    let ran = through(race, &context, &streams, interrupt).await;
    let mut removed = Ok(());
    for stream in streams {
        let done = context.delete_stream(stream).await;
        removed = removed.and(done.map(drop).map_err(|error| unavailable("removing a stream", error)));
    }
    let ran = ran?;
    removed?;
    Ok(ran)
}

async fn through(race: &Arc<Race>, context: &Context, streams: &[String], interrupt: &Interrupt) -> Result<bool> {
    // The tasks end with this run.
    let mut tasks = JoinSet::new();
    for name in streams {
        let made = context.create_stream(config(race, name)).await;
        let stream = made.map_err(|error| unavailable("making a stream", error))?;
        let reader = pull::Config { ack_policy: AckPolicy::None, memory_storage: true, ..pull::Config::default() };
        let consumer = stream.create_consumer(reader).await.map_err(|error| unavailable("making a consumer", error))?;
        let messages = consumer.stream().max_messages_per_batch(BATCH).messages().await;
        let messages = messages.map_err(|error| unavailable("reading", error))?;
        tasks.spawn(read(race.clone(), messages));
    }
    let (to, acknowledgements) = mpsc::channel(IN_FLIGHT);
    tasks.spawn(acknowledge(race.clone(), acknowledgements));
    let sender = Publisher { context: context.clone(), streams: streams.to_vec(), to };
    Ok(race.run(sender, interrupt).await)
}

fn config(race: &Race, name: &str) -> stream::Config {
    let storage = if race.workload.in_memory { stream::StorageType::Memory } else { stream::StorageType::File };
    stream::Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.*")],
        storage,
        num_replicas: race.replicas as usize,
        allow_direct: true,
        ..stream::Config::default()
    }
}

async fn read(race: Arc<Race>, mut messages: pull::Stream) {
    while let Some(message) = messages.next().await {
        // After an error that ends the stream, messages show as missing.
        let Ok(message) = message else { return };
        let partition = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        race.arrived(index(&message), partition.unwrap_or_default());
    }
}

/// Returns the message's place in the plan, found as by [`Plan::index_of`](crate::compare::workloads::Plan::index_of).
fn index(message: &Message) -> Option<usize> {
    let headers = message.headers.as_ref()?;
    let attribute = |name: &str| headers.get(format!("{}{name}", BINDING.prefix).as_str());
    attribute(INDEX).or_else(|| attribute("id"))?.as_str().parse().ok()
}

/// Awaits acknowledgements one by one: they come in the order of the publishes.
async fn acknowledge(race: Arc<Race>, mut from: mpsc::Receiver<(usize, PublishAckFuture)>) {
    while let Some((index, acknowledgement)) = from.recv().await {
        match acknowledgement.await {
            Ok(_) => race.confirmed(index),
            Err(_) => race.failed(),
        }
    }
}

struct Publisher {
    context: Context,
    streams: Vec<String>,
    to: mpsc::Sender<(usize, PublishAckFuture)>,
}

impl Send1 for Publisher {
    async fn send(&self, race: &Arc<Race>, index: usize) {
        let item = &race.plan.items[index];
        let stream = &self.streams[item.topic as usize];
        let Some((headers, payload)) = message(race, index, stream) else { return race.failed() };
        let subject = format!("{stream}.{}", race.partition(index));
        match self.context.publish_with_headers(subject, headers, payload).await {
            // The receiver ends with the run.
            Ok(acknowledgement) => drop(self.to.send((index, acknowledgement)).await),
            Err(_) => race.failed(),
        }
    }
}

/// Encodes a message as the bus does, with a message id for the duplicate window.
fn message(race: &Race, index: usize, stream: &str) -> Option<(HeaderMap, bytes::Bytes)> {
    let record = wire::encode(&race.plan.items[index].envelope, None, &BINDING, Mode::Binary);
    let mut headers = HeaderMap::new();
    for (name, value) in record.headers {
        let value = std::str::from_utf8(&value).ok()?.parse::<HeaderValue>().ok()?;
        headers.insert(HeaderName::from_str(&name).ok()?, value);
    }
    if let Some(id) = BINDING.message_id {
        headers.insert(id, format!("{stream}-{index}"));
    }
    Some((headers, record.payload))
}

async fn connect(section: &NatsSection) -> Result<Client> {
    let (scheme, servers) = section.servers.split_once("://").unwrap_or(("nats", &section.servers));
    let (login, hosts) = servers.rsplit_once('@').unwrap_or(("", servers));
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let address = |host: &str| ServerAddr::from_str(&format!("{scheme}://{host}"));
    let addresses: Result<Vec<ServerAddr>, _> = hosts.split(',').map(address).collect();
    let addresses = addresses.map_err(|error| Error::new(ErrorKind::InvalidConfig, error.to_string()))?;
    let mut options = ConnectOptions::new().client_capacity(2 * IN_FLIGHT);
    if let Some(nkey) = &section.nkey {
        options = options.nkey(nkey.clone());
    } else if let Some(file) = &section.credentials_file {
        let with = options.credentials_file(file).await;
        options = with.map_err(|error| unavailable("reading the credentials file", error))?;
    } else if let Some(token) = &section.token {
        options = options.token(token.clone());
    } else if let Some(user) = &section.user {
        options = options.user_and_password(user.clone(), section.password.clone().unwrap_or_default());
    } else if let Some((user, password)) = login.split_once(':') {
        options = options.user_and_password(plain(user), plain(password));
    } else if !login.is_empty() {
        options = options.token(plain(login));
    }
    options = options.require_tls(section.tls_required.unwrap_or(scheme == "tls"));
    if section.tls_first == Some(true) {
        options = options.tls_first();
    }
    if let Some(roots) = &section.root_certificates {
        options = options.add_root_certificates(roots.clone());
    }
    if let (Some(certificate), Some(key)) = (&section.client_certificate, &section.client_key) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    options.connect(addresses).await.map_err(|error| unavailable("connecting", error))
}

pub(crate) async fn release(section: &NatsSection) -> Result<String> {
    Ok(format!("nats-server {}", connect(section).await?.server_info().version))
}
