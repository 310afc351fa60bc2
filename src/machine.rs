//! Where this process runs, as the metadata server of Google's machines has it.
//!
//! Off Google nobody answers to its name, so nothing here waits longer than [`PATIENCE`]. Plain HTTP, as the server has
//! it: it is on the machine's own link (Compute Engine documentation, "View and query VM metadata").

use std::time::Duration;

use reqwest::{Client, StatusCode};
use url::Url;

use crate::model::name::RegionName;

/// How long all of a question may take, the look-up of the name included.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The longest answer that is read: names and paths of resources are short.
const LONGEST: usize = 4096;

/// The server on every machine of Google's, where `GCE_METADATA_HOST` names no other.
const HOST: &str = "metadata.google.internal";

/// The header that tells the server from whatever else answers to its name.
const FLAVOR: &str = "metadata-flavor";

/// Why it is not known where this process runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `GCE_METADATA_HOST` is no host.
    #[error("GCE_METADATA_HOST is not a host, with or without a port")]
    Host,
    /// Nobody is there, or nobody answers in time: most likely this is no machine of Google's.
    #[error("the metadata server {host} cannot be reached")]
    Absent {
        /// Who was asked.
        host: String,
    },
    /// What answers is not the metadata server, or does not know.
    #[error("{host} {reason}")]
    Nonsense {
        /// Who was asked.
        host: String,
        /// What is wrong with the answer.
        reason: &'static str,
    },
}

/// The metadata server.
pub struct Machine {
    client: Client,
    host: String,
    root: Url,
}

impl Machine {
    /// Prepares to ask `host`, the value of `GCE_METADATA_HOST`, or the usual server. Asks nobody.
    ///
    /// # Errors
    /// When `host` is no host, or no client can be set up.
    pub fn new(host: Option<&str>) -> Result<Self, Error> {
        let host = host.unwrap_or(HOST);
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
        if host.is_empty() || !host.bytes().all(bare) {
            return Err(Error::Host);
        }
        let root = Url::parse(&format!("http://{host}/computeMetadata/v1/")).map_err(|_| Error::Host)?;
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // Whoever is asked through a proxy is another machine's.
            .no_proxy()
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .build();
        let client = client.map_err(|_| Error::Absent { host: host.to_owned() })?;
        Ok(Self { client, host: host.to_owned(), root })
    }

    /// The region that this process runs in.
    ///
    /// # Errors
    /// When that cannot be said, after [`PATIENCE`] at the latest.
    pub async fn region(&self) -> Result<RegionName, Error> {
        let asked = async {
            let (zone, region) = tokio::join!(self.ask("instance/zone"), self.ask("instance/region"));
            // Machines have a zone, and no region of their own; what runs without machines may have either.
            let name = match (zone?, region?) {
                (Some(zone), _) => last(&zone).rsplit_once('-').and_then(|(region, _)| region.parse().ok()),
                (None, Some(region)) => last(&region).parse().ok(),
                (None, None) => None,
            };
            name.ok_or_else(|| self.nonsense("names no region"))
        };
        self.in_time(asked).await
    }

    /// The service account of the machine, for people; `None` where it has none.
    ///
    /// # Errors
    /// When that cannot be said, after [`PATIENCE`] at the latest.
    pub async fn account(&self) -> Result<Option<String>, Error> {
        self.in_time(self.ask("instance/service-accounts/default/email")).await
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(self.absent()))
    }

    /// The text at `path`, or `None` where the server has none.
    async fn ask(&self, path: &str) -> Result<Option<String>, Error> {
        let url = self.root.join(path).map_err(|_| Error::Host)?;
        let sent = self.client.get(url).header(FLAVOR, "Google").send().await;
        let mut answer = sent.map_err(|_| self.absent())?;
        if answer.headers().get(FLAVOR).is_none_or(|flavor| flavor != "Google") {
            return Err(self.nonsense("is not a metadata server of Google"));
        }
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.nonsense("answered with another status than 200")),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| self.absent())? {
            if body.len() + chunk.len() > LONGEST {
                return Err(self.nonsense("answered with more than a name"));
            }
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(body).map_err(|_| self.nonsense("answered with what is no text"))?;
        Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    fn absent(&self) -> Error {
        Error::Absent { host: self.host.clone() }
    }

    fn nonsense(&self, reason: &'static str) -> Error {
        Error::Nonsense { host: self.host.clone(), reason }
    }
}

/// What stands behind the last slash of a resource's path.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;

    use super::*;

    /// A server that answers to these two paths, and tells only who asks as one should.
    async fn serve(zone: Option<&'static str>, region: Option<&'static str>, flavor: &'static str) -> SocketAddr {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let say = |text: Option<&'static str>| {
            get(move |asked: HeaderMap| async move {
                let is_asked = asked.get(FLAVOR).is_some_and(|value| value == "Google");
                let status = match text {
                    _ if !is_asked => StatusCode::FORBIDDEN,
                    Some(_) => StatusCode::OK,
                    None => StatusCode::NOT_FOUND,
                };
                (status, [(FLAVOR, flavor)], text.unwrap_or_default())
            })
        };
        let router = Router::new()
            .route("/computeMetadata/v1/instance/zone", say(zone))
            .route("/computeMetadata/v1/instance/region", say(region));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn the_region_is_that_of_the_zone_or_of_the_region_itself() {
        let long = "x".repeat(LONGEST + 1).leak();
        for (name, zone, region, flavor, expected) in [
            ("a machine", Some("projects/1/zones/europe-west1-b"), None, "Google", Ok("europe-west1")),
            ("a numbered zone", Some("projects/1/zones/us-east4-1\n"), None, "Google", Ok("us-east4")),
            ("no machine", None, Some("projects/1/regions/us-central1"), "Google", Ok("us-central1")),
            ("neither", None, None, "Google", Err("names no region")),
            ("nonsense", Some("here"), None, "Google", Err("names no region")),
            ("too much", Some(long), None, "Google", Err("more than a name")),
            ("somebody else", Some("projects/1/zones/europe-west1-b"), None, "Other", Err("not a metadata server")),
        ] {
            let host = serve(zone, region, flavor).await.to_string();
            let told = Machine::new(Some(&host)).unwrap().region().await;
            match (told, expected) {
                (Ok(region), Ok(expected)) => assert_eq!(region.as_str(), expected, "{name}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{name}: {error}"),
                (told, _) => panic!("{name}: {told:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn off_google_nobody_is_waited_for() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let before = tokio::time::Instant::now();
        let silent = Machine::new(Some(&host)).unwrap().region().await;
        assert!(matches!(silent, Err(Error::Absent { .. })), "{silent:?}");
        assert!(before.elapsed() <= PATIENCE + Duration::from_millis(100));
        drop(listener);
        let absent = Machine::new(Some(&host)).unwrap().region().await;
        assert!(matches!(absent, Err(Error::Absent { .. })), "{absent:?}");
        for wrong in ["", "a/b", "a@b", "http://x"] {
            assert!(matches!(Machine::new(Some(wrong)), Err(Error::Host)), "{wrong}");
        }
    }
}
