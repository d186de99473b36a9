//! The harness itself: brokers that are killed and come back, and a proxy that does what it is told.

use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use conformance_tests::brokers::{Broker, BrokerError, NatsServer, NatsVersion, shut_down, sweep};
use conformance_tests::proxy::nats::{Fault, Rules, Scope};
use conformance_tests::proxy::{Direction, Proxy};

type Tested = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn connect(address: std::net::SocketAddr) -> Result<async_nats::Client, async_nats::ConnectError> {
    async_nats::ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(format!("nats://{address}"))
        .await
}

/// A client through a proxy in front of a broker that all share, and a stream of its own.
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
