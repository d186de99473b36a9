//! The member's program.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::{BusConfig, Error};

use super::spec::MemberSpec;
use crate::harness::{Node, Numbers};
use crate::history::{FileRecorder, monotonic_clock};
use crate::suite::backend_at;

/// Runs a member: joins, says its name on standard output, and stays until standard input ends or says `leave`.
///
/// # Errors
/// The error of its history's file, its bus or its subscription, in words.
pub fn run(spec: &MemberSpec) -> Result<(), String> {
    let recorder = FileRecorder::append(&spec.history, monotonic_clock()).map_err(|error| error.to_string())?;
    let recorder = Arc::new(recorder);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let served = runtime.block_on(serve(spec, recorder.clone()));
    // The thread that waits for standard input waits on, and nobody waits for it.
    runtime.shutdown_background();
    served?;
    recorder.check().map_err(|error| error.to_string())
}

async fn serve(spec: &MemberSpec, recorder: Arc<FileRecorder>) -> Result<(), String> {
    let said = |error: Error| error.to_string();
    let backend = backend_at(&spec.server, &spec.prefix).map_err(said)?;
    let config = BusConfig::new();
    let node = Node::connect(recorder, spec.process, backend, Arc::new(Numbers::default()), config).await;
    let node = node.map_err(said)?;
    let subscription = node.subscribe(spec.subscribe(), spec.work.clone()).await.map_err(said)?;
    let mut out = std::io::stdout();
    writeln!(out, "joined {}", subscription.member()).and_then(|()| out.flush()).map_err(|error| error.to_string())?;
    let told = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().next().and_then(Result::ok));
    tokio::select! {
        line = told => match line.ok().flatten().as_deref() {
            Some("leave") => {
                subscription.drain(Duration::from_secs(10)).await.map_err(said)?;
                node.bus().close(Duration::from_secs(5)).await.map_err(said)?;
                writeln!(out, "left").map_err(|error| error.to_string())
            }
            // The test is gone.
            _ => Ok(()),
        },
        ended = subscription.closed() => ended.map_err(said),
    }
}
