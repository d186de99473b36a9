//! Command `eventbus dead-letter`: the envelopes that a group gave up on, and their replay.

use std::sync::{Arc, Mutex, PoisonError};

use eventbus::dead_letter::{DeadLetters, Letter, Replayed};
use eventbus::{Error, EventBus, Key, Receipt};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::output::{self, Form};
use crate::record::{self, DeliveryPlace};
use crate::target::{Target, leave};
use crate::voice::say;

/// List, show, replay and purge the envelopes that a group gave up on
///
/// replay publishes them to their topic again, in the order in which they were written: only this group handles them, marked
/// as replayed, after what it has handled already. A letter is done when that is confirmed; a replay that was interrupted
/// goes on where it stood. One that fails again becomes a new dead letter.
///
/// purge counts letters as done without a replay. The records stay in the group's dead-letter topic (eventbus topics list)
/// until that is deleted or its retention takes them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to do
    #[arg(value_enum)]
    action: Action,
    #[command(flatten)]
    target: Target,
    /// The topic that they are of
    #[arg(long, short, value_name = "TOPIC")]
    topic: String,
    /// The group that gave up
    #[arg(long, short, value_name = "GROUP")]
    group: String,
    /// Only those of this key
    #[arg(long, short, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    form: Form,
}

const EXAMPLES: &str = r#"Examples:
  eventbus dead-letter list --url nats://localhost:4222 --topic orders --group billing
  eventbus dead-letter show --topic orders --group billing --key order-1 | jq .payload
  eventbus dead-letter replay --topic orders --group billing --key order-1

A line is one of subscribe, with "original":{"partition":3,"position":17},"attempts":5,"error":"…";
list leaves out headers and payload, replay adds "replayed_as":{"partition":3,"position":99}."#;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    /// Those that are left, without their payloads
    List,
    /// Those that are left, with all that they hold
    Show,
    /// Hands them to the group again
    Replay,
    /// Gives them up for good
    Purge,
}

/// Fields of a line beside those of the envelope.
#[derive(Debug, Serialize)]
struct More<'a> {
    original: Original,
    attempts: u32,
    error: &'a str,
    /// Set if the payload was too large to be written again: it is where the original is.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_as: Option<Original>,
}

#[derive(Debug, Serialize)]
struct Original {
    partition: u32,
    position: u64,
}

const COLUMNS: &[&str] = &["key", "type", "id", "original", "attempts", "error"];

pub(crate) fn main(args: &Args) -> Result<Exit, Failure> {
    let config = args.target.configuration()?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    runtime.block_on(async {
        let interrupt = Interrupt::listen().map_err(Failure::failed)?;
        let Some(bus) = args.target.connect_unless(&interrupt, &config, |bus| bus).await? else {
            return Ok(Exit::Interrupted);
        };
        let done = tokio::select! {
            biased;
            () = interrupt.wait() => Ok(Exit::Interrupted),
            done = act(args, &bus) => done,
        };
        leave(&bus).await;
        done
    })
}

async fn act(args: &Args, bus: &Arc<dyn EventBus>) -> Result<Exit, Failure> {
    let letters = DeadLetters::of(bus.clone(), &args.topic, &args.group)?;
    let key = args.key.as_deref().map(Key::try_from).transpose()?;
    match args.action {
        Action::List | Action::Show => {
            let found = letters.read(key.as_ref()).await?;
            show(args, &letters, &found)?;
            Ok(Exit::Well)
        }
        Action::Replay | Action::Purge => {
            let told = Arc::new(Told::default());
            let tell = {
                let (told, letters, form) = (told.clone(), letters.clone(), args.form.is_table());
                Arc::new(move |letter: &Letter, result: Result<Option<&Receipt>, &Error>| {
                    told.tell(&letters, letter, result, form);
                })
            };
            let done = match args.action {
                Action::Replay => letters.replay(key.as_ref(), tell).await?,
                _ => letters.purge(key.as_ref(), tell).await?,
            };
            told.end(&done, if args.action == Action::Replay { "replayed" } else { "purged" })
        }
    }
}

fn line(letters: &DeadLetters, letter: &Letter, receipt: Option<&Receipt>) -> Result<Vec<u8>, String> {
    let at = &letter.letter;
    let place = DeliveryPlace {
        topic: letters.topic().as_str(),
        partition: letter.partition,
        position: letter.position.get(),
        attempt: None,
        member: None,
        epoch: None,
        replayed: false,
    };
    let replayed_as =
        receipt.map(|receipt| Original { partition: receipt.partition, position: receipt.position.get() });
    let original = Original { partition: at.partition, position: at.position.get() };
    let reference = at.is_reference.then_some(true);
    let more = More { original, attempts: at.attempts, error: &at.error, reference, replayed_as };
    record::line(&at.envelope, &place, &more)
}

fn show(args: &Args, letters: &DeadLetters, found: &[Letter]) -> Result<(), Failure> {
    let as_table = args.form.is_table();
    let mut rows = Vec::with_capacity(found.len());
    for letter in found {
        let line = line(letters, letter, None).map_err(Failure::failed)?;
        if args.action == Action::Show && !as_table {
            output::print(&String::from_utf8_lossy(&line))?;
            continue;
        }
        let mut row: Value = serde_json::from_slice(&line).map_err(Failure::failed)?;
        if args.action == Action::Show {
            output::print(&format!("{row:#}\n"))?;
            continue;
        }
        if let Some(row) = row.as_object_mut() {
            for name in ["headers", "payload", "payload_base64"] {
                row.remove(name);
            }
        }
        rows.push(row);
    }
    if args.action == Action::List {
        args.form.print(COLUMNS, &rows)?;
    }
    say(format_args!("{} dead letters", found.len()));
    Ok(())
}

/// First failure to write the output, if there was one.
#[derive(Debug, Default)]
struct Told(Mutex<Option<Failure>>);

impl Told {
    fn tell(&self, letters: &DeadLetters, letter: &Letter, result: Result<Option<&Receipt>, &Error>, eyes: bool) {
        let at = &letter.letter;
        let told = match result {
            Err(error) => {
                say(format_args!("partition {}, position {}: {error}", at.partition, at.position));
                Ok(())
            }
            Ok(_) if eyes => Ok(()),
            Ok(receipt) => {
                let line = line(letters, letter, receipt).map_err(Failure::failed);
                line.and_then(|line| output::print(&String::from_utf8_lossy(&line)))
            }
        };
        if let Err(failure) = told {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
    }

    fn end(&self, done: &Replayed, what: &str) -> Result<Exit, Failure> {
        let Replayed { done, failed, held_back, .. } = done;
        say(format_args!("{done} {what}, {failed} failed, {held_back} held back behind those"));
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(failure),
            None if *failed > 0 => Ok(Exit::Failed),
            None => Ok(Exit::Well),
        }
    }
}
