//! Permissions that an operator takes away while a bus runs, and gives back: on servers whose permissions can be
//! changed, in containers. A kind of server that the environment names is left out: this harms it.

use std::process::ExitCode;
use std::sync::Arc;

use conformance_tests::brokers::{NatsVersion, shut_down, sweep};
use conformance_tests::oracle::Expectations;
use conformance_tests::suite::{
    Ability, GroupProtocol, KafkaProvider, NatsProvider, Provider, PublishFault, Publishes, Right, Run, RunOptions,
};
use eventbus_core::ErrorKind;
use libtest_mimic::{Arguments, Trial};
use world::{GROUP, TOPIC, Tested, judged, with_topic, wrong};

#[path = "trials/world.rs"]
mod world;

const NEEDS: &[Ability] = &[Ability::RestartBroker, Ability::Permissions];

/// A publish is stored and its answer lost, and then the right to publish is taken away. The refusals of others are
/// none of it.
async fn a_lost_answer_is_no_refusal(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let publisher = with_topic(&run, 1).await?;
    publisher.publish_rounds(TOPIC, &["a".into(), "b".into()], 1).await?;
    run.on_publish(PublishFault::LoseConfirmation, Publishes::to(TOPIC).key("a")).await?;
    let stored = publisher.publisher().publish(TOPIC, "a", 0);
    // Its answer is lost when the log holds it.
    while run.log(TOPIC).await?.len() < 3 {}
    run.fixture().operator().permit(TOPIC, GROUP, Right::Publish, false).await?;
    let refused = loop {
        if let Err(error) = publisher.publisher().publish(TOPIC, "b", 0).await {
            break error;
        }
    };
    if refused.kind() != ErrorKind::PermissionDenied {
        return Err(wrong(format!("the right to publish is missing: {refused}")));
    }
    stored.await?;
    run.fixture().operator().permit(TOPIC, GROUP, Right::Publish, true).await?;
    while publisher.publisher().publish(TOPIC, "b", 0).await.is_err() {}
    publisher.publish_rounds(TOPIC, &["a".into()], 1).await?;
    run.judge(&Expectations::new(1).log_read(), &[(TOPIC, &[])]).await?;
    Ok(())
}

/// Providers of servers whose permissions can be changed.
fn providers() -> std::io::Result<Vec<Arc<dyn Provider>>> {
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    if std::env::var_os("EVENTBUS_TEST_NATS_URL").is_none() {
        for version in NatsVersion::ALL {
            providers.push(Arc::new(NatsProvider::governed(version)?));
        }
    }
    if std::env::var_os("EVENTBUS_TEST_KAFKA_URL").is_none() {
        providers.push(Arc::new(KafkaProvider::governed(GroupProtocol::Classic)));
    }
    Ok(providers)
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let seed = RunOptions::from_env(1)?.seed;
    if !arguments.list {
        sweep().map_err(|error| error.to_string())?;
    }
    let of_provider = |provider: Arc<dyn Provider>| {
        let name = "a_lost_answer_is_no_refusal";
        let full = format!("{}::{name}", provider.name().replace(' ', "-"));
        Trial::test(full, move || judged(name, &provider, seed, NEEDS, a_lost_answer_is_no_refusal).map_err(Into::into))
    };
    let providers = providers().map_err(|error| error.to_string())?;
    let conclusion = libtest_mimic::run(arguments, providers.into_iter().map(of_provider).collect());
    if !arguments.list {
        shut_down().map_err(|error| error.to_string())?;
    }
    Ok(conclusion.exit_code())
}

fn main() -> ExitCode {
    run(&Arguments::from_args()).unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}
