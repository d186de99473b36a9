//! Cases 8, 22 and 23: the broker itself goes away.

use std::time::Duration;

use crate::harness::{Outcome, Publisher, steadily};
use crate::suite::common::{GROUP, TOPIC, expect, keys, millis, subscribe, unsteadily};
use crate::suite::failure::ensure;
use crate::suite::p0::members::topic;
use crate::suite::p0::publish::confirmed;
use crate::suite::{Failure, Run, UnderWay};

/// Time for which the broker is away.
const DOWN: Duration = millis(700);

/// Kills the broker and waits until it is back, on the record.
pub(in crate::suite) async fn restart(run: &Run, under_way: UnderWay, down: Duration) -> Result<(), Failure> {
    run.fault("broker down", true);
    run.fixture().restart(under_way, down).await?;
    tokio::time::sleep(down).await;
    run.fixture().back().await;
    run.healed("broker down");
    Ok(())
}

/// Restarts the broker while rounds of all keys are published: some are on their way when the connection ends, others
/// wait behind them.
async fn restart_under_load(
    run: &Run,
    under_way: UnderWay,
    publisher: &Publisher,
    all: &[String],
) -> Result<Vec<Outcome>, Failure> {
    let mut outcomes = Vec::new();
    let restarting = restart(run, under_way, DOWN);
    let mut restarting = std::pin::pin!(restarting);
    loop {
        tokio::select! {
            ended = &mut restarting => return ended.map(|()| outcomes),
            () = tokio::time::sleep(millis(25)) => {
                // As many as the budget has room for, and more than one of each key.
                if outcomes.len() < 6_000 {
                    outcomes.extend(all.iter().map(|key| publisher.publish(TOPIC, key, 0)));
                }
            }
        }
    }
}

/// Case 8.
pub(in crate::suite) async fn restarted_mid_stream(run: Run) -> Result<(), Failure> {
    let (publishing, handling) = (run.process().await?, run.process().await?);
    topic(&publishing, 6).await?;
    let one = handling.subscribe(subscribe(), unsteadily(run.seed(), millis(10))).await?;
    let two = publishing.subscribe(subscribe(), unsteadily(run.seed(), millis(10))).await?;
    let all = keys("order", 150);
    for under_way in [UnderWay::Stored, UnderWay::Lost, UnderWay::Either] {
        let publisher = publishing.publisher();
        let outcomes: Vec<_> = (0..8).flat_map(|_| all.iter().map(|key| publisher.publish(TOPIC, key, 0))).collect();
        let (answered, handled) = (confirmed(&run), run.count(|call| call.succeeded()));
        run.until("both sides are at it", || {
            confirmed(&run) > answered + 50 && run.count(|call| call.succeeded()) > handled + 20
        })
        .await;
        let more = restart_under_load(&run, under_way, publisher, &all).await?;
        for outcome in outcomes.into_iter().chain(more) {
            outcome.await?;
        }
    }
    run.settled(TOPIC, &[GROUP]).await?;
    run.judge(&expect().overlap().spread(150, 6), &[(TOPIC, &[GROUP])]).await?;
    drop((one, two));
    Ok(())
}

/// Case 22.
pub(in crate::suite) async fn leader_changes(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 6).await?;
    let subscription = peer.subscribe(subscribe(), unsteadily(run.seed(), millis(10))).await?;
    let all = keys("order", 100);
    for _ in 0..3 {
        let outcomes: Vec<_> =
            (0..5).flat_map(|_| all.iter().map(|key| peer.publisher().publish(TOPIC, key, 0))).collect();
        let answered = confirmed(&run);
        run.until("publishing is under way", || confirmed(&run) > answered + 20).await;
        run.fault("leader changed", false);
        run.fixture().change_leader(TOPIC, GROUP).await?;
        for outcome in outcomes {
            outcome.await?;
        }
    }
    run.settled(TOPIC, &[GROUP]).await?;
    run.judge(&expect().overlap().spread(100, 6), &[(TOPIC, &[GROUP])]).await?;
    drop(subscription);
    Ok(())
}

/// Case 23.
pub(in crate::suite) async fn confirmed_survives(run: Run) -> Result<(), Failure> {
    let peer = run.process().await?;
    topic(&peer, 6).await?;
    let all = keys("order", 100);
    for _ in 0..3 {
        let more = |rounds: usize| {
            (0..rounds).flat_map(|_| all.iter().map(|key| peer.publisher().publish(TOPIC, key, 0))).collect::<Vec<_>>()
        };
        let (mut outcomes, answered) = (more(3), confirmed(&run));
        outcomes.remove(0).await?;
        // These cannot have an answer yet.
        outcomes.extend(more(2));
        ensure!(
            confirmed(&run) < answered + 500,
            "all was confirmed before the broker was killed: the case shows nothing"
        );
        restart(&run, UnderWay::Lost, DOWN).await?;
        for outcome in outcomes {
            outcome.await?;
        }
    }
    // The log is read afterwards: the oracle misses confirmed records that are not there (O5).
    let subscription = peer.subscribe(subscribe(), steadily(millis(1))).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    run.judge(&expect().overlap().spread(100, 6), &[(TOPIC, &[GROUP])]).await?;
    Ok(())
}
