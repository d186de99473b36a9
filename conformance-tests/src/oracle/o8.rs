//! O8, no hole, one copy, judged per key over what is stored:
//!
//! - in the log, no record stands behind a later one of its key and bus;
//! - nothing is stored that was refused or withdrawn;
//! - nothing is stored that was called after a refused publish of its key (the *root*) and before
//!   an error naming that root was in the caller's hands: what was queued behind the root fails
//!   with it, and the key is sealed until the caller knows. A topic may demand a `resume`
//!   (`SealUntilResumed`) or do without seals (`Continue`);
//! - a `resume` unseals from its call on the refusals *before* it. Results of a key are told in
//!   order, so a refusal may be told long after it sealed the key, and the resume may stand between
//!   the two. It came too early for a root where the history shows that the root was refused later:
//!   the seal is recorded behind the resume, or a publish called after it failed by that root;
//! - nothing is stored twice, where the backend promises one copy.

use std::collections::BTreeMap;

use super::expect::{AfterRefusal, Expectations};
use super::facts::{Fate, HistoryFacts, NONE, Rec, Stream};
use super::report::{About, Report};
use super::verdict::Rule;

pub(super) fn judge(facts: &HistoryFacts<'_>, expect: &Expectations, report: &mut Report<'_, '_>) {
    for (index, stream) in (0_u32..).zip(&facts.streams) {
        if stream.replayed {
            continue;
        }
        let about = About { group: None, stream: Some(index) };
        if stream.is_keyed() {
            line_is_ascending(facts, stream, about, report);
        }
    }
    seals_held(facts, expect, report);
    for rec in &facts.recs {
        let about = About { group: None, stream: Some(rec.stream) };
        if matches!(rec.fate, Fate::Refused | Fate::Withdrawn) && rec.slot != NONE {
            let seen = facts.slots[rec.slot as usize].seen;
            report.add(Rule::O8, about, &[rec.offered, rec.decided, seen], || {
                format!("{} is stored, though it was {:?}", rec.number, rec.fate)
            });
        }
    }
    if expect.one_copy {
        one_copy(facts, report);
    }
}

/// Checks that positions fall when going back through the numbers, by the lowest one seen so far.
fn line_is_ascending(facts: &HistoryFacts<'_>, stream: &Stream<'_>, about: About, report: &mut Report<'_, '_>) {
    // (part, era, bus), its lowest position, and the record there. A key has one of them, as a rule.
    let mut lowest: Vec<((u32, u32, u32), u64, u32)> = Vec::new();
    for &index in stream.line.iter().rev() {
        let rec = &facts.recs[index as usize];
        let Some(slot) = facts.slots.get(rec.slot as usize) else {
            continue;
        };
        let place = (slot.part, slot.born, rec.bus);
        match lowest.iter_mut().find(|known| known.0 == place) {
            None => lowest.push((place, slot.position, index)),
            Some((_, position, _)) if slot.position < *position => *position = slot.position,
            Some(&mut (_, position, _)) => {
                report.add(Rule::O8, about, &[rec.offered, slot.seen], || {
                    format!(
                        "{} is stored at {}, behind a later one of its key at {position}",
                        rec.number, slot.position
                    )
                });
            }
        }
    }
}

/// The seal of a key: from the root's call until its refusal was seen.
struct Seal {
    from: u32,
    /// The last index at which the root was not refused yet, as far as the history tells: a resume up to here has no
    /// effect on it.
    open: u32,
    decided: u32,
    until: u32,
    root: u64,
}

fn seals_held(facts: &HistoryFacts<'_>, expect: &Expectations, report: &mut Report<'_, '_>) {
    let sealable = |rec: &&Rec| {
        let stream = &facts.streams[rec.stream as usize];
        stream.refusals && stream.is_keyed() && rec.offered != NONE && !stream.replayed
    };
    let mut publishes: Vec<&Rec> = facts.recs.iter().filter(sealable).collect();
    publishes.sort_by_key(|rec| (rec.stream, rec.bus, rec.offered));
    for line in publishes.chunk_by(|a, b| (a.stream, a.bus) == (b.stream, b.bus)) {
        let stream = &facts.streams[line[0].stream as usize];
        let topic = facts.names[stream.topic as usize];
        let rule = expect.refusals.get(topic).copied().unwrap_or_default();
        if rule != AfterRefusal::Continue {
            nothing_behind_a_seal(line, &seals(line, stream, rule), report);
        }
    }
}

/// Walks the publishes of one key on one bus in call order.
fn nothing_behind_a_seal(line: &[&Rec], seals: &[Seal], report: &mut Report<'_, '_>) {
    let mut next = seals.iter().peekable();
    // Of the seals that began before, the one that ends last.
    let mut longest: Option<&Seal> = None;
    for rec in line {
        while let Some(seal) = next.next_if(|seal| seal.from < rec.offered) {
            if longest.is_none_or(|longest| longest.until < seal.until) {
                longest = Some(seal);
            }
        }
        let Some(seal) = longest.filter(|seal| rec.offered < seal.until) else {
            continue;
        };
        // A refused record that is stored is refuted for itself.
        if rec.rank != NONE && !matches!(rec.fate, Fate::Refused | Fate::Withdrawn) {
            let about = About { group: None, stream: Some(rec.stream) };
            report.add(Rule::O8, about, &[seal.from, rec.offered, seal.decided], || {
                format!(
                    "{} is stored, though it was called before the caller knew that {} was refused",
                    rec.number, seal.root
                )
            });
        }
    }
}

/// The seals of one key on one bus, by their beginning.
fn seals(publishes: &[&Rec], stream: &Stream<'_>, rule: AfterRefusal) -> Vec<Seal> {
    let mut seals: BTreeMap<u64, Seal> = BTreeMap::new();
    for rec in publishes.iter().filter(|rec| rec.fate == Fate::Refused) {
        let root = rec.root.unwrap_or(rec.number);
        let (from, open) = (rec.offered, rec.offered);
        let seal = seals.entry(root).or_insert(Seal { from, open, decided: NONE, until: NONE, root });
        seal.from = seal.from.min(rec.offered);
        seal.open = seal.open.max(rec.offered);
        seal.decided = seal.decided.min(rec.decided);
        if rule == AfterRefusal::Seal {
            seal.until = seal.until.min(rec.returned);
        }
    }
    for rec in publishes {
        if let Some(seal) = seals.get_mut(&rec.number) {
            seal.from = seal.from.min(rec.offered);
            if rec.sealed != NONE {
                seal.open = seal.open.max(rec.sealed);
            }
            // The root's own outcome names it, also where that is unknown for good.
            if rule == AfterRefusal::Seal {
                seal.until = seal.until.min(rec.returned);
            }
        }
    }
    let bus = publishes.first().map_or(NONE, |rec| rec.bus);
    let mut seals: Vec<Seal> = seals.into_values().collect();
    for seal in &mut seals {
        let after = |&&(on, at): &&(u32, u32)| on == bus && at > seal.open;
        if let Some(&(_, resumed)) = stream.resumes.iter().find(after) {
            seal.until = seal.until.min(resumed);
        }
    }
    seals.sort_by_key(|seal| seal.from);
    seals
}

fn one_copy(facts: &HistoryFacts<'_>, report: &mut Report<'_, '_>) {
    // Only records with several places are looked at, and those of one era belong together.
    let mut seen: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    for slot in &facts.slots {
        let rec = &facts.recs[slot.rec as usize];
        if rec.slots < 2 || rec.offered == NONE || facts.streams[rec.stream as usize].replayed {
            continue;
        }
        let first = *seen.entry((slot.rec, slot.born)).or_insert(slot.seen);
        if first != slot.seen {
            let about = About { group: None, stream: Some(rec.stream) };
            report.add(Rule::O8, about, &[first, slot.seen], || {
                let partition = facts.parts[slot.part as usize].partition;
                let at = slot.position;
                format!("{} is stored again in partition {partition} at {at}", rec.number)
            });
        }
    }
}
