//! Case 20: configurations that would break the contract are refused when they are built.
#![allow(clippy::type_complexity)] // tables of settings and what breaks them

use std::time::Duration;

use eventbus_core::{Backoff, BusConfig, ErrorKind, Subscribe, TopicSpec};

use crate::harness::steadily;
use crate::suite::common::{TOPIC, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Run};

fn refused<T>(what: &str, setting: &str, result: Result<T, Failure>) -> Result<(), Failure> {
    let error = match result {
        Ok(_) => return Err(Failure::wrong(format!("{what} was accepted"))),
        Err(Failure::Bus(error)) => error,
        Err(other) => return Err(other),
    };
    let kind = matches!(error.kind(), ErrorKind::InvalidConfig | ErrorKind::UnsafeConfig);
    ensure!(kind, "{what}: expected an error of configuration, got {error}");
    ensure!(error.to_string().contains(setting), "{what}: the error does not name {setting}: {error}");
    Ok(())
}

/// Case 20.
pub(in crate::suite) async fn unsafe_is_refused(run: Run) -> Result<(), Failure> {
    let buses: [(&str, &str, fn(BusConfig) -> BusConfig); 6] = [
        ("no room for an envelope", "budget_envelopes", |config| config.budget_envelopes(0)),
        ("no room for a byte", "budget_bytes", |config| config.budget_bytes(0)),
        ("a share of nothing", "share", |config| config.share(0)),
        ("nobody may wait", "waiting_limit", |config| config.waiting_limit(0)),
        ("no key may be sealed", "sealed_limit", |config| config.sealed_limit(0)),
        ("re-sends without a pause", "resend_backoff", |config| config.resend_backoff(Duration::ZERO, millis(1))),
    ];
    for (what, setting, change) in buses {
        refused(what, setting, run.process_with(change(run.config())).await)?;
    }
    let peer = run.process().await?;
    topic(&peer, 2).await?;
    let subscriptions: [(&str, &str, fn(Subscribe) -> Subscribe); 9] = [
        ("no handler at once", "concurrency", |options| options.concurrency(0)),
        ("no attempt", "attempts", |options| options.attempts(0)),
        ("a window that a batch overruns", "window", |options| options.window(10)),
        ("no bytes", "budget_bytes", |options| options.budget_bytes(0)),
        ("a session without time", "session_timeout", |options| options.session_timeout(Duration::ZERO)),
        ("a handler without time", "handler_timeout", |options| options.handler_timeout(Duration::ZERO)),
        ("commits without pause", "commit_interval", |options| options.commit_interval(Duration::ZERO)),
        ("commits after nothing", "commit_every", |options| options.commit_every(0)),
        ("a back-off that shrinks", "back-off", |options| {
            options.backoff(Backoff::exponential().initial(Duration::from_secs(60)).max(millis(1)))
        }),
    ];
    let mut accepted = Vec::new();
    for (what, setting, change) in subscriptions {
        let result = peer.subscribe(change(subscribe()), steadily(millis(1))).await;
        match refused(what, setting, result) {
            Ok(()) => {}
            Err(Failure::Wrong(why)) => accepted.push(why),
            Err(other) => return Err(other),
        }
    }
    ensure!(accepted.is_empty(), "{}", accepted.join("; "));
    for (what, setting, spec) in [
        ("no partition", "partitions", TopicSpec::new("t").partitions(0)),
        ("no replica", "replicas", TopicSpec::new("t").replicas(0)),
        ("a window that no re-send fits in", "duplicate_window", TopicSpec::new("t").duplicate_window(millis(1))),
        ("records without age", "max_age", TopicSpec::new("t").max_age(Duration::ZERO)),
        ("other partitions than there are", "partitions", TopicSpec::new(TOPIC).partitions(3)),
    ] {
        match peer.topic(spec).await {
            Err(Failure::Bus(error)) if error.kind() == ErrorKind::TopicMismatch => {
                ensure!(error.to_string().contains(setting), "{what}: the error does not name {setting}: {error}");
            }
            other => refused(what, setting, other)?,
        }
    }
    for (name, accepted) in run.refusals().await {
        ensure!(!accepted, "the backend accepts {name}");
    }
    Ok(())
}
