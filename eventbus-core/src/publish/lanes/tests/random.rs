//! P2 over random scripts: the log holds of each key what the contract allows, whatever happens.

use proptest::prelude::*;

use super::*;
use crate::backend::{Fate, Pipelining};
use crate::model::Error;
use crate::publish::confirmation::{Confirmation, Publishing};

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish {
        key: u8,
    },
    Batch {
        first: u8,
        second: u8,
    },
    /// The held submission at this index, modulo their number, gets this answer.
    Answer {
        which: u8,
        fate: Sort,
    },
    /// The publish at this index, modulo their number, is polled: an error counts as seen.
    See {
        which: u8,
    },
    Cancel {
        which: u8,
    },
    Resume {
        key: u8,
    },
    Rest,
}

#[derive(Debug, Clone, Copy)]
enum Sort {
    Stored,
    StoredButLost,
    Lost,
    NotStored,
    Refused,
    Doubted,
    StoredButDoubted,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        6 => Just(Sort::Stored),
        2 => Just(Sort::StoredButLost),
        1 => Just(Sort::Lost),
        2 => Just(Sort::NotStored),
        2 => Just(Sort::Refused),
        1 => Just(Sort::Doubted),
        1 => Just(Sort::StoredButDoubted),
    ];
    prop_oneof![
        8 => (0..3_u8).prop_map(|key| Step::Publish { key }),
        1 => (0..3_u8, 0..3_u8).prop_map(|(first, second)| Step::Batch { first, second }),
        8 => (any::<u8>(), fate).prop_map(|(which, fate)| Step::Answer { which, fate }),
        3 => any::<u8>().prop_map(|which| Step::See { which }),
        1 => any::<u8>().prop_map(|which| Step::Cancel { which }),
        1 => (0..3_u8).prop_map(|key| Step::Resume { key }),
        3 => Just(Step::Rest),
    ]
}

/// A publish as its caller sees it.
struct Publish {
    key: u8,
    id: String,
    /// The step of the call; `seen` is the step at which the error it ended with was returned.
    called: usize,
    seen: Option<usize>,
    future: Stage,
}

enum Stage {
    Waiting(Publishing),
    Admitted(Confirmation),
    #[allow(dead_code)] // read through Debug, in the message of a failure
    Over(Result<(), (ErrorKind, Option<String>)>),
}

struct Run {
    world: World,
    pipelining: Pipelining,
    publishes: Vec<Publish>,
    resumed: Vec<(u8, usize)>,
    now: usize,
}

impl Run {
    async fn start(pipelining: Pipelining) -> Self {
        let mut plan = Plan::new(pipelining);
        plan.config.budget_envelopes = 6;
        plan.config.share = 2;
        plan.config.waiting_limit = 4;
        plan.config.notice_after = std::time::Duration::from_secs(1_000_000);
        plan.fake.capabilities.resend_window = Some(std::time::Duration::from_secs(1));
        plan.fake.spec = plan.fake.spec.duplicate_window(std::time::Duration::from_secs(3));
        Self { world: plan.start().await, pipelining, publishes: Vec::new(), resumed: Vec::new(), now: 0 }
    }

    async fn step(&mut self, step: Step) {
        self.now += 1;
        match step {
            Step::Publish { key } => {
                let id = self.publishes.len().to_string();
                let future = Stage::Waiting(self.world.publish(&key.to_string(), &id));
                self.publishes.push(Publish { key, id, called: self.now, seen: None, future });
            }
            Step::Batch { first, second } => self.batch(first, second),
            Step::Answer { which, fate } => self.answer(which, fate),
            Step::See { which } => self.see(which),
            Step::Cancel { which } => {
                let count = self.publishes.len().max(1);
                if let Some(publish) = self.publishes.get(usize::from(which) % count) {
                    let _ = match &publish.future {
                        Stage::Waiting(publishing) => publishing.cancel(),
                        Stage::Admitted(confirmation) => confirmation.cancel(),
                        Stage::Over(_) => return,
                    };
                }
            }
            Step::Resume { key } => {
                self.world.lanes.resume(TOPIC, Some(&super::key(&key.to_string()))).unwrap();
                self.resumed.push((key, self.now));
            }
            Step::Rest => rest().await,
        }
    }

    /// Publishes a batch and drops its future. Batches are listened to elsewhere; here they stir up places and room,
    /// and nobody sees their errors.
    fn batch(&mut self, first: u8, second: u8) {
        let envelopes = [first, second].map(|key| {
            let id = self.publishes.len().to_string();
            let unseen = Stage::Over(Ok(()));
            self.publishes.push(Publish { key, id: id.clone(), called: self.now, seen: None, future: unseen });
            envelope(&key.to_string(), &id)
        });
        drop(self.world.lanes.publish_batch(TOPIC, envelopes.into()));
    }

    fn answer(&self, which: u8, fate: Sort) {
        let held = self.world.fake.held();
        if held.is_empty() {
            return;
        }
        let fake = &self.world.fake;
        if self.pipelining == Pipelining::OnePerKey {
            let id = &held[usize::from(which) % held.len()];
            return match fate {
                Sort::Stored => fake.store(id),
                Sort::StoredButLost => fake.lose_answer(id),
                Sort::Lost => fake.lose(id),
                Sort::NotStored => fake.not_stored(id),
                Sort::Refused => fake.refuse(id),
                Sort::Doubted => fake.doubt(id),
                Sort::StoredButDoubted => fake.write_and_doubt(id),
            };
        }
        // A pipelining broker answers in order and without a hole: records behind a failure fail with it.
        let id = &held[0];
        match fate {
            Sort::Stored => return fake.store(id),
            Sort::StoredButLost => fake.lose_answer(id),
            Sort::Lost => fake.lose(id),
            Sort::NotStored => fake.not_stored(id),
            Sort::Refused => fake.refuse(id),
            Sort::Doubted => fake.doubt(id),
            Sort::StoredButDoubted => fake.write_and_doubt(id),
        }
        let behind: Vec<_> =
            fake.state().held.drain(..).filter(|(record, _)| held.contains(&record.envelope.id().into())).collect();
        for (at, (_, ticket)) in behind.into_iter().enumerate() {
            let error = Error::new(ErrorKind::Unavailable, "behind a failure");
            ticket.tell(if at % 2 == 0 { Fate::NotStored(error) } else { Fate::Unknown(error) });
        }
    }

    fn see(&mut self, which: u8) {
        let count = self.publishes.len().max(1);
        let Some(publish) = self.publishes.get_mut(usize::from(which) % count) else { return };
        let at = self.now;
        publish.ask(at);
    }

    /// Answers everything until nothing is pending.
    async fn finish(&mut self) {
        for _ in 0..200 {
            self.world.fake.store_all();
            if self.world.lanes.pending() == 0 {
                return;
            }
            rest().await;
        }
        panic!("{} publishes never end", self.world.lanes.pending());
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let stored = self.world.fake.stored();
        let position = |id: &str| stored.iter().position(|other| other == id);
        let told = self.world.told.take();
        let published = told.iter().filter(|line| !line.starts_with("seal ")).count();
        prop_assert_eq!(published, self.publishes.len(), "each publish is told once: {:?}", told);
        prop_assert_eq!(self.world.lanes.pending(), 0);
        let fate = |id: &str| {
            let of_id = told.iter().find(|line| line.split(' ').next() == Some(id) && !line.starts_with("seal "));
            of_id.and_then(|line| line.split(' ').nth(1)).unwrap_or("").to_string()
        };
        for publish in &self.publishes {
            let copies = stored.iter().filter(|id| **id == publish.id).count();
            prop_assert_eq!(copies, usize::from(fate(&publish.id) == "stored"), "{}: one copy, or none", publish.id);
        }
        for (index, later) in self.publishes.iter().enumerate() {
            let Some(place) = position(&later.id) else { continue };
            for earlier in self.publishes[..index].iter().filter(|earlier| earlier.key == later.key) {
                match position(&earlier.id) {
                    Some(before) => prop_assert!(before < place, "{} overtook {}", later.id, earlier.id),
                    None if fate(&earlier.id) == "withdrawn" => {}
                    None => prop_assert!(
                        self.was_seen(earlier, later.called),
                        "{} was stored, though it was called before {} was seen to be refused",
                        later.id,
                        earlier.id
                    ),
                }
            }
        }
        Ok(())
    }

    /// Whether, before this call, an error was returned that names the refusal behind `failed`, or the key was resumed.
    fn was_seen(&self, failed: &Publish, called: usize) -> bool {
        let resumed = self.resumed.iter().any(|(key, at)| *key == failed.key && *at < called);
        // Only the caller knows which refusal an error goes back to; here any seen error of the key counts.
        let seen = self.publishes.iter().filter(|one| one.key == failed.key);
        resumed || seen.filter_map(|one| one.seen).any(|at| at < called)
    }
}

impl Publish {
    fn ask(&mut self, at: usize) {
        if let Stage::Waiting(publishing) = &mut self.future {
            match now(publishing) {
                None => return,
                Some(Ok(confirmation)) => self.future = Stage::Admitted(confirmation),
                Some(Err(error)) => self.over(at, &error),
            }
        }
        if let Stage::Admitted(confirmation) = &mut self.future {
            match now(confirmation) {
                None => {}
                Some(Ok(_)) => self.future = Stage::Over(Ok(())),
                Some(Err(error)) => self.over(at, &error),
            }
        }
    }

    fn over(&mut self, at: usize, error: &Error) {
        let named = error.refusal().map(|refusal| refusal.id.clone());
        self.seen = named.is_some().then_some(at);
        self.future = Stage::Over(Err((error.kind(), named)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_hole_and_no_overtaking(steps in prop::collection::vec(step(), 1..80), pipelined in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let pipelining = if pipelined { Pipelining::PerPartition } else { Pipelining::OnePerKey };
        runtime.block_on(async {
            let mut run = Run::start(pipelining).await;
            for step in steps {
                run.step(step).await;
            }
            run.finish().await;
            run.check()
        })?;
    }
}
