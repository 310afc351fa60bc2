//! Whether what servers hold agrees with itself: whatever was lost, every step is there as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use super::testing::*;
use super::*;
use crate::model::id::Partition;

/// What is found under the keys of a store.
#[derive(Default)]
struct Found {
    uploads: BTreeMap<UploadId, Tracked>,
    /// The uploads that each kind of key names, and that key.
    reserved: BTreeSet<UploadId>,
    due: BTreeSet<UploadId>,
    indexed: BTreeSet<UploadId>,
    told: BTreeSet<UploadId>,
}

impl Store {
    /// What of `keys`, which are all that the servers have of this store, contradicts the rest. Every upload in it counts
    /// under one policy, and has somebody to be told of its end.
    pub(super) async fn contradictions(&self, keys: &[Vec<u8>]) -> Vec<String> {
        let Self::Redis(redis) = self else { return Vec::new() };
        let mut found = Found::default();
        for key in keys {
            let (partition, kind, tail) = parts(key);
            let named = |members: Vec<Vec<u8>>| -> Vec<UploadId> {
                let ids = members.into_iter().filter_map(|member| <[u8; 16]>::try_from(member).ok());
                ids.map(|random| UploadId::new(partition, random)).collect()
            };
            let members = async |name: &str| -> Vec<Vec<u8>> {
                let mut command = ::redis::cmd(name);
                command.arg(&key[..]);
                if name == "ZRANGE" {
                    command.arg(0).arg(-1);
                }
                redis.raw(&command).await
            };
            match kind {
                b'u' => {
                    let id = UploadId::new(partition, tail.try_into().unwrap());
                    found.uploads.insert(id, self.find(id).await.unwrap().unwrap());
                }
                b'q' => found.reserved.extend(named(members("HKEYS").await)),
                b'd' => found.due.extend(named(members("ZRANGE").await)),
                b'x' => found.indexed.extend(named(members("ZRANGE").await)),
                b'e' => found.told.extend(named(members("ZRANGE").await)),
                b'n' => {}
                other => panic!("a key of kind {}", char::from(other)),
            }
        }
        let mut wrong = found.contradictions();
        wrong.extend(self.miscounted(&found).await);
        wrong
    }

    /// Principals whose usage is not what is under way.
    async fn miscounted(&self, found: &Found) -> Vec<String> {
        let mut live = BTreeMap::<PrincipalId, u32>::new();
        for tracked in found.uploads.values() {
            *live.entry(tracked.upload.principal).or_default() += u32::from(!tracked.upload.state.is_final());
        }
        let mut wrong = Vec::new();
        for (principal, live) in live {
            let used = self.used(principal, limits(None, None, None), NOW).await.active;
            if used != live {
                wrong.push(format!("{used} are counted of {principal:?}, and {live} are under way"));
            }
        }
        wrong
    }
}

impl Found {
    fn contradictions(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (id, tracked) in &self.uploads {
            let is_final = tracked.upload.state.is_final();
            for (what, holds) in [
                ("has no reservation or one too many", self.reserved.contains(id) != is_final),
                ("is never looked at again, or for nothing", self.due.contains(id) != is_final),
                ("is not listed", self.indexed.contains(id)),
                ("is told of too early or not at all", self.told.contains(id) == is_final),
            ] {
                if !holds {
                    wrong.push(format!("{id}, {}, {what}", tracked.upload.state.name()));
                }
            }
        }
        for (name, ids) in
            [("reserved", &self.reserved), ("due", &self.due), ("listed", &self.indexed), ("told of", &self.told)]
        {
            let unknown = ids.iter().filter(|id| !self.uploads.contains_key(*id));
            wrong.extend(unknown.map(|id| format!("{id} is {name}, and not known")));
        }
        wrong
    }
}

/// The partition of a key, its kind and what follows.
fn parts(key: &[u8]) -> (Partition, u8, &[u8]) {
    let tag = key.iter().position(|byte| *byte == b'{').unwrap();
    let digits = std::str::from_utf8(&key[tag + 2..tag + 4]).unwrap();
    (Partition(u8::from_str_radix(digits, 16).unwrap()), key[tag + 5], &key[tag + 6..])
}

/// A check that finds nothing must be able to.
#[tokio::test]
async fn what_is_there_in_parts_is_found() {
    let Some(server) = Server::start() else { return };
    let store = server.store().await;
    let Store::Redis(redis) = &store else { panic!("not in Redis") };
    let tracked = store.create(&plain(&intent_of(user(1), 1, NOW), limits(None, None, None))).await;
    let id = tracked.upload.id;
    let keys = async || redis.raw::<Vec<Vec<u8>>>(::redis::cmd("KEYS").arg("t0:*")).await;
    assert_eq!(store.contradictions(&keys().await).await, Vec::<String>::new());
    let ledger = redis.keys.ledger(tracked.upload.principal, &tracked.upload.policy);
    let due = redis.keys.due(id.partition(), &tracked.upload.region);
    for (command, key, expected) in [
        ("HDEL", ledger, "has no reservation"),
        ("ZREM", due, "is never looked at again"),
        ("ZREM", redis.keys.index(tracked.upload.principal), "is not listed"),
    ] {
        let dump: Vec<u8> = redis.raw(::redis::cmd("DUMP").arg(&key)).await;
        let () = redis.raw(::redis::cmd(command).arg(&key).arg(&id.random()[..])).await;
        let wrong = store.contradictions(&keys().await).await;
        assert!(wrong.iter().any(|wrong| wrong.contains(expected)), "{expected}: {wrong:?}");
        let () = redis.raw(::redis::cmd("RESTORE").arg(&key).arg(0).arg(dump).arg("REPLACE")).await;
    }
    let record: Vec<u8> = redis.raw(::redis::cmd("GETDEL").arg(redis.keys.record(id))).await;
    assert_eq!(store.contradictions(&keys().await).await.len(), 3, "what is counted, due and listed, and not known");
    let () = redis.raw(::redis::cmd("SET").arg(redis.keys.record(id)).arg(record)).await;
    assert_eq!(store.contradictions(&keys().await).await, Vec::<String>::new());
}
