//! Hooks that note what a schedule meets while it runs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use eventbus_core::{BusEvent, Error, ErrorKind, FailurePolicy, OwnershipChange};
use eventbus_memory::{FaultEvent, FaultKind, MemoryWorld};

use crate::harness::lock;
use crate::history::{Kind, MemoryRecorder, Recorder};

/// The names of all that was met.
#[derive(Debug, Clone, Default)]
pub(super) struct Met(Arc<Mutex<BTreeSet<String>>>);

impl Met {
    pub(super) fn see(&self, name: &str) {
        let mut met = lock(&self.0);
        if !met.contains(name) {
            met.insert(name.to_owned());
        }
    }

    /// Takes all names, at the end.
    pub(super) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *lock(&self.0))
    }
}

/// Makes the hook that notes what a bus meets, and a subscription's end.
pub(super) fn watch_bus(
    met: Met,
    ended: Arc<AtomicBool>,
    unexpected: Arc<Mutex<Vec<String>>>,
    policy: FailurePolicy,
) -> impl Fn(&BusEvent<'_>) + Send + Sync + 'static {
    move |event| match event {
        BusEvent::Sealed { .. } => met.see("key sealed"),
        BusEvent::CopyDropped { .. } => met.see("copy dropped"),
        BusEvent::DeadLettered { .. } => met.see("dead letter"),
        BusEvent::Skipped { .. } => met.see("skipped by policy"),
        BusEvent::Stalled { .. } => met.see("stalled"),
        BusEvent::LogReset { .. } => met.see("log reset"),
        BusEvent::DataLost { .. } => met.see("data lost"),
        BusEvent::Ownership { change: OwnershipChange::Lost, .. } => met.see("lease lost"),
        BusEvent::Published { result: Err(error), .. } => match error.kind() {
            ErrorKind::Cascaded => met.see("cascaded"),
            ErrorKind::KeySealed => met.see("refused by a seal"),
            ErrorKind::Overloaded => met.see("overloaded"),
            ErrorKind::TooLarge => met.see("too large"),
            _ => {}
        },
        BusEvent::SubscriptionEnded { error, .. } => {
            ended.store(true, Ordering::Release);
            if error.kind() == ErrorKind::HandlerFailed {
                met.see("stopped by policy");
            }
            if !expected_end(error, policy) {
                lock(&unexpected).push(format!("a subscription ended: {error}"));
            }
        }
        _ => {}
    }
}

/// Whether a subscription may end with this error: by its policy, or because its process was killed.
pub(super) fn expected_end(error: &Error, policy: FailurePolicy) -> bool {
    match error.kind() {
        ErrorKind::HandlerFailed => policy == FailurePolicy::Stop,
        ErrorKind::Closed | ErrorKind::DeadlineExceeded => true,
        _ => false,
    }
}

/// Records faults in the history, and counts them, in the moment in which they take effect.
pub(super) fn watch_faults(world: &MemoryWorld, recorder: &Arc<MemoryRecorder>, met: &Met) {
    let (recorder, met) = (recorder.clone(), met.clone());
    world.faults().on_fault(move |fault| {
        met.see(&format!("fault: {}", fault.kind));
        recorder.record(0, kind_of(fault));
        if let (FaultKind::Recreated, Some(topic)) = (fault.kind, &fault.place.topic) {
            recorder.record(0, Kind::TopicRecreated { topic: topic.as_str().into() });
        }
    });
}

/// Turns a fault into an event of the history; a lasting one is named for the thing that it lasts on.
fn kind_of(fault: &FaultEvent) -> Kind {
    let place = &fault.place;
    let of_connection = |what: &str| format!("{what} connection {}", place.connection.unwrap_or_default()).into();
    let of_member = |what: &str| format!("{what} {}", place.member.as_deref().unwrap_or_default()).into();
    match fault.kind {
        FaultKind::Cut => Kind::Fault { name: of_connection("cut"), lasting: true },
        FaultKind::Healed => Kind::Healed { name: of_connection("cut") },
        FaultKind::Frozen => Kind::Fault { name: of_connection("frozen"), lasting: true },
        FaultKind::Thawed => Kind::Healed { name: of_connection("frozen") },
        FaultKind::HeartbeatsStopped => Kind::Fault { name: of_member("silent"), lasting: true },
        FaultKind::HeartbeatsResumed => Kind::Healed { name: of_member("silent") },
        FaultKind::BrokerDown => Kind::Fault { name: "broker down".into(), lasting: true },
        FaultKind::BrokerUp => Kind::Healed { name: "broker down".into() },
        kind => Kind::Fault { name: kind.as_str().into(), lasting: false },
    }
}
