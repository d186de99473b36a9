//! The names on the broker, built anew as the library's documentation describes them.

/// The names of a world.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// A topic's name on the broker.
    pub(super) fn topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// A group's name on the broker.
    pub(super) fn group(&self, group: &str) -> String {
        format!("{}{group}", self.prefix)
    }
}
