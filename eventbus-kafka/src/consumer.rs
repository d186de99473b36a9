//! A member's client: the consumer of a group, as the core drives it (S3, S5).
//!
//! # Invariants
//!
//! - Assignments and revocations come within a poll and go to the core's rebalance listener; they are answered when the
//!   core says so, by the protocol's own means.
//! - Nothing is consumed before the core's first read: an assigned partition begins at its last record.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use eventbus_core::backend::{Inbound, Join, LogState};
use eventbus_core::toolkit::coordinated::{
    Client, CommitEntry, CommitError, DRAIN_MARGIN, Member, MemberConfig, Polled, RebalanceListener,
    ReconnectingMember, Revocation,
};
use eventbus_core::{Error, ErrorKind, Position, Result};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::config::Protocol;
use crate::connection::{Context, Link, Owner, refused_setting};
use crate::error::{to_core, unreadable};
use crate::note::{Fingerprint, print_of, text_beside};
use crate::positions::CaughtUp;
use crate::refusals;
use crate::scan;
use crate::topics::{count, leaderless_of, watermarks, without_leader};
use crate::wire::{self, number};

/// One member of a group.
pub(crate) type KafkaMember = ReconnectingMember<GroupConsumer>;

/// The consumer of a member.
pub(crate) struct GroupConsumer(BaseConsumer<Context<TopicOnCluster>>, CaughtUp);

/// The topic of a consumer, and the listener of its rebalances.
pub(crate) struct TopicOnCluster {
    link: Arc<Link>,
    /// The topic's name on the broker.
    topic: String,
    eager: bool,
    listener: RebalanceListener<GroupConsumer>,
    stranded: AtomicBool,
    /// The topic of others' that the coordinator assigned.
    foreign: OnceLock<String>,
    /// The time since which members of this subscription are refused for a clash of static ids.
    clash: Arc<Mutex<Option<Instant>>>,
}

impl Owner for TopicOnCluster {
    fn stranded(&self) {
        self.stranded.store(true, Ordering::Relaxed);
    }
}

/// Refuses a hand-over that may take longer than the client may go without a poll. The named limit is one of the
/// subscription's own setting.
fn check_drain(drain_deadline: Duration, max_poll_interval: Duration) -> Result<()> {
    let most = (max_poll_interval / 2).saturating_sub(DRAIN_MARGIN);
    if drain_deadline <= most {
        return Ok(());
    }
    let most = most.saturating_sub(Join::HAND_BACK_GRACE);
    let less = DRAIN_MARGIN + Join::HAND_BACK_GRACE;
    let message = format!("drain_deadline: expected at most {most:?}, half of max_poll_interval less {less:?}");
    Err(Error::new(ErrorKind::UnsafeConfig, message).with("setting", "drain_deadline"))
}

/// Joins a group as one member.
pub(crate) fn join(link: &Arc<Link>, join: &Join) -> Result<KafkaMember> {
    // The other settings are those of the broker, which has wider limits than a topic may be asked for with.
    let topic = join.topic.spec.topic.parse()?;
    let config = &link.config;
    check_drain(join.drain_deadline, config.max_poll_interval)?;
    let mut client = config.consumer(&config.group(&join.group));
    let name = config.topic(&topic);
    client.set("client.id", &join.member);
    if let Some(id) = &config.group_instance_id {
        // The coordinator gives a returning member what it had, whatever it subscribes to now.
        client.set("group.instance.id", format!("{id}.{name}"));
    }
    if config.protocol != Protocol::Broker {
        client.set("session.timeout.ms", join.session_timeout.as_millis().to_string());
        client.set("heartbeat.interval.ms", (join.session_timeout.as_millis() / 10).max(1).to_string());
    }
    let (mut ask, link) = (MemberConfig::of(join, config.lease_of(join.session_timeout)), Arc::clone(link));
    // Under KIP-848 a static member's successor waits at the coordinator.
    ask.inherits = config.group_instance_id.is_some() && config.protocol != Protocol::Broker;
    let (topic, eager, clash) = (name, config.protocol == Protocol::Eager, Arc::default());
    let consumer = move |listener| {
        let (link, topic, stranded) = (Arc::clone(&link), topic.clone(), AtomicBool::new(false));
        let (foreign, clash) = (OnceLock::new(), Arc::clone(&clash));
        let place = TopicOnCluster { link: Arc::clone(&link), topic, eager, listener, stranded, foreign, clash };
        let context = Context::of(&link, place);
        let consumer = BaseConsumer::from_config_and_context(&client, context);
        Ok(GroupConsumer(consumer.map_err(|error| refused_setting(&error))?, CaughtUp::default()))
    };
    ReconnectingMember::join(move || Member::join(ask.clone(), &consumer))
}

impl TopicOnCluster {
    /// Begins reading at the last record of each partition, since nothing is wanted before the core says from where. A
    /// request for records after the last would stay open at the broker and hold back the core's `read`. The start is a
    /// number: the client would look up a symbolic one, and an answer after that `read` had begun would carry it away,
    /// past records.
    fn at_the_last(&self, list: &mut TopicPartitionList) {
        // A partition without a leader is read once it has one; to wait for it here would hold up the others.
        let leaderless = leaderless_of(&self.link, &self.topic);
        let mut asked = leaderless.is_ok();
        let leaderless = leaderless.unwrap_or_default();
        for partition in partitions(list) {
            let known = asked && !leaderless.contains(&partition);
            let log = known.then(|| watermarks(&self.link, &self.topic, partition));
            asked &= !matches!(log, Some(Err(_)));
            let last = log.and_then(std::result::Result::ok).map_or(0, |log| {
                let last = log.end.get().saturating_sub(1).max(log.first.get());
                wire::offset(Position::new(last))
            });
            let _ = list.set_partition_offset(&self.topic, number(partition), Offset::Offset(last));
        }
    }

    fn list(&self, partitions: &[u32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, number(*partition));
        }
        list
    }

    fn unassign(&self, consumer: &BaseConsumer<Context<Self>>, list: &TopicPartitionList) {
        let given = if self.eager { consumer.unassign() } else { consumer.incremental_unassign(list) };
        if let Err(error) = given {
            tracing::debug!(target: "eventbus", %error, "partitions were taken before they were given up");
        }
    }
}

impl ConsumerContext for Context<TopicOnCluster> {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if what != RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if self.of.listener.revoked(&partitions(list), consumer.assignment_lost()) == Revocation::Now {
                self.of.unassign(consumer, list);
            }
            return;
        }
        if let Some(foreign) = list.elements().iter().find(|element| element.topic() != self.of.topic) {
            let _ = self.of.foreign.set(foreign.topic().to_owned());
            return;
        }
        *self.of.clash.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.of.at_the_last(list);
        match if self.of.eager { consumer.assign(list) } else { consumer.incremental_assign(list) } {
            Ok(()) => self.of.listener.assigned(&partitions(list)),
            Err(error) => tracing::warn!(target: "eventbus", %error, "an assignment was not taken"),
        }
    }
}

impl GroupConsumer {
    fn place(&self) -> &TopicOnCluster {
        &self.0.context().of
    }
}

impl Client for GroupConsumer {
    type Record<'a> = BorrowedMessage<'a>;

    fn place(message: &BorrowedMessage<'_>) -> (u32, Position) {
        (u32::try_from(message.partition()).unwrap_or(u32::MAX), wire::position(message.offset()))
    }

    fn fingerprint(message: &BorrowedMessage<'_>) -> Fingerprint {
        print_of(message)
    }

    fn inbound(message: &BorrowedMessage<'_>) -> Inbound {
        wire::inbound(u32::try_from(message.partition()).unwrap_or(u32::MAX), message)
    }

    fn poll(&self, wait: Duration) -> Polled<BorrowedMessage<'_>> {
        if self.place().stranded.load(Ordering::Relaxed) {
            let message = "the client knows of no broker any more";
            return Polled::Over(Error::new(ErrorKind::Unavailable, message));
        }
        if let Some(foreign) = self.place().foreign.get() {
            return Polled::Over(refusals::foreign(foreign, &self.place().topic));
        }
        if let Some((partition, next)) = self.1.next(|| scan::positions(&self.0).unwrap_or_default()) {
            return Polled::End(partition, Some(next));
        }
        match self.0.poll(wait) {
            Some(Ok(message)) => Polled::Record(message),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let partition = wire::partition(partition);
                self.1.ended(partition);
                Polled::End(partition, None)
            }
            Some(Err(error)) => self.trouble(&error),
            None => Polled::Nothing,
        }
    }

    fn seek(&self, partition: u32, from: Position) -> Result<bool> {
        let offset = Offset::Offset(wire::offset(from));
        self.1.forget();
        match self.0.seek(&self.place().topic, number(partition), offset, Duration::from_secs(1)) {
            Ok(()) => Ok(true),
            Err(KafkaError::Seek(_)) => Ok(false),
            Err(error) => Err(to_core(&error, "seeking")),
        }
    }

    fn pause(&self, partition: u32, paused: bool) {
        let list = self.place().list(&[partition]);
        if let Err(error) = if paused { self.0.pause(&list) } else { self.0.resume(&list) } {
            tracing::debug!(target: "eventbus", %error, partition, paused, "a pause of what is not assigned");
        }
    }

    fn unassign(&self, partitions: &[u32]) {
        self.place().unassign(&self.0, &self.place().list(partitions));
    }

    fn subscribe(&self) -> Result<()> {
        self.0.subscribe(&[&self.place().topic]).map_err(|error| to_core(&error, "subscribing"))
    }

    fn unsubscribe(&self) {
        self.0.unsubscribe();
    }

    fn leave(&self) {
        let _ = self.0.unassign();
        self.0.unsubscribe();
    }

    fn commit(&self, entries: &[CommitEntry<'_>]) -> Result<(), CommitError> {
        let sent = self.list_of(entries).and_then(|list| self.0.commit(&list, CommitMode::Sync));
        sent.map_err(|error| refused(&error))
    }

    fn committed(&self, partitions: &[u32]) -> Result<HashMap<u32, (Position, String)>> {
        let failed = |error: KafkaError| to_core(&error, "asking for committed offsets");
        let list = self.place().list(partitions);
        let answer = self.0.committed_offsets(list, self.place().link.timeout()).map_err(failed)?;
        let mut found = HashMap::new();
        for element in answer.elements() {
            element.error().map_err(failed)?;
            if let Some(next) = wire::known(element.offset()) {
                found.insert(wire::partition(element.partition()), (next, text_beside(&element).to_owned()));
            }
        }
        Ok(found)
    }

    fn count(&self) -> Result<u32> {
        let TopicOnCluster { link, topic, .. } = self.place();
        count(link, topic).map(|(count, _)| count).map_err(|error| to_core(&error, "asking for metadata"))
    }

    fn ends(&self, partition: u32) -> Result<LogState> {
        let TopicOnCluster { link, topic, .. } = self.place();
        let failed = |error: KafkaError| to_core(&error, "asking for the ends of the log").with("partition", partition);
        if leaderless_of(link, topic).map_err(failed)?.contains(&partition) {
            return Err(without_leader(topic, partition));
        }
        watermarks(link, topic, partition).map_err(failed)
    }

    fn fingerprints(&self, places: &[(u32, i64)]) -> Result<HashMap<u32, Fingerprint>> {
        scan::prints(&self.place().link, &self.place().topic, places)
    }

    fn is_gone(&self) -> bool {
        let TopicOnCluster { link, topic, .. } = self.place();
        let gone = |error: KafkaError| to_core(&error, "asking for metadata").kind() == ErrorKind::UnknownTopic;
        count(link, topic).is_err_and(gone)
    }

    fn reached(&self, reached: bool) {
        self.place().link.reached.set(reached);
    }
}

impl GroupConsumer {
    fn list_of(&self, entries: &[CommitEntry<'_>]) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for entry in entries {
            let mut added = list.add_partition(&self.place().topic, number(entry.partition));
            added.set_offset(Offset::Offset(wire::offset(entry.next)))?;
            added.set_metadata(entry.text);
        }
        Ok(list)
    }
}

impl GroupConsumer {
    /// The meaning of an error of the consumer.
    fn trouble<R>(&self, error: &KafkaError) -> Polled<R> {
        let TopicOnCluster { link, clash, .. } = self.place();
        if let (KafkaError::MessageConsumptionFatal(_), Some((code, why))) = (error, self.0.client().fatal_error()) {
            return Polled::Over(refusals::fatal(
                code,
                &why,
                &link.config,
                &mut clash.lock().unwrap_or_else(PoisonError::into_inner),
            ));
        }
        meaning(error)
    }
}

/// The meaning of an error that did not end the client.
fn meaning<R>(error: &KafkaError) -> Polled<R> {
    match error.rdkafka_error_code() {
        // The log no longer has the next record, or not yet.
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Polled::Interrupted,
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => Polled::Interrupted,
        Some(Code::AllBrokersDown) => Polled::Disconnected,
        code => match (unreadable(error), code) {
            (Some(unreadable), _) => Polled::Over(unreadable),
            (None, Some(code)) => refusals::joining(code, &error.to_string()),
            (None, None) => refusals::unheard(error),
        },
    }
}

/// The meaning of a commit's refusal.
fn refused(error: &KafkaError) -> CommitError {
    match error.rdkafka_error_code() {
        Some(Code::UnknownMemberId | Code::FencedInstanceId | Code::FencedMemberEpoch) => {
            CommitError::Fenced(error.to_string())
        }
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => CommitError::UnknownTopic,
        Some(Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed) => {
            CommitError::PermissionDenied(error.to_string())
        }
        Some(Code::OffsetMetadataTooLarge) => CommitError::TooLarge(error.to_string()),
        _ => CommitError::Later(error.to_string()),
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use eventbus_core::TopicSpec;
    use eventbus_core::backend::TopicDescription;

    use super::*;

    #[test]
    fn what_the_client_cannot_read_ends_the_member_and_is_told() {
        for code in [Code::BadMessage, Code::BadCompression, Code::InvalidMessage, Code::MessageSizeTooLarge] {
            match meaning::<()>(&KafkaError::MessageConsumption(code)) {
                Polled::Over(error) => {
                    assert!(
                        error.kind() == ErrorKind::Backend && error.to_string().contains("cannot be read"),
                        "{error}"
                    );
                }
                other => panic!("{code}: {other:?}"),
            }
        }
        let passes = meaning::<()>(&KafkaError::MessageConsumption(Code::BrokerTransportFailure));
        assert!(matches!(passes, Polled::Nothing));
    }

    /// Records kept for ever, as operators write it, and more partitions than a topic is made with.
    #[tokio::test]
    async fn a_topic_with_settings_that_no_topic_is_made_with_has_members() {
        let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
        let link = Link::connect(&crate::config::KafkaConfig::new(cluster.bootstrap_servers())).await.unwrap();
        let mut spec = TopicSpec::new("t").partitions(5_000).max_bytes(u64::MAX);
        spec.max_age = Some(Duration::from_millis(i64::MAX as u64));
        assert!(spec.validate().is_err());
        let topic = TopicDescription::counted(spec, "", Vec::new());
        join(&link, &Join::new(topic, "g".parse().unwrap(), "m")).unwrap();
    }

    #[test]
    fn the_limit_that_a_refused_drain_deadline_names_is_taken() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        // As the core asks for a subscription's setting.
        let check = |setting: Duration| check_drain(setting + Join::HAND_BACK_GRACE, minutes(5));
        let error = check(minutes(5)).unwrap_err();
        assert!(error.to_string().contains("drain_deadline: expected at most 139s, half of"), "{error}");
        assert!(check(Duration::from_secs(139)).is_ok() && check(Duration::from_secs(140)).is_err());
        assert!(check_drain(Duration::MAX, minutes(5)).is_err());
    }
}
