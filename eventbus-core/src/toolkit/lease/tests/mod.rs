//! Groups over a store in memory, on tokio's paused clock. Each test is named for what it refutes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{LeaseStore, Leases, StoreKey};
use crate::backend::{Commit, GroupEvent, Join, Membership};
use crate::model::{ErrorKind, Group, Position};

mod delivery;
mod groups;
mod members;
mod place;
mod records;
mod store;

use store::{Fake, Fault};

const LEASE: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(3);

fn group() -> Group {
    "g".parse().unwrap()
}

fn slot(partition: u32) -> StoreKey {
    StoreKey::Partition(group(), partition)
}

fn leases(store: &Arc<Fake>) -> Leases {
    Leases::new(Arc::clone(store) as Arc<dyn LeaseStore>)
}

async fn member(store: &Arc<Fake>, name: &str) -> Arc<dyn Membership> {
    let mut join = Join::new(store.describe().await.unwrap(), group(), name);
    (join.session_timeout, join.drain_deadline) = (LEASE, DRAIN);
    leases(store).join(join).await.unwrap()
}

/// Returns the next event, which must come within `wait`.
async fn event(member: &Arc<dyn Membership>, wait: Duration) -> GroupEvent {
    timeout(wait, member.next()).await.expect("an event comes").unwrap()
}

/// Asserts that no event comes for so long.
async fn silent(member: &Arc<dyn Membership>, wait: Duration) {
    if let Ok(event) = timeout(wait, member.next()).await {
        panic!("{event:?}");
    }
}

fn claim(partition: u32, epoch: u64, next: u64) -> Commit {
    Commit::new(partition, Position::new(next), epoch, "note".into()).claiming()
}
