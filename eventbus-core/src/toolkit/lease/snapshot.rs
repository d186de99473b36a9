//! Snapshot of the store, decoded.
//!
//! Invariant: an unreadable entry is left out, so that one foreign entry does not stop a group; a write over it
//! conflicts, and is not made.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::record::{Heartbeat, LeaseRecord};
use super::{StoredEntry, StoredKey};

/// A decoded entry with its revision.
#[derive(Debug, Clone)]
pub(super) struct Revisioned<T> {
    pub(super) revision: u64,
    /// The time of the write, in milliseconds of the store's clock.
    written: u64,
    pub(super) value: T,
}

impl<T: DeserializeOwned> Revisioned<T> {
    fn of(revision: u64, written: u64, value: &Bytes) -> Option<Self> {
        Some(Self { revision, written, value: serde_json::from_slice(value).ok()? })
    }
}

impl Revisioned<LeaseRecord> {
    /// Returns whether the partition has an owner that is believed alive, by the store's clock.
    pub(super) fn is_owned(&self, now: u64) -> bool {
        !self.value.owner.is_empty() && alive(self.written, self.value.lease_ms, now)
    }
}

impl Revisioned<Heartbeat> {
    /// Returns the time since the heartbeat, by the store's clock.
    pub(super) fn age(&self, now: u64) -> Duration {
        Duration::from_millis(now.saturating_sub(self.written))
    }

    /// Returns whether the member is believed alive, by the store's clock.
    pub(super) fn is_alive(&self, now: u64) -> bool {
        alive(self.written, self.value.lease_ms, now)
    }
}

/// Returns whether an entry written at `written` is still believed at `now`.
fn alive(written: u64, lease_ms: u64, now: u64) -> bool {
    now.saturating_sub(written) < lease_ms
}

/// The records and members of a group, or of all groups.
#[derive(Debug, Default)]
pub(super) struct StoreSnapshot {
    pub(super) records: Vec<(u32, Revisioned<LeaseRecord>)>,
    pub(super) members: Vec<Revisioned<Heartbeat>>,
}

impl StoreSnapshot {
    pub(super) fn of(entries: Vec<StoredEntry>) -> Self {
        let mut view = Self::default();
        for StoredEntry { key, revision, written, value } in entries {
            match key {
                StoredKey::Partition(partition) => {
                    view.records.extend(Revisioned::of(revision, written, &value).map(|record| (partition, record)));
                }
                StoredKey::Member => view.members.extend(Revisioned::of(revision, written, &value)),
            }
        }
        view
    }

    /// Returns whether the group has a live member or owner.
    pub(super) fn is_active(&self, now: u64) -> bool {
        self.members.iter().any(|member| member.is_alive(now)) || self.records.iter().any(|(_, r)| r.is_owned(now))
    }

    /// Returns whether the entry of this member is there.
    pub(super) fn knows(&self, member: &str) -> bool {
        self.members.iter().any(|found| found.value.name == member)
    }

    pub(super) fn has_progress(&self) -> bool {
        self.records.iter().any(|(_, record)| record.value.next.is_some())
    }
}
