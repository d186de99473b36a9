//! The engine: one client for all, on a runtime that outlives every case, and the sweep.

use std::collections::HashMap;
use std::sync::OnceLock;

use testcontainers::bollard::Docker;
use testcontainers::bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;

use super::owner;

/// The label that every container of a run carries: its owner.
pub(super) const OWNER: &str = "eventbus.owner";
/// The label of the port on the host.
pub(super) const PORT: &str = "eventbus.port";
/// The label that says what a shared broker is, so that others find it.
pub(super) const SHARED: &str = "eventbus.shared";

/// The reason why there is no broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The engine does not answer, or refused.
    #[error("the container engine: {0} (scripts/test --provision installs and starts one)")]
    Engine(#[from] testcontainers::bollard::errors::Error),
    /// The container did not start.
    #[error("the container did not start: {0}")]
    Start(#[from] testcontainers::TestcontainersError),
    /// Lock files cannot be written.
    #[error("lock files of the tests: {0}")]
    Locks(std::io::Error),
    /// All ports of the range are taken.
    #[error("no port between {0} and {1} is free")]
    NoPort(u16, u16),
    /// The broker runs and does not answer.
    #[error("nothing answers at port {port} after {seconds} s: {last}")]
    Silent {
        /// The port on the host.
        port: u16,
        /// Seconds waited.
        seconds: u64,
        /// The last error.
        last: String,
    },
    /// The harness has no runtime to work on.
    #[error("the harness's runtime: {0}")]
    Runtime(String),
}

/// The runtime of containers and proxies: cases have runtimes of their own, which end with them.
///
/// # Errors
/// Where the host gives no threads.
pub fn background() -> Result<&'static Runtime, BrokerError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            let built = Builder::new_multi_thread().worker_threads(2).thread_name("brokers").enable_all().build();
            built.map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(|error| BrokerError::Runtime(error.clone()))
}

/// Runs work on the harness's runtime, from any other.
pub(super) async fn there<T: Send + 'static>(
    work: impl Future<Output = Result<T, BrokerError>> + Send + 'static,
) -> Result<T, BrokerError> {
    background()?.spawn(work).await.map_err(|error| BrokerError::Runtime(error.to_string()))?
}

/// The engine's client. To be used on the harness's runtime only: its connections live there.
pub(super) async fn docker() -> Result<&'static Docker, BrokerError> {
    static DOCKER: OnceCell<Docker> = OnceCell::const_new();
    let connect = || async {
        let docker = Docker::connect_with_defaults()?;
        docker.ping().await?;
        Ok(docker)
    };
    DOCKER.get_or_try_init(connect).await
}

/// Lists the containers of all runs: ids and labels.
pub(super) async fn labelled() -> Result<Vec<(String, HashMap<String, String>)>, BrokerError> {
    let filters = HashMap::from([("label", vec![OWNER])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let found = docker().await?.list_containers(Some(options)).await?;
    Ok(found.into_iter().filter_map(|one| Some((one.id?, one.labels.unwrap_or_default()))).collect())
}

pub(super) async fn remove(id: &str) -> Result<(), BrokerError> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    Ok(docker().await?.remove_container(id, Some(options)).await?)
}

pub(super) async fn signal(id: &str, signal: &str) -> Result<(), BrokerError> {
    let options = KillContainerOptionsBuilder::new().signal(signal).build();
    Ok(docker().await?.kill_container(id, Some(options)).await?)
}

async fn remove_where(condemned: impl Fn(&str) -> bool) -> Result<usize, BrokerError> {
    let mut removed = 0;
    for (id, labels) in labelled().await? {
        if labels.get(OWNER).is_some_and(|owner| condemned(owner)) {
            // Another run may have swept it in the meantime.
            removed += usize::from(remove(&id).await.is_ok());
        }
    }
    Ok(removed)
}

/// Removes the containers of runs that are over, whatever ended them. Returns their number.
///
/// # Errors
/// Where the engine does not answer.
pub fn sweep() -> Result<usize, BrokerError> {
    background()?.block_on(remove_where(|owner| !owner::lives(owner)))
}

/// Ends the run: removes its containers, and returns their number. Does nothing unless this process is the owner:
/// the owner does it.
///
/// # Errors
/// Where the engine does not answer.
pub fn shut_down() -> Result<usize, BrokerError> {
    if !owner::is_this_process() {
        return Ok(0);
    }
    let own = owner::own();
    background()?.block_on(remove_where(move |owner| owner == own))
}
