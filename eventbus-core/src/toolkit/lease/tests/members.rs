//! Several members, one of which is cut off or does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::*;
use crate::backend::Lease;

/// A member that answers every revocation at once, and its partitions.
struct Willing {
    owned: Arc<Mutex<BTreeMap<u32, Lease>>>,
    given_back: Arc<Mutex<usize>>,
    member: Arc<dyn Membership>,
}

impl Willing {
    async fn join(store: &Arc<Fake>, name: &str) -> Self {
        let joined = Self { owned: Arc::default(), given_back: Arc::default(), member: member(store, name).await };
        let (owned, given_back, member) = (joined.owned.clone(), joined.given_back.clone(), joined.member.clone());
        tokio::spawn(async move {
            while let Ok(event) = member.next().await {
                match event {
                    GroupEvent::Assigned(assigned) => {
                        owned.lock().unwrap().extend(assigned.into_iter().map(|given| (given.partition, given.lease)));
                    }
                    GroupEvent::Revoked(partitions) => {
                        *given_back.lock().unwrap() += partitions.len();
                        for partition in partitions {
                            owned.lock().unwrap().remove(&partition);
                            member.release(partition).await.unwrap();
                        }
                    }
                    GroupEvent::Lost(partitions) => {
                        owned.lock().unwrap().retain(|partition, _| !partitions.contains(partition));
                    }
                    GroupEvent::Waiting { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        });
        joined
    }

    fn owned(&self) -> BTreeSet<u32> {
        self.owned.lock().unwrap().keys().copied().collect()
    }

    fn given_back(&self) -> usize {
        std::mem::take(&mut *self.given_back.lock().unwrap())
    }
}

/// Returns the partitions of the next event, which must be an assignment.
async fn assigned(member: &Arc<dyn Membership>) -> Vec<u32> {
    match event(member, LEASE * 3).await {
        GroupEvent::Assigned(assigned) => assigned.iter().map(|assignment| assignment.partition).collect(),
        other => panic!("{other:?}"),
    }
}

async fn revoked(member: &Arc<dyn Membership>) -> Vec<u32> {
    match event(member, LEASE * 3).await {
        GroupEvent::Revoked(partitions) => partitions,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn members_that_come_and_go_share_to_within_one_and_little_moves() {
    let store = Fake::new(8);
    let a = Willing::join(&store, "a").await;
    sleep(LEASE).await;
    assert_eq!(a.owned().len(), 8);
    let b = Willing::join(&store.another(), "b").await;
    sleep(LEASE).await;
    assert_eq!((a.owned().len(), b.owned().len()), (4, 4));
    assert_eq!((a.given_back(), b.given_back()), (4, 0));
    let c = Willing::join(&store.another(), "c").await;
    sleep(LEASE).await;
    assert_eq!((a.owned().len(), b.owned().len(), c.owned().len()), (3, 3, 2));
    assert_eq!((a.given_back(), b.given_back(), c.given_back()), (1, 1, 0));
    b.member.leave().await.unwrap();
    sleep(LEASE / 2).await;
    assert_eq!((a.owned().len(), c.owned().len()), (4, 4), "what was left is taken before its lease ends");
    assert_eq!((a.given_back(), c.given_back()), (0, 0));
    assert!(a.owned().is_disjoint(&c.owned()));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_killed_long_ago_keeps_a_share_from_the_next() {
    let store = Fake::new(8);
    // Another kept the group after the kill, and left by itself: all partitions are free.
    let killed = StoreKey::Member("g".parse().unwrap(), "killed".into());
    store.put(&killed, r#"{"group":"g","name":"killed","lease_ms":10000}"#.into()).await.unwrap();
    sleep(LEASE * 20).await;
    let first = Willing::join(&store, "first").await;
    sleep(LEASE * 6 / 10).await;
    assert_eq!(first.owned().len(), 8);
    assert_eq!(store.value(&killed), None, "the next one would wait again");
    // One that lives keeps its share, however late the newcomer is.
    let second = Willing::join(&store.another(), "second").await;
    sleep(LEASE * 3).await;
    assert_eq!((first.owned().len(), second.owned().len()), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_cut_off_ends_before_another_takes_over() {
    let store = Fake::new(2);
    let far = store.another();
    let a = Willing::join(&far, "a").await;
    let b = Willing::join(&store, "b").await;
    // Each member has one partition, and has seen the other renew.
    sleep(LEASE * 2).await;
    let lease = a.owned.lock().unwrap().values().next().cloned().unwrap();
    assert_eq!((a.owned().len(), b.owned().len()), (1, 1));
    far.cut(true);
    let mut ended = None;
    let begun = Instant::now();
    while b.owned().len() < 2 {
        assert!(begun.elapsed() < LEASE * 2, "nobody took over");
        if ended.is_none() && !lease.is_valid() {
            ended = Some(Instant::now());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let ended = ended.expect("the leases ended first");
    assert!(ended.elapsed() >= LEASE / 11, "only {:?} before", ended.elapsed());
    assert!(begun.elapsed() >= LEASE * 2 / 3, "taken over after {:?}", begun.elapsed());
    // The member comes back, finds itself superseded, and changes nothing of the other's.
    far.cut(false);
    for partition in [0, 1] {
        let error = a.member.commit(claim(partition, 9, 9)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        let (_, record) = store.value(&slot(partition)).unwrap();
        let record = String::from_utf8(record.to_vec()).unwrap();
        assert!(record.contains(r#""epoch":0,"next":null"#), "{record}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_is_not_answered_ends_in_fencing() {
    let store = Fake::new(4);
    let a = member(&store, "a").await;
    assert_eq!(assigned(&a).await, [0, 1, 2, 3]);
    let b = member(&store.another(), "b").await;
    let asked = revoked(&a).await;
    assert_eq!(asked, [2, 3]);
    let begun = Instant::now();
    for partition in &asked {
        a.commit(claim(*partition, 5, 7)).await.unwrap();
    }
    // Unreleased partitions: the ownership ends at the deadline, here at once and for others when the lease has run
    // out.
    let mut lost = BTreeSet::new();
    while lost.len() < 2 {
        let GroupEvent::Lost(partitions) = event(&a, DRAIN * 2).await else { panic!("not lost") };
        lost.extend(partitions);
    }
    assert_eq!(lost, asked.iter().copied().collect());
    assert!((DRAIN..DRAIN * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let tries = store.swaps_of(&slot(2)) + store.swaps_of(&slot(3));
    for partition in &asked {
        assert_eq!(a.commit(claim(*partition, 6, 8)).await.unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(a.read(*partition, Position::ZERO).await.unwrap_err().kind(), ErrorKind::Fenced);
    }
    let taken = event(&b, LEASE * 2).await;
    assert!(begun.elapsed() >= LEASE, "taken over after {:?}", begun.elapsed());
    let GroupEvent::Assigned(taken) = taken else { panic!("{taken:?}") };
    for assignment in taken {
        assert!(asked.contains(&assignment.partition));
        let committed = assignment.committed.unwrap();
        assert_eq!((committed.next.get(), committed.epoch, &*committed.note), (7, 5, &b"note"[..]));
    }
    sleep(LEASE * 2).await;
    let after = store.swaps_of(&slot(2)) + store.swaps_of(&slot(3));
    assert_eq!(after, tries, "who lost a partition writes its record no more");
    assert!(store.swaps_of(&slot(0)) > 3, "what it kept it renews");
}

#[tokio::test(start_paused = true)]
async fn a_taking_of_unknown_outcome_is_made_again_without_waiting_for_the_lease() {
    let store = Fake::new(1);
    store.fault(Fault::Lost);
    let begun = Instant::now();
    let a = member(&store, "a").await;
    assert_eq!(assigned(&a).await, [0]);
    assert!(begun.elapsed() < LEASE / 5, "{:?}", begun.elapsed());
    a.commit(claim(0, 1, 1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_silent_is_forgotten_and_one_that_left_is_gone() {
    let store = Fake::new(1);
    let far = store.another();
    let _a = member(&far, "a").await;
    let b = member(&store, "b").await;
    let word = |name: &str| store.value(&StoreKey::Member(group(), name.into()));
    far.cut(true);
    sleep(LEASE * 3 / 2).await;
    assert!(word("a").is_some(), "it would take its missing heartbeat for the end of all records");
    sleep(LEASE).await;
    assert!(word("a").is_none());
    b.leave().await.unwrap();
    assert!(word("b").is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_leaving_member_claimed_and_did_not_release_runs_out_its_lease() {
    let store = Fake::new(2);
    let a = member(&store, "a").await;
    assert_eq!(assigned(&a).await, [0, 1]);
    a.commit(claim(0, 1, 1)).await.unwrap();
    a.commit(claim(1, 1, 1)).await.unwrap();
    let claimed = Instant::now();
    a.release(1).await.unwrap();
    let b = member(&store.another(), "b").await;
    a.leave().await.unwrap();
    // The handler of partition 0 may still run.
    assert_eq!(assigned(&b).await, [1]);
    assert!(claimed.elapsed() < LEASE / 5, "{:?}", claimed.elapsed());
    assert_eq!(assigned(&b).await, [0]);
    assert!(claimed.elapsed() >= LEASE, "{:?}", claimed.elapsed());
}
