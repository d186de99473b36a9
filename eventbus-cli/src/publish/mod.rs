//! Command `eventbus publish`: lines of NDJSON, published in the order of the input, with many in flight.
//!
//! **Invariant.** One task hands the lines to the bus one after another, so that the order of a key is the order of the
//! input (P1). A line reported as confirmed is stored; a line not reported is not known to be.

mod flight;
mod report;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eventbus::observe::BusEvent;
use eventbus::{Envelope, EventBus, EventBusConfig, Key, OnExisting, TopicSpec};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::flight::{Flight, Outcome};
use self::report::{Ended, Report};
use crate::exit::{Exit, Failure};
use crate::input::{self, BrokenLine};
use crate::interrupt::Interrupt;
use crate::seconds;
use crate::stdio;
use crate::target::{GOODBYE, Target, leave_within, warn_if_volatile};
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Each line for itself
    Confirm,
    /// As many lines together as have been read, up to 500
    Batch,
    /// Nobody waits; failures are counted at the end
    Fire,
}

const BATCH: usize = 500;
/// The most lines that are read ahead.
const AHEAD: usize = 1_024;
const IN_FLIGHT: usize = 10_000;
/// The most bytes in flight: beyond them no line is taken until some have landed.
const BYTES_IN_FLIGHT: usize = 64 << 20;
/// The bus's `waiting_limit` where the configuration sets none.
const WAITING: usize = 100_000;

type Read = Result<(usize, Envelope), BrokenLine>;

pub(crate) fn main(args: &Args) -> Result<Exit, Failure> {
    if args.mode == Mode::Fire && args.receipts {
        return Err(Failure::usage("--receipts: --mode fire waits for no confirmation, so there is nothing to print"));
    }
    let config = args.target.configuration()?;
    if args.receipts {
        stdio::output_is_open()?;
    }
    let input = open(args)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    let ended = runtime.block_on(run(args, &config, input));
    // The reading thread may be waiting for a line that never comes.
    runtime.shutdown_background();
    ended
}

fn open(args: &Args) -> Result<Box<dyn BufRead + Send>, Failure> {
    if args.input.as_os_str() == "-" {
        stdio::input_is_open()?;
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
    // Lines in flight, and the keys that the bus remembers as sealed, bound the channel.
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
    publisher.leave().await;
    publisher.report.end(ended, interrupt.is_set())
}

/// Creates the topic, or takes it as it is. An existing topic must have the number of partitions that the user gave, if
/// any.
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

/// News that the bus tells from its own threads.
enum News {
    /// A publish has ended; the error, if it failed.
    Over(Option<eventbus::Error>),
    /// A refusal has sealed a key; `None` if it sealed the topic.
    Sealed(Option<Key>),
}

fn tell(news: &mpsc::UnboundedSender<News>, fire: bool, event: &BusEvent<'_>) {
    let told = match event {
        BusEvent::Published { result, .. } if fire => News::Over(result.as_ref().err().cloned()),
        BusEvent::Sealed { key, .. } => News::Sealed(key.cloned()),
        _ => return,
    };
    // Sending fails only if the command is ending.
    let _ = news.send(told);
}

/// Reads the input on a thread of its own, which may be left behind waiting for a line.
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
    limit: usize,
    flights: FuturesUnordered<Flight>,
    /// Number of the lines in flight, and their bytes.
    lines: usize,
    bytes: usize,
    /// Publishes whose end the bus has not told yet.
    untold: usize,
    news: mpsc::UnboundedReceiver<News>,
    report: Report,
}

impl Publisher {
    /// Publishes until the input ends, or until the command has to end.
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

    /// Hands the lines to the bus. A broken line is a reason to end.
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
            let (flight, refused) = match self.mode {
                Mode::Batch => Flight::batch(&*self.bus, &self.topic, lines),
                Mode::Confirm | Mode::Fire => {
                    (Some(Flight::single(&*self.bus, &self.topic, lines, self.mode == Mode::Fire)), Vec::new())
                }
            };
            self.flights.extend(flight);
            self.told(refused);
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
                // The command knows of the refusal and reports it, so the key's next line may go on (P2).
                if let Err(error) = self.bus.resume(&self.topic, key.as_ref()) {
                    tracing::warn!(%error, "a key could not be resumed");
                }
            }
        }
    }

    /// Waits for the lines in flight, without a limit or until the deadline. An interrupt sets a deadline.
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
        self.report.flush();
    }

    /// Closes the bus. Lines that are still in flight are given up: what is certainly not stored is withdrawn, and
    /// closing tells the fate of every other line, as far as it is known.
    async fn leave(&mut self) {
        self.flights.iter().for_each(Flight::withdraw);
        let given_up = !self.flights.is_empty() || (self.mode == Mode::Fire && self.untold > 0);
        leave_within(&self.bus, if given_up { Duration::ZERO } else { GOODBYE }).await;
        while let Some(Some(outcomes)) = self.flights.next().now_or_never() {
            self.told(outcomes);
        }
        while let Ok(news) = self.news.try_recv() {
            self.hear(news);
        }
        if self.mode == Mode::Fire {
            self.report.lost(self.untold);
        }
        self.report.flush();
    }
}
