//! Real keyed events with a right answer: a repository's history, one key per file.
//!
//! Each event names a file's content before and after it. Folded in order, a file's events give exactly the file that
//! git has; out of order they contradict each other, and [`Tree`] says where first.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A change of a file: the payload of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::exhaustive_structs)] // the data's form
pub struct Change {
    /// The commit.
    pub commit: String,
    /// Its time in seconds since the Unix epoch.
    pub time: i64,
    /// The object before the change; `None` if the file is added.
    pub before: Option<String>,
    /// The object after the change; `None` if the file is deleted.
    pub after: Option<String>,
}

impl Change {
    /// The event's type.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "FileAdded",
            (Some(_), Some(_)) => "FileModified",
            (Some(_), None) => "FileDeleted",
        }
    }
}

/// An event that does not follow from what was folded before it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broken {
    /// The file.
    pub path: Vec<u8>,
    /// The event's number within the file's.
    pub sequence: u64,
    /// The object before it, as the event says.
    pub expected: Option<String>,
    /// The object that was there.
    pub found: Option<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object =
            |object: &Option<String>| object.as_deref().map_or("nothing", |id| id.get(..12).unwrap_or(id)).to_owned();
        let (expected, found) = (object(&self.expected), object(&self.found));
        let path = String::from_utf8_lossy(&self.path);
        write!(f, "{path}: its event {} follows on {expected}, but there was {found}", self.sequence)
    }
}

/// A tree that is folded out of changes.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    files: BTreeMap<Vec<u8>, String>,
    /// The last number seen of each file, and the last one folded; `None` where nothing may come again.
    repeats: Option<BTreeMap<Vec<u8>, (u64, u64)>>,
    broken: Vec<Broken>,
}

impl Tree {
    /// An empty tree, for events that come exactly once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty tree, for events that may come again, as after a crash: a file may go back, if its events then repeat
    /// without a hole. Those that were folded are not folded again.
    #[must_use]
    pub fn at_least_once() -> Self {
        Self { repeats: Some(BTreeMap::new()), ..Self::default() }
    }

    /// Folds one event. `true` if it followed on what was there.
    pub fn fold(&mut self, path: &[u8], sequence: u64, change: &Change) -> bool {
        let mut hole = false;
        if let Some(repeats) = &mut self.repeats {
            let (last, folded) = repeats.entry(path.to_vec()).or_default();
            hole = sequence > *last + 1;
            *last = sequence;
            if sequence <= *folded {
                return true;
            }
            *folded = sequence;
        }
        let found = match &change.after {
            Some(after) => self.files.insert(path.to_vec(), after.clone()),
            None => self.files.remove(path),
        };
        let follows = found == change.before && !hole;
        if !follows {
            self.broken.push(Broken { path: path.to_vec(), sequence, expected: change.before.clone(), found });
        }
        follows
    }

    /// The files with their objects.
    #[must_use]
    pub const fn files(&self) -> &BTreeMap<Vec<u8>, String> {
        &self.files
    }

    /// Events that did not follow, in the order in which they came.
    #[must_use]
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// The SHA-256, in hexadecimal, of all lines `path object`, sorted by their bytes.
    #[must_use]
    pub fn sha256(&self) -> String {
        let line = |(path, object): (&Vec<u8>, &String)| [path, b" ".as_slice(), object.as_bytes(), b"\n"].concat();
        let mut lines: Vec<Vec<u8>> = self.files.iter().map(line).collect();
        lines.sort();
        let digest = lines.iter().fold(Sha256::new(), |digest, line| digest.chain_update(line)).finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(before: Option<&str>, after: Option<&str>) -> Change {
        Change { commit: "c".into(), time: 0, before: before.map(Into::into), after: after.map(Into::into) }
    }

    #[test]
    fn a_swap_is_found() {
        let mut tree = Tree::new();
        assert!(tree.fold(b"f", 1, &change(None, Some("a"))));
        assert!(!tree.fold(b"f", 3, &change(Some("b"), None)));
        assert!(!tree.fold(b"f", 2, &change(Some("a"), Some("b"))));
        assert_eq!(tree.broken().len(), 2);
        assert!(tree.broken()[0].to_string().contains("f: its event 3 follows on b, but there was a"));
    }

    #[test]
    fn repeats_are_allowed_and_holes_are_not() {
        let mut tree = Tree::at_least_once();
        let (one, two) = (change(None, Some("a")), change(Some("a"), Some("b")));
        let three = change(Some("b"), Some("c"));
        for (sequence, change) in [(1, &one), (2, &two), (1, &one), (2, &two), (3, &three)] {
            assert!(tree.fold(b"f", sequence, change));
        }
        assert!(!tree.fold(b"f", 5, &three));
        let mut strict = Tree::new();
        strict.fold(b"f", 1, &one);
        assert!(!strict.fold(b"f", 1, &one));
    }
}
