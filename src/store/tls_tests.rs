//! A server behind TLS: trusted by the roots of the system or those that are named, and not otherwise.
//!
//! Those of the system may also be in the file that `SSL_CERT_FILE` names. A process cannot safely change its own
//! environment, so the test runs itself once more in a process that has the variable.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::seal::tests::key_file;
use super::testing::*;
use super::*;

/// The child finds the address and its key here.
const DIRECTORY: &str = "UPLOAD_BROKER_TEST_TLS";

struct TlsServer {
    process: Process,
    port: u16,
}

impl TlsServer {
    fn start(directory: &Path, options: &[&str]) -> Self {
        Self::start_as(directory, &["--save", "", "--appendonly", "no"], options)
    }

    /// Starts one on a free port, which somebody else may take first. `first` may begin with a file of settings.
    fn start_as(directory: &Path, first: &[&str], options: &[&str]) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let process = Command::new("redis-server")
                .args(first)
                .args(["--port", "0", "--bind", "127.0.0.1", "--tls-port", &port.to_string()])
                .args(options)
                .args(["--tls-cert-file", "server.pem", "--tls-key-file", "server.key"])
                .args(["--tls-ca-cert-file", "root.pem"])
                .current_dir(directory)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut server = Self { process: Process(process), port };
            for _ in 0..500 {
                if server.process.has_ended() {
                    break;
                }
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return server;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("redis-server does not listen");
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Writes a root and a certificate of it for `localhost`, which serves both sides.
fn certify(directory: &Path) {
    certify_for("localhost", directory);
}

fn certify_for(name: &str, directory: &Path) {
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.distinguished_name.push(rcgen::DnType::CommonName, "root of a test");
    let root_key = rcgen::KeyPair::generate().unwrap();
    let root_certificate = root.self_signed(&root_key).unwrap();
    let issuer = rcgen::Issuer::new(root, root_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &issuer).unwrap();
    for (name, text) in
        [("root.pem", root_certificate.pem()), ("server.pem", certificate.pem()), ("server.key", key.serialize_pem())]
    {
        std::fs::write(directory.join(name), text).unwrap();
    }
}

/// Whether this `redis-server` knows TLS; continuous integration must have one that does.
fn is_supported() -> bool {
    let asked = Command::new("redis-server").args(["--port", "0", "--tls-port", "0", "--save", "", "--bogus"]).output();
    let is_supported = asked.is_ok_and(|asked| {
        let said = [asked.stdout, asked.stderr].concat();
        !String::from_utf8_lossy(&said).contains("'tls-port")
    });
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
    let must_run = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(is_supported || !must_run, "redis-server is not installed, or is without TLS");
    is_supported
}

async fn open(directory: &Path, host: &str, port: u16) -> Store {
    Store::open(&settings(directory, &format!("rediss://{host}:{port}")), Randomness::System).await.unwrap()
}

fn settings(directory: &Path, url: &str) -> Settings {
    Settings {
        url: url.to_owned(),
        tls: None,
        trusted_ca: None,
        key_prefix: "t".to_owned(),
        encryption_keys: vec![key_file(directory, "k1", 1)],
    }
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_told() {
    if !is_supported() {
        return;
    }
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certify(directory.path());
    certify(elsewhere.path());
    let users = ["--user", "default", "off", "--user", "ada", "on", ">s3cret/", "~*", "&*", "+@all"];
    let options = [["--tls-auth-clients", "yes"].as_slice(), &users].concat();
    let server = TlsServer::start(directory.path(), &options);
    let (host, in_own) = (format!("localhost:{}", server.port), |name: &str| Some(directory.path().join(name)));
    let ada = format!("rediss://ada:s3cret%2F@{host}");
    let known = || TlsSettings { ca: in_own("root.pem"), certificate: in_own("server.pem"), key: in_own("server.key") };
    let foreign_ca = || Some(elsewhere.path().join("root.pem"));
    for (name, url, tls, trusted_ca, serves) in [
        ("all that is asked", ada.clone(), known(), None, true),
        ("trusted by the top level", ada.clone(), TlsSettings { ca: None, ..known() }, in_own("root.pem"), true),
        (
            "only its own authority counts",
            ada.clone(),
            TlsSettings { ca: foreign_ca(), ..known() },
            in_own("root.pem"),
            false,
        ),
        ("no authority", ada.clone(), TlsSettings { ca: None, ..known() }, None, false),
        ("no certificate", ada.clone(), TlsSettings { certificate: None, key: None, ..known() }, None, false),
        ("another's password", format!("rediss://ada:other@{host}"), known(), None, false),
        ("nobody", format!("rediss://{host}"), known(), None, false),
    ] {
        let settings = Settings { tls: Some(tls), trusted_ca, ..settings(directory.path(), &url) };
        let answer = Store::open(&settings, Randomness::System).await.unwrap().ping().await;
        assert_eq!(answer.is_ok(), serves, "{name}: {answer:?}");
        assert!(!format!("{settings:?} {answer:?}").contains("s3cret"), "{name}: {answer:?}");
    }
}

/// The least that the user of a broker needs, under the prefix of these tests.
const ADA: [&str; 13] = [
    "--user",
    "ada",
    "on",
    ">s3cret/",
    "~t:*",
    "+@read",
    "+@write",
    "+@scripting",
    "+@connection",
    "+info",
    "+role",
    "+cluster|info",
    "+cluster|slots",
];

/// Who may do everything, for Sentinels and for the test itself.
const ROOT: [&str; 9] = ["--user", "default", "off", "--user", "root", "on", ">r00t", "~*", "+@all"];

/// Writes through a store, and reads it back.
async fn serves(directory: &Path, url: &str, tls: TlsSettings) -> Result<(), Error> {
    let settings = Settings { tls: Some(tls), ..settings(directory, url) };
    let store = Store::open(&settings, Randomness::System).await.unwrap();
    store.ping().await?;
    // In partitions of several servers, where there are several.
    for partition in [1, 100, 200] {
        let mut id = [7; 16];
        id[0] = partition;
        let upload = intent_of(PrincipalId(id), 1, NOW);
        if let Admitted::Granted { lease, .. } = store.admit(&plain(&upload, limits(Some(1), None, None))).await? {
            let tracked = store.track(&lease, &upload).await;
            assert_eq!(store.find(upload.id).await?, Some(tracked));
        }
        let region = &upload.region;
        store.claim_due(upload.id.partition(), region, 10, NOW, NOW).await?;
    }
    Ok(())
}

fn shown(directory: &Path) -> TlsSettings {
    let file = |name: &str| Some(directory.join(name));
    TlsSettings { ca: file("root.pem"), certificate: file("server.pem"), key: file("server.key") }
}

/// The servers that others name are asked in the same way as those of the address: behind TLS, with our certificate and
/// as our user; and Sentinels as theirs.
#[tokio::test]
async fn a_master_that_sentinels_name_is_reached_behind_tls() {
    if !is_supported() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    certify_for("127.0.0.1", directory.path());
    let behind = ["--tls-auth-clients", "yes", "--tls-replication", "yes"];
    let master = TlsServer::start(directory.path(), &[&behind[..], &ROOT, &["&*"], &ADA].concat());
    let conf = format!(
        "user default off\nuser eve on >guard ~* &* +@all\nsentinel monitor main 127.0.0.1 {} 1\n\
         sentinel auth-user main root\nsentinel auth-pass main r00t\n",
        master.port
    );
    std::fs::write(directory.path().join("sentinel.conf"), conf).unwrap();
    let sentinel = TlsServer::start_as(directory.path(), &["sentinel.conf", "--sentinel"], &behind);
    let at = format!("127.0.0.1:{}/main", sentinel.port);
    let (user, theirs) = ("ada:s3cret%2F@", "?sentinel_user=eve&sentinel_password=guard");
    let bare = || TlsSettings { certificate: None, key: None, ..shown(directory.path()) };
    for (name, url, tls, expected) in [
        ("all that is asked", format!("rediss+sentinel://{user}{at}{theirs}"), shown(directory.path()), true),
        ("no certificate", format!("rediss+sentinel://{user}{at}{theirs}"), bare(), false),
        ("nobody to the Sentinel", format!("rediss+sentinel://{user}{at}"), shown(directory.path()), false),
        ("nobody to the master", format!("rediss+sentinel://{at}{theirs}"), shown(directory.path()), false),
    ] {
        let answer = serves(directory.path(), &url, tls).await;
        assert_eq!(answer.is_ok(), expected, "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn the_nodes_of_a_cluster_are_reached_behind_tls() {
    if !is_supported() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    certify_for("127.0.0.1", directory.path());
    let start = |number: usize| {
        let (plain, bus) = (free_port(), free_port().to_string());
        let (file, port) = (format!("nodes{number}.conf"), plain.to_string());
        let node = [
            ["--tls-auth-clients", "yes", "--tls-cluster", "yes", "--port", &port],
            ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-config-file", &file],
        ]
        .concat();
        let server = TlsServer::start(directory.path(), &[&node[..], &ROOT, &["&*"], &ADA].concat());
        (server, plain, bus)
    };
    // The test itself does not need TLS.
    let ask = |plain: u16, words: &[&str]| -> ::redis::Value {
        let client = ::redis::Client::open(format!("redis://root:r00t@127.0.0.1:{plain}")).unwrap();
        let mut connection = client.get_connection_with_timeout(SECONDS(5)).unwrap();
        ::redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).unwrap()
    };
    let (one, other) = (start(1), start(2));
    for (number, (node, first, last)) in [(&one, "0", "8191"), (&other, "8192", "16383")].into_iter().enumerate() {
        ask(node.1, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        ask(node.1, &["CLUSTER", "ADDSLOTSRANGE", first, last]);
    }
    ask(one.1, &["CLUSTER", "MEET", "127.0.0.1", &other.0.port.to_string(), &other.2]);
    super::fleet::until("both nodes serve", || {
        [one.1, other.1].iter().all(|plain| {
            let info: String = ::redis::from_redis_value(ask(*plain, &["CLUSTER", "INFO"])).unwrap();
            info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
        })
    });
    // One is named, and the other learned from it.
    let url = |user: &str| format!("rediss+cluster://{user}127.0.0.1:{}", one.0.port);
    let bare = || TlsSettings { certificate: None, key: None, ..shown(directory.path()) };
    for (name, url, tls, expected) in [
        ("all that is asked", url("ada:s3cret%2F@"), shown(directory.path()), true),
        ("no certificate", url("ada:s3cret%2F@"), bare(), false),
        ("nobody", url(""), shown(directory.path()), false),
    ] {
        let answer = serves(directory.path(), &url, tls).await;
        assert_eq!(answer.is_ok(), expected, "{name}: {answer:?}");
    }
    for node in [&one, &other] {
        let size: u64 = ::redis::from_redis_value(ask(node.1, &["DBSIZE"])).unwrap();
        assert!(size > 0, "all keys are on one node");
    }
}

#[tokio::test]
async fn files_that_make_no_tls_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path());
    let file = |name: &str| Some(directory.path().join(name));
    let (pem, key) = (|| file("server.pem"), || file("server.key"));
    for (name, url, tls, expected) in [
        (
            "not behind TLS",
            "redis://a",
            TlsSettings { ca: file("root.pem"), ..TlsSettings::default() },
            "begin with rediss",
        ),
        ("no key", "rediss://a", TlsSettings { certificate: pem(), ..TlsSettings::default() }, "go together"),
        ("no file", "rediss://a", TlsSettings { ca: file("none"), ..TlsSettings::default() }, "cannot be read"),
        ("no authority", "rediss://a", TlsSettings { ca: key(), ..TlsSettings::default() }, "holds no certificate"),
        (
            "no chain",
            "rediss+cluster://a",
            TlsSettings { ca: None, certificate: key(), key: key() },
            "holds no certificate",
        ),
        (
            "no key in it",
            "rediss+sentinel://a/m",
            TlsSettings { ca: None, certificate: pem(), key: pem() },
            "cannot be used",
        ),
    ] {
        let settings = Settings { tls: Some(tls), ..settings(directory.path(), url) };
        let refusal = Store::open(&settings, Randomness::System).await.err().map(|error| error.to_string());
        assert!(refusal.as_ref().is_some_and(|refusal| refusal.contains(expected)), "{name}: {refusal:?}");
    }
}

#[tokio::test]
async fn a_server_behind_tls_serves_whoever_trusts_it() {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
    if let Ok(address) = std::env::var(DIRECTORY) {
        let (port, directory) = address.split_once(' ').unwrap();
        return trusting(Path::new(directory), port.parse().unwrap()).await;
    }
    if !is_supported() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path());
    let server = TlsServer::start(directory.path(), &["--tls-auth-clients", "no"]);
    let stranger = open(directory.path(), "localhost", server.port).await.ping().await;
    assert!(matches!(stranger, Err(Error::Unavailable(_))), "trusted without its root: {stranger:?}");

    let trusting = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tls_tests::a_server_behind_tls_serves_whoever_trusts_it"])
        .env("SSL_CERT_FILE", directory.path().join("root.pem"))
        .env(DIRECTORY, format!("{} {}", server.port, directory.path().display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&trusting.stdout);
    assert!(trusting.status.success() && said.contains("1 passed"), "{said}");
}

/// In the process that has the root.
async fn trusting(directory: &Path, port: u16) {
    let store = open(directory, "localhost", port).await;
    let upload = intent_of(user(1), 1, NOW);
    let tracked = store.create(&plain(&upload, limits(Some(1), None, None))).await;
    assert_eq!(store.find(upload.id).await.unwrap(), Some(tracked));
    // The certificate is for another name.
    let misnamed = open(directory, "127.0.0.1", port).await.ping().await;
    assert!(matches!(misnamed, Err(Error::Unavailable(_))), "{misnamed:?}");
}
