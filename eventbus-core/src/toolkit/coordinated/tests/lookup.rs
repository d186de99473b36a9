//! Logs that are still the same, or others (S3).

use std::sync::atomic::Ordering;

use super::*;

/// The stored line, with this fingerprint of the record at 41.
fn stored(print: Option<Fingerprint>) -> String {
    CommitMetadata { epoch: 2, incarnation: "known".into(), fingerprint: print, ..CommitMetadata::default() }.encode()
}

async fn incarnation(rig: &Rig) -> String {
    rig.given(&[0]).await.remove(0).log.incarnation
}

fn rig(text: String) -> Rig {
    let rig = Rig::new();
    rig.broker.committed.lock().unwrap().insert(0, (50, text));
    rig
}

fn print() -> Fingerprint {
    Fingerprint::of(41, 1, b"k", b"p")
}

#[tokio::test(start_paused = true)]
async fn a_log_keeps_its_incarnation_while_it_has_the_record_or_retention_took_it() {
    let same = rig(stored(Some(print())));
    assert_eq!(incarnation(&same).await, "known");
    assert_eq!(same.broker.looked.load(Ordering::Relaxed), 1);
    let without = rig(stored(None));
    assert_eq!(incarnation(&without).await, "known");
    let cut = rig(stored(Some(print())));
    cut.broker.first.store(42, Ordering::Release);
    assert_eq!(incarnation(&cut).await, "known");
    assert_eq!(cut.broker.looked.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_log_with_another_record_or_without_its_place_gets_an_incarnation_of_its_own() {
    let other = rig(stored(Some(print())));
    other.broker.prints.lock().unwrap().insert(0, Fingerprint::of(41, 2, b"k", b"p"));
    let shorter = rig(stored(Some(print())));
    shorter.broker.ends.lock().unwrap().insert(0, 41);
    let foreign = rig("what another program wrote".into());
    let mut seen = vec!["known".to_owned(), String::new()];
    for rig in [other, shorter, foreign] {
        let fresh = incarnation(&rig).await;
        assert!(!seen.contains(&fresh), "{fresh}");
        seen.push(fresh);
    }
}

#[tokio::test]
async fn a_partition_whose_log_is_away_keeps_no_other_waiting() {
    let rig = Rig::new();
    rig.broker.away.lock().unwrap().insert(1);
    let given = rig.given(&[0, 1, 2]).await;
    assert_eq!(given.iter().map(|given| given.partition).collect::<Vec<_>>(), [0, 2]);
    rig.broker.away.lock().unwrap().clear();
    let GroupEvent::Assigned(later) = rig.event().await else { panic!("nothing was given") };
    assert_eq!(later.iter().map(|given| given.partition).collect::<Vec<_>>(), [1]);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_as_it_was_stored() {
    let rig = rig(stored(None));
    let given = rig.given(&[0, 1]).await;
    let of = |partition| given.iter().find(|given| given.partition == partition).unwrap();
    let committed = of(0).committed.clone().unwrap();
    assert_eq!((committed.next, committed.epoch), (Position::new(50), 2));
    assert_eq!(of(1).committed, None);
}

#[tokio::test(start_paused = true)]
async fn a_partition_younger_than_the_group_is_read_from_its_beginning() {
    let next = |given: &[Assignment], partition| {
        let given = given.iter().find(|given| given.partition == partition).unwrap();
        given.committed.as_ref().map(|committed| committed.next.get())
    };
    let mut rig = Rig::new();
    // The group begins: its start decides.
    let given = rig.given(&[0, 1]).await;
    assert_eq!((next(&given, 0), next(&given, 1)), (None, None));
    rig.commits(Ok(()), vec![commit(0, 50, 1).claiming()]);
    // The topic grows. The start still decides about what the group has not got to yet, but not about what came later;
    // nor does it once what the group has was committed again.
    rig.broker.count.store(6, Ordering::Release);
    rig.broker.first.store(7, Ordering::Release);
    for round in 0..2 {
        rig.listener.lose_until(u64::MAX);
        rig.event().await;
        let given = rig.given(&[0, 2, 3, 5]).await;
        let begun = [0, 2, 3, 5].map(|partition| next(&given, partition));
        assert_eq!(begun, [Some(50), None, Some(7), Some(7)], "{round}");
        rig.commits(Ok(()), vec![commit(0, 50, 2 + round).claiming()]);
    }
}

#[tokio::test(start_paused = true)]
async fn after_delivery_the_log_is_looked_at_anew_by_what_was_seen_last() {
    let mut rig = rig(stored(Some(print())));
    let known = incarnation(&rig).await;
    let looked = |rig: &Rig| rig.broker.looked.swap(0, Ordering::Relaxed);
    looked(&rig);
    assert_eq!(rig.read(0, 50).await.unwrap().incarnation, known);
    assert_eq!(looked(&rig), 0, "just compared");
    rig.broker.comes([record(0, 60)]);
    rig.turn();
    assert_eq!(rig.read(0, 61).await.unwrap().incarnation, known);
    assert_eq!(looked(&rig), 1);
    // Another log, shorter than what was seen and longer than what is stored.
    rig.broker.ends.lock().unwrap().insert(0, 60);
    let fresh = rig.read(0, 61).await.unwrap().incarnation;
    assert_ne!(fresh, known);
    rig.commits(Ok(()), vec![commit(0, 50, 3).claiming()]);
    let (_, stored) = rig.broker.stored(0).unwrap();
    assert_eq!((stored.incarnation, stored.fingerprint), (fresh, None), "no print of the log before");
}
