//! The users of a NATS server, in a file of the host that the server reads again when it is told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The name and the password of the user who may do everything.
pub(crate) const OPERATOR: &str = "operator";

/// The file's name.
const FILE: &str = "users.conf";

/// A folder with the configuration, removed when dropped. Who names no user is one whose permissions change.
#[derive(Debug)]
pub(crate) struct Users {
    folder: PathBuf,
}

impl Users {
    /// Makes a folder in which nobody lacks a permission.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn new() -> io::Result<Self> {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("eventbus-users-{}-{number}", std::process::id());
        let users = Self { folder: std::env::temp_dir().join(name) };
        std::fs::create_dir_all(&users.folder)?;
        users.deny(&[])?;
        Ok(users)
    }

    /// The folder on the host.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file as the server finds it, with the folder mounted here.
    pub(super) fn file(mounted: &str) -> String {
        format!("{mounted}/{FILE}")
    }

    /// Writes who may not publish where. It holds when the server has read it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn deny(&self, subjects: &[String]) -> io::Result<()> {
        let denied: Vec<String> = subjects.iter().map(|subject| format!("{subject:?}")).collect();
        let denied = denied.join(", ");
        let text = format!(
            r#"jetstream {{ store_dir: "/data" }}
authorization {{ users = [
    {{ user: {OPERATOR}, password: {OPERATOR} }}
    {{ user: bus, password: bus, permissions: {{ publish: {{ allow: [">"], deny: [{denied}] }} }} }}
] }}
no_auth_user: bus
"#
        );
        std::fs::write(self.folder.join(FILE), text)
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
