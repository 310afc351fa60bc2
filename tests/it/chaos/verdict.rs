//! What must hold when all is over, whatever happened before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use reqwest::Method;
use serde_json::Value;
use upload_broker::webhooks::event_id;

use super::clients::{Known, Troubles};
use crate::support::User;
use crate::support::backend::Hooks;
use crate::support::fleet::Fleet;

/// What is to be compared, read once everything has come to rest.
pub struct Verdict {
    /// Every upload that the broker knows, by its id.
    uploads: BTreeMap<String, Value>,
    /// Every object at storage, by its name.
    objects: BTreeMap<String, Value>,
}

impl Verdict {
    pub async fn read(fleet: &Fleet) -> Self {
        let uploads = walk(&fleet.administrator(), "/v1/admin/uploads?limit=200", "uploads").await;
        let uploads = uploads.into_iter().map(|upload| (text(&upload, "id"), upload)).collect();
        Self { uploads, objects: fleet.objects().await }
    }

    /// The `webhook-id` of every upload's end.
    pub fn events(&self) -> Vec<String> {
        self.uploads.keys().map(|id| event_id(id.parse().unwrap())).collect()
    }

    /// How many uploads there are of what `key` says.
    pub fn counts(&self, key: impl Fn(&Value) -> Option<&str>) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for name in self.uploads.values().filter_map(key) {
            *counts.entry(name).or_default() += 1;
        }
        counts
    }

    /// Every upload is in the state that storage shows it to be in, and in that of its client's plan.
    pub fn is_true(&self, known: &[Known]) {
        for (id, upload) in &self.uploads {
            let (state, object) = (text(upload, "state"), self.objects.get(&text(upload, "object")));
            let is_final = ["completed", "rejected", "cancelled", "expired"].contains(&&*state);
            assert!(is_final, "{id} has not ended: {upload}");
            assert_eq!(state == "completed", object.is_some(), "{upload}, and at storage {object:?}");
            if let Some(object) = object {
                let (result, size) = (&upload["result"], object["size"].as_str().unwrap());
                assert_eq!(result["generation"], object["generation"], "{upload}, and at storage {object}");
                assert_eq!(result["size_bytes"].to_string(), size, "{upload}, and at storage {object}");
                assert_eq!(result["crc32c"], object["crc32c"], "{upload}, and at storage {object}");
            }
        }
        for known in known {
            let upload = self.uploads.get(&known.id).unwrap_or_else(|| panic!("{known:?} is forgotten"));
            let state = text(upload, "state");
            assert!(known.plan.ends().contains(&&*state), "{known:?} has become {upload}");
            assert!(known.said.as_ref().is_none_or(|said| *said == state), "{known:?} has become {upload}");
        }
    }

    /// There is no object that belongs to no upload.
    pub fn has_no_stray_object(&self) {
        let names: BTreeSet<String> = self.uploads.values().map(|upload| text(upload, "object")).collect();
        let strays: Vec<_> = self.objects.keys().filter(|name| !names.contains(*name)).collect();
        assert!(strays.is_empty(), "{strays:?}");
    }

    /// Every end was told under one id and as what it was, and nothing else was.
    pub fn was_told(&self, hooks: &Hooks) {
        assert_eq!(hooks.complaints(), Vec::<String>::new());
        let mut events = hooks.events();
        for (id, upload) in &self.uploads {
            let event = event_id(id.parse().unwrap());
            let told = events.remove(&event).unwrap_or_else(|| panic!("nobody was told of {upload}"));
            assert!(told.accepted > 0, "{event} was never accepted, of {upload}");
            let state = text(upload, "state");
            assert_eq!(told.kind, format!("upload.{state}"), "{upload}");
            assert_eq!((&told.upload["id"], &told.upload["state"]), (&upload["id"], &upload["state"]), "{upload}");
            assert!(told.upload.get("transfer").is_none(), "{event} holds a session");
        }
        assert!(events.is_empty(), "told of what nobody knows: {events:?}");
    }

    /// Nothing is reserved any more, and what counts for the day is what is stored, if all this was in one day.
    pub async fn left_nothing_reserved(&self, fleet: &Fleet, is_one_day: bool) {
        let rows = walk(&fleet.administrator(), "/v1/admin/usage?limit=2000", "rows").await;
        let held: Vec<_> = rows.iter().filter(|row| row["active"] != 0).collect();
        assert!(held.is_empty(), "{held:?}");
        let used: u64 = rows.iter().map(|row| row["bytes_today"].as_u64().unwrap()).sum();
        let stored: u64 = self.objects.values().map(|object| text(object, "size").parse::<u64>().unwrap()).sum();
        assert!(!is_one_day || used == stored, "{used} bytes count, and {stored} are stored");
    }

    /// No session that anybody was told of takes bytes. Gives how many do that nobody was told of: at most one for each
    /// request that was to open one and had no answer, and for each of the `lost` answers of storage.
    pub async fn left_no_session(fleet: &Fleet, known: &[Known], troubles: &Troubles, lost: u64) -> u64 {
        for uri in known.iter().flat_map(|known| &known.uris) {
            let asked = fleet.client.put(uri).header("content-range", "bytes */*").header("content-length", 0);
            let status = asked.send().await.unwrap().status();
            assert_ne!(status, 308, "{uri} still takes bytes");
        }
        let live = fleet.emulator(Method::GET, "sessions", None).await["live"].as_u64().unwrap();
        let most = troubles.openings.load(Ordering::Relaxed) + lost;
        assert!(live <= most, "{live} sessions take bytes, after {most} answers that were lost");
        live
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}

/// The entries of every page.
async fn walk(user: &User, path: &str, list: &str) -> Vec<Value> {
    let (mut entries, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = user.get(&format!("{path}{cursor}")).await.is(200);
        entries.extend(page.body[list].as_array().unwrap().iter().cloned());
        let Some(next) = page.body["next_cursor"].as_str() else { return entries };
        cursor = format!("&cursor={next}");
    }
}
