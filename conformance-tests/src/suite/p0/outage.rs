//! Case 17: an outage of what the handlers need costs no order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eventbus_core::Delivery;

use super::failure::{all_keys, finish, finished, start};
use crate::harness::{Act, Step};
use crate::history::{EndOutcome, FinishedBy};
use crate::suite::common::{GROUP, TOPIC, millis, subscribe};
use crate::suite::failure::ensure;
use crate::suite::{Failure, Run};

/// S2: every handler fails until what it needs is back. Handling is suspended, and nothing is given up: attempts, time
/// and policy are the defaults.
pub(in crate::suite) async fn all_handlers_fail(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    let away = Arc::new(AtomicBool::new(true));
    let needed = away.clone();
    let handler = move |_: &Delivery, _: u64| {
        let then = if needed.load(Ordering::Relaxed) { Act::Fail } else { Act::Succeed };
        Step { takes: millis(1), then }
    };
    let subscription = peer.subscribe(subscribe(), handler).await?;
    peer.publish_rounds(TOPIC, &all_keys(), 6).await?;
    run.until("handling is suspended", || subscription.is_suspended()).await;
    let failed = || run.count(|call| matches!(call.end, Some((EndOutcome::Failed, _))));
    let before = failed();
    // The pauses between tries grow: this takes a second.
    run.until("some are tried again", || failed() >= before + 4).await;
    away.store(false, Ordering::Relaxed);
    finish(&run, &[&subscription], &[GROUP]).await?;
    ensure!(!subscription.is_suspended(), "it is suspended although all were handled");
    for by in [FinishedBy::DeadLettered, FinishedBy::Skipped] {
        let given_up = finished(&run, by);
        ensure!(given_up == 0, "{given_up} envelopes were given up");
    }
    let handled = run.count(|call| call.succeeded());
    ensure!(handled == 6 * all_keys().len(), "{handled} were handled");
    Ok(())
}
