//! What a service can start with, and its operator may not have meant.

use std::collections::BTreeSet;

use super::{Config, ConfigError};
use crate::geo::Database;
use crate::model::chain;

impl Config {
    /// What may not be meant, each with the place of its key. Blocks while the database of addresses is read.
    pub fn remarks(&self) -> Vec<ConfigError> {
        let mut remarks = Vec::new();
        let (mut buckets, mut urls) = (BTreeSet::new(), BTreeSet::new());
        for (index, region) in self.regions.iter().enumerate() {
            if !buckets.insert(region.bucket.as_str()) {
                let reason = "is the bucket of an earlier region, too: right only if it spans both";
                remarks.push(self.error("regions", Some(index), "bucket", reason));
            }
            if !urls.insert(&region.url) {
                let reason =
                    "is the url of an earlier region, too: its broker then counts as down, since another answers";
                remarks.push(self.error("regions", Some(index), "url", reason));
            }
        }
        if self.routing.geo_header.is_some() && self.server.trusted_proxies.is_empty() {
            let reason = "is believed of nobody: server.trusted_proxies is empty";
            remarks.push(self.error("routing", None, "geo_header", reason));
        }
        if let Some(file) = &self.routing.geoip_database
            && let Err(error) = Database::new(file.clone()).reload_if_changed()
        {
            let reason = format!("cannot be used, and addresses say nothing: {}", chain(&error));
            remarks.push(self.error("routing", None, "geoip_database", reason));
        }
        remarks
    }
}
