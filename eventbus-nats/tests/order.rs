//! End to end: every published envelope is handled, each key in order, whatever fails.

#![allow(clippy::unwrap_used)] // tests, though not every function here is one

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::server::Server;
use common::{Handled, connect, publish, sweep, topic};
use eventbus_core::{Backoff, Delivery, EventBus, HandlerError, Subscribe, handler_fn};

#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_in_order_while_handlers_fail() {
    let server = Server::start("");
    let config = server.config();
    let bus = connect(&config).await;
    topic(&bus, "a.b", 8).await;
    let handled = Handled::default();
    let calls = Arc::new(AtomicU64::new(0));
    let (seen, calling) = (handled.clone(), calls.clone());
    let handler = handler_fn(move |delivery: Delivery| {
        let (seen, calls) = (seen.clone(), calling.clone());
        async move {
            if calls.fetch_add(1, Ordering::Relaxed) % 97 == 0 {
                return Err(HandlerError::retry("every 97th"));
            }
            tokio::task::yield_now().await;
            seen.push(&delivery);
            Ok(())
        }
    });
    let backoff = Backoff::exponential().initial(Duration::from_millis(1)).max(Duration::from_millis(5));
    let options = Subscribe::to("a.b").group("g").concurrency(16).attempts(50).backoff(backoff);
    let subscription = bus.subscribe(options, handler).await.unwrap();
    publish(&bus, "a.b", 100, 1, 100).await;
    handled.until(10_000).await;
    subscription.drain(Duration::from_secs(10)).await.unwrap();
    handled.assert_ordered();
    assert_eq!(handled.count(), 10_000, "nothing is handled twice without a fault");
    let group = bus.describe_group("a.b", "g").await.unwrap();
    assert_eq!(group.partitions.iter().map(|partition| partition.lag).sum::<u64>(), 0);
    sweep(&bus).await;
    assert_eq!(bus.list_topics().await.unwrap(), Vec::<String>::new());
}
