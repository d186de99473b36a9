//! Metadata of a commit, for a broker that keeps a line of text beside a committed offset and no more (S4, S5).
//!
//! One line: version, epoch, the log's incarnation, the fingerprint of a finished record, the owner, the core's note,
//! and the number of partitions that the topic had when the group began; earlier versions did not write the last.
//! Offsets without it, or with another program's text, are progress under epoch 0.
//!
//! The *fingerprint* tells logs apart where clients are not told a topic's id: place, time and digest of a late record
//! below the watermark. A log with another record in that place is another log, and gets another incarnation (S3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bytes::Bytes;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use crate::backend::{Committed, GroupDescription, GroupPartition, LogState};
use crate::model::{Position, murmur2};

/// The most bytes of an owner's name that are kept.
const OWNER_BYTES: usize = 64;

/// The most bytes of a payload that go into a fingerprint.
const DIGESTED: usize = 256;

const VERSION: &str = "eb1";

/// Fingerprint of a record, which tells it from one that another log has in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // as it is stored
pub struct Fingerprint {
    /// The record's offset.
    pub offset: i64,
    /// The time at which it was stored, as the broker says.
    pub time: i64,
    /// The digest of its key and the beginning of its payload.
    pub digest: u64,
}

impl Fingerprint {
    /// Computes the fingerprint of a record.
    #[must_use]
    pub fn of(offset: i64, time: i64, key: &[u8], payload: &[u8]) -> Self {
        let begin = payload.get(..DIGESTED).unwrap_or(payload);
        let digest = u64::from(murmur2(key)) << 32 | u64::from(murmur2(begin));
        Self { offset, time, digest: digest ^ payload.len() as u64 }
    }

    pub(crate) fn at(&self) -> Position {
        Position::new(u64::try_from(self.offset).unwrap_or_default())
    }

    /// Returns whether a log can still have the record, by its ends alone; `None` if the record must be read. A record
    /// gone by retention tells nothing: such a log counts as the same.
    #[must_use]
    pub fn is_of(&self, log: &LogState) -> Option<bool> {
        if self.at() >= log.end {
            return Some(false);
        }
        (self.at() < log.first).then_some(true)
    }

    /// Returns whether the record found at this place, or after it, is of the same log. One gone by compaction tells
    /// nothing.
    #[must_use]
    pub fn agrees_with(&self, found: Option<&Self>) -> bool {
        found.is_none_or(|found| found.offset != self.offset || found == self)
    }
}

/// Line of text beside an offset.
///
/// ```
/// use eventbus_core::toolkit::coordinated::CommitMetadata;
///
/// let stored = CommitMetadata { epoch: 3, owner: "me".into(), note: b"note".as_slice().into(), ..CommitMetadata::default() };
/// assert_eq!(CommitMetadata::decode(&stored.encode()), Some(stored));
/// assert_eq!(CommitMetadata::decode("what somebody else wrote"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs)] // as it is stored
pub struct CommitMetadata {
    /// The epoch of the ownership that wrote the line.
    pub epoch: u64,
    /// The log's incarnation, as its reader named it.
    pub incarnation: String,
    /// The fingerprint of a record below the offset.
    pub fingerprint: Option<Fingerprint>,
    /// The member that wrote the line; 64 bytes of its name are kept.
    pub owner: String,
    /// The core's note.
    pub note: Bytes,
    /// The number of partitions that the topic had when the group first committed anything. A partition above is
    /// younger than the group.
    pub partitions: Option<u32>,
}

/// Committed progress of a group in a partition: the offset, and the metadata beside it; `None` without progress.
pub type CommittedOffset = Option<(Position, CommitMetadata)>;

impl CommitMetadata {
    /// The largest note in bytes that fits into a line of 4 096.
    pub const NOTE_BYTES: usize = 2_800;

    /// Writes the line.
    #[must_use]
    pub fn encode(&self) -> String {
        let print = self.fingerprint.map(|print| format!("{}:{}:{:x}", print.offset, print.time, print.digest));
        let partitions = self.partitions.map(|partitions| format!(";{partitions}"));
        format!(
            "{VERSION};{};{};{};{};{}{}",
            self.epoch,
            self.incarnation,
            print.unwrap_or_default(),
            BASE64.encode(self.kept_owner()),
            BASE64.encode(&self.note),
            partitions.unwrap_or_default(),
        )
    }

    /// Returns the beginning of the owner's name that a line keeps: no half of a character, or it would be no beginning.
    fn kept_owner(&self) -> &str {
        let cut = (0..=OWNER_BYTES).rev().find_map(|end| self.owner.get(..end));
        if self.owner.len() <= OWNER_BYTES { &self.owner } else { cut.unwrap_or_default() }
    }

    /// Reads a line; `None` where another program wrote it.
    #[must_use]
    pub fn decode(line: &str) -> Option<Self> {
        let mut parts = line.split(';');
        if parts.next() != Some(VERSION) {
            return None;
        }
        let epoch = parts.next()?.parse().ok()?;
        let incarnation = parts.next()?.to_owned();
        let print = parts.next().filter(|print| !print.is_empty()).map(print_of);
        let owner = BASE64.decode(parts.next()?).ok()?;
        let note = BASE64.decode(parts.next()?).ok()?.into();
        let owner = String::from_utf8_lossy(&owner).into_owned();
        let partitions = parts.next().and_then(|partitions| partitions.parse().ok());
        Some(Self { epoch, incarnation, fingerprint: print.unwrap_or_default(), owner, note, partitions })
    }

    /// Converts to the core's form.
    #[must_use]
    pub fn committed(&self, next: Position) -> Committed {
        Committed { next, epoch: self.epoch, note: self.note.clone() }
    }

    /// Returns the line as written by nobody, for an offset that was set by hand: the epoch is kept, the note cleared.
    #[must_use]
    pub fn by_nobody(&self, next: Position) -> Self {
        let print = self.fingerprint.filter(|print| print.at() < next);
        Self { fingerprint: print, owner: String::new(), note: Bytes::new(), ..self.clone() }
    }

    /// Returns the lines to store where a group is reset to these positions, from those stored `before` in each
    /// partition: rewritten [by nobody](Self::by_nobody), and an empty one for a partition without progress.
    pub fn reset(before: &[(u32, CommittedOffset)], to: &[(u32, Position)]) -> Vec<(u32, Position, Self)> {
        let of = |partition| before.iter().find(|(known, _)| *known == partition)?.1.as_ref();
        let set = to.iter().map(|(partition, next)| {
            let stored = of(*partition).map_or_else(Self::default, |(_, stored)| stored.by_nobody(*next));
            (*partition, *next, stored)
        });
        set.collect()
    }
}

fn print_of(text: &str) -> Option<Fingerprint> {
    let mut parts = text.split(':');
    // A negative number would be one of the client's words for a place.
    let offset = parts.next()?.parse().ok().filter(|offset| *offset >= 0)?;
    let time = parts.next()?.parse().ok()?;
    Some(Fingerprint { offset, time, digest: u64::from_str_radix(parts.next()?, 16).ok()? })
}

/// Records of a partition that a group has not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs)] // what a lag says
pub struct Backlog {
    /// Their number: positions that hold no record, such as a transaction's marker, do not count.
    pub records: u64,
    /// The time at which the first of them was stored, in milliseconds since the Unix epoch, where it is known.
    pub oldest: Option<u64>,
}

/// Describes a group of a broker that keeps a [`CommitMetadata`] beside an offset. Takes each partition's log, and the
/// committed offset with its metadata. `members` are those that the broker names; if it names none to the caller
/// (`None`), the writers of the offsets count as members. `backlogs` looks at the records of partitions in these ranges
/// of positions; where it has no answer, each position counts as a record.
#[must_use]
pub fn describe_group(
    members: Option<Vec<String>>,
    partitions: Vec<(u32, LogState, CommittedOffset)>,
    backlogs: impl FnOnce(&[(u32, Range<Position>)]) -> HashMap<u32, Backlog>,
) -> GroupDescription {
    let owners = || partitions.iter().filter_map(|(_, _, committed)| Some(&committed.as_ref()?.1.owner));
    let members = members.unwrap_or_else(|| {
        let owners: BTreeSet<&String> = owners().filter(|owner| !owner.is_empty()).collect();
        owners.into_iter().cloned().collect()
    });
    // The stored owner may be only the beginning of a long name.
    let known = |owner: &String| !owner.is_empty() && members.iter().any(|member| member.starts_with(owner));
    let described = partitions.into_iter().map(|(partition, log, committed)| {
        let owner = committed.as_ref().map(|(_, stored)| stored.owner.clone()).filter(known);
        let committed = committed.map(|(next, stored)| stored.committed(next));
        GroupPartition { owner, ..GroupPartition::counted(partition, log, committed) }
    });
    let mut described: Vec<GroupPartition> = described.collect();
    let behind = described.iter().filter(|one| one.lag > 0).map(|one| (one.partition, one.waits_from()..one.log.end));
    let behind: Vec<_> = behind.collect();
    let found = if behind.is_empty() { HashMap::new() } else { backlogs(&behind) };
    for one in &mut described {
        if let Some(backlog) = found.get(&one.partition) {
            (one.lag, one.oldest) = (backlog.records, backlog.oldest);
        }
    }
    GroupDescription::new(members, described)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(note: usize) -> CommitMetadata {
        CommitMetadata {
            epoch: u64::MAX,
            incarnation: "0123456789abcdef".into(),
            fingerprint: Some(Fingerprint { offset: i64::MAX, time: i64::MAX, digest: u64::MAX }),
            owner: "m;".repeat(OWNER_BYTES / 2),
            note: vec![7; note].into(),
            partitions: Some(u32::MAX),
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_fits() {
        for note in [0, 1, CommitMetadata::NOTE_BYTES] {
            let stored = stored(note);
            let text = stored.encode();
            assert!(text.len() <= 4_096, "{}", text.len());
            assert_eq!(CommitMetadata::decode(&text), Some(stored));
        }
        let nothing = CommitMetadata::default();
        assert_eq!(CommitMetadata::decode(&nothing.encode()), Some(nothing));
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_a_place_that_no_record_has_is_no_fingerprint() {
        let owner = format!("{}ü", "x".repeat(OWNER_BYTES - 1));
        let read = CommitMetadata::decode(&CommitMetadata { owner: owner.clone(), ..stored(0) }.encode()).unwrap();
        assert_eq!(read.owner, "x".repeat(OWNER_BYTES - 1));
        assert!(owner.starts_with(&read.owner));
        let read = CommitMetadata::decode("eb1;1;i;-2:1:2;;").unwrap();
        assert_eq!((read.epoch, read.fingerprint), (1, None));
    }

    /// A line stored by an earlier version is read by a later one.
    #[test]
    fn vectors_never_change() {
        let print = Some(Fingerprint::of(41, 1_700_000_000_000, b"key", b"payload"));
        let (owner, note) = ("me".to_owned(), b"note".as_slice().into());
        let stored =
            CommitMetadata { epoch: 7, incarnation: "0f".into(), fingerprint: print, owner, note, partitions: None };
        assert_eq!(stored.encode(), "eb1;7;0f;41:1700000000000:bfa176a9330a1db6;bWU;bm90ZQ");
        let later = CommitMetadata { partitions: Some(12), ..stored };
        assert_eq!(later.encode(), "eb1;7;0f;41:1700000000000:bfa176a9330a1db6;bWU;bm90ZQ;12");
        assert_eq!(CommitMetadata::default().encode(), "eb1;0;;;;");
    }

    #[test]
    fn what_others_wrote_is_no_note() {
        for text in ["", "x", "eb1", "eb1;x;;;;", "eb2;1;;;;", "eb1;1;;;%;", "eb1;1;i;"] {
            assert_eq!(CommitMetadata::decode(text), None, "{text}");
        }
    }

    #[test]
    fn another_record_in_the_place_is_another_log_and_a_missing_one_tells_nothing() {
        let log = |first, end| LogState { first: Position::new(first), end: Position::new(end), ..LogState::default() };
        let print = Fingerprint::of(5, 1, b"k", b"p");
        assert_eq!(print.is_of(&log(0, 5)), Some(false), "the log is shorter");
        assert_eq!(print.is_of(&log(6, 9)), Some(true), "retention took it");
        assert_eq!(print.is_of(&log(0, 6)), None);
        assert!(print.agrees_with(Some(&print)) && print.agrees_with(None));
        assert!(print.agrees_with(Some(&Fingerprint::of(6, 1, b"k", b"q"))), "compaction took it");
        for other in
            [Fingerprint::of(5, 2, b"k", b"p"), Fingerprint::of(5, 1, b"l", b"p"), Fingerprint::of(5, 1, b"k", b"q")]
        {
            assert!(!print.agrees_with(Some(&other)), "{other:?}");
        }
    }

    #[test]
    fn what_was_set_by_hand_keeps_the_epoch_and_no_note() {
        let set = CommitMetadata { fingerprint: Some(Fingerprint { offset: 5, time: 1, digest: 2 }), ..stored(3) }
            .by_nobody(Position::new(6));
        assert_eq!((set.epoch, set.owner.as_str(), set.note.len()), (u64::MAX, "", 0));
        assert!(
            set.fingerprint.is_some() && set.by_nobody(Position::new(5)).fingerprint.is_none(),
            "a print is of what is below"
        );
        let before = [(0, None), (1, Some((Position::new(3), stored(3))))];
        let to = [(1, Position::new(6)), (0, Position::new(2)), (7, Position::ZERO)];
        let [one, none, unknown] = CommitMetadata::reset(&before, &to).try_into().unwrap();
        assert_eq!(
            one,
            (
                1,
                Position::new(6),
                CommitMetadata { fingerprint: None, owner: String::new(), note: Bytes::new(), ..stored(3) }
            )
        );
        assert_eq!(none, (0, Position::new(2), CommitMetadata::default()));
        assert_eq!(unknown, (7, Position::ZERO, CommitMetadata::default()));
    }

    #[test]
    fn who_wrote_an_offset_owns_it_as_long_as_it_is_a_member() {
        let log = || LogState { end: Position::new(5), ..LogState::default() };
        let by = |owner: &str, next| {
            Some((Position::new(next), CommitMetadata { epoch: 2, owner: owner.into(), ..CommitMetadata::default() }))
        };
        let described = |members: Option<&[&str]>| {
            let members = members.map(|members| members.iter().map(|name| (*name).to_owned()).collect());
            let partitions =
                vec![(0, log(), by("mem", 5)), (1, log(), by("gone", 3)), (2, log(), by("", 1)), (3, log(), None)];
            describe_group(members, partitions, |behind| {
                let oldest = |partition: u32, from: Position| Some(u64::from(partition) * 10 + from.get());
                let of = |(partition, range): &(u32, Range<Position>)| {
                    let records = range.end.get() - range.start.get();
                    (*partition, Backlog { records, oldest: oldest(*partition, range.start) })
                };
                behind.iter().map(of).collect()
            })
        };
        let of = |described: &GroupDescription| -> Vec<_> {
            described.partitions.iter().map(|p| (p.owner.clone().unwrap_or_default(), p.lag, p.oldest)).collect()
        };
        let named = described(Some(&["member-1"]));
        assert_eq!(named.members, ["member-1"]);
        let (first, second) = (("mem".to_owned(), 0, None), (String::new(), 2, Some(13)));
        let rest = [(String::new(), 4, Some(21)), (String::new(), 5, Some(30))];
        assert_eq!(of(&named), [first.clone(), second].into_iter().chain(rest.clone()).collect::<Vec<_>>());
        let unnamed = described(None);
        assert_eq!(unnamed.members, ["gone", "mem"]);
        assert_eq!(of(&unnamed), [first, ("gone".to_owned(), 2, Some(13))].into_iter().chain(rest).collect::<Vec<_>>());
        let partitions = vec![(0, log(), by("", 4)), (1, log(), by("", 3))];
        let marked = describe_group(None, partitions, |_| HashMap::from([(0, Backlog::default())]));
        assert_eq!(of(&marked), [(String::new(), 0, None), (String::new(), 2, None)], "a marker is no record");
        assert_eq!(named.partitions[1].committed.as_ref().map(|committed| committed.epoch), Some(2));
    }
}
