//! What operators should know of a server: said once, when it first answers, and to whoever asks.

use std::sync::Arc;

use redis::Value;

use super::Request;
use super::link::Link;

/// What a server tells of itself. What it does not tell is `None`: managed servers refuse some questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Where it is. Holds no password.
    pub address: String,
    /// `7.2.4`.
    pub version: Option<String>,
    /// What it does when its memory is full: `noeviction` forgets nothing.
    pub maxmemory_policy: Option<String>,
    /// Whether it writes anything to disk.
    pub persists: Option<bool>,
    /// How many replicas are connected to it.
    pub replicas: Option<u32>,
    /// Of a cluster: whether all of it stops when some slots have no master.
    pub requires_full_coverage: Option<bool>,
}

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
        let facts = ask(&server).await;
        let address = &facts.address;
        if facts.maxmemory_policy.is_none() {
            tracing::info!(server.address = %address, "the settings of a store server cannot be read");
            continue;
        }
        for remark in remarks(&facts) {
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

/// Asks a server for what it tells of itself.
pub(super) async fn ask(server: &Arc<Link>) -> ServerFacts {
    let ask = async |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        server.ask(&Request::Command(&command)).await.ok()
    };
    let mut info = String::new();
    for section in ["server", "memory", "persistence", "replication", "cluster"] {
        if let Some(text) = ask(&["INFO", section]).await.and_then(text_of) {
            info.push_str(&text);
        }
    }
    let save = ask(&["CONFIG", "GET", "save"]).await.and_then(|answer| setting(answer, "save"));
    let mut facts = facts(&info, save.as_deref());
    if value(&info, "cluster_enabled") == Some("1") {
        let name = "cluster-require-full-coverage";
        let coverage = ask(&["CONFIG", "GET", name]).await.and_then(|answer| setting(answer, name));
        facts.requires_full_coverage = coverage.map(|text| text == "yes");
    }
    facts.address = server.address().to_string();
    facts
}

/// What the answers of `INFO` say, and the setting `save`, where the server tells it.
fn facts(info: &str, save: Option<&str>) -> ServerFacts {
    let persists = match (value(info, "aof_enabled"), save) {
        (Some("1"), _) => Some(true),
        // Without snapshots either, nothing is written.
        (Some("0"), Some(save)) => Some(!save.is_empty()),
        _ => None,
    };
    ServerFacts {
        address: String::new(),
        version: value(info, "redis_version").map(str::to_owned),
        maxmemory_policy: value(info, "maxmemory_policy").map(str::to_owned),
        persists,
        replicas: value(info, "connected_slaves").and_then(|count| count.parse().ok()),
        requires_full_coverage: None,
    }
}

fn value<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// What is amiss with a server.
fn remarks(facts: &ServerFacts) -> Vec<Remark> {
    let evicts = facts.maxmemory_policy.clone().filter(|policy| policy != "noeviction");
    let forgets = (facts.persists == Some(false)).then_some(Remark::Forgets);
    evicts.map(|policy| Remark::Evicts { policy }).into_iter().chain(forgets).collect()
}

fn text_of(answer: Value) -> Option<String> {
    redis::from_redis_value(answer).ok()
}

/// The setting of that name in an answer of `CONFIG GET`.
fn setting(answer: Value, name: &str) -> Option<String> {
    let pairs: Vec<(String, String)> = redis::from_redis_value(answer).ok()?;
    pairs.into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_amiss_is_read_from_what_a_server_tells() {
        let evicts = |policy: &str| Remark::Evicts { policy: policy.to_owned() };
        for (name, policy, aof, save, expected) in [
            ("all is well", "noeviction", "1", Some(""), vec![]),
            ("snapshots", "noeviction", "0", Some("3600 1"), vec![]),
            ("a server that does not tell", "noeviction", "0", None, vec![]),
            ("what has a life is evicted", "volatile-lru", "1", Some("3600 1"), vec![evicts("volatile-lru")]),
            ("nothing is kept", "allkeys-lfu", "0", Some(""), vec![evicts("allkeys-lfu"), Remark::Forgets]),
        ] {
            let memory = format!("# Memory\r\nused_memory:1\r\nmaxmemory_policy:{policy}\r\n");
            let persistence = format!("# Persistence\r\nloading:0\r\naof_enabled:{aof}\r\n");
            let others = "redis_version:7.0.15\r\nconnected_slaves:2\r\nslave0:ip=::1\r\n";
            let told = facts(&format!("{memory}{persistence}{others}"), save);
            assert_eq!(remarks(&told), expected, "{name}");
            assert_eq!((told.version.as_deref(), told.replicas), (Some("7.0.15"), Some(2)), "{name}");
        }
        assert_eq!(facts("", None), ServerFacts::default(), "a server of another kind");
        assert_eq!(remarks(&ServerFacts::default()), []);
    }
}
