//! Resources that a run uses: CPU time, memory, tasks.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::figures::Run;

const EVERY: Duration = Duration::from_millis(5);

/// Watch over the resources of this process, from its start on.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Resident memory when the watch began, with what earlier runs left in the allocator; `None` if the system does
    /// not tell.
    at_start: Option<u64>,
    cpu: Duration,
    peak: Arc<AtomicUsize>,
    sampler: JoinHandle<()>,
}

impl Watch {
    /// Starts the watch. The kernel forgets the peak so far, if it lets the process ask for that.
    pub(crate) fn start() -> Self {
        // If the kernel refuses, the peak is that of the process's whole life.
        let _ = fs::write("/proc/self/clear_refs", "5");
        let peak = Arc::new(AtomicUsize::new(0));
        let sampler = tokio::spawn(sample(peak.clone()));
        Self { at_start: memory("VmRSS:"), cpu: cpu(), peak, sampler }
    }

    pub(crate) fn stop(&self) -> Used {
        Used {
            cpu: cpu().saturating_sub(self.cpu),
            memory_at_start: self.at_start,
            memory_at_peak: memory("VmHWM:"),
            tasks: self.peak.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Used {
    /// CPU time of all threads, with those of the check.
    cpu: Duration,
    /// Resident memory in bytes; `None` if the system does not tell.
    memory_at_start: Option<u64>,
    memory_at_peak: Option<u64>,
    /// The most tasks alive at once on the program's runtime. They are sampled, and include publishers, workers and
    /// this watch.
    tasks: usize,
}

impl Used {
    pub(crate) fn told_by(&self, run: &mut Run) {
        run.cpu_us_per_message = self.cpu.as_secs_f64() * 1e6 / run.messages.max(1) as f64;
        run.start_memory_bytes = self.memory_at_start;
        run.peak_memory_bytes = self.memory_at_peak;
        run.peak_tasks = self.tasks;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.sampler.abort();
    }
}

fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

async fn sample(peak: Arc<AtomicUsize>) {
    let metrics = Handle::current().metrics();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        peak.fetch_max(metrics.num_alive_tasks(), Ordering::Relaxed);
    }
}

fn memory(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}
