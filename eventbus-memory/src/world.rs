//! [`MemoryWorld`]: one broker in the process, and the lock around it.
//!
//! Everything happens in *steps*. A step takes the world's one lock, fires the timers that are due, changes the state,
//! and gives the lock back. Only then does it call observers, answer tickets and wake readers, so that foreign code
//! never runs under the lock.
//!
//! A driver fires the timers that no step fires. It is a task that exists only while there is a timer, and is started
//! on the caller's runtime; nothing here has a thread.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use eventbus_core::Result;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::MemoryConfig;
use crate::faults::Observer;
use crate::state::MemoryState;
use crate::step::{Step, Told};
use crate::timers::{Driving, Timers};

/// One isolated broker in the process. Each [`connect`](Self::connect) is one process's handle on it.
///
/// Clones are cheap. The log lives as long as a handle does, a named one as long as the process.
///
/// A world belongs to one clock: do not share one between a runtime whose time is paused and another.
#[derive(Clone)]
pub struct MemoryWorld(pub(crate) Arc<World>);

static NAMED: Mutex<BTreeMap<String, MemoryWorld>> = Mutex::new(BTreeMap::new());

impl MemoryWorld {
    /// Makes a private world with the default settings; see [`MemoryConfig::build`] for others.
    #[must_use]
    pub fn new() -> Self {
        Self::with(MemoryConfig::default())
    }

    /// Returns the process's one world of this name (`memory://NAME`), made with the default settings at its first use.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.entry(name.to_owned()).or_default().clone()
    }

    /// Takes a name away from its world, so that the next use of the name makes another. Handles keep the old world.
    /// `true` if there was one.
    pub fn forget(name: &str) -> bool {
        NAMED.lock().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }

    fn with(config: MemoryConfig) -> Self {
        Self(Arc::new(World {
            base: Instant::now(),
            base_millis: config.env.unix_millis(),
            state: Mutex::new(MemoryState::new(config)),
            observers: Mutex::new(Vec::new()),
            earlier: Arc::new(Notify::new()),
        }))
    }

    /// The time of day in this world, in milliseconds since the Unix epoch. It follows tokio's clock and never goes
    /// back.
    #[must_use]
    pub fn unix_millis(&self) -> u64 {
        self.0.unix_millis(Instant::now())
    }
}

impl MemoryConfig {
    /// Makes a private world.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the setting.
    pub fn build(self) -> Result<MemoryWorld> {
        self.check()?;
        Ok(MemoryWorld::with(self))
    }
}

impl Default for MemoryWorld {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWorld").finish_non_exhaustive()
    }
}

pub(crate) struct World {
    base: Instant,
    base_millis: u64,
    state: Mutex<MemoryState>,
    observers: Mutex<Vec<Observer>>,
    /// Tells the driver that a timer was set before the one it sleeps for.
    earlier: Arc<Notify>,
}

impl World {
    /// Takes one step; see the module.
    pub(crate) fn step<R>(self: &Arc<Self>, change: impl FnOnce(&mut MemoryState, &mut Step) -> R) -> R {
        let now = Instant::now();
        let mut step = Step::new(now, self.unix_millis(now));
        let (result, driving) = {
            let mut state = self.lock();
            while let Some(timer) = state.timers.pop_due(now) {
                state.fire(timer, &mut step);
            }
            let result = change(&mut state, &mut step);
            (result, state.timers.driving())
        };
        self.finish(step);
        match driving {
            Driving::Enough => {}
            Driving::Notify => self.earlier.notify_one(),
            Driving::Start(driver, seen) => start_driver(self, driver, seen),
        }
        result
    }

    /// Waits for one way of a call, then checks that the broker can be reached. Each call comes before and after what
    /// the broker does.
    pub(crate) async fn call(self: &Arc<Self>, connection: u64) -> Result<()> {
        let wait = self.step(|state, _| {
            if state.timers.runtime.is_none() {
                state.timers.runtime = Handle::try_current().ok();
            }
            state.config.latency.call.draw(&*state.config.env)
        });
        if !wait.is_zero() {
            sleep(wait).await;
        }
        poll_fn(|cx| self.step(|state, _| state.connections.poll_link(connection, cx))).await
    }

    fn finish(&self, step: Step) {
        if !step.faults.is_empty() {
            let observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (fault, observer) in step.faults.iter().flat_map(|fault| observers.iter().map(move |o| (fault, o))) {
                observer(fault);
            }
        }
        for Told { ticket, fate, pipe } in step.told {
            ticket.tell(fate);
            if let Some(pipe) = pipe {
                self.lock().pipes.told(&pipe);
            }
        }
        for waker in step.wakers {
            waker.wake();
        }
    }

    fn with_timers<R>(&self, change: impl FnOnce(&mut Timers) -> R) -> R {
        change(&mut self.lock().timers)
    }

    pub(crate) fn observe(&self, observer: Observer) {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    fn unix_millis(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.base).as_millis();
        self.base_millis.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// Takes the lock, also after a panic under it: that is a defect of this crate, and the state is kept for later
    /// calls.
    fn lock(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a driver on the caller's runtime, or else on one seen before. Without either, timers wait for the next step
/// that anybody takes.
fn start_driver(world: &Arc<World>, driver: u64, seen: Option<Handle>) {
    let gone = Gone { world: Arc::downgrade(world), driver };
    if let Ok(runtime) = Handle::try_current().or(seen.ok_or(())) {
        drop(runtime.spawn(drive(gone)));
    }
}

async fn drive(gone: Gone) {
    loop {
        let Some(world) = gone.world.upgrade() else { return };
        let Some(until) = world.with_timers(|timers| timers.next_sleep(gone.driver)) else { return };
        let earlier = Arc::clone(&world.earlier);
        drop(world);
        tokio::select! {
            biased;
            () = earlier.notified() => {}
            () = sleep_until(until) => {}
        }
        if let Some(world) = gone.world.upgrade() {
            world.step(|_, _| ());
        }
    }
}

/// A guard that tells the world when its driver is gone, also when its runtime was shut down around it.
struct Gone {
    world: Weak<World>,
    driver: u64,
}

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(world) = self.world.upgrade() {
            world.with_timers(|timers| timers.driver_gone(self.driver));
        }
    }
}
