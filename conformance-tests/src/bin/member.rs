//! A member of a group in a process of its own: `member SPEC`, where SPEC is a `MemberSpec` as JSON. Tests start it. It
//! tells them on standard output what it does, and at last why it ended.

use std::io::Write;
use std::process::ExitCode;

use conformance_tests::members::run;

fn main() -> ExitCode {
    let told = std::env::args().nth(1).unwrap_or_default();
    let ended = serde_json::from_str(&told).map_err(|error| format!("no member: {error}")).and_then(|spec| run(&spec));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the member ended");
            let _ = writeln!(std::io::stderr(), "{error}");
            let _ = writeln!(std::io::stdout(), "ended: {error}");
            ExitCode::FAILURE
        }
    }
}
