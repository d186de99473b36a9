//! Targets of a comparison: buses by URL, or by name on brokers that are started for it and removed after it.

use eventbus::EventBusConfig;

use crate::exit::Failure;
use crate::voice::say;

/// Target: a bus that is compared.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Name in tables.
    pub(crate) name: String,
    pub(crate) config: EventBusConfig,
    /// Image of the broker's container, if the comparison started one.
    pub(crate) image: Option<String>,
}

impl Target {
    pub(crate) fn is_memory(&self) -> bool {
        self.config.backend.scheme() == "memory"
    }
}

/// Target as the user gave it.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Url(String),
    /// A broker of this kind, to be started.
    Started(String),
}

/// Returns the targets in their order: those of `--backends`, each by its URLs if it has some, then the other URLs.
fn asked(backends: &[String], urls: &[String]) -> Result<Vec<Asked>, Failure> {
    let mut left: Vec<&String> = urls.iter().collect();
    let mut asked = Vec::new();
    for backend in backends {
        let prefix = format!("{backend}://");
        let (own, others): (Vec<&String>, _) = left.into_iter().partition(|url| url.starts_with(&prefix));
        left = others;
        match backend.as_str() {
            _ if !own.is_empty() => asked.extend(own.into_iter().cloned().map(Asked::Url)),
            "memory" => asked.push(Asked::Url(prefix)),
            _ => {
                // An unknown name, or a backend that this program lacks, gives the same error as in a URL.
                EventBusConfig::from_url(&format!("{prefix}127.0.0.1")).map_err(Failure::usage)?;
                asked.push(Asked::Started(backend.clone()));
            }
        }
    }
    asked.extend(left.into_iter().cloned().map(Asked::Url));
    if asked.is_empty() {
        asked.push(Asked::Url("memory://".to_owned()));
    }
    Ok(asked)
}

/// Targets of a comparison. Dropping them removes the brokers that were started.
#[derive(Debug)]
pub(crate) struct Targets {
    asked: Vec<Asked>,
    containers: bool,
}

impl Targets {
    /// Reads the options. Nothing is started yet.
    pub(crate) fn of(backends: &[String], urls: &[String]) -> Result<Self, Failure> {
        let asked = asked(backends, urls)?;
        for one in &asked {
            match one {
                Asked::Url(url) => drop(EventBusConfig::from_url(url).map_err(Failure::usage)?),
                Asked::Started(kind) if !containers::can_start(kind) => {
                    let why = "this program starts no such broker: that takes the feature `brokers`";
                    return Err(Failure::usage(format!("no --url {kind}://… for {kind}, and {why}")));
                }
                Asked::Started(_) => {}
            }
        }
        Ok(Self { asked, containers: false })
    }

    /// Returns whether only the memory backend is compared.
    pub(crate) fn are_memory(&self) -> bool {
        self.asked.iter().all(|one| matches!(one, Asked::Url(url) if url.starts_with("memory://")))
    }

    /// Starts the brokers. It must be called outside of a runtime, and this must be dropped outside of one, too.
    pub(crate) fn start(&mut self) -> Result<Vec<Target>, Failure> {
        let mut targets: Vec<Target> = Vec::new();
        for one in &self.asked {
            let (url, image) = match one {
                Asked::Url(url) => (url.clone(), None),
                Asked::Started(kind) => {
                    self.containers = true;
                    let (url, image) = containers::start(kind)?;
                    (url, Some(image))
                }
            };
            let config = EventBusConfig::from_url(&url).map_err(Failure::usage)?;
            let scheme = config.backend.scheme();
            let same = targets.iter().filter(|target| target.config.backend.scheme() == scheme).count();
            let name = if same == 0 { scheme.to_owned() } else { format!("{scheme}#{}", same + 1) };
            targets.push(Target { name, config, image });
        }
        Ok(targets)
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        if self.containers
            && let Err(error) = containers::remove()
        {
            say(format!("the brokers that were started are still there: {error}"));
        }
    }
}

/// Brokers in containers.
#[cfg(feature = "brokers")]
mod containers {
    use conformance_tests::brokers::{self, Broker, BrokerError, KafkaServer, NatsServer, NatsVersion, Server};

    use crate::exit::Failure;
    use crate::voice::say;

    pub(super) fn can_start(kind: &str) -> bool {
        matches!(kind, "nats" | "kafka")
    }

    /// Starts a broker and waits until it answers. Returns its URL and its image.
    pub(super) fn start(kind: &str) -> Result<(String, String), Failure> {
        say(format!("starting {kind} in a container"));
        let started = match kind {
            "kafka" => run(KafkaServer::new().measured()),
            _ => run(NatsServer::new(NatsVersion::Newest).measured()),
        };
        let (address, image) = started.map_err(Failure::failed)?;
        Ok((format!("{kind}://{address}"), image))
    }

    fn run(server: impl Server) -> Result<(std::net::SocketAddr, String), BrokerError> {
        // Containers left by earlier runs, however those ended, are removed first.
        brokers::sweep()?;
        let (name, tag) = server.image();
        let broker = brokers::background()?.block_on(Broker::shared(server))?;
        Ok((broker.address(), format!("{name}:{tag}")))
    }

    pub(super) fn remove() -> Result<usize, BrokerError> {
        brokers::shut_down()
    }
}

/// No containers, without the feature `brokers`.
#[cfg(not(feature = "brokers"))]
mod containers {
    use crate::exit::Failure;

    pub(super) fn can_start(_: &str) -> bool {
        false
    }

    pub(super) fn start(kind: &str) -> Result<(String, String), Failure> {
        Err(Failure::usage(format!("{kind} cannot be started")))
    }

    pub(super) fn remove() -> Result<usize, std::convert::Infallible> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_backend_takes_its_urls_and_what_is_left_comes_behind() {
        let url = |url: &str| Asked::Url(url.to_owned());
        assert_eq!(asked(&[], &[]).unwrap(), [url("memory://")]);
        let read = asked(&words("memory"), &words("memory://a?partitions=2 memory://b")).unwrap();
        assert_eq!(read, [url("memory://a?partitions=2"), url("memory://b")]);
        assert!(asked(&words("amqp"), &[]).is_err());
        #[cfg(feature = "nats")]
        {
            let read = asked(&words("nats memory"), &words("memory://a nats://h:1")).unwrap();
            assert_eq!(read, [url("nats://h:1"), url("memory://a")]);
            let read = asked(&words("memory nats"), &words("memory://a tls://h")).unwrap();
            assert_eq!(read, [url("memory://a"), Asked::Started("nats".into()), url("tls://h")]);
        }
    }
}
