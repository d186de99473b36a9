//! Groups as seen from outside.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_group_is_active_until_its_leases_end_by_the_stores_clock() {
    let store = Fake::new(2);
    let (far, leases) = (store.another(), leases(&store));
    let a = member(&far, "a").await;
    event(&a, LEASE).await;
    a.commit(claim(0, 5, 7)).await.unwrap();
    let described = leases.describe_group(&group()).await.unwrap();
    assert_eq!(described.members, ["a"]);
    let [first, second] = &described.partitions[..] else { panic!("{described:?}") };
    assert_eq!((first.owner.as_deref(), first.lag, first.oldest.is_some()), (Some("a"), 2, true));
    assert_eq!(first.committed.as_ref().map(|committed| committed.next.get()), Some(7));
    assert_eq!((second.owner.as_deref(), &second.committed, second.lag), (Some("a"), &None, 3));
    assert_eq!(leases.list_groups().await.unwrap(), [group()]);
    let to = [(0, Position::new(3))];
    for refused in [leases.reset_group(&group(), &to).await, leases.delete_group(&group()).await] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::GroupActive);
    }
    far.cut(true);
    sleep(LEASE * 2).await;
    let described = leases.describe_group(&group()).await.unwrap();
    assert!(described.members.is_empty());
    assert_eq!(described.partitions[0].owner, None);
    leases.reset_group(&group(), &to).await.unwrap();
    let committed = leases.describe_group(&group()).await.unwrap().partitions[0].committed.clone().unwrap();
    assert_eq!((committed.next.get(), committed.epoch, committed.note.len()), (3, 5, 0));
    // A member that was cut off and wakes up cannot undo it.
    far.cut(false);
    assert_eq!(a.commit(claim(0, 6, 9)).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn a_group_without_progress_and_members_is_unknown() {
    let store = Fake::new(2);
    let leases = leases(&store);
    for unknown in [leases.describe_group(&group()).await.map(drop), leases.delete_group(&group()).await] {
        let error = unknown.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownGroup);
    }
    let error = leases.reset_group(&group(), &[(2, Position::ZERO)]).await.unwrap_err();
    assert!(error.to_string().contains("partition"), "{error}");
    leases.reset_group(&group(), &[(1, Position::new(4))]).await.unwrap();
    assert_eq!(leases.list_groups().await.unwrap(), [group()]);
    leases.delete_group(&group()).await.unwrap();
    assert!(leases.list_groups().await.unwrap().is_empty());
    let leaves_nothing = member(&store, "a").await;
    assert_eq!(leases.list_groups().await.unwrap(), [group()]);
    leaves_nothing.leave().await.unwrap();
    assert!(leases.list_groups().await.unwrap().is_empty());
}
