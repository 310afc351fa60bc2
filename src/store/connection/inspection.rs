//! What operators should know of a server, said once, when it first answers.

use std::sync::Arc;

use redis::Value;

use super::Request;
use super::link::Link;

/// What is amiss.
#[derive(Debug, PartialEq, Eq)]
enum Remark {
    /// Full memory is made free by forgetting uploads and limits, which nobody is told.
    Evicts { policy: String },
    /// Everything is gone when the server ends.
    Forgets,
}

/// Asks `servers` for their settings, and logs what is amiss.
pub(super) async fn inspect(servers: Vec<Arc<Link>>) {
    for server in servers {
        let text = async |words: [&str; 2]| {
            let mut command = redis::cmd(words[0]);
            server.ask(&Request::Command(command.arg(words[1]))).await.ok().and_then(text_of)
        };
        let address = server.address();
        let (Some(memory), Some(persistence)) = (text(["INFO", "memory"]).await, text(["INFO", "persistence"]).await)
        else {
            tracing::info!(server.address = %address, "the settings of a store server cannot be read");
            continue;
        };
        let mut get = redis::cmd("CONFIG");
        let save = server.ask(&Request::Command(get.arg("GET").arg("save"))).await.ok().and_then(saves);
        for remark in remarks(&memory, &persistence, save) {
            match remark {
                Remark::Evicts { policy } => tracing::warn!(
                    server.address = %address,
                    maxmemory_policy = policy,
                    "this Redis forgets uploads and limits when its memory is full: set maxmemory-policy to noeviction"
                ),
                Remark::Forgets => tracing::info!(
                    server.address = %address,
                    "this Redis stores nothing on disk: a restart forgets uploads and limits; appendonly keeps them"
                ),
            }
        }
    }
}

/// What is amiss with a server, by the sections `memory` and `persistence` of its `INFO`, and by whether it writes
/// snapshots, where it tells.
fn remarks(memory: &str, persistence: &str, saves: Option<bool>) -> Vec<Remark> {
    let value = |section: &str, name: &str| {
        section.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    };
    let evicts = value(memory, "maxmemory_policy").filter(|policy| policy != "noeviction");
    let forgets = value(persistence, "aof_enabled").is_some_and(|value| value == "0") && saves == Some(false);
    evicts.map(|policy| Remark::Evicts { policy }).into_iter().chain(forgets.then_some(Remark::Forgets)).collect()
}

fn text_of(answer: Value) -> Option<String> {
    redis::from_redis_value(answer).ok()
}

/// Whether the answer of `CONFIG GET save` names any snapshots.
fn saves(answer: Value) -> Option<bool> {
    let pairs: Vec<(String, String)> = redis::from_redis_value(answer).ok()?;
    pairs.into_iter().find(|(name, _)| name == "save").map(|(_, value)| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_amiss_is_read_from_what_a_server_tells() {
        let evicts = |policy: &str| Remark::Evicts { policy: policy.to_owned() };
        for (name, policy, aof, saves, expected) in [
            ("all is well", "noeviction", "1", Some(false), vec![]),
            ("snapshots", "noeviction", "0", Some(true), vec![]),
            ("a server that does not tell", "noeviction", "0", None, vec![]),
            ("what has a life is evicted", "volatile-lru", "1", Some(true), vec![evicts("volatile-lru")]),
            ("nothing is kept", "allkeys-lfu", "0", Some(false), vec![evicts("allkeys-lfu"), Remark::Forgets]),
        ] {
            let memory = format!("# Memory\r\nused_memory:1\r\nmaxmemory_policy:{policy}\r\n");
            let persistence = format!("# Persistence\r\nloading:0\r\naof_enabled:{aof}\r\n");
            assert_eq!(remarks(&memory, &persistence, saves), expected, "{name}");
        }
        assert_eq!(remarks("", "", None), [], "a server of another kind");
    }
}
