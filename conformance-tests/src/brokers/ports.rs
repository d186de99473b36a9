//! Host ports of brokers: chosen once, held by a lock file as long as the broker is in use.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use super::engine::BrokerError;

/// The range of ports, below those that the host gives to outgoing connections.
const RANGE: std::ops::Range<u16> = 21_000..23_000;

/// A port that no other run takes while this lives.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) number: u16,
    /// The lock ends with the file.
    _lock: File,
}

/// The folder of lock files: one for all runs of the host's user.
pub(super) fn locks() -> Result<PathBuf, BrokerError> {
    let folder = std::env::temp_dir().join(format!("eventbus-test-locks-{}", rustix::process::geteuid().as_raw()));
    fs::create_dir_all(&folder).map_err(BrokerError::Locks)?;
    Ok(folder)
}

/// Opens a lock file by name, not locked yet.
pub(super) fn lock_file(name: &str) -> Result<File, BrokerError> {
    let path = locks()?.join(name);
    File::options().create(true).truncate(false).write(true).open(path).map_err(BrokerError::Locks)
}

impl Port {
    /// Takes a port that is free now: nobody holds its lock, and nothing listens there.
    pub(super) fn take() -> Result<Self, BrokerError> {
        for number in RANGE {
            let lock = lock_file(&format!("port-{number}"))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(BrokerError::NoPort(RANGE.start, RANGE.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_brokers_get_the_same_port() {
        let (one, other) = (Port::take().unwrap(), Port::take().unwrap());
        assert_ne!(one.number, other.number);
    }
}
