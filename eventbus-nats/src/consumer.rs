//! JetStream consumers as readers use them: made under a name of their own, pulled from, removed.
//!
//! Invariants: a name is never used twice (a random part is in it), and every name that was asked for is removed, also
//! where its creation was never answered: a server that was stopped may carry it out later.

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

/// The last millisecond that the server's notation of times has a year for.
const LATEST: u64 = 253_402_300_799_999;

/// From a position on.
pub(crate) fn from(position: Position) -> DeliverPolicy {
    DeliverPolicy::ByStartSequence { start_sequence: position.get().max(1) }
}

/// From a time on, in milliseconds since the Unix epoch.
pub(crate) fn since(unix_millis: u64) -> DeliverPolicy {
    let nanos = i128::from(unix_millis.min(LATEST)) * 1_000_000;
    let start_time = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    DeliverPolicy::ByStartTime { start_time }
}

/// A consumer of the server's, removed when this is dropped.
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
    /// Makes one, and tells how many records it has before it.
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
        // Dropped with an error, the consumer is removed as well.
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
        // A creation may be carried out after its deletion was refused: asked again where no answer came. What is left
        // after that, the server removes as inactive.
        self.link.removals.begin(move || {
            let (link, subject) = (Arc::clone(&link), subject.clone());
            async move {
                let asked = link.api::<Value>(&subject, &()).await;
                !matches!(asked, Err(Failure::Unanswered(_) | Failure::NoResponders))
            }
        });
    }
}

/// Pull requests and what they bring.
pub(crate) struct Pulls {
    consumer: Consumer,
    messages: Subscriber,
    inbox: String,
}

/// A message, and where it was.
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
    async fn request(&mut self, records: usize) -> Result<()> {
        let Consumer { link, stream, name } = &self.consumer;
        let (expires, idle_heartbeat) = (Some(link.config.fetch_wait), link.config.heartbeat);
        let request = BatchConfig { batch: records, expires, idle_heartbeat, ..BatchConfig::default() };
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
        // The consumer is gone, the server is leaving, or nobody is there.
        code => SourceEvent::Broken(format!("{code} {}", message.description.unwrap_or_default())),
    }
}

/// Reads what a filter holds now, up to the last record of the moment, and gives each to `take` until it says stop.
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
