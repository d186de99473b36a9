//! Tests of the harness itself: brokers that are killed and come back, and a proxy that follows its rules.

use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use conformance_tests::brokers::{Broker, BrokerError, KafkaServer, NatsServer, NatsVersion, shut_down, sweep};
use conformance_tests::proxy::nats::{Fault, Rules, Scope};
use conformance_tests::proxy::{Direction, Proxy, kafka};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

type Tested = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn connect(address: std::net::SocketAddr) -> Result<async_nats::Client, async_nats::ConnectError> {
    async_nats::ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(format!("nats://{address}"))
        .await
}

/// Connects a client through a proxy to the shared broker, and makes a stream of the given name.
async fn behind_a_proxy(
    name: &str,
) -> Result<(Broker, Proxy, std::sync::Arc<Rules>, jetstream::Context), Box<dyn std::error::Error + Send + Sync>> {
    let broker = Broker::shared(NatsServer::new(NatsVersion::Newest)).await?;
    let rules = Rules::new();
    let proxy = Proxy::start(broker.address(), rules.clone()).await?;
    let mut context = jetstream::new(connect(proxy.address()).await?);
    context.set_timeout(Duration::from_secs(2));
    let subjects = vec![format!("{name}.>")];
    context.create_stream(jetstream::stream::Config { name: name.into(), subjects, ..Default::default() }).await?;
    Ok((broker, proxy, rules, context))
}

async fn publish(context: &jetstream::Context, subject: &str, key: &str) -> Result<u64, String> {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ce-partitionkey", key);
    let acknowledged = context.publish_with_headers(subject.to_owned(), headers, Bytes::from_static(b"x")).await;
    Ok(acknowledged.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())?.sequence)
}

async fn killed_broker_loses_its_data_or_its_port() -> Tested {
    let broker = Broker::own(NatsServer::new(NatsVersion::Oldest)).await?;
    let context = jetstream::new(connect(broker.address()).await?);
    let subjects = vec!["kept.>".to_owned()];
    context.create_stream(jetstream::stream::Config { name: "kept".into(), subjects, ..Default::default() }).await?;
    publish(&context, "kept.1", "k").await?;
    broker.kill().await?;
    broker.start().await?;
    let again = jetstream::new(connect(broker.address()).await?);
    assert_eq!(publish(&again, "kept.1", "k").await?, 2);
    broker.pause().await?;
    broker.unpause().await?;
    broker.disconnect().await?;
    broker.reconnect().await?;
    assert_eq!(publish(&again, "kept.1", "k").await?, 3);
    broker.stop().await?;
    broker.start().await?;
    assert_eq!(publish(&again, "kept.1", "k").await?, 4);
    Ok(())
}

async fn wrong_password_is_taken() -> Tested {
    let broker = Broker::shared(NatsServer::new(NatsVersion::Newest).credentials("user", "right")).await?;
    assert!(connect(broker.address()).await.is_err());
    let with = async_nats::ConnectOptions::with_user_and_password("user".into(), "right".into());
    with.connect(format!("nats://{}", broker.address())).await?;
    Ok(())
}

async fn lost_answer_is_a_lost_message() -> Tested {
    let (_broker, _proxy, rules, context) = behind_a_proxy("answer").await?;
    rules.arm(Fault::LoseAnswer, Scope::subject("answer.").key("k").nth(2));
    assert_eq!(publish(&context, "answer.1", "k").await?, 1);
    assert_eq!(publish(&context, "answer.1", "other").await?, 2);
    assert!(publish(&context, "answer.1", "k").await.is_err(), "its answer was to be lost");
    assert_eq!(publish(&context, "answer.1", "k").await?, 4);
    Ok(())
}

async fn refused_message_is_stored() -> Tested {
    let (_broker, _proxy, rules, context) = behind_a_proxy("refused").await?;
    let payload = Bytes::from_static(br#"{"error":{"code":400,"err_code":10060,"description":"told to refuse"}}"#);
    rules.arm(Fault::Answer { headers: Bytes::new(), payload }, Scope::subject("refused."));
    let refused = publish(&context, "refused.1", "k").await;
    assert!(refused.as_ref().is_err_and(|error| error.contains("told to refuse")), "{refused:?}");
    assert_eq!(publish(&context, "refused.1", "k").await?, 1);
    Ok(())
}

async fn held_message_overtakes_or_is_lost() -> Tested {
    let (_broker, _proxy, rules, context) = behind_a_proxy("held").await?;
    rules.arm(Fault::Hold, Scope::subject("held."));
    rules.arm(Fault::HoldAnswer, Scope::subject("held.2"));
    assert!(publish(&context, "held.1", "k").await.is_err());
    let held = rules.take_held();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].frame.header("ce-partitionkey"), Some("k"));
    let (answered, ()) = tokio::join!(publish(&context, "held.2", "k"), async {
        while context.get_stream("held").await.is_ok_and(|stream| stream.cached_info().state.messages == 0) {}
        rules.release();
    });
    assert_eq!(answered?, 1);
    Ok(())
}

async fn frozen_connection_ends() -> Tested {
    let (_broker, proxy, _rules, context) = behind_a_proxy("frozen").await?;
    proxy.freeze();
    let (answered, ()) = tokio::join!(publish(&context, "frozen.1", "k"), async {
        tokio::task::yield_now().await;
        proxy.heal();
    });
    assert_eq!(answered?, 1);
    proxy.stop(Direction::ToClient);
    assert!(publish(&context, "frozen.1", "k").await.is_err());
    proxy.heal();
    assert_eq!(publish(&context, "frozen.1", "k").await?, 3);
    proxy.cut();
    assert!(publish(&context, "frozen.1", "k").await.is_err());
    proxy.heal();
    assert!(publish(&context, "frozen.1", "k").await? >= 4);
    Ok(())
}

/// A producer context that keeps the delivery reports.
#[derive(Default)]
struct Heard(std::sync::Mutex<Vec<Result<i64, rdkafka::error::KafkaError>>>);

impl rdkafka::ClientContext for Heard {}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(rdkafka::Message::offset).map_err(|(error, _)| error.clone());
        self.0.lock().unwrap().push(result);
    }
}

fn kafka_client(address: std::net::SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new();
    let settings = [("reconnect.backoff.max.ms", "200"), ("socket.timeout.ms", "1000"), ("enable.idempotence", "true")];
    config.set("bootstrap.servers", address.to_string());
    for (name, value) in settings {
        config.set(name, value);
    }
    config
}

async fn kafka_topic(address: std::net::SocketAddr, name: &str) -> Tested {
    let admin: AdminClient<_> = kafka_client(address).create()?;
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let made =
        admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)))).await?;
    Ok(made.into_iter().next().unwrap().map(drop).map_err(|(_, code)| code)?)
}

/// Stores one record and returns its offset.
fn kafka_publish(
    producer: &BaseProducer<Heard>,
    topic: &str,
    payload: &str,
) -> Result<i64, rdkafka::error::KafkaError> {
    producer.send(BaseRecord::to(topic).key("k").payload(payload)).map_err(|(error, _)| error)?;
    producer.flush(Duration::from_secs(60))?;
    producer.context().0.lock().unwrap().pop().unwrap()
}

async fn killed_kafka_loses_its_data_or_its_port() -> Tested {
    let broker = Broker::own(KafkaServer::new()).await?;
    kafka_topic(broker.address(), "kept").await?;
    let producer = BaseProducer::from_config_and_context(&kafka_client(broker.address()), Heard::default())?;
    assert_eq!(kafka_publish(&producer, "kept", "one")?, 0);
    broker.kill().await?;
    broker.start().await?;
    assert_eq!(kafka_publish(&producer, "kept", "two")?, 1);
    broker.pause().await?;
    broker.unpause().await?;
    broker.disconnect().await?;
    broker.reconnect().await?;
    assert_eq!(kafka_publish(&producer, "kept", "three")?, 2);
    broker.stop().await?;
    broker.start().await?;
    assert_eq!(kafka_publish(&producer, "kept", "four")?, 3);
    Ok(())
}

async fn kafka_client_gets_past_its_proxy() -> Tested {
    let broker = Broker::shared(KafkaServer::new()).await?;
    let rules = kafka::Rules::new();
    let proxy = Proxy::start(broker.address(), rules.clone()).await?;
    kafka_topic(broker.address(), "behind").await?;
    let publish = |payload: &'static str| {
        let producer = BaseProducer::from_config_and_context(&kafka_client(proxy.address()), Heard::default());
        rules.submitted("behind", Some(b"k"), payload.as_bytes());
        kafka_publish(&producer?, "behind", payload)
    };
    assert_eq!(publish("record-1")?, 0);
    let refused = rules.arm(kafka::Fault::Refuse(87), kafka::Scope::topic("behind"));
    let code = publish("record-2").unwrap_err().rdkafka_error_code();
    assert_eq!(code, Some(rdkafka::types::RDKafkaErrorCode::InvalidRecord));
    assert_eq!(publish("record-3")?, 1);
    assert_eq!(rules.struck(refused), 1);
    // Whether it is answered or not, the record is stored once.
    let lost = rules.arm(kafka::Fault::LoseAnswer, kafka::Scope::topic("behind"));
    assert_eq!(publish("record-4")?, 2);
    assert_eq!(rules.struck(lost), 1);
    let delayed = rules.arm(kafka::Fault::Answer(19), kafka::Scope::topic("behind").times(Some(3)));
    assert_eq!(publish("record-5")?, 3);
    assert_eq!(rules.struck(delayed), 3);
    let denied = rules.arm(kafka::Fault::Deny(20), kafka::Scope::topic("behind").times(Some(3)));
    assert_eq!(publish("record-6")?, 4);
    assert_eq!(rules.struck(denied), 3);
    proxy.cut();
    let producer = BaseProducer::from_config_and_context(&kafka_client(proxy.address()), Heard::default())?;
    producer.send(BaseRecord::to("behind").key("k").payload("record-7")).map_err(|(error, _)| error)?;
    assert!(producer.flush(Duration::from_secs(2)).is_err(), "it went past the proxy");
    proxy.heal();
    producer.flush(Duration::from_secs(30))?;
    assert_eq!(producer.context().0.lock().unwrap().pop().unwrap()?, 5);
    Ok(())
}

async fn wrong_kafka_password_is_taken() -> Tested {
    let broker = Broker::shared(KafkaServer::new().credentials("user", "right")).await?;
    let with = |password: &str| {
        let mut config = kafka_client(broker.address());
        config.set("security.protocol", "SASL_PLAINTEXT").set("sasl.mechanism", "PLAIN");
        config.set("sasl.username", "user").set("sasl.password", password);
        let producer = BaseProducer::from_config_and_context(&config, Heard::default())?;
        producer.client().fetch_metadata(None, Duration::from_secs(5)).map(drop)
    };
    assert!(with("wrong").is_err());
    with("right")?;
    Ok(())
}

fn main() -> std::process::ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(libtest_mimic::Trial::test(stringify!($name), || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                Ok(runtime.block_on($name()).map_err(|error| error.to_string())?)
            })),*]
        };
    }
    let trials = trials![
        killed_broker_loses_its_data_or_its_port,
        wrong_password_is_taken,
        lost_answer_is_a_lost_message,
        refused_message_is_stored,
        held_message_overtakes_or_is_lost,
        frozen_connection_ends,
        killed_kafka_loses_its_data_or_its_port,
        kafka_client_gets_past_its_proxy,
        wrong_kafka_password_is_taken,
    ];
    let swept: Result<usize, BrokerError> = if arguments.list { Ok(0) } else { sweep() };
    if let Err(error) = swept {
        eprintln!("{error}");
        return std::process::ExitCode::FAILURE;
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(error) = shut_down() {
        eprintln!("{error}");
    }
    conclusion.exit_code()
}
