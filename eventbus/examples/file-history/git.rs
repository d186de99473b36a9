//! History of a repository as events, as git tells it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use conformance_tests::file_history::Change;

/// Event of a file. The file's path is the key; paths are bytes, which need not be text.
#[derive(Debug, Clone)]
pub(crate) struct FileEvent {
    pub(crate) path: Vec<u8>,
    /// The event's number within its file: 1, 2, 3 …
    pub(crate) sequence: u64,
    pub(crate) change: Change,
}

/// History of a repository along first parents.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) head: String,
    pub(crate) events: Vec<FileEvent>,
    /// Tree that git has at the head: path and object.
    pub(crate) tree: BTreeMap<Vec<u8>, String>,
}

/// Reads a repository.
///
/// # Errors
/// A sentence that names what is wrong with the repository.
pub(crate) fn read(repository: &Path) -> Result<History, String> {
    let git = |arguments: &[&str]| git(repository, arguments);
    if git(&["rev-parse", "--is-shallow-repository"])?.trim_ascii() == b"true" {
        let fix = "fetch the rest with: git fetch --unshallow";
        return Err(format!("{}: a shallow clone, its history has no beginning; {fix}", repository.display()));
    }
    let head = git(&["rev-parse", "--verify", "--end-of-options", "HEAD^{commit}"])?;
    let head = text(head.trim_ascii())?;
    let log = git(&[
        "log",
        "--reverse",
        "--first-parent",
        "-m",
        "--raw",
        "--no-abbrev",
        "--no-renames",
        "--ignore-submodules=none",
        "-z",
        "--format=%x01%H %ct",
        &head,
    ])?;
    let events = events(&log)?;
    if !events.iter().any(|event| event.sequence > 1) {
        return Err(format!("{}: no file changed twice, so there is no order to keep", repository.display()));
    }
    let tree = tree(&git(&["ls-tree", "-r", "-z", "--full-tree", &head])?)?;
    Ok(History { head, events, tree })
}

fn git(repository: &Path, arguments: &[&str]) -> Result<Vec<u8>, String> {
    // The user's configuration of git must not change what is printed.
    let fixed = ["-c", "log.showRoot=true", "-c", "log.showSignature=false", "-c", "core.quotePath=false"];
    let output =
        Command::new("git").arg("-C").arg(repository).args(fixed).args(arguments.iter().map(OsStr::new)).output();
    let output = output.map_err(|error| format!("git cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: git {}: {}", repository.display(), arguments[0], said.trim()))
}

/// Reads the output of `log --raw -z`: a header for each commit, then for each file the raw line and the path, each
/// ended by NUL.
fn events(log: &[u8]) -> Result<Vec<FileEvent>, String> {
    let mut sequences: HashMap<Vec<u8>, u64> = HashMap::new();
    let (mut events, mut commit) = (Vec::new(), (String::new(), 0));
    let mut fields = log.split(|byte| *byte == 0);
    while let Some(field) = fields.next() {
        let field = field.trim_ascii_start();
        if let Some(header) = field.strip_prefix(b"\x01") {
            let header = text(header)?;
            let (id, time) = header.trim().split_once(' ').ok_or("git log: a header without a time")?;
            commit = (id.to_owned(), time.parse().map_err(|_| "git log: a time that is no number")?);
        } else if field.starts_with(b":") {
            let line = text(field)?;
            let mut parts = line.split(' ').skip(2).map(object);
            let (Some(before), Some(after)) = (parts.next(), parts.next()) else {
                return Err(format!("git log: {line:?} is no change of a file"));
            };
            let path = fields.next().ok_or("git log: a change without its file")?.to_vec();
            let sequence = sequences.entry(path.clone()).or_default();
            *sequence += 1;
            let change = Change { commit: commit.0.clone(), time: commit.1, before, after };
            events.push(FileEvent { path, sequence: *sequence, change });
        }
    }
    Ok(events)
}

/// Returns the object's id; `None` for zeros, which mean "no such file".
fn object(id: &str) -> Option<String> {
    id.bytes().any(|byte| byte != b'0').then(|| id.to_owned())
}

fn tree(listing: &[u8]) -> Result<BTreeMap<Vec<u8>, String>, String> {
    let entries = listing.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let entry = |entry: &[u8]| {
        let tab = entry.iter().position(|byte| *byte == b'\t').ok_or("git ls-tree: an entry without a path")?;
        let meta = text(&entry[..tab])?;
        let id = meta.split(' ').nth(2).ok_or("git ls-tree: an entry without an object")?;
        Ok((entry[tab + 1..].to_vec(), id.to_owned()))
    };
    entries.map(entry).collect()
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "git printed what is no text where text was expected".to_owned())
}
