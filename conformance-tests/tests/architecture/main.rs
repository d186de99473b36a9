//! Import rules of the architecture page, checked against the sources of all crates.
//!
//! `cargo test -p conformance-tests --test architecture -- --nocapture` prints the circles of each crate.

mod imports;

use std::path::Path;

use imports::{Crate, Import, folder};

/// The crates of the workspace, by their folders.
const CRATES: [&str; 7] = [
    "eventbus-core",
    "eventbus-memory",
    "eventbus-nats",
    "eventbus-kafka",
    "eventbus",
    "eventbus-cli",
    "conformance-tests",
];

/// The floors of `eventbus-core`, from the ground up: a folder imports from its own floor and those below only.
const FLOORS: [&[&str]; 9] = [
    &["model", "validate", "mutant"],
    &["runtime", "wire"],
    &["backend"],
    &["observe"],
    &["publish"],
    &["subscribe"],
    &["bus"],
    &["bench"],
    &["lib"],
];

/// Circles that are allowed: a crate, and the only files that may be in one.
const CIRCLES: [(&str, &[&str]); 1] = [
    // Decisions about a lane's envelopes and their effects call each other.
    (
        "eventbus-core",
        &[
            "publish/lanes/driver.rs",
            "publish/lanes/effects.rs",
            "publish/lanes/shard.rs",
            "publish/lanes/shared.rs",
            "publish/lanes/topic.rs",
        ],
    ),
];

fn read(name: &str) -> Crate {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join(name).join("src");
    Crate::read(&root)
}

/// Returns the imports of the core that `is_wrong` finds wrong, by the folders of both ends.
fn wrong(is_wrong: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let imports = read("eventbus-core").imports();
    assert!(imports.len() > 300, "only {} imports were found", imports.len());
    imports.iter().filter(|import| is_wrong(folder(&import.from), folder(&import.to))).map(Import::to_string).collect()
}

#[test]
fn nothing_in_the_toolkit_imports_publish_subscribe_or_bus() {
    assert_eq!(wrong(|from, to| from == "toolkit" && ["publish", "subscribe", "bus"].contains(&to)), [""; 0]);
}

#[test]
fn neither_the_engine_nor_the_interface_imports_the_toolkit() {
    assert_eq!(wrong(|from, to| from != "toolkit" && from != "lib" && to == "toolkit"), [""; 0]);
}

#[test]
fn publish_never_imports_subscribe() {
    assert_eq!(wrong(|from, to| from == "publish" && to == "subscribe"), [""; 0]);
}

#[test]
fn a_folder_of_the_core_imports_from_lower_floors_only() {
    let floor = |folder: &str| FLOORS.iter().position(|floor| floor.contains(&folder));
    let upward = wrong(|from, to| match (floor(from), floor(to)) {
        (Some(from_floor), Some(to_floor)) => to_floor > from_floor,
        // The toolkit stands beside the floors: it may import the interface and what is below.
        (None, Some(to_floor)) => to_floor > 2,
        _ => false,
    });
    assert_eq!(upward, [""; 0]);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut found = Vec::new();
    for name in CRATES {
        for circle in read(name).circles() {
            let listed = circle.join(" ");
            println!("{name}: {} files: {listed}", circle.len());
            let is_allowed = |file: &String| CIRCLES.iter().any(|(of, files)| *of == name && files.contains(&&**file));
            if !circle.iter().all(is_allowed) {
                found.push(format!("{name}: {listed}"));
            }
        }
    }
    assert_eq!(found, [""; 0]);
}
