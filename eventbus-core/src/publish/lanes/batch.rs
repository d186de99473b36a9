//! A batch at its call: all its envelopes take places, or none does (P5).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::call::Call;
use super::effects::Effects;
use super::queues::{Hashed, LaneKind};
use super::shard::{Shard, TicketId};
use super::topic::{SHARDS, TopicLanes, waiter};
use crate::model::{Envelope, Error, ErrorKind, Key, Refusal};
use crate::publish::budget::BudgetRequest;
use crate::publish::completion::{BatchRefused, Completion, PlacedBatch};
use crate::publish::seal::Failure;
use crate::runtime::sync::MutexGuard;

/// The locks of all shards that a batch needs, held together: so its places are taken at one instant, as one call.
struct Locked<'a> {
    shards: Vec<Option<MutexGuard<'a, Shard>>>,
}

impl<'a> Locked<'a> {
    /// Locks the needed shards in rising order, the order for all code that locks several.
    fn new(topic: &'a TopicLanes, needed: &[usize]) -> Self {
        let mut wanted = [false; SHARDS];
        needed.iter().for_each(|shard| wanted[*shard] = true);
        let lock = |(shard, wanted): (usize, bool)| wanted.then(|| topic.lock(shard));
        Self { shards: wanted.into_iter().enumerate().map(lock).collect() }
    }

    fn with<R>(
        &mut self,
        fx: &mut Effects<'_>,
        shard: usize,
        act: impl FnOnce(&mut Shard, &mut Effects<'_>) -> R,
    ) -> Option<R> {
        fx.shard = shard;
        self.shards[shard].as_mut().map(|shard| act(shard, fx))
    }
}

/// An envelope of the batch that has a place: its lane, and its index in the shard's slab.
struct Placed {
    which: usize,
    lane: usize,
    index: usize,
    id: TicketId,
    request: BudgetRequest,
    completion: Arc<Completion>,
}

impl TopicLanes {
    pub(super) fn publish_batch(self: &Arc<Self>, envelopes: &[Envelope]) -> PlacedBatch {
        let shared = self.shared();
        let hashed = |envelope: &Envelope| envelope.key().map(|key| shared.hasher.hash_one(key));
        let hashes: Vec<Option<u64>> = envelopes.iter().map(hashed).collect();
        let shard_of = |(which, envelope): (usize, &Envelope)| envelope.key().map_or(which % SHARDS, Self::shard_of);
        let shards: Vec<usize> = envelopes.iter().enumerate().map(shard_of).collect();

        let mut fx = Effects::new(self, 0);
        let outcome = {
            let mut locked = Locked::new(self, &shards);
            let first = shared.numbers(envelopes.len() as u64);
            let mut entries: Vec<Call<'_>> = (first..).zip(envelopes).zip(&hashes).map(entry(self)).collect();
            self.place(&mut fx, &mut locked, &mut entries, &shards, first)
        };
        fx.settle();
        outcome
    }

    fn place(
        self: &Arc<Self>,
        fx: &mut Effects<'_>,
        locked: &mut Locked<'_>,
        entries: &mut [Call<'_>],
        shards: &[usize],
        first: u64,
    ) -> PlacedBatch {
        let mut results: Vec<Option<Result<Arc<Completion>, Failure>>> = Vec::new();
        results.resize_with(entries.len(), || None);
        let turned_away: Vec<_> = entries
            .iter()
            .zip(shards)
            .map(|(entry, shard)| locked.with(fx, *shard, |shard, fx| shard.turned_away(fx, entry)).flatten())
            .collect();
        // A sealed key fails on its own; any other failure refuses the whole batch.
        let sealed = |failure: &Failure| failure.error.kind() == ErrorKind::KeySealed;
        if let Some(failure) = turned_away.iter().flatten().find(|failure| !sealed(failure)) {
            return Err(self.refuse_batch(fx, locked, entries, shards, failure.clone()));
        }
        number(self, entries, &turned_away, first);

        let mut placed = Vec::with_capacity(entries.len());
        for (which, (entry, shard)) in entries.iter().zip(shards).enumerate() {
            if turned_away[which].is_none() {
                placed.extend(locked.with(fx, *shard, |shard, fx| shard.place(fx, entry, which)));
            }
        }
        self.ask_room(fx, locked, entries, shards, &placed)?;
        for (which, failure) in turned_away.into_iter().enumerate() {
            if let Some(failure) = failure {
                locked.with(fx, shards[which], |shard, fx| shard.told_failed(fx, &entries[which], &failure));
                results[which] = Some(Err(failure));
            }
        }
        for one in placed {
            results[one.which] = Some(Ok(one.completion));
        }
        let lost = || Err(Failure::plain(Error::new(ErrorKind::Backend, "an envelope of the batch was lost")));
        Ok(results.into_iter().map(|result| result.unwrap_or_else(lost)).collect())
    }

    /// Asks the budget for room for all envelopes that have places. Where there is none, takes the places back and
    /// refuses the batch.
    fn ask_room(
        self: &Arc<Self>,
        fx: &mut Effects<'_>,
        locked: &mut Locked<'_>,
        entries: &[Call<'_>],
        shards: &[usize],
        placed: &[Placed],
    ) -> Result<(), BatchRefused> {
        let requests: Vec<BudgetRequest> = placed.iter().map(|one| one.request).collect();
        let asked =
            self.shared().budget(LaneKind::Keyed).admit_batch(&requests, |which| waiter(self, placed[which].id));
        let admitted = match asked {
            Ok(admitted) => admitted,
            Err(refused) => {
                // From the last, so that queues shrink at their ends.
                for one in placed.iter().rev() {
                    locked.with(fx, shards[one.which], |shard, fx| shard.leave(fx, one.lane, one.index));
                }
                let which = placed.get(refused.index).map_or(0, |one| one.which);
                let failure = entries[which].no_room(self, refused.admission);
                return Err(self.refuse_batch(fx, locked, entries, shards, failure));
            }
        };
        for (one, admitted) in placed.iter().zip(admitted) {
            if admitted {
                one.completion.admit();
                locked.with(fx, shards[one.which], |shard, _| shard.queues.envelopes[one.index].admitted = true);
            }
        }
        for one in placed {
            // Driving the lane for an earlier envelope may have ended this one, too; then it was told already.
            locked.with(fx, shards[one.which], |shard, fx| shard.drive_if_there(fx, one));
        }
        Ok(())
    }

    /// Refuses the batch as a whole. Each of its keys is sealed by a refusal of its own first envelope, so that a key's
    /// error, seen later, unseals that key only. The batch's own error stands for all keys.
    fn refuse_batch(
        &self,
        fx: &mut Effects<'_>,
        locked: &mut Locked<'_>,
        entries: &[Call<'_>],
        shards: &[usize],
        failure: Failure,
    ) -> BatchRefused {
        let mut roots = Vec::new();
        let mut known = HashMap::<&Key, Failure>::new();
        for (entry, shard) in entries.iter().zip(shards) {
            let own = || Failure::refused(failure.error.clone(), Refusal::new(entry.stamp, entry.envelope.id()));
            let failure = match entry.key {
                None => own(),
                Some(hashed) => match known.entry(hashed.key) {
                    Entry::Occupied(first) => first.get().clone(),
                    Entry::Vacant(first) => {
                        let own = first.insert(own());
                        locked.with(fx, *shard, |shard, fx| shard.sealed_by(fx, entry, own));
                        roots.extend(own.root.clone());
                        own.clone()
                    }
                },
            };
            locked.with(fx, *shard, |shard, fx| shard.told_failed(fx, entry, &failure));
        }
        BatchRefused { failure, roots }
    }
}

impl Shard {
    fn place(&mut self, fx: &mut Effects<'_>, entry: &Call<'_>, which: usize) -> Placed {
        let (lane, index) = self.enter(fx, entry);
        let queued = &self.queues.envelopes[index];
        let id = TicketId { shard: fx.shard, index, generation: queued.generation };
        let request =
            BudgetRequest { lane: self.queues.lanes[lane].budget_key(), bytes: entry.bytes, ticket: entry.number };
        Placed { which, lane, index, id, request, completion: Arc::clone(&queued.completion) }
    }

    fn drive_if_there(&mut self, fx: &mut Effects<'_>, one: &Placed) {
        if self.queues.queued(one.index, one.id.generation).is_some() {
            self.drive(fx, one.lane);
        }
    }
}

type Numbered<'a> = ((u64, &'a Envelope), &'a Option<u64>);

fn entry<'a>(topic: &TopicLanes) -> impl Fn(Numbered<'a>) -> Call<'a> {
    let shared = Arc::clone(topic.shared());
    move |((number, envelope), hash)| {
        let key = envelope.key().zip(*hash).map(|(key, hash)| Hashed { hash, key });
        let kind = if key.is_some() { LaneKind::Keyed } else { LaneKind::Free };
        Call { kind, key, bytes: envelope.size(), number, stamp: shared.stamp(number), envelope }
    }
}

/// Gives the first numbers to the envelopes that take places, since those ask the budget under consecutive numbers. Of
/// a key all take places or none does, so numbers still rise along every key.
fn number(topic: &TopicLanes, entries: &mut [Call<'_>], turned_away: &[Option<Failure>], first: u64) {
    let mut next = first;
    for away in [false, true] {
        for (entry, failure) in entries.iter_mut().zip(turned_away) {
            if failure.is_some() == away {
                (entry.number, entry.stamp) = (next, topic.shared().stamp(next));
                next += 1;
            }
        }
    }
}
