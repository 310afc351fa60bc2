//! What a service can start with, and its operator may not have meant.

use std::collections::BTreeSet;

use super::{Config, ConfigError};
use crate::geo::Database;
use crate::model::chain;
use crate::telemetry::CollectorUrl;

impl Config {
    /// What may not be meant, each with the place of its key. Blocks while the database of addresses is read.
    pub fn remarks(&self) -> Vec<ConfigError> {
        let mut remarks = self.remarks_on_text();
        if let Some(file) = &self.routing.geoip_database
            && let Err(error) = Database::new(file.clone()).reload_if_changed()
        {
            let reason = format!("cannot be used, and addresses say nothing: {}", chain(&error));
            remarks.push(self.error("routing", None, "geoip_database", reason));
        }
        remarks
    }

    /// The same of what the file itself says. The service warns of its database when it reads it.
    pub fn remarks_on_text(&self) -> Vec<ConfigError> {
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
        if self.telemetry.otlp_endpoint.as_ref().is_some_and(CollectorUrl::is_at_port_of_grpc) {
            let reason = "has the port of OTLP over gRPC; this is OTLP over HTTP, which collectors take at 4318";
            remarks.push(self.error("telemetry", None, "otlp_endpoint", reason));
        }
        remarks
    }
}
