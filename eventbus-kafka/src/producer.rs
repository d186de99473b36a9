//! librdkafka's producer as a client of the core's pipeline (P1, P2): idempotent, gapless, with no time-out of its own.
//!
//! Invariant: no guarantee is asked of a producer after its first failure: the core ends it then.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::backend::Outbound;
use eventbus_core::toolkit::pipeline::{DeliveryError, DeliveryReports, KnownLimits, Pipeline, Rejected, TopicLimits};
use eventbus_core::{Envelope, ErrorKind, Result, Topic};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};

use crate::answers::{turned, verdict};
use crate::config::{BATCH_BYTES, BATCH_RECORDS};
use crate::connection::{Context, Link, Owner, refused_setting};
use crate::topics::{Topics, facts};
use crate::wire;

/// Time in which a failed client may still report records on the wire, before those are called back, too.
const LAST_REPORTS: Duration = Duration::from_millis(500);

/// The publishing half of the backend.
pub(crate) type Producer = eventbus_core::toolkit::pipeline::Producer<Records>;

/// The core's pipeline on librdkafka: makes clients for records, and learns the limits of topics.
pub(crate) struct Records {
    link: Arc<Link>,
    topics: Topics,
}

impl Records {
    pub(crate) fn new(link: &Arc<Link>, known: &Arc<KnownLimits>) -> Self {
        Self { link: Arc::clone(link), topics: Topics::new(Arc::clone(link), Arc::clone(known)) }
    }
}

impl Pipeline for Records {
    type Client = ThreadedProducer<Delivered>;

    fn client(&self, limit: usize, alone: bool, reports: DeliveryReports) -> Result<Self::Client> {
        let (linger, records) = if alone { (Duration::ZERO, 1) } else { (self.link.config.linger, BATCH_RECORDS) };
        let mut config = self.link.config.producer(limit.min(BATCH_BYTES), linger, records);
        // A single record may be larger than a batch of several. The client takes no limit below 1 000 bytes; records
        // above the topic's own are refused before they are given.
        config.set("message.max.bytes", limit.clamp(1_000, 1_000_000_000).to_string());
        config.set("topic.metadata.propagation.max.ms", "2000");
        let delivered = Context::of(&self.link, reports);
        Self::Client::from_config_and_context(&config, delivered).map_err(|error| refused_setting(&error))
    }

    fn give(&self, client: &Self::Client, name: &str, record: &Outbound, index: usize) -> Result<(), Rejected> {
        let (headers, written) = wire::encode(&record.envelope, record.stamp, self.link.config.mode);
        let partition = wire::number(record.partition);
        let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(name, index).partition(partition);
        message.key = written.key.as_deref();
        let message = message.payload(&written.payload).headers(headers);
        client.send(message).map_err(|(error, _)| turned(&error))
    }

    fn end(client: Self::Client) -> Option<DeliveryError> {
        let reason = client.client().fatal_error();
        client.purge(PurgeConfig::default().queue());
        // Records on the wire are best known from their answers. Records behind a failed batch of their partition are
        // never reported by themselves.
        let _ = client.flush(LAST_REPORTS);
        client.purge(PurgeConfig::default().inflight());
        let _ = client.flush(LAST_REPORTS);
        reason.map(|(code, reason)| DeliveryError::new(verdict(code), format!("the client says: {reason}")))
    }

    fn most(&self, envelope: &Envelope) -> usize {
        wire::most(envelope)
    }

    fn size(&self, record: &Outbound) -> usize {
        wire::size(&record.envelope, record.stamp, self.link.config.mode)
    }

    fn assumed(&self, topic: &Topic) -> TopicLimits {
        facts(&self.link.config.topic(topic), BATCH_BYTES, false)
    }

    async fn is_gone(&self, topic: &Topic) -> bool {
        self.topics.count(topic).await.is_err_and(|error| error.kind() == ErrorKind::UnknownTopic)
    }

    async fn refresh(&self, topic: &Topic) {
        let _ = self.topics.learn(topic).await;
    }
}

impl Owner for DeliveryReports {
    fn stranded(&self) {
        self.over();
    }
}

/// The context that takes a client's reports, on the client's own thread.
type Delivered = Context<DeliveryReports>;

impl ProducerContext<NoCustomPartitioner> for Delivered {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let failed = |code| {
            DeliveryError::new(verdict(code), format!("the broker says: {}", KafkaError::MessageProduction(code)))
        };
        self.of.told(
            index,
            match result {
                // The client counts a batch as sent that the broker calls a copy of an older one; it has no offset
                // then.
                Ok(message) if message.offset() < 0 => Err(failed(Code::DuplicateSequenceNumber)),
                Ok(message) => {
                    self.reached.set(true);
                    Ok(wire::position(message.offset()))
                }
                Err((error, _)) => Err(failed(error.rdkafka_error_code().unwrap_or(Code::Unknown))),
            },
        );
    }
}
