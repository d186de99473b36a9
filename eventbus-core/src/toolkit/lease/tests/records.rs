//! Records: who may write one, and when.

use super::*;
use crate::toolkit::lease::CasOutcome;
use crate::toolkit::lease::record::{Heartbeat, HeldRecord, LeaseRecord, RecordPlace, encode, lease_ms};
use crate::toolkit::lease::removed::KnownRemovals;
use crate::toolkit::lease::snapshot::StoreSnapshot;
use crate::toolkit::lease::{StoredEntry, StoredKey};

fn owned_by(owner: &str) -> LeaseRecord {
    let (group, owner, nonce, lease_ms) = ("g".into(), owner.into(), rand::random(), lease_ms(LEASE));
    LeaseRecord { group, owner, nonce, write: 1, lease_ms, ..LeaseRecord::default() }
}

/// Takes over partition 0, whatever its record holds.
async fn take(store: &Arc<Fake>, owner: &str) -> HeldRecord {
    let place = RecordPlace::new(&(Arc::clone(store) as Arc<dyn LeaseStore>), slot(0), LEASE);
    let (record, sent) = (owned_by(owner), Instant::now());
    let revision = store.value(&slot(0)).map_or(0, |(revision, _)| revision);
    let CasOutcome::Done(revision) = place.swap(revision, &record).await else { panic!("not taken") };
    HeldRecord::new(place, revision, record, sent, KnownRemovals::default())
}

fn stored(store: &Fake) -> LeaseRecord {
    serde_json::from_slice(&store.value(&slot(0)).unwrap().1).unwrap()
}

#[test]
fn what_is_stored_never_changes_its_form() {
    let record = LeaseRecord { nonce: 7, next: Some(5), epoch: 3, note: "bg==".into(), ..owned_by("m") };
    let written = r#"{"group":"g","owner":"m","nonce":7,"write":1,"lease_ms":10000,"epoch":3,"next":5,"note":"bg=="}"#;
    assert_eq!(encode(&record).unwrap(), written);
    let committed = record.committed().unwrap();
    assert_eq!((committed.next.get(), committed.epoch, &*committed.note), (5, 3, &b"n"[..]));
    let heartbeat = Heartbeat { group: "g".into(), name: "m".into(), lease_ms: 1 };
    assert_eq!(encode(&heartbeat).unwrap(), r#"{"group":"g","name":"m","lease_ms":1}"#);
}

/// `EVENTBUS_FUZZ_INPUTS` sets the number of inputs; `scripts/fuzz` sets a large one.
fn inputs() -> proptest::prelude::ProptestConfig {
    let cases = std::env::var("EVENTBUS_FUZZ_INPUTS").ok().and_then(|inputs| inputs.parse().ok()).unwrap_or(500);
    proptest::prelude::ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

proptest::proptest! {
    #![proptest_config(inputs())]

    #[test]
    fn a_foreign_record_or_heartbeat_is_read_or_refused(
        fields in proptest::collection::vec((
            "(group|owner|name|nonce|write|lease_ms|epoch|next|note|removed|x)", "(-?[0-9]{1,21}|null|\"[A-Za-z0-9+/=]{0,9}\"|\\[\\]|1e9)",
        ), 0..10),
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
    ) {
        let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        // One that has all fields, some of them twice or in another form, is a record more often.
        let whole = [
            r#""group":"g","owner":"m","nonce":7,"write":1,"lease_ms":10000,"epoch":3,"next":5,"note":"bg==""#,
            r#""group":"g","name":"m","lease_ms":10000"#,
        ].map(|whole| format!("{{{}}}", fields.iter().map(String::as_str).chain([whole]).collect::<Vec<_>>().join(",")).into_bytes());
        for bytes in [format!("{{{}}}", fields.join(",")).into_bytes(), bytes].into_iter().chain(whole) {
            let stored = |key| StoredEntry { key, revision: 1, written: 5, value: bytes.clone().into() };
            let view = StoreSnapshot::of(vec![stored(StoredKey::Member), stored(StoredKey::Partition(3))]);
            for now in [0, 5, u64::MAX] {
                view.is_active(now);
            }
            let (heartbeat, record) = (serde_json::from_slice::<Heartbeat>(&bytes), serde_json::from_slice::<LeaseRecord>(&bytes));
            proptest::prop_assert_eq!((view.members.len(), view.records.len()), (heartbeat.is_ok().into(), record.is_ok().into()));
            if let Ok(heartbeat) = heartbeat {
                proptest::prop_assert!(view.knows(&heartbeat.name));
                let again: Heartbeat = serde_json::from_slice(&encode(&heartbeat).unwrap()).unwrap();
                proptest::prop_assert_eq!(again, heartbeat);
            }
            if let Ok(record) = record {
                proptest::prop_assert_eq!(record.committed().map(|committed| committed.next.get()), record.next);
                let again: LeaseRecord = serde_json::from_slice(&encode(&record).unwrap()).unwrap();
                proptest::prop_assert_eq!(again, record);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_is_found_by_reading_back() {
    let store = Fake::new(1);
    let held = take(&store, "a").await;
    store.fault(Fault::Lost);
    held.commit(&claim(0, 4, 9)).await.unwrap();
    assert_eq!((stored(&store).epoch, stored(&store).next), (4, Some(9)));
    assert_eq!(store.swaps_of(&slot(0)), 2, "nothing was written twice");
    held.commit(&Commit::new(0, Position::new(10), 4, "".into())).await.unwrap();
    assert_eq!(stored(&store).next, Some(10));
}

#[tokio::test(start_paused = true)]
async fn a_late_write_is_found_by_the_next_one_which_goes_on_from_it() {
    let store = Fake::new(1);
    let held = take(&store, "a").await;
    store.fault(Fault::Late(Duration::from_secs(1)));
    let error = held.commit(&claim(0, 4, 9)).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stored(&store).epoch, 4, "it landed");
    held.commit(&claim(0, 4, 11)).await.unwrap();
    assert_eq!((stored(&store).next, stored(&store).write), (Some(11), 4));
    assert!(held.lease().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_never_lands_is_made_again() {
    let store = Fake::new(1);
    let held = take(&store, "a").await;
    store.fault(Fault::Never);
    assert!(held.commit(&claim(0, 4, 9)).await.unwrap_err().is_retryable());
    held.commit(&claim(0, 4, 9)).await.unwrap();
    assert_eq!(stored(&store).next, Some(9));
}

#[tokio::test(start_paused = true)]
async fn the_lease_counts_from_before_the_write_and_ends_a_tenth_before_others_take_over() {
    let store = Fake::new(1);
    let held = take(&store, "a").await;
    sleep(LEASE / 2).await;
    store.fault(Fault::Slow(Duration::from_secs(1)));
    held.renew().await.unwrap();
    // Sent at 5 s, answered at 6 s: valid until 14 s, and free for others from 15 s on.
    sleep(LEASE * 79 / 100).await;
    assert!(held.lease().is_valid());
    sleep(LEASE * 2 / 100).await;
    assert!(!held.lease().is_valid());
    held.renew().await.unwrap();
    assert!(held.lease().is_valid(), "it comes back with a successful write");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_not_due_is_not_written() {
    let store = Fake::new(1);
    let held = take(&store, "a").await;
    sleep(LEASE / 4).await;
    held.renew().await.unwrap();
    assert_eq!(store.swaps_of(&slot(0)), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stale_holder_changes_nothing_and_tries_no_more() {
    let store = Fake::new(1);
    let stale = take(&store, "a").await;
    stale.commit(&claim(0, 4, 9)).await.unwrap();
    let other = store.another();
    let newer = take(&other, "b").await;
    newer.commit(&claim(0, 5, 12)).await.unwrap();
    let before = store.value(&slot(0));
    let error = stale.commit(&Commit::new(0, Position::new(20), 4, "".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(!stale.lease().is_valid());
    let tries = store.swaps_of(&slot(0));
    assert_eq!(stale.renew().await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(stale.commit(&claim(0, 9, 30)).await.unwrap_err().kind(), ErrorKind::Fenced);
    stale.release().await.unwrap();
    assert_eq!(store.value(&slot(0)), before);
    assert_eq!(store.swaps_of(&slot(0)), tries, "it tried no more");
    assert!(newer.lease().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_stale_write_that_arrives_late_changes_nothing() {
    let store = Fake::new(1);
    let stale = take(&store, "a").await;
    store.fault(Fault::Late(Duration::from_secs(30)));
    stale.commit(&claim(0, 4, 9)).await.unwrap_err();
    take(&store.another(), "b").await;
    sleep(Duration::from_secs(31)).await;
    assert_eq!(stored(&store).owner, "b");
}

#[tokio::test(start_paused = true)]
async fn only_an_epoch_that_was_claimed_here_is_committed_under() {
    let store = Fake::new(1);
    let held = take(&store, "a").await;
    let unclaimed = Commit::new(0, Position::new(9), 4, "".into());
    assert_eq!(held.commit(&unclaimed).await.unwrap_err().kind(), ErrorKind::Fenced);
    held.commit(&claim(0, 4, 9)).await.unwrap();
    held.commit(&unclaimed).await.unwrap();
    let older = claim(0, 3, 9);
    assert_eq!(held.commit(&older).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn what_was_released_is_free_and_its_lease_is_over() {
    let store = Fake::new(1);
    let held = take(&store, "a").await;
    held.commit(&claim(0, 4, 9)).await.unwrap();
    store.fault(Fault::Lost);
    held.release().await.unwrap();
    assert!(!held.lease().is_valid());
    let record = stored(&store);
    assert_eq!((record.owner.as_str(), record.next, record.epoch), ("", Some(9), 4));
    assert_eq!(held.renew().await.unwrap_err().kind(), ErrorKind::Fenced);
}
