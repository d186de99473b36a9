//! librdkafka's properties: those that are refused, and those that are passed through (S8).
//!
//! Invariant: a property that is not on the second list is refused, so that none can undo what the bus sets or rests
//! on. A property of a later librdkafka is refused until it is listed here.

use eventbus_core::Result;
use eventbus_core::toolkit::settings::{invalid, refuse};

const STAMPED: &str = "always on: a retry would store a second copy";
const REPLICATED: &str = "always all: what one broker alone has, its successor may not";
const NEVER_GIVEN_UP: &str = "always 0: a record given up by time is a hole; the key waits instead";
const TRIED_AGAIN: &str = "always without end: a record given up is a hole; the key waits instead";
const IN_FLIGHT: &str = "always 5: more than an idempotent producer can keep in order";
const PLACED: &str = "the bus computes partitions, the same on every backend";
const ORDERED: &str = "always first in, first out: this is the order of keys";
const REPORTED: &str = "always all: a publish waits for the report of its record";
const NO_TRANSACTIONS: &str = "transactions are not part of the bus yet";
const COMMITTED: &str = "the bus commits what is finished, and nothing else";
const PROTOCOL: &str = "set protocol instead: the hand-over depends on it";
const BROKERS: &str = "the URL names the brokers";
const LOGIN: &str = "set user, password and sasl instead, plain or scram";
const AUTHENTICATED: &str = "always on: a broker that is not who it says gets no password";
const LINGER: &str = "set linger_ms instead";
const COMPRESSION: &str = "set compression instead";
const TOPICS_FOUND: &str = "the bus looks for topics that grew or were made again every two seconds";
const LEFT: &str = "set socket_timeout_ms instead: a silent broker must be left";
const VERSIONS: &str = "the bus needs what brokers say of their versions";
const CALLBACK: &str = "it can be set by code only, and the bus's clients have their own";
const CHECKED: &str = "always on: a batch that cannot be read ends the subscription; it is not passed over";
const NO_EFFECT: &str = "it has no effect";

/// Properties of librdkafka that would break the contract, or for which the bus has a setting, and why. They are
/// refused by name.
pub const REFUSED: &[(&str, &str)] = &[
    ("check.crcs", CHECKED),
    ("enable.idempotence", STAMPED),
    ("enable.gapless.guarantee", "always on: a refused record would leave a hole behind which others are stored"),
    ("acks", REPLICATED),
    ("request.required.acks", REPLICATED),
    ("message.timeout.ms", NEVER_GIVEN_UP),
    ("delivery.timeout.ms", NEVER_GIVEN_UP),
    ("retries", TRIED_AGAIN),
    ("message.send.max.retries", TRIED_AGAIN),
    ("request.timeout.ms", TRIED_AGAIN),
    ("max.in.flight", IN_FLIGHT),
    ("max.in.flight.requests.per.connection", IN_FLIGHT),
    ("message.max.bytes", "follows from the topic's own limit: a record beyond it would end the producer"),
    ("batch.size", "follows from the topic's own limit: a batch beyond it would end the producer"),
    ("batch.num.messages", "the bus narrows refused batches down by it"),
    ("queue.buffering.max.messages", "follows from publish_window: a full queue would reorder"),
    ("queue.buffering.max.kbytes", "follows from the publish budget: a full queue would reorder"),
    ("queue.buffering.max.ms", LINGER),
    ("linger.ms", LINGER),
    ("compression.codec", COMPRESSION),
    ("compression.type", COMPRESSION),
    ("delivery.report.only.error", REPORTED),
    ("produce.offset.report", REPORTED),
    ("queuing.strategy", ORDERED),
    ("msg_order_cmp", ORDERED),
    ("partitioner", PLACED),
    ("sticky.partitioning.linger.ms", PLACED),
    ("transactional.id", NO_TRANSACTIONS),
    ("transaction.timeout.ms", NO_TRANSACTIONS),
    ("enable.auto.commit", COMMITTED),
    ("auto.commit.enable", COMMITTED),
    ("auto.commit.interval.ms", COMMITTED),
    ("enable.auto.offset.store", COMMITTED),
    ("offset.store.method", COMMITTED),
    ("offset.store.path", COMMITTED),
    ("offset.store.sync.interval.ms", COMMITTED),
    ("auto.offset.reset", "where a group starts is the subscription's to say; a reset is never silent"),
    ("enable.partition.eof", "always on: an idle partition's watermark follows from it"),
    ("isolation.level", "always read_committed: what a transaction took back was never there"),
    ("partition.assignment.strategy", PROTOCOL),
    ("group.protocol", PROTOCOL),
    ("group.protocol.type", PROTOCOL),
    ("group.id", "the subscription names its group"),
    ("group.instance.id", "set group_instance_id instead"),
    ("session.timeout.ms", "the subscription's session_timeout is it"),
    ("heartbeat.interval.ms", "always a tenth of the subscription's session_timeout"),
    ("max.poll.interval.ms", "set max_poll_interval_ms instead: the drain deadline must be below it"),
    ("queued.max.messages.kbytes", "set fetch_queue_kilobytes instead"),
    ("bootstrap.servers", BROKERS),
    ("metadata.broker.list", BROKERS),
    ("client.id", "set client_name instead; members have their own names"),
    ("statistics.interval.ms", "set statistics_ms instead: clients that lost all brokers are found by it"),
    ("metadata.recovery.strategy", "always rebootstrap: a client that lost all brokers begins again"),
    ("allow.auto.create.topics", "always false: asking for a topic never makes one"),
    ("topic.blacklist", "a topic that the client does not see would be waited for without end"),
    ("topic.metadata.refresh.interval.ms", TOPICS_FOUND),
    ("metadata.max.age.ms", TOPICS_FOUND),
    ("topic.metadata.propagation.max.ms", "a topic that was just made would be taken for one that is gone"),
    ("socket.timeout.ms", LEFT),
    ("socket.max.fails", LEFT),
    ("api.version.request", VERSIONS),
    ("api.version.fallback.ms", VERSIONS),
    ("broker.version.fallback", VERSIONS),
    ("security.protocol", "set tls_required and user instead"),
    ("enable.ssl.certificate.verification", AUTHENTICATED),
    ("ssl.endpoint.identification.algorithm", AUTHENTICATED),
    ("ssl.ca.location", "set root_certificates instead"),
    ("ssl.certificate.location", "set client_certificate instead"),
    ("ssl.key.location", "set client_key instead"),
    ("sasl.mechanism", LOGIN),
    ("sasl.mechanisms", LOGIN),
    ("sasl.username", LOGIN),
    ("sasl.password", LOGIN),
    ("sasl.kerberos.service.name", LOGIN),
    ("sasl.kerberos.principal", LOGIN),
    ("sasl.kerberos.kinit.cmd", LOGIN),
    ("sasl.kerberos.keytab", LOGIN),
    ("sasl.kerberos.min.time.before.relogin", LOGIN),
    ("enable.sasl.oauthbearer.unsecure.jwt", LOGIN),
    ("sasl.oauthbearer.config", LOGIN),
    ("sasl.oauthbearer.method", LOGIN),
    ("sasl.oauthbearer.client.id", LOGIN),
    ("sasl.oauthbearer.client.credentials.client.id", LOGIN),
    ("sasl.oauthbearer.client.secret", LOGIN),
    ("sasl.oauthbearer.client.credentials.client.secret", LOGIN),
    ("sasl.oauthbearer.scope", LOGIN),
    ("sasl.oauthbearer.extensions", LOGIN),
    ("sasl.oauthbearer.token.endpoint.url", LOGIN),
    ("sasl.oauthbearer.grant.type", LOGIN),
    ("sasl.oauthbearer.assertion.algorithm", LOGIN),
    ("sasl.oauthbearer.assertion.private.key.file", LOGIN),
    ("sasl.oauthbearer.assertion.private.key.passphrase", LOGIN),
    ("sasl.oauthbearer.assertion.private.key.pem", LOGIN),
    ("sasl.oauthbearer.assertion.file", LOGIN),
    ("sasl.oauthbearer.assertion.claim.aud", LOGIN),
    ("sasl.oauthbearer.assertion.claim.exp.seconds", LOGIN),
    ("sasl.oauthbearer.assertion.claim.iss", LOGIN),
    ("sasl.oauthbearer.assertion.claim.jti.include", LOGIN),
    ("sasl.oauthbearer.assertion.claim.nbf.seconds", LOGIN),
    ("sasl.oauthbearer.assertion.claim.sub", LOGIN),
    ("sasl.oauthbearer.assertion.jwt.template.file", LOGIN),
    ("sasl.oauthbearer.metadata.authentication.type", LOGIN),
    ("https.ca.location", LOGIN),
    ("https.ca.pem", LOGIN),
    ("plugin.library.paths", "a plugin could change what the bus rests on"),
    ("interceptors", CALLBACK),
    ("enabled_events", CALLBACK),
    ("log.queue", CALLBACK),
    ("log_cb", CALLBACK),
    ("error_cb", CALLBACK),
    ("throttle_cb", CALLBACK),
    ("stats_cb", CALLBACK),
    ("background_event_cb", CALLBACK),
    ("socket_cb", CALLBACK),
    ("connect_cb", CALLBACK),
    ("closesocket_cb", CALLBACK),
    ("open_cb", CALLBACK),
    ("resolve_cb", CALLBACK),
    ("consume_cb", CALLBACK),
    ("rebalance_cb", CALLBACK),
    ("offset_commit_cb", CALLBACK),
    ("dr_cb", CALLBACK),
    ("dr_msg_cb", CALLBACK),
    ("partitioner_cb", CALLBACK),
    ("oauthbearer_token_refresh_cb", CALLBACK),
    ("ssl.certificate.verify_cb", CALLBACK),
    ("ssl_engine_callback_data", CALLBACK),
    ("ssl_key", CALLBACK),
    ("ssl_certificate", CALLBACK),
    ("ssl_ca", CALLBACK),
    ("opaque", CALLBACK),
    ("default_topic_conf", CALLBACK),
    ("internal.termination.signal", CALLBACK),
    ("consume.callback.max.messages", NO_EFFECT),
    ("builtin.features", NO_EFFECT),
    ("topic.metadata.refresh.fast.cnt", NO_EFFECT),
    ("socket.blocking.max.ms", NO_EFFECT),
    ("reconnect.backoff.jitter.ms", NO_EFFECT),
];

/// Properties of librdkafka that are passed through: they change speed, memory, names in logs and the ways of
/// encryption, and nothing that the contract rests on.
const PASSED: &[&str] = &[
    "api.version.request.timeout.ms",
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.rack",
    "compression.level",
    "connections.max.idle.ms",
    "coordinator.query.interval.ms",
    "debug",
    "enable.metrics.push",
    "enable.random.seed",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.remote.assignor",
    "log.connection.close",
    "log.thread.name",
    "log_level",
    "max.partition.fetch.bytes",
    "message.copy.max.bytes",
    "metadata.recovery.rebootstrap.trigger.ms",
    "queue.buffering.backpressure.threshold",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "ssl.ca.certificate.stores",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.engine.id",
    "ssl.engine.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.providers",
    "ssl.sigalgs.list",
    "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.sparse",
];

/// Checks that a property may be passed through. A name that is not known is not repeated: a comma in a value, perhaps
/// in a password's, makes a name of what follows.
///
/// # Errors
/// `UnsafeConfig` for a refused one, with the reason; `InvalidConfig` for one that is not known.
pub(crate) fn check(name: &str) -> Result<()> {
    refuse(REFUSED, name)?;
    if PASSED.contains(&name) {
        return Ok(());
    }
    let first = |name: &str| name.split_once('.').map(|(first, _)| first.to_owned());
    let known = || PASSED.iter().copied().chain(REFUSED.iter().map(|(name, _)| *name));
    let likely =
        first(name).is_some_and(|begins| known().any(|known| first(known).as_deref() == Some(begins.as_str())));
    let got = if likely { format!("{name:?}") } else { "another name".to_owned() };
    Err(invalid("properties", format!("expected properties of librdkafka that the bus knows, got {got}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use eventbus_core::ErrorKind;
    use rdkafka::ClientConfig;
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaConfRes;

    use super::*;

    /// The names in librdkafka's own list of properties (`CONFIGURATION.md` of 2.12.1), one a line.
    const ALL: &str = include_str!("../tests/librdkafka-properties.txt");

    #[test]
    fn every_property_of_librdkafka_is_refused_or_passed_and_no_other_is_listed() {
        let all: BTreeSet<&str> = ALL.lines().collect();
        let refused: BTreeSet<&str> = REFUSED.iter().map(|(name, _)| *name).collect();
        let passed: BTreeSet<&str> = PASSED.iter().copied().collect();
        assert_eq!((refused.len(), passed.len()), (REFUSED.len(), PASSED.len()), "one is listed twice");
        assert_eq!(refused.intersection(&passed).count(), 0);
        let listed: BTreeSet<&str> = refused.union(&passed).copied().collect();
        assert_eq!(listed, all);
        assert!(all.len() > 150, "the list is librdkafka's whole one");
        for name in all {
            let checked = check(name).map_err(|error| error.kind());
            assert_eq!(checked.is_ok(), passed.contains(name), "{name}: {checked:?}");
        }
    }

    #[test]
    fn each_passed_property_is_known_to_the_library() {
        for name in PASSED {
            let made = ClientConfig::new().set(*name, "1").create_native_config();
            let unknown = matches!(made, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)));
            assert!(!unknown, "{name}");
        }
    }

    #[test]
    fn what_the_clients_are_made_with_cannot_be_set_by_a_property_unless_it_only_tunes() {
        const TUNED: [&str; 8] = [
            "fetch.error.backoff.ms",
            "fetch.queue.backoff.ms",
            "fetch.wait.max.ms",
            "reconnect.backoff.max.ms",
            "reconnect.backoff.ms",
            "retry.backoff.max.ms",
            "retry.backoff.ms",
            "socket.connection.setup.timeout.ms",
        ];
        let config = crate::KafkaConfig::new("a:1").group_instance_id(Some("x".into()));
        let set = config
            .producer_properties()
            .into_keys()
            .chain(config.consumer_properties(&"g".parse().unwrap()).into_keys());
        for name in set.filter(|name| !TUNED.contains(&name.as_str())) {
            assert_eq!(check(&name).unwrap_err().kind(), ErrorKind::UnsafeConfig, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_repeated_only_where_it_can_be_no_secret() {
        let error = check("socket.timeuot.ms").unwrap_err();
        assert!(error.to_string().contains("socket.timeuot.ms"), "{error}");
        for name in ["hunter2", "hunter2.x", "", "a.hunter2"] {
            let error = check(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
