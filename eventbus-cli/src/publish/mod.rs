//! `eventbus publish`: lines of NDJSON, published in the order of the input with many in flight.
//!
//! **Invariant.** Lines are handed to the bus one after another by one task, so that the order of a key is the order of the
//! input (P1). What is told as confirmed is stored; what is not told is not known to be.

mod flight;
mod report;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eventbus::observe::BusEvent;
use eventbus::{Envelope, EventBus, EventBusConfig, Key, OnExisting, TopicSpec};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::flight::{Flight, Outcome};
use self::report::{Ended, Report};
use crate::exit::{Exit, Failure};
use crate::input::{self, BrokenLine};
use crate::interrupt::Interrupt;
use crate::seconds;
use crate::target::{Target, leave, warn_if_volatile};
use crate::voice::say;

/// Publish lines of NDJSON, in the order of the input
///
/// Each line is an object: {"key":"order-1","type":"OrderPlaced","payload":{"total":12}}. Beside these fields it may have
/// id, source, time (RFC 3339), sequence (a number of your own), headers (an object of texts), and payload_base64 in place
/// of payload for bytes that are no JSON. Without a key an event is related to nothing. Only type must be there.
///
/// Events of one key are stored in the order of the lines, whatever fails. A broken line ends the command with its number;
/// what was read before is published all the same. After an event that the broker refused, the command goes on with the next
/// line, and ends with 1.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// The topic; created if it is missing
    #[arg(long, short, value_name = "TOPIC")]
    topic: String,
    /// Partitions of the topic: 16 where it is created, and an existing one must have as many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    partitions: Option<u32>,
    /// The file to read; - is standard input
    #[arg(long = "in", value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// How confirmations are waited for
    #[arg(long, value_enum, default_value_t = Mode::Confirm)]
    mode: Mode,
    /// Prints a line for each line that was read, as its outcome is known
    #[arg(long)]
    receipts: bool,
    /// How long an interrupted command waits for what is in flight
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = seconds::parse)]
    deadline: Duration,
}

const EXAMPLES: &str = r#"Examples:
  echo '{"key":"order-1","type":"OrderPlaced","payload":{"total":12}}' |
    eventbus publish --url nats://localhost:4222 --topic orders --receipts
  eventbus publish --topic orders --partitions 32 --in events.ndjson --mode batch

A receipt:
  {"line":1,"id":"…","key":"order-1","outcome":"confirmed","partition":3,"position":17,
  "duplicate":false}
outcome is confirmed, refused or unknown, the latter two with error."#;

/// How confirmations are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Each line for itself
    Confirm,
    /// As many lines together as have been read, up to 500; one that takes no place fails as a whole
    Batch,
    /// Nobody waits; failures are counted at the end
    Fire,
}

/// The most lines of a batch.
const BATCH: usize = 500;
/// Lines that are read ahead.
const AHEAD: usize = 1_024;
/// The most lines in flight.
const IN_FLIGHT: usize = 10_000;
/// The most bytes in flight: past them no line is taken.
const BYTES_IN_FLIGHT: usize = 64 << 20;
/// What a bus lets wait for room where its configuration says nothing.
const WAITING: usize = 100_000;

type Read = Result<(usize, Envelope), BrokenLine>;

pub(crate) fn main(args: &Args) -> Result<Exit, Failure> {
    if args.mode == Mode::Fire && args.receipts {
        return Err(Failure::usage("--receipts: --mode fire waits for no confirmation, so there is nothing to print"));
    }
    let config = args.target.configuration()?;
    let input = open(args)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    let ended = runtime.block_on(run(args, &config, input));
    // The reader may be waiting for a line that never comes.
    runtime.shutdown_background();
    ended
}

fn open(args: &Args) -> Result<Box<dyn BufRead + Send>, Failure> {
    if args.input.as_os_str() == "-" {
        if io::stdin().is_terminal() {
            say("reading lines from the terminal; Ctrl-D ends them");
        }
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(&args.input).map_err(|error| Failure::usage(format!("{}: {error}", args.input.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

async fn run(args: &Args, config: &EventBusConfig, input: Box<dyn BufRead + Send>) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen().map_err(Failure::failed)?;
    let fire = args.mode == Mode::Fire;
    // Bounded by what is in flight, and by the keys that the bus remembers as sealed.
    let (hook, news) = mpsc::unbounded_channel();
    let listen = move |event: &BusEvent<'_>| tell(&hook, fire, event);
    let Some(bus) = args.target.connect_unless(&interrupt, config, |bus| bus.hook(listen)).await? else {
        return Ok(Exit::Interrupted);
    };
    warn_if_volatile(&bus);
    ensure_topic(&bus, args, config).await?;
    let limit = IN_FLIGHT.min(config.publish.waiting_limit.unwrap_or(WAITING));
    let mut publisher = Publisher {
        bus: bus.clone(),
        topic: args.topic.clone(),
        mode: args.mode,
        limit,
        flights: FuturesUnordered::new(),
        lines: 0,
        bytes: 0,
        untold: 0,
        news,
        report: Report::new(args.receipts),
    };
    let ended = publisher.publish(read_ahead(input), &interrupt).await;
    let limit = if ended == Ended::Interrupted { Some(Instant::now() + args.deadline) } else { None };
    publisher.resolve(limit, &interrupt, args.deadline).await;
    leave(&bus).await;
    publisher.report.end(ended, interrupt.is_set())
}

/// The topic is taken as it is, or created; a count of partitions that was asked for must be the one that it has.
async fn ensure_topic(bus: &Arc<dyn EventBus>, args: &Args, config: &EventBusConfig) -> Result<(), Failure> {
    let mut spec = TopicSpec::new(&args.topic);
    if config.topic.on_existing.is_none() {
        spec = spec.on_existing(OnExisting::LeaveAlone);
    }
    if let Some(partitions) = args.partitions {
        spec = spec.partitions(partitions);
    }
    let has = bus.ensure_topic(&spec).await?.spec.partitions;
    match args.partitions {
        Some(asked) if asked != has => {
            let message = format!("topic {}: it has {has} partitions, and --partitions asks for {asked}", args.topic);
            Err(Failure::failed(message))
        }
        _ => Ok(()),
    }
}

/// What the bus tells from its own threads.
enum News {
    /// A publish that nobody else waits for is over, and why it failed if it did.
    Over(Option<eventbus::Error>),
    /// A key was sealed by a refusal, or the topic.
    Sealed(Option<Key>),
}

fn tell(news: &mpsc::UnboundedSender<News>, fire: bool, event: &BusEvent<'_>) {
    let told = match event {
        BusEvent::Published { result, .. } if fire => News::Over(result.as_ref().err().cloned()),
        BusEvent::Sealed { key, .. } => News::Sealed(key.cloned()),
        _ => return,
    };
    // Nobody listens any more only where the command is ending.
    let _ = news.send(told);
}

/// Reads on a thread of its own, which may be left waiting for a line.
fn read_ahead(input: Box<dyn BufRead + Send>) -> mpsc::Receiver<Read> {
    let (lines, read) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let _ = input::read_numbered(input).try_for_each(|line| lines.blocking_send(line));
    });
    read
}

struct Publisher {
    bus: Arc<dyn EventBus>,
    topic: String,
    mode: Mode,
    /// The most lines in flight.
    limit: usize,
    flights: FuturesUnordered<Flight>,
    /// Lines and bytes in flight.
    lines: usize,
    bytes: usize,
    /// Publishes that the bus has not yet told the end of.
    untold: usize,
    news: mpsc::UnboundedReceiver<News>,
    report: Report,
}

impl Publisher {
    /// Publishes until the input ends, or the command must.
    async fn publish(&mut self, mut read: mpsc::Receiver<Read>, interrupt: &Interrupt) -> Ended {
        let mut taken = Vec::new();
        loop {
            let at_once = if self.mode == Mode::Batch { BATCH.min(self.limit) } else { 1 };
            let room = self.lines + at_once <= self.limit && self.bytes < BYTES_IN_FLIGHT;
            tokio::select! {
                biased;
                () = interrupt.wait() => return Ended::Interrupted,
                Some(outcomes) = self.flights.next(), if !self.flights.is_empty() => self.told(outcomes),
                Some(news) = self.news.recv() => self.hear(news),
                count = read.recv_many(&mut taken, at_once), if room => {
                    if count == 0 {
                        return Ended::Input;
                    }
                }
            }
            if let Some(ended) = self.take(&mut taken) {
                return ended;
            }
            if self.report.is_broken() {
                return Ended::Output;
            }
        }
    }

    /// Hands lines to the bus.
    fn take(&mut self, taken: &mut Vec<Read>) -> Option<Ended> {
        let mut broken = None;
        let mut lines = Vec::with_capacity(taken.len());
        for read in taken.drain(..) {
            match read {
                Ok(line) => lines.push(line),
                Err(line) => broken = Some(Ended::Broken(line.to_string())),
            }
        }
        if !lines.is_empty() {
            self.lines += lines.len();
            self.untold += lines.len();
            self.bytes += lines.iter().map(|(_, envelope)| envelope.size()).sum::<usize>();
            let flight = match self.mode {
                Mode::Batch => Flight::batch(&*self.bus, &self.topic, lines),
                Mode::Confirm | Mode::Fire => Flight::single(&*self.bus, &self.topic, lines, self.mode == Mode::Fire),
            };
            self.flights.push(flight);
        }
        broken
    }

    fn told(&mut self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            self.lines -= 1;
            self.bytes -= outcome.line.bytes;
            self.report.outcome(&outcome);
        }
        if self.flights.is_empty() || self.report.is_large() {
            self.report.flush();
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Over(error) => {
                self.untold = self.untold.saturating_sub(1);
                if self.mode == Mode::Fire {
                    self.report.fired(error.as_ref());
                }
            }
            News::Sealed(key) => {
                // The command has learnt of the refusal, and reports it: the next line may go on (P2).
                if let Err(error) = self.bus.resume(&self.topic, key.as_ref()) {
                    tracing::warn!(%error, "a key could not be resumed");
                }
            }
        }
    }

    /// Waits for what is in flight: for as long as it takes, or until the deadline, which an interrupt sets.
    async fn resolve(&mut self, mut until: Option<Instant>, interrupt: &Interrupt, deadline: Duration) {
        let is_fire = self.mode == Mode::Fire;
        while !self.flights.is_empty() || (is_fire && self.untold > 0) {
            let limit = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(outcomes) = self.flights.next(), if !self.flights.is_empty() => self.told(outcomes),
                Some(news) = self.news.recv() => self.hear(news),
                () = interrupt.wait(), if until.is_none() => until = Some(Instant::now() + deadline),
                () = limit => break,
            }
        }
        self.give_up();
        self.report.flush();
    }

    /// The deadline has passed: what can be withdrawn is, and the rest is unknown.
    fn give_up(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            flight.give_up().iter().for_each(|outcome| self.report.outcome(outcome));
        }
        if self.mode == Mode::Fire {
            self.report.lost(self.untold);
        }
    }
}
