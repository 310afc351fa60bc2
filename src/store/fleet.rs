//! Several Redis servers that belong together, for tests: a master, its replica and three Sentinels, or a cluster of
//! three masters with a replica each. They are quick to notice that one of them is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::seal::tests::key_file;
use super::testing::Process;
use super::*;

/// How long a node of a cluster may be away before the others replace it.
pub(super) const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the slots of each of a cluster's three masters begin.
const SLOTS: [(u32, u32); 3] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];

/// A server that stores nothing, and whose replicas are quickly in step.
const FORGETFUL: &[&str] =
    &["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];

/// The servers, which end with this value.
pub(super) struct Fleet {
    servers: Vec<Server>,
    url: String,
    directory: TempDir,
    stores: AtomicU32,
}

struct Server {
    process: Process,
    port: u16,
    directory: PathBuf,
    arguments: Vec<String>,
}

impl Fleet {
    /// A master (0), its replica (1) and three Sentinels (2 to 4); `None` where there is no `redis-server`.
    pub(super) fn sentinels() -> Option<Self> {
        // One server that says whether there are any, and whether there must be.
        super::testing::Server::start()?;
        let directory = tempfile::tempdir().unwrap();
        let mut servers = vec![Server::start(directory.path(), &[])];
        let master = servers[0].port.to_string();
        servers.push(Server::start(directory.path(), &["--replicaof", "127.0.0.1", &master]));
        until("the replica is in step", || servers[1].info("replication").contains("master_link_status:up"));
        for number in 0..3 {
            let configuration = format!(
                "sentinel monitor main 127.0.0.1 {master} 2\nsentinel down-after-milliseconds main 500\n\
                 sentinel failover-timeout main 2000\n"
            );
            let file = format!("sentinel{number}.conf");
            std::fs::write(directory.path().join(&file), configuration).unwrap();
            servers.push(Server::start(directory.path(), &[&file, "--sentinel"]));
        }
        let sentinels = &servers[2..];
        let sees_all = |sentinel: &Server| {
            let info = sentinel.info("sentinel");
            info.contains("status=ok") && info.contains("slaves=1,sentinels=3")
        };
        until("the Sentinels know each other", || sentinels.iter().all(sees_all));
        let hosts: Vec<_> = sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        let url = format!("redis+sentinel://{}/main", hosts.join(","));
        Some(Self { servers, url, directory, stores: AtomicU32::new(0) })
    }

    /// A master and a Sentinel, each with a password of its own; `None` where there is no `redis-server`. The address
    /// is without either.
    pub(super) fn guarded_sentinel(password: &str, sentinel_password: &str) -> Option<Self> {
        super::testing::Server::start()?;
        let directory = tempfile::tempdir().unwrap();
        let master = Server::start(directory.path(), &["--requirepass", password]);
        let configuration = format!(
            "requirepass {sentinel_password}\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel auth-pass main {password}\n",
            master.port
        );
        std::fs::write(directory.path().join("sentinel.conf"), configuration).unwrap();
        let sentinel = Server::start(directory.path(), &["sentinel.conf", "--sentinel"]);
        let url = format!("127.0.0.1:{}/main", sentinel.port);
        Some(Self { servers: vec![master, sentinel], url, directory, stores: AtomicU32::new(0) })
    }

    /// The same servers, reached in another way.
    pub(super) fn at(&mut self, url: impl FnOnce(&str) -> String) {
        self.url = url(&self.url);
    }

    /// Three masters (0 to 2) and a replica of each (3 to 5); `None` where there is no `redis-server`.
    pub(super) fn cluster() -> Option<Self> {
        super::testing::Server::start()?;
        let directory = tempfile::tempdir().unwrap();
        let node = |number: usize| {
            let (bus, file) = (free_port().to_string(), format!("nodes{number}.conf"));
            let timeout = NODE_TIMEOUT.as_millis().to_string();
            let node = Server::start(
                directory.path(),
                &[
                    ["--cluster-enabled", "yes", "--cluster-config-file", &file, "--cluster-port", &bus].as_slice(),
                    &["--cluster-node-timeout", &timeout, "--cluster-require-full-coverage", "no"],
                    &["--cluster-replica-validity-factor", "0"],
                ]
                .concat(),
            );
            let _: () = node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            (node, bus)
        };
        let (servers, buses): (Vec<_>, Vec<_>) = (0..6).map(node).unzip();
        for (node, (first, last)) in servers.iter().zip(SLOTS) {
            let _: () = node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        // Everyone is told of everyone: gossip would take its time.
        for (number, one) in servers.iter().enumerate() {
            for (other, bus) in servers.iter().zip(&buses).skip(number + 1) {
                let _: () = one.ask(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), bus]);
            }
        }
        let all = |what: &str, text: &str| {
            until(what, || servers.iter().all(|node| node.ask::<String>(&["CLUSTER", "INFO"]).contains(text)));
        };
        all("the nodes know each other", "cluster_known_nodes:6");
        for (master, replica) in servers[..3].iter().zip(&servers[3..]) {
            let id: String = master.ask(&["CLUSTER", "MYID"]);
            until("the replica has a master", || replica.try_ask::<()>(&["CLUSTER", "REPLICATE", &id]).is_ok());
        }
        all("the cluster serves", "cluster_state:ok");
        let in_step = |node: &Server| node.info("replication").contains("master_link_status:up");
        until("the replicas are in step", || servers[3..].iter().all(in_step));
        let has_replicas = |node: &Server| {
            let slots: Vec<Vec<::redis::Value>> = node.ask(&["CLUSTER", "SLOTS"]);
            slots.len() == 3 && slots.iter().all(|range| range.len() == 4)
        };
        until("everyone knows the replicas", || servers.iter().all(has_replicas));
        // A store that was told one node of each kind finds the others.
        let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", servers[1].port, servers[5].port);
        Some(Self { servers, url, directory, stores: AtomicU32::new(0) })
    }

    /// A store of its own in these servers.
    pub(super) async fn store(&self) -> Store {
        let number = self.stores.fetch_add(1, Ordering::SeqCst);
        let settings = Settings {
            url: self.url.clone(),
            key_prefix: format!("t{number}"),
            tls: None,
            trusted_ca: None,
            encryption_keys: vec![key_file(self.directory.path(), "k1", 1)],
        };
        Store::open(&settings, Randomness::System).await.unwrap()
    }

    /// Which of a cluster's first masters has the keys of a partition, as the node `asked` counts slots.
    pub(super) fn owner(&self, asked: usize, partition: u8) -> usize {
        let slot: u32 = self.servers[asked].ask(&["CLUSTER", "KEYSLOT", &format!("{{p{partition:02x}}}")]);
        SLOTS.iter().position(|(_, last)| slot <= *last).unwrap()
    }

    /// Whether a server calls itself a master.
    pub(super) fn is_master(&self, number: usize) -> bool {
        self.servers[number].info("replication").contains("role:master")
    }

    pub(super) fn ask<T: ::redis::FromRedisValue>(&self, number: usize, words: &[&str]) -> T {
        self.servers[number].ask(words)
    }

    pub(super) fn try_ask<T: ::redis::FromRedisValue>(&self, number: usize, words: &[&str]) -> ::redis::RedisResult<T> {
        self.servers[number].try_ask(words)
    }

    pub(super) fn kill(&mut self, number: usize) {
        self.servers[number].process.kill();
    }

    /// Starts one again that was killed, as a replica of whoever has its place now, and waits until it is in step.
    pub(super) fn restart(&mut self, number: usize, master: usize) {
        let port = self.servers[master].port.to_string();
        // A node of a cluster learns from the others whose replica it is.
        let is_node = self.servers[number].arguments.contains(&"--cluster-enabled".to_owned());
        let more = ["--replicaof", "127.0.0.1", &port];
        self.servers[number].restart(if is_node { &[] } else { &more });
        self.in_step(number);
    }

    /// Waits until a server is a replica that has all that its master has.
    pub(super) fn in_step(&self, number: usize) {
        let server = &self.servers[number];
        until("the server is a replica in step", || {
            let info = server.try_ask::<String>(&["INFO", "replication"]);
            info.is_ok_and(|info| info.contains("role:slave") && info.contains("master_link_status:up"))
        });
    }

    /// Has Sentinels ask and tell each other more often than every few seconds.
    pub(super) fn hurry(&self) {
        for sentinel in 2..5 {
            let _: () = self.ask(sentinel, &["SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "200"]);
        }
    }

    /// Waits until all Sentinels see a replica that they would promote.
    pub(super) fn wait_for_replica(&self) {
        let is_seen = |sentinel: usize| {
            let replicas: Vec<BTreeMap<String, String>> = self.ask(sentinel, &["SENTINEL", "REPLICAS", "main"]);
            let is = |replica: &BTreeMap<String, String>, field: &str, value: &str| {
                replica.get(field).is_some_and(|found| found == value)
            };
            replicas.len() == 1 && is(&replicas[0], "flags", "slave") && is(&replicas[0], "master-link-status", "ok")
        };
        until("Sentinels see the replica", || (2..5).all(is_seen));
    }

    /// The keys of the first store, as these servers have them.
    pub(super) fn keys(&self, masters: &[usize]) -> Vec<Vec<u8>> {
        masters.iter().flat_map(|number| self.ask::<Vec<Vec<u8>>>(*number, &["KEYS", "t0:*"])).collect()
    }

    /// Makes a server hang: connections stay open, and nothing is answered.
    pub(super) fn hang(&self, number: usize) {
        self.servers[number].process.signal("STOP");
    }

    /// Lets it go on after [`Fleet::hang`].
    pub(super) fn go_on(&self, number: usize) {
        self.servers[number].process.signal("CONT");
    }
}

impl Server {
    /// Starts one on a free port, which somebody else may take first.
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let at = port.to_string();
            // A file of settings comes first.
            let split = usize::from(arguments.first().is_some_and(|first| !first.starts_with('-')));
            let arguments = [
                &arguments[..split],
                &["--port", &at, "--bind", "127.0.0.1"],
                if split == 1 { &[] } else { FORGETFUL },
                &arguments[split..],
            ]
            .concat();
            let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
            let process = spawn(directory, &arguments, &[]);
            let mut server = Self { process, port, directory: directory.to_owned(), arguments };
            if server.listens() {
                return server;
            }
        }
        panic!("redis-server does not listen");
    }

    /// Starts it again on its port, with `more` arguments.
    fn restart(&mut self, more: &[&str]) {
        self.process = spawn(&self.directory, &self.arguments, more);
        assert!(self.listens(), "redis-server does not listen");
    }

    /// Whether it listens at last, or has ended.
    fn listens(&mut self) -> bool {
        for _ in 0..500 {
            if self.process.has_ended() {
                return false;
            }
            match self.try_ask::<String>(&["PING"]) {
                Ok(_) => return true,
                // It listens to those who know the password.
                Err(error) if error.code() == Some("NOAUTH") => return true,
                Err(_) => {}
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn ask<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> T {
        // Sentinels close the connections of a server whose role they change.
        for _ in 0..5 {
            match self.try_ask(words) {
                Err(error) if error.is_io_error() && !error.is_timeout() => {}
                answer => return answer.unwrap(),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.try_ask(words).unwrap()
    }

    fn try_ask<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> ::redis::RedisResult<T> {
        let client = ::redis::Client::open(("127.0.0.1", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        ::redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    fn info(&self, section: &str) -> String {
        self.ask(&["INFO", section])
    }
}

fn spawn(directory: &Path, arguments: &[String], more: &[&str]) -> Process {
    let mut command = Command::new("redis-server");
    command.args(arguments).args(more).current_dir(directory);
    Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(90), "not so: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}
