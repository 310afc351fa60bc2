//! A Redis master, its replica and the Sentinel that promotes it, all of which can be lost.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::FromRedisValue;
use tempfile::TempDir;

/// The servers, which go with their test.
pub struct Pair {
    master: Server,
    replica: Server,
    sentinel: Server,
    _folder: TempDir,
}

struct Server {
    child: Child,
    port: u16,
}

/// Starts them; `None`, said aloud, where there is no `redis-server`. In CI that is a failure.
pub async fn start() -> Option<Pair> {
    // It says whether there is one, and whether there must be.
    super::redis::start().await?;
    let folder = TempDir::new().unwrap();
    let master = Server::start(folder.path(), &[], FORGETFUL).await;
    let port = master.port.to_string();
    let replica = Server::start(folder.path(), &[], &[FORGETFUL, &["--replicaof", "127.0.0.1", &port]].concat()).await;
    replica.says("INFO", "replication", "master_link_status:up").await;
    // A replica that was cut off for more than ten times as long as a master may be silent is not promoted; one whose
    // master is another than it should be is set right after the second time.
    let settings = format!(
        "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 3000\n\
         sentinel failover-timeout main 60000\n"
    );
    std::fs::write(folder.path().join("sentinel.conf"), settings).unwrap();
    let sentinel = Server::start(folder.path(), &["sentinel.conf", "--sentinel"], &[]).await;
    sentinel.says("INFO", "sentinel", "status=ok").await;
    sentinel.says("INFO", "sentinel", "slaves=1").await;
    Some(Pair { master, replica, sentinel, _folder: folder })
}

/// What makes a server store nothing, and its replica be in step soon.
const FORGETFUL: &[&str] = &["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];

impl Pair {
    /// What `store.url` is for these servers.
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main", self.sentinel.port)
    }

    /// From now on the replica hears nothing of what the master acknowledges; all that it has acknowledged so far is
    /// there.
    pub async fn cut_off(&self) {
        let offset = |info: &str, name: &str| -> u64 {
            let value = info.lines().find_map(|line| line.strip_prefix(name));
            value.unwrap_or_else(|| panic!("no {name} in {info}")).trim().parse().unwrap()
        };
        let sent = offset(&self.master.ask::<String>(&["INFO", "replication"]).await, "master_repl_offset:");
        for _ in 0..500 {
            if offset(&self.replica.ask::<String>(&["INFO", "replication"]).await, "slave_repl_offset:") >= sent {
                // Nobody listens there.
                let () = self.replica.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the replica is not in step");
    }

    /// Kills the master, and waits until the replica has taken its place.
    pub async fn lose_master(&mut self) {
        self.master.child.kill().unwrap();
        self.master.child.wait().unwrap();
        self.replica.says("INFO", "replication", "role:master").await;
    }
}

impl Server {
    /// Starts one on a free port, which somebody else may take first.
    async fn start(folder: &Path, first: &[&str], last: &[&str]) -> Self {
        for _ in 0..5 {
            let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let child = Command::new("redis-server")
                .args(first)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(last)
                .current_dir(folder)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut server = Self { child, port };
            for _ in 0..500 {
                if server.child.try_wait().unwrap().is_some() {
                    break;
                }
                if server.try_ask::<String>(&["PING"]).await.is_ok() {
                    return server;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("redis-server does not listen");
    }

    /// Waits until a section of what it tells of itself holds `text`.
    async fn says(&self, command: &str, section: &str, text: &str) {
        for _ in 0..1500 {
            // A server that changes its role closes its connections.
            if self.try_ask::<String>(&[command, section]).await.is_ok_and(|info| info.contains(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not so: {text}");
    }

    async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).await.unwrap()
    }

    async fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(("127.0.0.1", self.port))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
