//! Tests of the example `file-history` on scratch repositories: with keys, without keys, and repositories that it
//! refuses.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Returns the path of the example. Cargo builds examples with the tests, and puts them beside these.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().and_then(Path::parent).unwrap().join("examples/file-history");
    assert!(example.exists(), "{} is built by: cargo build --example file-history", example.display());
    example
}

fn run(repository: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(example()).arg(repository).args(more).env_remove("EVENTBUS_URL").output().unwrap();
    (output.status.code(), said(&output))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn git(repository: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgSign=false"];
    let output = Command::new("git").arg("-C").arg(repository).args(identity).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
}

fn write(repository: &Path, file: &[u8], text: &str) {
    let path = repository.join(OsStr::from_bytes(file));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn commit(repository: &Path, message: &str) {
    git(repository, &["add", "-A"]);
    git(repository, &["commit", "-q", "-m", message]);
}

fn repository() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    git(directory.path(), &["init", "-q", "-b", "main"]);
    directory
}

/// Makes a repository with files that are added, changed often, removed, added again and merged, some with names that
/// are not text.
fn eventful() -> tempfile::TempDir {
    let directory = repository();
    let root = directory.path();
    for round in 0..12 {
        write(root, b"always", &format!("{round}"));
        write(root, b"with space/and\nline", &format!("{}", round / 2));
        write(root, b"no text \xff\xfe", &format!("{}", round / 3));
        if round % 4 < 2 {
            write(root, b"sometimes", &format!("{round}"));
        } else {
            let _ = std::fs::remove_file(root.join("sometimes"));
        }
        commit(root, &format!("round {round}"));
    }
    git(root, &["checkout", "-q", "-b", "side"]);
    write(root, b"aside", "1");
    commit(root, "aside");
    git(root, &["checkout", "-q", "main"]);
    write(root, b"always", "last");
    commit(root, "meanwhile");
    git(root, &["merge", "-q", "--no-ff", "-m", "merge", "side"]);
    directory
}

#[test]
fn with_keys_the_folded_tree_equals_gits() {
    let (code, said) = run(eventful().path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("4 files: the folded tree equals git's"), "{said}");
}

#[test]
fn without_keys_a_files_chain_breaks() {
    let (code, said) = run(eventful().path(), &["--unordered"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("first at") && said.contains("but there was"), "{said}");
}

#[test]
fn a_shallow_history_is_refused_by_name() {
    let whole = eventful();
    let directory = tempfile::tempdir().unwrap();
    let source = format!("file://{}", whole.path().display());
    git(directory.path(), &["clone", "-q", "--depth", "1", &source, "shallow"]);
    let (code, said) = run(&directory.path().join("shallow"), &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("shallow clone"), "{said}");
}

#[test]
fn a_history_in_which_no_file_changed_twice_is_refused_by_name() {
    let directory = repository();
    for file in [b"one", b"two"] {
        write(directory.path(), file, "1");
        commit(directory.path(), "a file");
    }
    let (code, said) = run(directory.path(), &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("no file changed twice"), "{said}");
}

#[test]
fn no_repository_and_an_empty_one_are_refused_by_name() {
    let (code, said) = run(Path::new("/nowhere"), &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("/nowhere"), "{said}");
    let (code, said) = run(repository().path(), &[]);
    assert_eq!(code, Some(2), "{said}");
}
