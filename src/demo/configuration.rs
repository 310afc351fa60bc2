//! The configuration of each broker, as an operator would write it.

use std::fmt::Write as _;
use std::path::Path;

use super::Place;
use super::edge::GEO_HEADER;

/// What a broker's configuration is made of.
pub(super) struct Deployment<'a> {
    /// The issuer, which is also the page's site.
    pub(super) issuer: &'a str,
    /// What browsers call that site.
    pub(super) origins: &'a [String],
    /// Every region, with the address of its edge.
    pub(super) regions: &'a [(Place, String)],
}

/// The configuration of the broker in that region, beside that storage, with the key that it signs URLs with.
pub(super) fn configuration(deployment: &Deployment<'_>, own: &(Place, String), storage: &str, key: &Path) -> String {
    let Deployment { issuer, origins, regions } = deployment;
    let (Place { name, .. }, url) = own;
    let key = key.display().to_string();
    let mut sections = String::new();
    for (Place { name, bucket }, url) in *regions {
        // Writing to a `String` cannot fail.
        let _ = writeln!(sections, "[[regions]]\nname = \"{name}\"\nbucket = \"{bucket}\"\nurl = \"{url}\"\n");
    }
    format!(
        r#"
region = "{name}"

[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
public_url = "{url}"
trusted_proxies = ["127.0.0.0/8"]
allowed_origins = {origins:?}

[store]
url = "memory"

[storage]
endpoint = "{storage}"
credentials = {{ file = {key:?} }}

[[issuers]]
issuer = "{issuer}"
audiences = ["demo"]
algorithms = ["ES256"]

{sections}
[routing]
geo_header = "{GEO_HEADER}"
misdirected = "serve"

[[policies]]
name = "videos"
when = '"creator" in claims.roles'
object = "videos/{{sub}}/{{id}}.{{ext}}"
content_types = ["video/*"]
min_size = 1
max_size = "2GiB"
max_active = 5
rate = "60/1m"
daily_bytes = "20GiB"

[[policies]]
name = "notes"
object = "notes/{{date}}/{{shard}}/{{id}}"
content_types = ["text/*", "image/*", "application/*"]
max_size = "256MiB"
max_active = 10
transfers = ["resumable", "simple", "signed_resumable"]

[[policies]]
name = "streams"
object = "streams/{{sub}}/{{id}}.{{ext}}"
unknown_size = true
max_size = "4MiB"
max_active = 5

# What is uploaded under this one stays in Europe, wherever its owner is.
[[policies]]
name = "european"
object = "european/{{sub}}/{{id}}.{{ext}}"
max_size = "256MiB"
max_active = 5
regions = ["europe-west1"]
"#
    )
}
