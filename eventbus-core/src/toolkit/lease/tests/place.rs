//! The place of the records is taken away, sealed or emptied while members run.

use super::*;

/// A member that owns the one partition, and has claimed it.
async fn owner(store: &Arc<Fake>) -> Arc<dyn Membership> {
    let member = member(store, "a").await;
    let GroupEvent::Assigned(given) = event(&member, LEASE).await else { panic!("not assigned") };
    assert!(given[0].lease.is_valid());
    member.commit(claim(0, 5, 7)).await.unwrap();
    member
}

/// Returns the error that ends a member, which must come within `wait`; what is told before is passed over.
async fn end(member: &Arc<dyn Membership>, wait: Duration) -> crate::Error {
    let ended = async {
        loop {
            if let Err(error) = member.next().await {
                return error;
            }
        }
    };
    timeout(wait, ended).await.expect("the member ends")
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_removed_ends_its_members_and_is_not_made_again_in_silence() {
    let store = Fake::new(1);
    let owner = owner(&store).await;
    store.remove_place(false);
    let error = end(&owner, LEASE / 2).await;
    assert_eq!(error.kind(), ErrorKind::LogReset, "{error}");
    let mut join = Join::new(store.describe().await.unwrap(), group(), "b");
    let refused = leases(&store).join(join.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LogReset, "{refused}");
    join.begin_anew = true;
    let anew = leases(&store).join(join).await.unwrap();
    let GroupEvent::Assigned(given) = event(&anew, LEASE).await else { panic!("not assigned") };
    assert_eq!(given[0].committed, None);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_made_again_is_another_one_and_nothing_is_taken_there() {
    for settled in [Duration::ZERO, LEASE * 2] {
        let store = Fake::new(1);
        let owner = owner(&store).await;
        sleep(settled).await;
        store.remove_place(true);
        let error = end(&owner, LEASE).await;
        assert_eq!(error.kind(), ErrorKind::LogReset, "{error}");
        assert_eq!(store.value(&slot(0)), None, "no record is made by who saw the earlier place");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_members_refused_renewal_ends_it_and_one_that_may_pass_is_told() {
    let store = Fake::new(1);
    let owner = owner(&store).await;
    store.cut(true);
    let begun = Instant::now();
    let told = event(&owner, LEASE * 2).await;
    let GroupEvent::Waiting { partition: None, age, error } = told else { panic!("{told:?}") };
    assert!(age >= LEASE && begun.elapsed() < LEASE * 2, "{age:?} after {:?}", begun.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    store.cut(false);
    silent(&owner, LEASE * 3).await;
    store.seal(true);
    let error = end(&owner, LEASE).await;
    assert!(error.to_string().contains("sealed"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_removed_from_under_its_owner_is_no_other_members() {
    let store = Fake::new(1);
    let owner = owner(&store).await;
    store.remove(&slot(0), None).await.unwrap();
    let error = end(&owner, LEASE).await;
    assert_eq!(error.kind(), ErrorKind::LogReset, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_emptied_gives_an_idle_member_nothing_to_begin_anew_with() {
    let store = Fake::new(1);
    let _owner = owner(&store).await;
    let idle = member(&store.another(), "b").await;
    sleep(LEASE).await;
    store.clear(&group()).await.unwrap();
    let error = end(&idle, LEASE).await;
    assert_eq!(error.kind(), ErrorKind::LogReset, "{error}");
    assert_eq!(store.value(&slot(0)), None);
}
