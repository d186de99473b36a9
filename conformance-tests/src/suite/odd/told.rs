//! Odd records that are told: skipped ones, misplaced ones, those among dead letters.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::dead_letter::DeadLetters;
use eventbus_core::{BusEvent, FailurePolicy, Position};

use super::foreign::{event, go_on, outcome, partition, record, start};
use crate::suite::common::{Collected, GROUP, TOPIC, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::failure::letters_of;
use crate::suite::{Failure, Run};

/// The places that a hook was told of.
type Places = Arc<Mutex<Vec<(u32, Option<Position>)>>>;

/// Subscribes with a hook that notes the places that `of` finds in events, handles all, and returns them.
async fn places(
    run: &Run,
    of: impl Fn(&BusEvent<'_>) -> Option<(u32, Option<Position>)> + Send + Sync + 'static,
) -> Result<(Vec<(u32, Option<Position>)>, Collected), Failure> {
    let (places, collected) = (Places::default(), Collected::default());
    let told = places.clone();
    let hook = move |event: &BusEvent<'_>| {
        told.lock().unwrap_or_else(PoisonError::into_inner).extend(of(event));
    };
    let peer = run.process_with(run.config().hook(hook)).await?;
    let subscription = peer.bus().subscribe(subscribe().then(FailurePolicy::Skip), collected.handler(0)).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let places = places.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((places, collected))
}

/// Under `Skip` an undecodable record is told with its place.
pub(in crate::suite) async fn skipped(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    run.fixture().store_raw(TOPIC, partition()?, event(&[("ce_specversion", b"0.1")], b"{}")).await?;
    go_on(&peer).await?;
    let skipped = |event: &BusEvent<'_>| match event {
        BusEvent::Skipped { at, .. } => Some((at.partition, at.position)),
        _ => None,
    };
    let (places, collected) = places(&run, skipped).await?;
    ensure!(places.len() == 1, "one was to be skipped, told are {places:?}");
    let (at, _) = places[0];
    ensure!(at == partition()? && places[0].1.is_some(), "told of another place: {places:?}");
    ensure!(collected.len() == 40, "forty were to be handled, {} were", collected.len());
    Ok(())
}

/// A record in another partition than its key's is handled there, and told.
pub(in crate::suite) async fn misplaced(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    let elsewhere = 1 - partition()?;
    run.fixture().store_raw(TOPIC, elsewhere, event(&[], b"{}")).await?;
    go_on(&peer).await?;
    let misplaced = |event: &BusEvent<'_>| match event {
        BusEvent::Misplaced { at } => Some((at.partition, at.position)),
        _ => None,
    };
    let (places, collected) = places(&run, misplaced).await?;
    ensure!(places.len() == 1 && places[0].0 == elsewhere, "told are {places:?}");
    ensure!(collected.len() == 41, "41 were to be handled, {} were", collected.len());
    Ok(())
}

/// An undecodable record among dead letters hides none of them.
pub(in crate::suite) async fn among_dead_letters(run: Run) -> Result<(), Failure> {
    let peer = start(&run).await?;
    run.fixture().store_raw(TOPIC, partition()?, event(&[("ce_specversion", b"0.1")], b"first")).await?;
    go_on(&peer).await?;
    let letter = outcome(&run, &peer).await?.undecodable()?.clone();
    let letters = letters_of(GROUP)?;
    let garbage = event(&[("ce_specversion", b"0.1")], b"no letter");
    for partition in 0..peer.bus().describe_topic(&letters).await?.spec.partitions {
        run.fixture().store_raw(&letters, partition, garbage.clone()).await?;
        // Neither is an event that is no letter.
        run.fixture().store_raw(&letters, partition, record(&[], b"{}")).await?;
    }
    let found = DeadLetters::of(peer.bus().clone(), TOPIC, GROUP)?.read(None).await?;
    let payloads: Vec<_> = found.iter().map(|one| one.letter.envelope.payload()).collect();
    ensure!(payloads == [letter.envelope.payload()], "found are {found:?}");
    Ok(())
}
