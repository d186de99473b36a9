//! [`Bus`]: the ordering engine on a backend. It implements [`EventBus`], and every backend's own bus wraps one.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::EventBus;
use super::config::{BusConfig, Threads};
use crate::backend::{Backend, Capabilities, GroupDescription, Health, Join, Named, TopicDescription, ensure_topic};
use crate::model::{Envelope, Error, ErrorKind, Group, Key, OnExisting, Position, Result, Topic, TopicSpec};
use crate::mutant::Seam;
use crate::observe::{BusEvent, Hooks, Propagator, describe_metrics};
use crate::publish::{BatchPublishing, Lanes, Publish, Publishing, Traced};
use crate::runtime::{Backoff, Env, Mutex, OwnThread};
use crate::subscribe::HandleTelemetry;
use crate::subscribe::{
    CloseBy, FailurePolicy, HAND_BACK_GRACE, HandleLayer, Handler, OnLogReset, Pool, Running, Scope, Session,
    SessionContext, StartFrom, Subscribe, Subscription, Workers, dead_letter,
};

/// The counter that numbers buses and subscriptions of this process, so that a handler's own are told from others.
static COUNTER: AtomicU64 = AtomicU64::new(1);

/// The longest wait for a topic that does not exist: a hundred years, so that no sum of times overflows.
const LONGEST_WAIT: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The ordering engine on a [`Backend`].
///
/// Cheap to share as `Arc<dyn EventBus>`. Dropping the last handle resolves every pending publish, one way or the
/// other, and stops the subscriptions.
pub struct Bus {
    number: u64,
    backend: Arc<dyn Backend>,
    lanes: Arc<Lanes>,
    publish: Arc<dyn Publish>,
    handle_layers: Vec<Arc<dyn HandleLayer>>,
    hooks: Hooks,
    env: Arc<dyn Env>,
    propagator: Option<Arc<dyn Propagator>>,
    own: Own,
    subscriptions: Mutex<Subscriptions>,
    seam: Seam,
}

/// The running subscriptions of a bus, and whether it is closed.
#[derive(Default)]
struct Subscriptions {
    closed: bool,
    running: BTreeMap<u64, Weak<Running>>,
}

/// The runtime of the bus's own work: renewals, intake, commits, timers.
#[derive(Clone)]
enum Own {
    /// A thread that lives as long as the bus, and beyond it until the last subscription has handed back.
    Thread(Arc<OwnThread>),
    Caller(Handle),
}

impl Own {
    /// Starts a thread that ends when the bus and its subscriptions are gone, or takes the caller's runtime.
    fn new(threads: Threads) -> Result<Self> {
        match threads {
            Threads::Caller => Ok(Self::Caller(current_runtime()?)),
            Threads::Own => Ok(Self::Thread(Arc::new(OwnThread::start("eventbus")?))),
        }
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Thread(thread) => thread.spawn(future),
            Self::Caller(handle) => drop(handle.spawn(future)),
        }
    }

    /// Runs a backend's future on the bus's own thread, where its timers and connections belong, or in place on the
    /// caller's runtime. `Closed` where the future panicked or the thread has ended.
    async fn run<T: Send + 'static>(&self, future: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        match self {
            Self::Caller(_) => future.await,
            Self::Thread(thread) => thread.run(future).await.unwrap_or_else(|| Err(Error::closed("bus"))),
        }
    }
}

impl Bus {
    /// Puts the engine on a backend and connects the backend.
    ///
    /// # Errors
    /// As [`new`](Self::new), and those of [`Backend::open`]: `Unavailable`, `Unauthorized`.
    pub async fn connect(backend: Arc<dyn Backend>, config: BusConfig) -> Result<Self> {
        let bus = Self::new(backend.clone(), config)?;
        bus.own.run(async move { backend.open().await }).await?;
        Ok(bus)
    }

    /// Puts the engine on a backend that needs no connection, such as one in this process: [`Backend::open`] is not
    /// called.
    ///
    /// # Errors
    /// `InvalidConfig` or `UnsafeConfig` naming the setting; `Unavailable` where no thread can be started or, with
    /// [`Threads::Caller`], there is no runtime.
    pub fn new(backend: Arc<dyn Backend>, config: BusConfig) -> Result<Self> {
        config.validate()?;
        describe_metrics();
        let hooks = Hooks::new(config.hooks.clone());
        let env = config.env.clone();
        let own = Own::new(config.threads)?;
        let (lanes, driver) = {
            let config = config.publish.clone();
            Lanes::new(backend.clone(), env.clone(), config, hooks.clone())
        };
        own.spawn(driver.run());
        let traced = Traced::new(backend.system(), config.propagator.clone(), lanes.clone());
        let mut publish: Arc<dyn Publish> = Arc::new(traced);
        for layer in &config.publish_layers {
            publish = layer.layer(publish);
        }
        Ok(Self {
            number: COUNTER.fetch_add(1, Ordering::Relaxed),
            backend: Arc::new(Named(backend)),
            lanes,
            publish,
            handle_layers: config.handle_layers,
            hooks,
            env: config.env,
            propagator: config.propagator,
            own,
            subscriptions: Mutex::default(),
            seam: config.seam,
        })
    }

    async fn join(&self, options: Subscribe, handler: Arc<dyn Handler>) -> Result<Subscription> {
        let prefix = options.member.clone().unwrap_or_else(|| "member".into());
        let (topic, group, settings) = options.checked()?;
        let described = self.await_topic(&topic, &group, settings.wait_for_topic.unwrap_or_default()).await?;
        let backend = self.reach()?;
        let dead_letters = match settings.policy {
            FailurePolicy::DeadLetter => Some(self.ensure_dead_letters(&topic, &group, &described).await?),
            _ => None,
        };
        let member: Arc<str> = format!("{prefix}-{:016x}", self.env.random()).into();
        let mut join = Join::new(described.clone(), group.clone(), &*member);
        join.session_timeout = settings.session_timeout;
        join.drain_deadline = settings.drain_deadline.saturating_add(HAND_BACK_GRACE);
        join.begin_anew = settings.on_log_reset == OnLogReset::Earliest;
        let membership = self.own.run(async move { backend.join(join).await }).await?;

        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let capabilities = self.backend.capabilities();
        let handler = self.handle_layers.iter().fold(handler, |inner, layer| layer.layer(inner));
        let workers = Arc::new(Workers {
            pool: Arc::new(
                Pool::new(settings.concurrency, settings.window, settings.commit_every as u64, self.seam)
                    .with_outage_guard(settings.outage_guard),
            ),
            handler,
            settings: settings.clone(),
            env: self.env.clone(),
            hooks: self.hooks.clone(),
            telemetry: HandleTelemetry::new(
                self.backend.system(),
                topic.clone(),
                group.clone(),
                self.propagator.clone(),
            ),
            scope: Scope { bus: self.number, subscription: number },
            partitions: described.spec.partitions,
            strict_partitions: described.spec.strict_partitions,
            controls: Mutex::new(Vec::new()),
            stop: Mutex::new(None),
            seam: self.seam,
        });
        let shared = Arc::new(SessionContext {
            backend: self.backend.clone(),
            capabilities,
            membership,
            lanes: self.lanes.clone(),
            topic: topic.clone(),
            group: group.clone(),
            member: member.clone(),
            close_by: CloseBy::default(),
            dead_letters,
            workers: workers.clone(),
            settings,
        });
        let concurrency = shared.settings.concurrency;
        let (commands, receiver) = mpsc::channel(16);
        let (tell_ended, ended) = watch::channel(None);
        let handlers = current_runtime()?;
        let backend = self.backend.clone();
        let running = Arc::new(Running { topic, group, member, commands, ended, workers, backend, handlers });
        if !self.remember(number, &running) {
            self.own.run(async move { shared.membership.leave().await }).await?;
            return Err(Error::closed("bus"));
        }
        running.start_workers(concurrency);
        let (hooks, own, started) = (self.hooks.clone(), self.own.clone(), StartedWorkers(running.workers.clone()));
        self.own.spawn(async move {
            // The thread must outlast the bus by the hand-back: dropped with it, the session would leave handlers
            // starting that nobody commits, and partitions that wait for their leases' end.
            let (_own, _started) = (own, started);
            let (topic, group) = (shared.topic.clone(), shared.group.clone());
            let error = Session::new(shared, receiver).run().await;
            if let Some(error) = &error {
                hooks.emit(&BusEvent::SubscriptionEnded { topic: &topic, group: &group, error });
            }
            let _ = tell_ended.send(Some(error));
        });
        Ok(Subscription { inner: running })
    }

    /// Describes a topic. One that does not exist is looked for again, with back-off, for as long as there is patience.
    async fn await_topic(&self, topic: &Topic, group: &Group, patience: Duration) -> Result<TopicDescription> {
        let until = Instant::now() + patience.min(LONGEST_WAIT);
        let again = Backoff::exponential().max(Duration::from_secs(2));
        for attempt in 0.. {
            let (backend, topic_name) = (self.reach()?, topic.clone());
            let pause = again.delay(attempt, self.env.random()).min(until.saturating_duration_since(Instant::now()));
            let looked = self.own.run(async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                backend.describe_topic(&topic_name).await
            });
            let missing = match looked.await {
                Err(error) if error.kind() == ErrorKind::UnknownTopic && !patience.is_zero() => error,
                looked => return looked,
            };
            if Instant::now() >= until {
                return Err(missing.with("waited", format_args!("{patience:?}")));
            }
            if attempt == 0 {
                tracing::info!(target: "eventbus", %topic, ?patience, "waiting for a topic that does not exist yet");
                self.hooks.emit(&BusEvent::AwaitingTopic { topic, group, patience });
            }
        }
        Err(Error::closed("bus"))
    }

    /// Registers a subscription, so that closing the bus drains it, too. Returns false where the bus is closed already.
    fn remember(&self, number: u64, running: &Arc<Running>) -> bool {
        let mut subscriptions = self.subscriptions.lock();
        subscriptions.running.retain(|_, known| known.strong_count() > 0);
        if !subscriptions.closed {
            subscriptions.running.insert(number, Arc::downgrade(running));
        }
        !subscriptions.closed
    }

    /// Returns the backend; `Closed` once the bus was closed.
    fn reach(&self) -> Result<Arc<dyn Backend>> {
        if self.subscriptions.lock().closed { Err(Error::closed("bus")) } else { Ok(self.backend.clone()) }
    }

    /// Ensures the dead-letter topic before the first envelope can fail (S2), and returns its name.
    async fn ensure_dead_letters(&self, topic: &Topic, group: &Group, source: &TopicDescription) -> Result<Topic> {
        let name = dead_letter::topic_of(topic, group)?;
        let spec = TopicSpec::new(name.as_str())
            .partitions(source.spec.partitions)
            .replicas(source.spec.replicas)
            .storage(source.spec.storage)
            .on_existing(OnExisting::LeaveAlone);
        let (backend, source) = (self.backend.clone(), source.spec.clone());
        let described = self.own.run(async move { ensure_like(&*backend, spec, &source).await }).await?;
        self.lanes.topic_ready(&described)?;
        Ok(name)
    }

    async fn reset(&self, topic: Topic, group: Group, to: StartFrom) -> Result<()> {
        let backend = self.reach()?;
        self.own
            .run(async move {
                let described = backend.describe_topic(&topic).await?;
                let mut positions = Vec::new();
                for (partition, log) in (0..).zip(described.logs()?) {
                    positions.push((partition, to.position(&*backend, &topic, partition, log).await?));
                }
                backend.reset_group(&topic, &group, &positions as &[(u32, Position)]).await
            })
            .await
    }

    fn running(&self) -> Vec<Arc<Running>> {
        self.subscriptions.lock().running.values().filter_map(Weak::upgrade).collect()
    }
}

/// Workers whose session is the only one to commit for them. None starts a handler once it is gone (S7).
struct StartedWorkers(Arc<Workers>);

impl Drop for StartedWorkers {
    fn drop(&mut self) {
        self.0.pool.close();
    }
}

/// Ensures a topic beside its source. It has no limits of its own, unless the broker demands a size: then the source's.
/// One that has fewer replicas than its source gets as many, where the broker can change them.
async fn ensure_like(backend: &dyn Backend, spec: TopicSpec, source: &TopicSpec) -> Result<TopicDescription> {
    let demanded = |error: &Error| error.context().any(|(name, value)| (name, value) == ("setting", "max_bytes"));
    let made = match (ensure_topic(backend, &spec).await, source.max_bytes) {
        (Err(error), Some(bytes)) if demanded(&error) => ensure_topic(backend, &spec.max_bytes(bytes)).await?,
        (made, _) => made?,
    };
    if made.spec.replicas >= source.replicas {
        return Ok(made);
    }
    let raised = made.spec.clone().replicas(source.replicas).on_existing(OnExisting::CreateOrUpdate);
    Ok(ensure_topic(backend, &raised).await.unwrap_or_else(|error| {
        tracing::warn!(target: "eventbus", %error, "the dead-letter topic has fewer replicas than its source");
        made
    }))
}

fn current_runtime() -> Result<Handle> {
    Handle::try_current()
        .map_err(|_| Error::new(ErrorKind::Unavailable, "there is no tokio runtime here: call this inside one"))
}

#[async_trait]
impl EventBus for Bus {
    fn publish(&self, topic: &str, envelope: Envelope) -> Publishing {
        self.publish.publish(topic, envelope)
    }

    fn publish_batch(&self, topic: &str, envelopes: Vec<Envelope>) -> BatchPublishing {
        self.publish.publish_batch(topic, envelopes)
    }

    fn resume(&self, topic: &str, key: Option<&Key>) -> Result<()> {
        self.lanes.resume(topic, key)
    }

    async fn subscribe(&self, options: Subscribe, handler: Arc<dyn Handler>) -> Result<Subscription> {
        self.join(options, handler).await
    }

    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<TopicDescription> {
        spec.validate()?;
        let (backend, asked) = (self.reach()?, spec.clone());
        let mut described = self.own.run(async move { ensure_topic(&*backend, &asked).await }).await?;
        // The policy after a refusal is the bus's own setting, not the broker's.
        described.spec.after_refusal = spec.after_refusal;
        self.lanes.topic_ready(&described)?;
        Ok(described)
    }

    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription> {
        let (backend, topic) = (self.reach()?, topic.parse::<Topic>()?);
        self.own.run(async move { backend.describe_topic(&topic).await }).await
    }

    async fn accept_partitions(&self, topic: &str, partitions: u32) -> Result<()> {
        self.reach()?;
        let (lanes, topic) = (self.lanes.clone(), topic.parse::<Topic>()?);
        self.own.run(async move { lanes.accept_partitions(&topic, partitions).await }).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<()> {
        let (backend, topic) = (self.reach()?, topic.parse::<Topic>()?);
        self.lanes.forget_topic(&topic);
        self.own.run(async move { backend.delete_topic(&topic).await }).await
    }

    async fn list_topics(&self) -> Result<Vec<String>> {
        let backend = self.reach()?;
        let topics = self.own.run(async move { backend.list_topics().await }).await?;
        Ok(topics.into_iter().map(String::from).collect())
    }

    async fn list_groups(&self, topic: &str) -> Result<Vec<String>> {
        let (backend, topic) = (self.reach()?, topic.parse::<Topic>()?);
        let groups = self.own.run(async move { backend.list_groups(&topic).await }).await?;
        Ok(groups.into_iter().map(String::from).collect())
    }

    async fn describe_group(&self, topic: &str, group: &str) -> Result<GroupDescription> {
        let (backend, topic, group) = (self.reach()?, topic.parse::<Topic>()?, group.parse::<Group>()?);
        self.own.run(async move { backend.describe_group(&topic, &group).await }).await
    }

    async fn reset_group(&self, topic: &str, group: &str, to: &StartFrom) -> Result<()> {
        self.reset(topic.parse()?, group.parse()?, to.clone()).await
    }

    async fn delete_group(&self, topic: &str, group: &str) -> Result<()> {
        let (backend, topic, group) = (self.reach()?, topic.parse::<Topic>()?, group.parse::<Group>()?);
        self.own.run(async move { backend.delete_group(&topic, &group).await }).await
    }

    async fn health(&self) -> Health {
        let backend = self.backend.clone();
        let health = self.own.run(async move { Ok(backend.health().await) }).await;
        health.unwrap_or_else(|_| Health::new(crate::backend::ConnectionState::Closed))
    }

    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        if Scope::current().is_some_and(|scope| scope.bus == self.number) {
            let message = "close waits for the handler that waits for it";
            return Err(Error::new(ErrorKind::WouldDeadlock, message));
        }
        let end = Instant::now() + deadline;
        let left = || end.saturating_duration_since(Instant::now());
        self.subscriptions.lock().closed = true;
        let running = self.running();
        let drains = running.iter().map(|subscription| subscription.drain(left()));
        let drained = futures_util::future::join_all(drains).await;
        let published = match self.lanes.close(left()).await {
            0 => Ok(()),
            unresolved => Err(Error::new(ErrorKind::DeadlineExceeded, "publishes were not resolved at the deadline")
                .with("publishes", unresolved)),
        };
        let backend = self.backend.clone();
        let ended = self.own.run(async move { backend.close().await }).await;
        let exceeded = drained.into_iter().filter(|one| {
            // A subscription that ended by itself has reported its error already.
            one.as_ref().is_err_and(|error| error.kind() == ErrorKind::DeadlineExceeded)
        });
        exceeded.into_iter().chain([published, ended]).find(Result::is_err).unwrap_or(Ok(()))
    }
}

/// Stops the subscriptions at once when the last handle is gone, and has the lanes resolve what is pending.
impl Drop for Bus {
    fn drop(&mut self) {
        self.running().iter().for_each(|running| running.stop());
        self.lanes.end();
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("backend", &self.backend).finish_non_exhaustive()
    }
}
