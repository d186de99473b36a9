//! Authentication: each way that servers know, and its refusal, which tells no secret.
#![allow(clippy::unwrap_used)] // tests, though not every function here is one

mod common;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::server::Server;
use common::{connect, publish_one, topic};
use eventbus_core::{Envelope, ErrorKind, EventBus};
use eventbus_nats::{Auth, NatsConfig, NatsEventBus, Tls};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as TlsKey};

/// Checks that the bus works with the right credentials, and fails at once with wrong ones.
async fn check(server: &Server, right: Auth, wrong: Vec<Auth>) {
    let bus = connect(&server.config().auth(right)).await;
    topic(&bus, "t", 1).await;
    publish_one(&bus, "t", "k", 1).await.unwrap();
    assert!(bus.health().await.is_up());
    for wrong in wrong {
        let shown = format!("{wrong:?}");
        let begun = std::time::Instant::now();
        let error = NatsEventBus::connect(server.config().auth(wrong)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{shown}: {error}");
        assert!(!error.is_retryable() && begun.elapsed().as_secs() < 5, "{shown}");
        let told = format!("{error} {error:?} {shown}");
        assert!(!told.contains("s3cret") && !told.contains("SU"), "{told}");
    }
}

fn password(password: &str) -> Auth {
    Auth::UserPassword("me".into(), password.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_passwords() {
    let server = Server::start("authorization { user: me, password: \"s3cret p%\" }");
    check(&server, password("s3cret p%"), vec![password("s3cret"), Auth::None, Auth::Token("s3cret".into())]).await;
    let url = format!("nats://me:s3cret%20p%25@127.0.0.1:{}", server.port);
    connect(&NatsConfig::new(url)).await;
}

/// Credentials that are refused when the bus connects again may be right again later: the bus says so, loses nothing
/// and goes on trying.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_refused_on_reconnect_are_told_and_tried_again() {
    let accept = |password: &str| format!("authorization {{ user: me, password: {password} }}");
    let mut server = Server::start(&accept("s3cret"));
    let bus = connect(&server.config().auth(password("s3cret"))).await;
    topic(&bus, "t", 1).await;
    publish_one(&bus, "t", "k", 1).await.unwrap();

    let configuration = server.file("server.conf");
    server.kill();
    std::fs::write(&configuration, accept("other")).unwrap();
    server.restart();
    let refused = async {
        loop {
            let health = bus.health().await;
            let error = health.details.iter().find(|(name, _)| name == "connection_error");
            if let Some((_, error)) = error.filter(|(_, error)| error.contains("authorization violation")) {
                assert!(!health.is_up());
                assert!(!error.contains("s3cret"), "{error}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("the refusal is told");
    let envelope = Envelope::builder("Counted", "/test").key("k").sequence(2).payload("x").build().unwrap();
    let waiting = bus.publish("t", envelope).await.unwrap();

    server.kill();
    std::fs::write(&configuration, accept("s3cret")).unwrap();
    server.restart();
    let stored = tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it is tried again");
    stored.unwrap();
    let health = bus.health().await;
    assert!(health.is_up() && health.details.iter().all(|(name, _)| name != "connection_error"), "{health:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens() {
    let server = Server::start("authorization { token: s3cret }");
    check(&server, Auth::Token("s3cret".into()), vec![Auth::Token("s3cret2".into()), Auth::None]).await;
    connect(&NatsConfig::new(format!("nats://s3cret@127.0.0.1:{}", server.port))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nkeys_of_users() {
    let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
    let configuration = format!("authorization {{ users = [ {{ nkey: {} }} ] }}", user.public_key());
    let server = Server::start(&configuration);
    let wrong = vec![Auth::Nkey(other.seed().unwrap()), Auth::Nkey("SUs3cret".into())];
    check(&server, Auth::Nkey(user.seed().unwrap()), wrong).await;
}

/// A token as servers in operator mode take it.
fn jwt(signer: &KeyPair, subject: &KeyPair, nats: &str) -> String {
    let issuer = signer.public_key();
    let claims =
        format!(r#"{{"jti":"t","iat":1,"iss":"{issuer}","name":"t","sub":"{}","nats":{nats}}}"#, subject.public_key());
    let text = format!("{}.{}", encoded(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#), encoded(claims.as_bytes()));
    format!("{text}.{}", encoded(&signer.sign(text.as_bytes()).unwrap()))
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn credentials(user: &KeyPair, token: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_files() {
    let [operator, system, account] = [KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account()];
    let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
    let limits = r#"{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1"#;
    let of_account = |storage: &str| format!(r#"{{"limits":{limits}{storage}}},"type":"account","version":2}}"#);
    let storage = r#","mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1"#;
    let of_user = r#"{"subs":-1,"data":-1,"payload":-1,"type":"user","version":2}"#;
    let configuration = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}",
        jwt(&operator, &operator, r#"{"type":"operator","version":2}"#),
        system.public_key(),
        system.public_key(),
        jwt(&operator, &system, &of_account("")),
        account.public_key(),
        jwt(&operator, &account, &of_account(storage)),
    );
    let server = Server::start(&configuration);
    let token = jwt(&account, &user, of_user);
    let right = server.file("right.creds");
    std::fs::write(&right, credentials(&user, &token)).unwrap();
    let wrong = vec![Auth::Credentials(credentials(&other, &token)), Auth::Credentials("s3cret".into())];
    let missing = server.file("missing.creds");
    let error = NatsEventBus::connect(server.config().auth(Auth::CredentialsFile(missing))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains("missing.creds"), "{error}");
    check(&server, Auth::CredentialsFile(right), wrong).await;
    connect(&server.config().auth(Auth::Credentials(credentials(&user, &token)))).await;
}

/// A certificate authority, which makes certificates and keys.
struct Authority(CertifiedIssuer<'static, TlsKey>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, TlsKey::generate().unwrap()).unwrap())
    }

    fn certify(&self) -> (String, String) {
        let key = TlsKey::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// Starts a server with TLS. Returns it, and right and wrong settings for a client.
fn with_tls(verify: bool, first: bool) -> (Server, Tls, Tls) {
    let folder = Box::leak(Box::new(tempfile::tempdir().unwrap()));
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = ours.certify();
    let root = write("root.pem", &ours.0.pem());
    let (certificate, key) = (write("server.pem", &certificate), write("server.key", &key));
    let client = |authority: &Authority, name: &str| {
        let (certificate, key) = authority.certify();
        (write(&format!("{name}.pem"), &certificate), write(&format!("{name}.key"), &key))
    };
    let configuration = format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {root:?}, verify: {verify}, handshake_first: {first} }}"
    );
    let server = Server::start(&configuration);
    let tls = Tls { required: true, first, root_certificates: Some(root), client_certificate: None };
    let right = Tls { client_certificate: verify.then(|| client(&ours, "right")), ..tls.clone() };
    let wrong = match verify {
        true => Tls { client_certificate: Some(client(&theirs, "wrong")), ..tls },
        false => Tls { root_certificates: Some(write("other.pem", &theirs.0.pem())), ..tls },
    };
    (server, right, wrong)
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_connections_and_certificates_on_both_sides() {
    for (verify, first) in [(false, false), (true, false), (true, true)] {
        let (server, right, wrong) = with_tls(verify, first);
        let url = NatsConfig::new(format!("tls://localhost:{}", server.port));
        let bus = connect(&url.clone().tls(right)).await;
        topic(&bus, "t", 1).await;
        publish_one(&bus, "t", "k", 1).await.unwrap();
        let error = NatsEventBus::connect(url.tls(wrong)).await.unwrap_err();
        assert!(!error.is_retryable() || verify, "{verify} {first}: {error}");
        assert_ne!(error.kind(), ErrorKind::Backend, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_encryption_is_refused_where_it_is_asked_for() {
    let server = Server::start("");
    let url = NatsConfig::new(format!("tls://127.0.0.1:{}", server.port));
    assert!(NatsEventBus::connect(url).await.is_err());
}
