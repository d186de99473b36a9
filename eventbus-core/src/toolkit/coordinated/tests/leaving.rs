//! Members that leave.

use super::*;

/// Makes a member with threads of its own, and an answer to its joining.
fn joined(broker: &Arc<Broker>) -> Member<Fake> {
    let make = |listener: RebalanceListener<Fake>| {
        listener.assigned(&[]);
        Ok(broker.client(listener))
    };
    Member::join(ask(), make).unwrap()
}

#[tokio::test(start_paused = true)]
async fn leaving_ends_though_a_commit_hangs_and_the_commit_ends_the_client() {
    let mut rig = Rig::new();
    let given = rig.given(&[0]).await;
    let (turn, done) = rig.hanging(commit(0, 5, 1).claiming()).await;
    rig.client = None;
    let polling = rig.polling.take().unwrap();
    let leaving = spawn_blocking(move || polling.leave());
    while !rig.broker.said().contains(&"leave".to_owned()) {
        yield_now().await;
    }
    while !leaving.is_finished() {
        advance(Duration::from_secs(1)).await;
    }
    leaving.await.unwrap();
    assert_eq!(*rig.broker.dropped.lock().unwrap(), None);
    rig.answered(Ok(()), turn).await;
    done.await.unwrap().unwrap();
    assert_eq!(rig.broker.dropped.lock().unwrap().as_ref().unwrap().1, Revocation::Now);
    assert!(!given[0].lease.is_valid(), "what is left is vouched for no more");
    // A later caller is told.
    let (order, late) = order(commit(0, 6, 1));
    rig.committing.as_mut().unwrap().turn([order].into_iter());
    assert_eq!(late.await.unwrap().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(rig.member.read(0, Position::ZERO).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_ends_is_not_waited_for() {
    // The thread does not run.
    let rig = Rig::new();
    rig.member.leave().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_has_not_come_yet_waits_for_the_answer_to_its_joining_and_takes_nothing() {
    let mut rig = Rig::new();
    let polling = rig.polling.take().unwrap();
    rig.client = None;
    let leaving = spawn_blocking(move || polling.leave());
    while rig.broker.polls.load(std::sync::atomic::Ordering::Relaxed) < 3 && !leaving.is_finished() {
        yield_now().await;
    }
    assert!(rig.broker.said().is_empty(), "not left yet");
    rig.listener.assigned(&[0]);
    assert!(rig.listener.state().held.is_empty());
    leaving.await.unwrap();
    assert_eq!(rig.broker.said(), ["leave"]);
    rig.silent();
}

#[tokio::test(start_paused = true)]
async fn one_whose_joining_is_never_answered_leaves_all_the_same() {
    let mut rig = Rig::new();
    let polling = rig.polling.take().unwrap();
    rig.client = None;
    let leaving = spawn_blocking(move || polling.leave());
    while !leaving.is_finished() {
        advance(Duration::from_millis(100)).await;
    }
    leaving.await.unwrap();
    assert_eq!(rig.broker.said(), ["leave"]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_was_claimed_and_not_released_is_kept_for_the_lease() {
    let mut rig = Rig::new();
    let given = rig.given(&[0]).await;
    assert_eq!(kinds(rig.commits(Ok(()), vec![commit(0, 5, 1).claiming()])), [None]);
    rig.client = None;
    let polling = rig.polling.take().unwrap();
    let leaving = spawn_blocking(move || polling.leave());
    while rig.broker.polls.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        yield_now().await;
    }
    assert!(!given[0].lease.is_valid(), "nothing starts");
    advance(LEASE - Duration::from_millis(1)).await;
    assert_eq!(rig.listener.revoked(&[0], false), Revocation::Later, "no other may have it yet");
    assert!(rig.broker.said().is_empty());
    advance(Duration::from_millis(1)).await;
    leaving.await.unwrap();
    assert_eq!(rig.broker.said(), ["leave"]);
}

#[tokio::test]
async fn the_client_is_dropped_on_its_polling_thread_and_its_last_callback_answered_at_once() {
    let (broker, _sent, _answers) = Broker::new();
    let member = joined(&broker);
    member.leave().await.unwrap();
    assert_eq!(broker.dropped.lock().unwrap().take(), Some(("eventbus-poll".into(), Revocation::Now)));
    assert_eq!(member.release(0).await.map_err(|error| error.kind()), Ok(()));
}

#[tokio::test]
async fn a_member_that_is_dropped_leaves() {
    let (broker, _sent, _answers) = Broker::new();
    let member = joined(&broker);
    drop(member);
    while broker.dropped.lock().unwrap().is_none() {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_at_its_end_ends_the_member() {
    let mut rig = Rig::new();
    let error = crate::Error::new(ErrorKind::PermissionDenied, "no");
    rig.broker.comes([record(0, 0), Polled::Over(error)]);
    assert!(rig.polling.as_mut().unwrap().turn().is_break());
    assert_eq!(rig.member.next().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

/// A client's accessor panics on a record whose header has a name that is not UTF-8, on the thread that polls.
#[tokio::test]
async fn a_panic_on_any_thread_of_a_member_ends_it_with_an_error_that_is_told() {
    for call in ["poll", "commit", "committed"] {
        let (broker, _sent, _answers) = Broker::new();
        let listener = Arc::new(std::sync::OnceLock::new());
        let made = Arc::clone(&listener);
        let make = |listener: RebalanceListener<Fake>| {
            assert!(made.set(listener.clone()).is_ok());
            Ok(broker.client(listener))
        };
        let member = Member::join(ask(), make).unwrap();
        let listener: &RebalanceListener<Fake> = listener.get().unwrap();
        if call == "commit" {
            listener.assigned(&[0]);
            assert!(matches!(member.next().await.unwrap(), GroupEvent::Assigned(_)));
        }
        *broker.panics.lock().unwrap() = Some(call);
        match call {
            "commit" => {
                let unanswered = member.commit(commit(0, 5, 1).claiming()).await.unwrap_err();
                assert!(unanswered.is_retryable(), "the member's end is told by its next event: {unanswered}");
            }
            "committed" => listener.assigned(&[0]),
            _ => {}
        }
        let error = member.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend);
        assert!(error.to_string().contains("panicked") && error.to_string().contains(call), "{error}");
        assert!(listener.state().held.is_empty(), "what it held is vouched for no more");
        *broker.panics.lock().unwrap() = None;
        drop(member);
        while broker.dropped.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_none() {
            yield_now().await;
        }
    }
}
