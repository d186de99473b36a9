//! JetStream consumers as readers use them: made under unique names, pulled from, removed.
//!
//! Invariants: a name is never used twice (a random part is in it), and every requested name is removed, also where its
//! creation was never answered: a server that was stopped may carry it out later.

use std::sync::Arc;
use std::task::{Context, Poll};

use async_nats::header::HeaderMap;
use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::jetstream::consumer::{AckPolicy, Config, DeliverPolicy};
use async_nats::{Message, Subscriber};
use async_trait::async_trait;
use eventbus_core::toolkit::lease::{Source, SourceEvent, scan};
use eventbus_core::{Position, Result};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::connection::Link;
use crate::error::{Failure, Outcome};
use crate::wire::{MESSAGE_ID, StreamPlace};

/// The end of a request whose next message does not fit into its bytes, as servers word it.
const TOO_LARGE: &str = "Message Size Exceeds MaxBytes";

/// The last millisecond of the year 9999, the end of the server's notation of times.
const LATEST: u64 = 253_402_300_799_999;

/// The policy to deliver from a position on.
pub(crate) fn from(position: Position) -> DeliverPolicy {
    DeliverPolicy::ByStartSequence { start_sequence: position.get().max(1) }
}

/// The policy to deliver from a time on, in milliseconds since the Unix epoch.
pub(crate) fn since(unix_millis: u64) -> DeliverPolicy {
    let nanos = i128::from(unix_millis.min(LATEST)) * 1_000_000;
    let start_time = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    DeliverPolicy::ByStartTime { start_time }
}

/// A consumer on the server, removed when this handle is dropped.
#[derive(Debug)]
pub(crate) struct Consumer {
    link: Arc<Link>,
    stream: String,
    name: String,
}

#[derive(Deserialize)]
struct Created {
    num_pending: u64,
}

impl Consumer {
    /// Creates a consumer. Also returns how many records it has before it.
    pub(crate) async fn create(
        link: &Arc<Link>,
        stream: &str,
        filter: &str,
        start: DeliverPolicy,
        headers_only: bool,
    ) -> Outcome<(Self, u64)> {
        let name = format!("eb-{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>());
        let consumer = Self { link: Arc::clone(link), stream: stream.to_owned(), name: name.clone() };
        let config = Config {
            name: Some(name.clone()),
            deliver_policy: start,
            ack_policy: AckPolicy::None,
            filter_subject: filter.to_owned(),
            max_waiting: i64::try_from(link.config.max_waiting).unwrap_or(i64::MAX),
            headers_only,
            inactive_threshold: link.config.inactive_threshold,
            num_replicas: 1,
            memory_storage: true,
            ..Config::default()
        };
        let request = json!({ "stream_name": stream, "config": config, "action": "create" });
        // An error drops `consumer`, and that removes it at the server as well.
        let created: Created = link.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &request).await?;
        Ok((consumer, created.num_pending))
    }

    /// Begins to pull.
    pub(crate) async fn pulls(self) -> Outcome<Pulls> {
        let inbox = self.link.client.new_inbox();
        let messages = self.link.client.subscribe(inbox.clone()).await;
        let messages = messages.map_err(|error| Failure::Unanswered(error.to_string()))?;
        Ok(Pulls { consumer: self, messages, inbox })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let (link, subject) = (Arc::clone(&self.link), format!("CONSUMER.DELETE.{}.{}", self.stream, self.name));
        // A creation may be carried out after its deletion was refused, so the deletion is asked for again where no
        // answer came. A consumer that is left after that, the server removes as inactive.
        self.link.removals.begin(move || {
            let (link, subject) = (Arc::clone(&link), subject.clone());
            async move {
                let asked = link.api::<Value>(&subject, &()).await;
                !matches!(asked, Err(Failure::Unanswered(_) | Failure::NoResponders))
            }
        });
    }
}

/// Pull requests to a consumer, and the messages that they bring.
pub(crate) struct Pulls {
    consumer: Consumer,
    messages: Subscriber,
    inbox: String,
}

/// A message, and its place in the stream.
pub(crate) struct Delivered {
    pub(crate) place: StreamPlace,
    pub(crate) message: Message,
}

impl Delivered {
    /// The message id, by which the server drops copies.
    pub(crate) fn id(&self) -> Option<&str> {
        Some(self.message.headers.as_ref()?.get(MESSAGE_ID)?.as_str())
    }
}

#[async_trait]
impl Source<Delivered> for Pulls {
    async fn request(&mut self, records: usize, bytes: Option<usize>) -> Result<()> {
        let Consumer { link, stream, name } = &self.consumer;
        let (expires, idle_heartbeat) = (Some(link.config.fetch_wait), link.config.heartbeat);
        let max_bytes = bytes.unwrap_or_default();
        let request = BatchConfig { batch: records, max_bytes, expires, idle_heartbeat, ..BatchConfig::default() };
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        let sent = link.client.publish_with_reply(next, self.inbox.clone(), json!(request).to_string().into()).await;
        sent.map_err(|error| Failure::Unanswered(error.to_string()).into())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<SourceEvent<Delivered>> {
        self.messages.poll_next_unpin(context).map(|message| match message {
            Some(message) => pulled(message),
            None => SourceEvent::Broken("the connection is closed".into()),
        })
    }
}

fn pulled(message: Message) -> SourceEvent<Delivered> {
    let Some(status) = message.status.filter(|status| !status.is_success()) else {
        let place = message.reply.as_deref().and_then(StreamPlace::parse);
        return match place {
            Some(place) => {
                let StreamPlace { delivery, pending: left, .. } = place;
                SourceEvent::Record { delivery, left, record: Delivered { place, message } }
            }
            None => SourceEvent::Broken("a message that is no delivery".into()),
        };
    };
    let left = |headers: &HeaderMap| headers.get("Nats-Pending-Messages")?.as_str().parse::<usize>().ok();
    match status.as_u16() {
        100 => SourceEvent::Alive,
        404 | 408 => SourceEvent::Ended(message.headers.as_ref().and_then(left).unwrap_or_default()),
        409 if message.description.as_deref().is_some_and(|text| text.contains(TOO_LARGE)) => {
            SourceEvent::Full(message.headers.as_ref().and_then(left).unwrap_or_default())
        }
        // The consumer is gone, the server is leaving, or nobody is there.
        code => SourceEvent::Broken(format!("{code} {}", message.description.unwrap_or_default())),
    }
}

/// Reads the records under a filter, up to the last one of the moment. Gives each to `take` until that returns `false`.
pub(crate) async fn read_all(
    link: &Arc<Link>,
    stream: &str,
    filter: &str,
    start: DeliverPolicy,
    headers_only: bool,
    take: impl FnMut(Delivered) -> bool,
) -> Result<()> {
    let (consumer, records) = Consumer::create(link, stream, filter, start, headers_only).await?;
    if records == 0 {
        return Ok(());
    }
    scan(&mut consumer.pulls().await?, records, link.config.heartbeat * 3, take).await
}
