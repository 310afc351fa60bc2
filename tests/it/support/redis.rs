//! A real `redis-server`, on a Unix socket of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A server that goes with its test.
pub struct RedisServer {
    folder: TempDir,
    child: Child,
}

/// Starts a server; `None`, said aloud, where there is no `redis-server`. In CI that is a failure.
pub async fn start() -> Option<RedisServer> {
    let folder = TempDir::new().unwrap();
    match spawn(&folder) {
        Ok(child) => {
            let server = RedisServer { folder, child };
            server.wait().await;
            Some(server)
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "redis-server is needed: {error}");
            #[expect(clippy::print_stderr, reason = "a test that does not run must say so")]
            {
                eprintln!("skipped: there is no redis-server");
            }
            None
        }
    }
}

fn spawn(folder: &TempDir) -> std::io::Result<Child> {
    Command::new("redis-server")
        // Values are searched for secrets, which compression would hide.
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--rdbcompression", "no", "--unixsocket"])
        .arg(folder.path().join("redis.sock"))
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl RedisServer {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// What `store.url` is for this server.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    async fn wait(&self) {
        for _ in 0..500 {
            if tokio::net::UnixStream::connect(self.socket()).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not listen");
    }

    /// Kills the server as a crash would: what it knew is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts it again, empty, on the same socket.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.folder).unwrap();
        self.wait().await;
    }

    /// Lets the server answer nobody for so long; what it is asked meanwhile it does after.
    pub async fn pause(&self, time: Duration) {
        let mut connection = self.connect().await;
        let millis = u64::try_from(time.as_millis()).unwrap();
        let () = redis::cmd("CLIENT").arg("PAUSE").arg(millis).query_async(&mut connection).await.unwrap();
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    async fn connect(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(format!("unix://{}", self.socket().display())).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// Changes a setting of the running server.
    pub async fn set(&self, setting: &str, value: &str) {
        let mut connection = self.connect().await;
        redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).exec_async(&mut connection).await.unwrap();
    }

    /// Every value of the server, as its serialised bytes, and every key.
    pub async fn everything(&self) -> Vec<u8> {
        let mut connection = self.connect().await;
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        let mut everything = Vec::new();
        for key in keys {
            let value: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.unwrap();
            everything.extend_from_slice(&key);
            everything.extend(value.unwrap_or_default());
        }
        everything
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
