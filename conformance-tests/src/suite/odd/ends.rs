//! Ends of members that a careful service does not make: a handler that cannot be dropped, a bus that is dropped first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use eventbus_core::{Delivery, ErrorKind, handler_fn};

use crate::harness::steadily;
use crate::suite::common::{GROUP, TOPIC, expect, keys, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::{Failure, Run};

/// The shortest time from the closing to the next owner's start: less than what is left of any member's session of
/// three seconds, and more than closing itself takes.
const KEPT: Duration = Duration::from_millis(1_500);

/// A handler that blocks its thread keeps its partition beyond its member's end (S5, S7).
pub(in crate::suite) async fn blocked_handler_keeps_its_partition(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 1).await?;
    let (go_on, blocked) = mpsc::channel::<()>();
    let (started, blocked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(blocked)));
    let count = started.clone();
    let blocks = handler_fn(move |_: Delivery| {
        let (count, blocked) = (count.clone(), blocked.clone());
        async move {
            count.fetch_add(1, Ordering::AcqRel);
            let _ = blocked.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Ok(())
        }
    });
    let first = peer.bus().subscribe(subscribe(), blocks).await?;
    peer.publish_rounds(TOPIC, &keys("order", 1), 1).await?;
    run.until("the handler blocks", || started.load(Ordering::Acquire) == 1).await;
    let other = run.process().await?;
    let begun: Arc<Mutex<Option<Instant>>> = Arc::default();
    let seen = begun.clone();
    let notes = handler_fn(move |_: Delivery| {
        seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        async { Ok(()) }
    });
    let second = other.bus().subscribe(subscribe(), notes).await?;
    let closed = Instant::now();
    let drained = first.drain(Duration::ZERO).await;
    let named = drained.as_ref().is_err_and(|error| {
        error.kind() == ErrorKind::DeadlineExceeded && error.context().any(|(name, _)| name == "blocking")
    });
    ensure!(named, "expected the blocking handler to be named, got {drained:?}");
    let at = || *begun.lock().unwrap_or_else(PoisonError::into_inner);
    run.until("the other member has the partition", || at().is_some()).await;
    let after = at().map(|at| at.duration_since(closed)).unwrap_or_default();
    ensure!(after >= KEPT, "the other member started {after:?} after the closing, while the handler runs");
    drop(go_on);
    run.settled(TOPIC, &[GROUP]).await?;
    second.drain(Duration::from_secs(5)).await?;
    Ok(())
}

/// The last handle of a bus goes while a subscription lives: it hands back as if it had been closed (S7).
pub(in crate::suite) async fn bus_dropped_before_its_subscription(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 1).await?;
    let options = || subscribe().concurrency(4).session_timeout(Duration::from_secs(10));
    let subscription = peer.subscribe(options(), steadily(millis(50))).await?;
    peer.publish_rounds(TOPIC, &keys("order", 100), 1).await?;
    run.until_calls("some are done", 8, |call| call.succeeded()).await;
    // The process lives on, and its connection with it.
    let _connection = peer.connection().clone();
    drop(peer);
    subscription.closed().await?;
    let started = run.count(|_| true);
    ensure!(started < 100, "all were handled before the bus was dropped: the case shows nothing");
    let other = run.process().await?;
    let since = Instant::now();
    let rest = other.subscribe(options(), steadily(millis(1))).await?;
    run.until_calls("the next member goes on", started + 1, |_| true).await;
    let waited = since.elapsed();
    ensure!(
        !run.is_real() || waited < Duration::from_secs(8),
        "the partition was released only with its lease: {waited:?}"
    );
    run.settled(TOPIC, &[GROUP]).await?;
    rest.drain(Duration::from_secs(5)).await?;
    drop(subscription);
    run.judge(&expect().overlap(), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}
