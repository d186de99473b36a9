//! Commands of the book, run chapter by chapter as a reader would: the `console` blocks are joined into one script,
//! which must succeed. Blocks of other kinds (`sh`, `text`) are not run.
//!
//! The book uses the reader's own ports and container names. Here they are replaced by ones that nobody else uses.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Returns the commands of a chapter: lines of its console blocks that begin with `$ `, with their continuations, which
/// begin with `> `.
fn commands(chapter: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut inside = false;
    for line in chapter.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            commands.push(command.to_owned());
        } else if let Some(more) = line.strip_prefix('>').filter(|_| inside) {
            let last = commands.last_mut().expect("a continuation follows a command");
            last.push('\n');
            last.push_str(more.strip_prefix(' ').unwrap_or(more));
        }
    }
    commands
}

/// Returns the owner in the containers' labels, by which `scripts/test` removes the containers of a failed chapter.
fn owner() -> String {
    std::env::var("EVENTBUS_TEST_OWNER").unwrap_or_default()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Joins the commands into a script, with this run's own port and names.
fn script(commands: &[String], chapter: &str) -> String {
    let port = free_port().to_string();
    let own = format!("-{chapter}-{}", std::process::id());
    let mut script = String::from("set -euo pipefail\n");
    for command in commands {
        let command = command
            .replace("4222:4222", &format!("127.0.0.1:{port}:4222"))
            .replace("localhost:4222", &format!("localhost:{port}"))
            .replace("docker run ", &format!("docker run --label eventbus.owner={} ", owner()))
            .replace("--name eventbus-", &format!("--name eventbus{own}-"))
            .replace("docker rm --force eventbus-", &format!("docker rm --force eventbus{own}-"));
        script.push_str(&command);
        script.push('\n');
    }
    script
}

fn run(chapter: &str) -> Output {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let text = fs::read_to_string(book.join(chapter).with_extension("md")).expect("the chapter");
    let commands = commands(&text);
    assert!(!commands.is_empty(), "{chapter} has no command");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_eventbus"));
    let folder = tempfile::tempdir().expect("a folder");
    let path =
        format!("{}:{}", program.parent().expect("a folder").display(), std::env::var("PATH").unwrap_or_default());
    Command::new("bash")
        .args(["-x", "-c", &script(&commands, chapter)])
        .current_dir(folder.path())
        .env("PATH", path)
        .env_remove("EVENTBUS_URL")
        .output()
        .expect("bash")
}

/// Runs a chapter. If it fails, the test shows what the chapter printed.
fn chapter(name: &str) {
    let output = run(name);
    assert!(
        output.status.success(),
        "{name}: {}\n--- standard output\n{}\n--- standard error\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn commands_are_taken_from_console_blocks_only() {
    let text = "```sh\n$ no\n```\n```console\n$ cat <<'E'\n> a\n> E\nprinted\n$ true\n```\n> quoted\n";
    assert_eq!(commands(text), ["cat <<'E'\na\nE", "true"]);
}

#[test]
fn every_chapter_with_commands_is_run() {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut found: Vec<String> = fs::read_dir(book)
        .expect("the book")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .filter(|path| !commands(&fs::read_to_string(path).expect("a chapter")).is_empty())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, ["failure-policies", "getting-started", "operations", "processes"]);
}

#[test]
fn getting_started() {
    chapter("getting-started");
}

#[test]
fn failure_policies() {
    chapter("failure-policies");
}

#[test]
fn several_processes() {
    chapter("processes");
}

#[test]
fn operations() {
    chapter("operations");
}
