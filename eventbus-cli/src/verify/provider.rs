//! Worlds on the user's own broker: each is a prefix of names, removed in the end.
//!
//! **Invariant.** All that a case makes has names that begin with [`ROOT`] and a part that only this run has. It is
//! removed when the run ends, however the run ends. Before the removal every connection of a case is closed, so that
//! nothing is made after it. Nothing here knows a broker: the configuration knows what a prefix is on its broker.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use conformance_tests::suite::{Abilities, Clock, Connection, Fixture, Provider, Setup};
use eventbus::backend::Backend;
use eventbus::{Error, ErrorKind, EventBusConfig};
use futures_util::future::join_all;

use crate::exit::Failure;

/// Beginning of all names.
const ROOT: &str = "eventbus-verify";
/// How long closing a connection, or removing one prefix, may take.
const REMOVAL: Duration = Duration::from_secs(30);

/// Provider of worlds on the broker of a configuration.
pub(super) struct Places {
    config: EventBusConfig,
    run: String,
    number: AtomicU32,
    made: Mutex<Vec<String>>,
    backends: Arc<Mutex<Vec<Weak<dyn Backend>>>>,
    closed: Arc<AtomicBool>,
}

impl Places {
    pub(super) fn new(config: EventBusConfig) -> Self {
        Self {
            config,
            run: format!("{ROOT}-{:08x}", rand::random::<u32>()),
            number: AtomicU32::new(0),
            made: Mutex::default(),
            backends: Arc::default(),
            closed: Arc::default(),
        }
    }

    /// Returns the beginning of all names of this run.
    pub(super) fn names(&self) -> &str {
        &self.run
    }

    /// Removes all that was made. From now on nothing can be made.
    pub(super) async fn remove_all(&self) -> Result<(), Failure> {
        self.closed.store(true, Ordering::Release);
        let backends = std::mem::take(&mut *self.backends.lock().unwrap_or_else(PoisonError::into_inner));
        let close = |backend: Arc<dyn Backend>| async move {
            // A connection closed already, or never opened, may answer with an error.
            let _ = tokio::time::timeout(REMOVAL, backend.close()).await;
        };
        join_all(backends.iter().filter_map(Weak::upgrade).map(close)).await;
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for place in &made {
            let removed = tokio::time::timeout(REMOVAL, self.config.remove_prefix(place)).await;
            let removed = removed.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "no answer")));
            removed.map_err(|error| {
                Failure::failed(format!("what begins with {} could not be removed: {error}", self.run))
            })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("run", &self.run).finish_non_exhaustive()
    }
}

#[async_trait]
impl Provider for Places {
    fn name(&self) -> &str {
        self.config.backend.scheme()
    }

    /// Returns none: the broker is the user's, and nothing of the suite stands between it and its clients.
    fn abilities(&self) -> Abilities {
        Abilities::new()
    }

    fn clock(&self) -> Clock {
        Clock::Real
    }

    async fn world(&self, _: Setup) -> Result<Arc<dyn Fixture>, Error> {
        let prefix = format!("{}-{}", self.run, self.number.fetch_add(1, Ordering::Relaxed));
        let config = self.config.at_prefix(&prefix)?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(prefix);
        let (backends, closed) = (self.backends.clone(), self.closed.clone());
        Ok(Arc::new(World { config, backends, closed }))
    }
}

/// World of one case: a prefix of names.
struct World {
    config: EventBusConfig,
    backends: Arc<Mutex<Vec<Weak<dyn Backend>>>>,
    closed: Arc<AtomicBool>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("config", &self.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl Fixture for World {
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error> {
        let backend = self.config.backend();
        // Check and entry are under one lock: once the removal has begun, no backend escapes it.
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the run is over"));
        }
        backends.retain(|known| known.strong_count() > 0);
        backends.push(Arc::downgrade(&backend));
        Ok(Arc::new(Process(backend)))
    }
}

#[derive(Debug)]
struct Process(Arc<dyn Backend>);

#[async_trait]
impl Connection for Process {
    fn backend(&self) -> Arc<dyn Backend> {
        self.0.clone()
    }
}
