//! A test's own server, which it kills, freezes and starts again: the program that `EVENTBUS_TEST_NATS_SERVER` names.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eventbus_nats::NatsConfig;

/// A running server with its data in a folder that outlives a kill.
#[derive(Debug)]
pub struct Server {
    program: String,
    data: tempfile::TempDir,
    pub port: u16,
    more: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server. A test that has no program for it fails: these tests are there only with the feature `brokers`.
    pub fn start(configuration: &str) -> Self {
        let program = std::env::var("EVENTBUS_TEST_NATS_SERVER");
        let program =
            program.expect("EVENTBUS_TEST_NATS_SERVER: expected the path of a nats-server; scripts/test sets it");
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("server.conf");
        std::fs::write(&file, configuration).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let more = vec!["-c".into(), file.display().to_string()];
        let mut server = Self { program, data, port, more, child: None };
        server.restart();
        server
    }

    pub fn config(&self) -> NatsConfig {
        NatsConfig::new(format!("nats://127.0.0.1:{}", self.port))
    }

    /// The path of a file beside the server's data.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.data.path().join(name)
    }

    pub fn restart(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["-js", "-a", "127.0.0.1", "-p", &self.port.to_string(), "-sd"]).arg(self.data.path());
        command.args(&self.more).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
