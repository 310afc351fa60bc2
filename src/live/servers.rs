//! Redis, and the keys of issuers.

use super::report::Row;
use crate::http::push::Receiver;
use crate::identity::{Examined, Identity};
use crate::model::chain;
use crate::store::{ServerFacts, Store};

/// The oldest major version of Redis that will do.
const OLDEST: u32 = 6;

/// Whether uploads can be tracked, and stay known.
pub(super) async fn store(store: &Store) -> Vec<Row> {
    const NAME: &str = "store";
    if matches!(store, Store::Memory(_)) {
        let found = "it is this process: one instance, and all is forgotten at its end";
        return vec![Row::warning(NAME, "memory", found, "set store.url to a Redis for more than a trial")];
    }
    if let Err(error) = store.ping().await {
        let remedy = "see that it runs, can be reached from here, and knows the user and password of store.url";
        return vec![Row::failed(NAME, "Redis", chain(&error), remedy)];
    }
    store.facts().await.into_iter().map(|facts| server(NAME, &facts)).collect()
}

fn server(name: &'static str, facts: &ServerFacts) -> Row {
    let ServerFacts { address, version, maxmemory_policy, persists, replicas, requires_full_coverage } = facts;
    let mut notes = vec![
        version
            .as_ref()
            .map_or_else(|| "a version that it does not tell".to_owned(), |version| format!("Redis {version}")),
    ];
    let (mut failures, mut warnings) = (Vec::new(), Vec::new());
    let major = version.as_deref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    if major.is_some_and(|major| major < OLDEST) {
        failures.push(format!("is older than Redis {OLDEST}: update it"));
    }
    match maxmemory_policy.as_deref() {
        Some("noeviction") => notes.push("noeviction".to_owned()),
        Some(policy) => failures.push(format!(
            "maxmemory-policy {policy} forgets uploads and limits when its memory is full: set noeviction"
        )),
        None => warnings.push("whether it evicts cannot be seen: it must have maxmemory-policy noeviction".to_owned()),
    }
    match persists {
        Some(true) => notes.push("written to disk".to_owned()),
        Some(false) => {
            warnings.push("nothing is written to disk, so that a restart forgets all: set appendonly yes".to_owned());
        }
        None => notes.push("whether it writes to disk cannot be seen".to_owned()),
    }
    if let Some(count) = replicas {
        notes.push(format!("{count} replica(s)"));
    }
    match requires_full_coverage {
        Some(true) => {
            warnings.push("one lost master stops the whole cluster: set cluster-require-full-coverage no".to_owned());
        }
        Some(false) => notes.push("serves on when a master is lost".to_owned()),
        None => {}
    }
    let found = notes.join(", ");
    let remedy = || failures.iter().chain(&warnings).cloned().collect::<Vec<_>>().join("; ");
    match (failures.is_empty(), warnings.is_empty()) {
        (true, true) => Row::ok(name, address, found),
        (true, false) => Row::warning(name, address, found, remedy()),
        (false, _) => Row::failed(name, address, found, remedy()),
    }
}

/// Whether the keys of all who sign tokens can be had.
pub(super) async fn issuers(users: &Identity, receiver: Option<&Receiver>) -> Vec<Row> {
    let pushes = async {
        match receiver {
            Some(receiver) => receiver.examine().await,
            None => None,
        }
    };
    let (users, pushes) = tokio::join!(users.examine(), pushes);
    let users = users.iter().map(|examined| keys("issuer", examined));
    users.chain(pushes.iter().map(|examined| keys("push issuer", examined))).collect()
}

fn keys(name: &'static str, examined: &Examined) -> Row {
    let Examined { issuer, keys, without_key } = examined;
    match keys {
        Err(reason) => {
            let remedy = "see that issuer and jwks_url are right, and that they can be reached from here";
            Row::failed(name, issuer, reason, remedy)
        }
        Ok(count) if without_key.is_empty() => Row::ok(name, issuer, format!("{count} usable key(s)")),
        Ok(count) => {
            let algorithms: Vec<_> = without_key.iter().map(|algorithm| format!("{algorithm:?}")).collect();
            let found = format!("{count} usable key(s), and none for {}", algorithms.join(", "));
            Row::warning(name, issuer, found, "leave out of algorithms what the issuer does not use")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::report::Status;

    #[test]
    fn a_server_is_judged_by_what_it_tells() {
        let good = || ServerFacts {
            address: "127.0.0.1:6379".to_owned(),
            version: Some("7.0.15".to_owned()),
            maxmemory_policy: Some("noeviction".to_owned()),
            persists: Some(true),
            replicas: Some(1),
            requires_full_coverage: None,
        };
        for (name, facts, expected, part) in [
            ("all is well", good(), Status::Ok, ""),
            ("old", ServerFacts { version: Some("5.0.7".into()), ..good() }, Status::Failed, "older than Redis 6"),
            ("two digits", ServerFacts { version: Some("10.0.0".into()), ..good() }, Status::Ok, ""),
            (
                "evicts",
                ServerFacts { maxmemory_policy: Some("allkeys-lru".into()), ..good() },
                Status::Failed,
                "noeviction",
            ),
            ("silent", ServerFacts { maxmemory_policy: None, ..good() }, Status::Warning, "cannot be seen"),
            ("forgets", ServerFacts { persists: Some(false), ..good() }, Status::Warning, "appendonly"),
            ("does not say", ServerFacts { persists: None, ..good() }, Status::Ok, ""),
            (
                "stops",
                ServerFacts { requires_full_coverage: Some(true), ..good() },
                Status::Warning,
                "full-coverage no",
            ),
        ] {
            let row = server("store", &facts);
            assert_eq!(row.status, expected, "{name}");
            assert!(row.remedy.unwrap_or_default().contains(part), "{name}");
        }
    }
}
