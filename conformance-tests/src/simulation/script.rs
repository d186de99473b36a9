//! The script of a schedule's handlers, drawn call by call.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbus_core::Delivery;

use super::dice::Dice;
use super::plan::Plan;
use crate::harness::{Act, Script, Step, lock};

/// The most kills of its process by one envelope.
const KILLS: u32 = 6;

/// One script for all processes of a schedule.
#[derive(Debug)]
pub(super) struct Drawn {
    dice: Mutex<Dice>,
    plan: Plan,
    calm: AtomicBool,
    /// The envelopes that kill, and the kills that each has left.
    poison: Mutex<BTreeMap<u64, u32>>,
}

impl Drawn {
    pub(super) fn new(dice: Dice, plan: Plan) -> Arc<Self> {
        Arc::new(Self { dice: Mutex::new(dice), plan, calm: AtomicBool::new(false), poison: Mutex::default() })
    }

    /// Lets every call succeed at once from now on.
    pub(super) fn calm(&self) {
        self.calm.store(true, Ordering::Release);
    }

    fn kills(&self, delivery: &Delivery, dice: &mut Dice) -> bool {
        if !self.plan.poison {
            return false;
        }
        let mut poison = lock(&self.poison);
        let place = u64::from(delivery.partition()) << 48 | delivery.position().get();
        if poison.is_empty() && dice.percent(10) {
            poison.insert(place, KILLS);
        }
        match poison.get_mut(&place) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

/// The script as handlers hold it.
#[derive(Debug, Clone)]
pub(super) struct Shared(pub(super) Arc<Drawn>);

impl Script for Shared {
    fn step(&self, delivery: &Delivery, _: u64) -> Step {
        let drawn = &*self.0;
        if drawn.calm.load(Ordering::Acquire) {
            return Step::succeed(Duration::ZERO);
        }
        let (mut dice, plan) = (lock(&drawn.dice), &drawn.plan);
        let takes = plan.slow + dice.skewed(plan.takes);
        if drawn.kills(delivery, &mut dice) {
            return Step { takes, then: Act::Kill };
        }
        let mut draw = dice.between(0, 99);
        let acts = [
            (plan.failing, Act::Fail),
            (plan.failing_for_good, Act::FailForGood),
            (plan.panicking, Act::Panic),
            (plan.hanging, Act::Hang),
        ];
        for (percent, then) in acts {
            if draw < percent {
                return Step { takes, then };
            }
            draw -= percent;
        }
        Step { takes, then: Act::Succeed }
    }
}
