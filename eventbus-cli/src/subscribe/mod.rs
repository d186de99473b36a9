//! Command `eventbus subscribe`: one member of a group, which prints each envelope or runs a command for it.

mod counted;
mod exec;
mod given_up;
mod handling;
mod writer;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use eventbus::observe::{BusEvent, OwnershipChange};
use eventbus::{Backoff, ErrorKind, EventBusConfig, FailurePolicy, StartFrom, Subscribe, Subscription, TopicSpec};
use tokio::sync::watch;
use tokio::time::Instant;

use self::exec::Exec;
use self::given_up::GivenUp;
use self::handling::Handling;
use self::writer::Writer;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::target::{Target, leave, warn_if_volatile};
use crate::voice::say;
use crate::{seconds, start, stdio};

/// Print a topic's envelopes, or run a command for each, in order per key
///
/// Each envelope is one line of JSON on stdout, written and flushed before the envelope counts as finished: what was printed
/// is not printed again after an orderly end, and after a crash only what had not been committed is.
///
/// With --exec the command is run by the shell for each attempt, with the line on its standard input; the line is printed
/// when the command has succeeded. A failed attempt is made again in place, after a back-off: the next envelope of its key
/// waits, those of other keys go on. When the attempts and --give-up-after are used up, --on-failure decides.
///
/// The exit code is 1 where an envelope was given up: dead-lettered or skipped.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// The topic
    #[arg(long, short, value_name = "TOPIC")]
    topic: String,
    /// The group that shares the work
    #[arg(long, short, value_name = "GROUP")]
    group: String,
    /// Handlers at once [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    concurrency: Option<u32>,
    /// Where a group without progress starts: earliest, latest, position:P=N[,P=N...] or time:RFC3339 [default: earliest]
    #[arg(long, value_name = "START", value_parser = start::parse)]
    from: Option<StartFrom>,
    /// Starts there although the group has progress; the group must have no active member
    #[arg(long)]
    reset: bool,
    /// Ends after exactly so many lines, and finishes nothing beyond them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Waits so long for a topic that does not exist yet
    #[arg(long, value_name = "SECS", value_parser = seconds::parse)]
    wait_for_topic: Option<Duration>,
    /// Ends when nothing came for so long, counted from when the first partition was assigned
    #[arg(long, value_name = "SECS", value_parser = seconds::parse)]
    idle_exit: Option<Duration>,
    /// Runs this by the shell for each attempt
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// How long one run of the command may take [default: no limit]
    #[arg(long, value_name = "SECS", value_parser = seconds::parse, requires = "exec")]
    handler_timeout: Option<Duration>,
    /// What happens when attempts and time are used up [default: dead-letter]
    #[arg(long, value_name = "POLICY", value_enum)]
    on_failure: Option<OnFailure>,
    /// Attempts before that [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempts: Option<u32>,
    /// The least time before that, from the first failed attempt on [default: 600; 0 where --attempts or --on-failure is given]
    #[arg(long, value_name = "SECS", value_parser = seconds::parse)]
    give_up_after: Option<Duration>,
    /// Ends with 0 although envelopes were given up
    #[arg(long)]
    allow_given_up: bool,
    /// Milliseconds to wait after the first failed attempt, doubling from there [default: 100]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    backoff: Option<u64>,
    /// How long an ending command waits for handlers that run [default: 30]
    #[arg(long, value_name = "SECS", value_parser = seconds::parse)]
    deadline: Option<Duration>,
}

const EXAMPLES: &str = r#"Examples:
  eventbus subscribe --url nats://localhost:4222 --topic orders --group billing
  eventbus subscribe --topic orders --group audit --from time:2026-01-31T00:00:00Z --reset \
    --idle-exit 2 >orders.ndjson
  eventbus subscribe --topic orders --group mail --handler-timeout 30 --attempts 5 \
    --exec 'jq -r .payload.text | sendmail "$EVENTBUS_KEY"' --on-failure dead-letter

A line:
  {"key":"order-1","id":"…","type":"OrderPlaced","source":"/shop","time":"…","sequence":7,
  "topic":"orders","partition":3,"position":17,"attempt":1,"member":"…","epoch":5,
  "headers":{},"payload":{}}
with payload_base64 where the payload is no JSON, and "replayed":true for a replayed dead letter.

The command finds EVENTBUS_KEY, _ID, _TYPE, _SOURCE, _TIME, _SEQUENCE, _TOPIC, _GROUP, _PARTITION,
_POSITION, _ATTEMPT, _MEMBER, _EPOCH and _REPLAYED in its environment. Its own output goes to
stderr. EVENTBUS_EPOCH fences: per group, topic and partition it rises with every change of owner."#;

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OnFailure {
    DeadLetter,
    Skip,
    Stop,
}

impl From<OnFailure> for FailurePolicy {
    fn from(on_failure: OnFailure) -> Self {
        match on_failure {
            OnFailure::DeadLetter => Self::DeadLetter,
            OnFailure::Skip => Self::Skip,
            OnFailure::Stop => Self::Stop,
        }
    }
}

/// Time that the core gives an attempt: no limit in practice. The command's own limit applies where the command can
/// be reaped before the next attempt begins, and a slow reader of stdout is not a failure.
const NO_LIMIT: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);
const DRAIN: Duration = Duration::from_secs(30);
/// Time in which a member that `--idle-exit` may end is given a partition, if there is one for it.
const UNASSIGNED: Duration = Duration::from_secs(30);

/// Time at which the first partition was assigned.
type Assigned = watch::Receiver<Option<Instant>>;

pub(crate) fn main(args: &Args) -> Result<Exit, Failure> {
    let config = args.target.configuration()?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    let ended = runtime.block_on(run(args, &config));
    runtime.shutdown_background();
    ended
}

impl Args {
    fn options(&self) -> Subscribe {
        let mut options = Subscribe::to(&self.topic).group(&self.group).member(member()).handler_timeout(NO_LIMIT);
        if let Some(concurrency) = self.concurrency {
            options = options.concurrency(concurrency as usize);
        }
        if let Some(start) = &self.from {
            options = options.start(start.clone());
        }
        if let Some(patience) = self.wait_for_topic {
            options = options.wait_for_topic(patience);
        }
        if let Some(policy) = self.on_failure {
            options = options.then(policy.into());
        }
        if let Some(attempts) = self.attempts {
            options = options.attempts(attempts);
        }
        if let Some(time) = self.give_up_after {
            options = options.give_up_after(time);
        }
        if let Some(millis) = self.backoff {
            let first = Duration::from_millis(millis);
            let longest = first.max(Duration::from_secs(30));
            options = options.backoff(Backoff::exponential().initial(first).max(longest));
        }
        options
    }

    fn exec(&self, config: &EventBusConfig) -> Option<Exec> {
        let configured = config.subscribe.handler_timeout_ms.map(Duration::from_millis);
        self.exec.as_ref().map(|command| Exec::new(command, self.handler_timeout.or(configured)))
    }

    fn deadline(&self, config: &EventBusConfig) -> Duration {
        let configured = config.subscribe.drain_deadline_ms.map(Duration::from_millis);
        self.deadline.or(configured).unwrap_or(DRAIN)
    }
}

/// Returns the host's name, by which people recognise a member.
fn member() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).take(40).collect();
    if plain.is_empty() { "eventbus".into() } else { plain }
}

async fn run(args: &Args, config: &EventBusConfig) -> Result<Exit, Failure> {
    stdio::output_is_open()?;
    let interrupt = Interrupt::listen().map_err(Failure::failed)?;
    let (tell_assigned, assigned) = watch::channel(None);
    let given_up = Arc::new(GivenUp::default());
    let counting = Arc::clone(&given_up);
    let listen = move |event: &BusEvent<'_>| {
        counting.count(event);
        if matches!(event, BusEvent::Ownership { change: OwnershipChange::Claimed, .. }) {
            tell_assigned.send_if_modified(|at| at.replace(at.unwrap_or_else(Instant::now)).is_none());
        }
        notes(event);
    };
    let Some(bus) = args.target.connect_unless(&interrupt, config, |bus| bus.hook(listen)).await? else {
        return Ok(Exit::Interrupted);
    };
    if warn_if_volatile(&bus) {
        bus.ensure_topic(&TopicSpec::new(&args.topic)).await?;
    }
    if args.reset {
        let start = args.from.clone().unwrap_or_default();
        match bus.reset_group(&args.topic, &args.group, &start).await {
            // A group has no progress on a topic that does not exist.
            Err(error) if error.kind() == ErrorKind::UnknownTopic && args.wait_for_topic.is_some() => {}
            reset => reset?,
        }
    }
    let writer = Writer::start().map_err(Failure::failed)?;
    let handling = Arc::new(Handling::new(writer, args.exec(config), args.count.map(u64::from)));
    let subscription = tokio::select! {
        biased;
        () = interrupt.wait() => {
            leave(&bus).await;
            return Ok(Exit::Interrupted);
        }
        subscription = bus.subscribe(args.options(), handling.clone()) => subscription?,
    };
    if std::io::stdout().is_terminal() {
        say(format_args!("{} of group {} is listening; Ctrl-C ends it", subscription.member(), args.group));
    }
    let ended = wait(args, &subscription, &handling, &interrupt, assigned).await;
    let exit = end(subscription, &handling, ended, args.deadline(config)).await;
    leave(&bus).await;
    say(format_args!("{} handled, {} attempts failed, {given_up}", handling.finished(), handling.failed()));
    match exit {
        Ok(_) if given_up.any() && !args.allow_given_up => Ok(Exit::Failed),
        exit => exit,
    }
}

/// Reports events that an operator should know.
fn notes(event: &BusEvent<'_>) {
    match event {
        BusEvent::AttemptFailed { at, attempt, error } => {
            tracing::info!(partition = at.partition, position = ?at.position, key = ?at.key, attempt, error, "an attempt failed");
        }
        BusEvent::AttemptDeferred { at, wait, reason } => {
            tracing::info!(partition = at.partition, position = ?at.position, key = ?at.key, ?wait, reason, "the handler waits");
        }
        BusEvent::DeadLettered { at, attempts, error } => {
            say(format_args!("dead-lettered after {attempts} attempts: {}: {error}", place(at)));
        }
        BusEvent::Skipped { at, attempts, error } => {
            say(format_args!("skipped after {attempts} attempts: {}: {error}", place(at)));
        }
        BusEvent::Suspended { keys, .. } => {
            say(format_args!(
                "suspended: envelopes of {keys} keys failed and none succeeded in between; trying one at a time"
            ));
        }
        BusEvent::OutageOver { after, .. } => {
            say(format_args!("going on after {} s of suspension", after.as_secs_f64().round()));
        }
        BusEvent::AwaitingTopic { topic, patience, .. } => {
            say(format_args!("topic {topic} does not exist; waiting for it, at most {} s", patience.as_secs_f64()));
        }
        BusEvent::DataLost { at, from, to } => {
            say(format_args!("records were removed unhandled: partition {}, {from} to {to}", at.partition));
        }
        BusEvent::LogReset { at } => {
            say(format_args!("partition {}: the log is another one than the group's progress was for", at.partition));
        }
        BusEvent::Stalled { at, age, .. } => {
            say(format_args!("stalled for {} s: {}", age.as_secs(), place(at)));
        }
        _ => {}
    }
}

fn place(at: &eventbus::observe::Location) -> String {
    let position = at.position.map(|position| position.to_string()).unwrap_or_default();
    let key = at.key.as_ref().map(|key| format!(" of key {key}")).unwrap_or_default();
    format!("partition {}, position {position}{key}", at.partition)
}

/// Reason for which the subscription ends.
enum Ended {
    Interrupted,
    /// All lines of `--count` are printed.
    Counted,
    Idle,
    /// Standard output cannot be written any more.
    Output(String),
    /// The subscription ended by itself.
    Stopped(Result<(), eventbus::Error>),
}

async fn wait(
    args: &Args,
    subscription: &Subscription,
    handling: &Handling,
    interrupt: &Interrupt,
    assigned: Assigned,
) -> Ended {
    tokio::select! {
        biased;
        error = handling.output_broken() => Ended::Output(error),
        () = handling.counted() => Ended::Counted,
        () = interrupt.wait() => Ended::Interrupted,
        ended = subscription.closed() => Ended::Stopped(ended),
        () = idle(args.idle_exit, handling, assigned) => Ended::Idle,
    }
}

/// Waits until no attempt has run for this long; for ever without a limit. The time counts from the first assignment of
/// a partition: before it, nothing can come.
async fn idle(after: Option<Duration>, handling: &Handling, mut assigned: Assigned) {
    let Some(after) = after else { return std::future::pending().await };
    loop {
        let first = *assigned.borrow_and_update();
        let since = handling.quiet_since().map(|since| first.map_or(since + UNASSIGNED, |first| since.max(first)));
        let now = Instant::now();
        let end = match since {
            Some(since) if since + after <= now => return,
            Some(since) => since + after,
            None => now + after.max(Duration::from_millis(10)),
        };
        tokio::select! {
            () = tokio::time::sleep_until(end) => {}
            Ok(()) = assigned.changed() => {}
        }
    }
}

async fn end(
    subscription: Subscription,
    handling: &Handling,
    ended: Ended,
    deadline: Duration,
) -> Result<Exit, Failure> {
    let exit = match ended {
        Ended::Stopped(result) => {
            return result.map(|()| Exit::Well).map_err(|error| Failure::from(error).about("the subscription stopped"));
        }
        Ended::Output(error) => {
            // Running attempts can no longer print their lines: their envelopes stay unacknowledged, and come again.
            let _ = subscription.drain(Duration::ZERO).await;
            return Err(Failure::failed(format!("standard output cannot be written: {error}")));
        }
        Ended::Interrupted => Exit::Interrupted,
        Ended::Counted | Ended::Idle => Exit::Well,
    };
    handling.settle(&subscription, deadline).await.map(|()| exit)
}

impl Handling {
    /// Finishes the attempts that run, commits, and leaves the group.
    async fn settle(&self, subscription: &Subscription, deadline: Duration) -> Result<(), Failure> {
        if !self.holds_back() {
            return Ok(subscription.drain(deadline).await?);
        }
        // Attempts that are held back never end: only the others are waited for, then all are let go unacknowledged.
        subscription.pause();
        let until = Instant::now() + deadline;
        while self.runs_beside_held(subscription) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let overdue = self.runs_beside_held(subscription);
        match subscription.drain(Duration::ZERO).await {
            Err(error) if error.kind() == ErrorKind::DeadlineExceeded && !overdue && !is_uncommitted(&error) => Ok(()),
            result => Ok(result?),
        }
    }

    fn runs_beside_held(&self, subscription: &Subscription) -> bool {
        subscription.inspect().iter().map(|partition| partition.running).sum::<usize>() > self.held()
    }
}

fn is_uncommitted(error: &eventbus::Error) -> bool {
    error.context().any(|(name, _)| name == "uncommitted" || name == "blocking")
}
