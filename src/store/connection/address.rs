//! `store.url`: a server, the Sentinels that know one, or nodes of a cluster.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError, TlsCertificates};
use url::{Url, form_urlencoded};

use super::super::error::{Cause, OpenError};
use super::tls;

/// Where a Sentinel listens unless it is said (Redis Sentinel documentation, "Running Sentinel").
const SENTINEL_PORT: u16 = 26_379;

const SENTINELS: &str =
    "must be redis+sentinel://host:port,host:port/NAME, where NAME is what Sentinels call the master";
const CLUSTER: &str = "must be redis+cluster://host:port,host:port";

/// What `store.url` names.
#[derive(Debug)]
pub(super) enum Address {
    /// One server.
    Server(ConnectionInfo),
    /// Servers of which Sentinels know the master.
    Sentinels {
        sentinels: Vec<ConnectionInfo>,
        /// The name of the master.
        master: String,
        /// How to reach a server, but for its host and port.
        server: ConnectionInfo,
    },
    /// Nodes of a cluster; the others are learned from them.
    Cluster(Vec<ConnectionInfo>),
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, OpenError> {
        let (scheme, rest) = text.split_once(':').ok_or(OpenError::Url)?;
        // The one fragment that the client knows switches the verification of certificates off.
        if text.contains('#') {
            return Err(OpenError::Url);
        }
        let hosts = rest.strip_prefix("//");
        match &*scheme.to_ascii_lowercase() {
            "redis" | "rediss" | "unix" | "redis+unix" => {
                let url = Url::parse(text).map_err(|_| OpenError::Url)?;
                Ok(Self::Server(info(url)?))
            }
            "redis+sentinel" => Self::sentinels("redis", hosts).ok_or(OpenError::Hosts(SENTINELS)),
            "rediss+sentinel" => Self::sentinels("rediss", hosts).ok_or(OpenError::Hosts(SENTINELS)),
            "redis+cluster" => Self::cluster("redis", hosts).ok_or(OpenError::Hosts(CLUSTER)),
            "rediss+cluster" => Self::cluster("rediss", hosts).ok_or(OpenError::Hosts(CLUSTER)),
            _ => Err(OpenError::Url),
        }
    }

    /// The same, reached with `certificates` where it is behind TLS.
    pub(super) fn with(self, certificates: Option<&TlsCertificates>) -> Result<Self, OpenError> {
        let Some(certificates) = certificates else { return Ok(self) };
        let each = |infos: Vec<ConnectionInfo>| -> Result<Vec<_>, OpenError> {
            infos.into_iter().map(|info| tls::with(info, certificates)).collect()
        };
        Ok(match self {
            Self::Server(info) => Self::Server(tls::with(info, certificates)?),
            Self::Sentinels { sentinels, master, server } => {
                Self::Sentinels { sentinels: each(sentinels)?, master, server: tls::with(server, certificates)? }
            }
            Self::Cluster(nodes) => Self::Cluster(each(nodes)?),
        })
    }

    fn cluster(scheme: &str, rest: Option<&str>) -> Option<Self> {
        let rest = rest?;
        let hosts = rest.strip_suffix('/').unwrap_or(rest);
        let (user, hosts) = split_user(hosts);
        Some(Self::Cluster(infos(scheme, user, hosts)?))
    }

    fn sentinels(scheme: &str, rest: Option<&str>) -> Option<Self> {
        let (hosts, path) = rest?.split_once('/')?;
        let (master, query) = path.split_once('?').unwrap_or((path, ""));
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if master.is_empty() || !master.bytes().all(fits) {
            return None;
        }
        let (user, hosts) = split_user(hosts);
        let server = infos(scheme, user, hosts)?.into_iter().next()?;
        // Sentinels have users of their own, and refuse a password where they ask for none.
        let mut sentinels = infos(scheme, "", hosts)?;
        // A plus is one, as it is before the hosts, and not the space of a form.
        for (key, value) in form_urlencoded::parse(query.replace('+', "%2B").as_bytes()) {
            for sentinel in &mut sentinels {
                let settings = sentinel.redis_settings().clone();
                let settings = match &*key {
                    "sentinel_user" => settings.set_username(&value),
                    "sentinel_password" => settings.set_password(&value),
                    _ => return None,
                };
                *sentinel = sentinel.clone().set_redis_settings(settings);
            }
        }
        for (sentinel, host) in sentinels.iter_mut().zip(hosts.split(',')) {
            if !names_port(host) {
                let mut addr = sentinel.addr().clone();
                if let ConnectionAddr::Tcp(_, port) | ConnectionAddr::TcpTls { port, .. } = &mut addr {
                    *port = SENTINEL_PORT;
                }
                *sentinel = sentinel.clone().set_addr(addr);
            }
        }
        Some(Self::Sentinels { sentinels, master: master.to_owned(), server })
    }
}

/// What is wrong with an address of several hosts, for people; never repeats it: it may hold a password.
pub(in super::super) fn wrong_with_hosts(text: &str) -> Option<&'static str> {
    match Address::parse(text) {
        Err(OpenError::Url) => Some("must not have a fragment"),
        Err(OpenError::Hosts(reason)) => Some(reason),
        _ => None,
    }
}

/// Whether a host is followed by a port. An IPv6 address, which has colons of its own, stands in brackets.
fn names_port(host: &str) -> bool {
    host.rsplit_once(']').map_or(host, |(_, behind)| behind).contains(':')
}

fn split_user(authority: &str) -> (&str, &str) {
    authority.rsplit_once('@').unwrap_or(("", authority))
}

fn infos(scheme: &str, user: &str, hosts: &str) -> Option<Vec<ConnectionInfo>> {
    let each = |host: &str| {
        if host.contains(['/', '?', '@']) {
            return None;
        }
        let url = Url::parse(&format!("{scheme}://{user}@{host}")).ok()?;
        url.host_str().filter(|host| !host.is_empty())?;
        info(url).ok()
    };
    hosts.split(',').map(each).collect()
}

fn info(url: Url) -> Result<ConnectionInfo, OpenError> {
    let info = url.into_connection_info().map_err(|error: RedisError| OpenError::Client(Cause::from(&error)))?;
    // With RESP3 the client notices a lost connection at once, not at the next command.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_or_refused_without_being_repeated() {
        for (name, url, refusal) in [
            ("plain", "redis://127.0.0.1:6379", None),
            ("with a password and a database", "redis://:s3cret@127.0.0.1/2", None),
            ("TLS", "rediss://cache.example.com", None),
            ("in capitals", "REDIS://127.0.0.1", None),
            ("a socket", "redis+unix:///run/redis.sock", None),
            ("a socket, short", "unix:///run/redis.sock", None),
            ("a cluster", "redis+cluster://:s3cret@a,b:7000", None),
            ("a cluster behind TLS", "rediss+cluster://ada:s3cret@a,[fd00::1]:7000/", None),
            ("sentinels", "redis+sentinel://:s3cret@a,b:7000/main", None),
            ("sentinels behind TLS", "rediss+sentinel://a/main?sentinel_password=s3cret", None),
            ("no verification", "rediss://:s3cret@cache.example.com/#insecure", Some("store.url must be")),
            ("no verification in a cluster", "rediss+cluster://:s3cret@a/#insecure", Some("store.url must be")),
            ("another scheme", "http://:s3cret@cache.example.com", Some("store.url must be")),
            ("no address", "s3cret", Some("store.url must be")),
            ("a database that is no number", "redis://:s3cret@127.0.0.1/x", Some("cannot be used")),
            ("a cluster of nobody", "redis+cluster://:s3cret@", Some("must be redis+cluster://host:port")),
            ("a hole in a cluster", "redis+cluster://:s3cret@a,,b", Some("must be redis+cluster://host:port")),
            ("a database of a cluster", "redis+cluster://:s3cret@a/1", Some("must be redis+cluster://host:port")),
            ("a port that is none", "redis+cluster://:s3cret@a:b", Some("must be redis+cluster://host:port")),
            ("sentinels of nobody", "redis+sentinel://:s3cret@a", Some("must be redis+sentinel://host:port")),
            ("a master without a name", "redis+sentinel://:s3cret@a/", Some("must be redis+sentinel://host:port")),
            ("an unknown wish", "redis+sentinel://:s3cret@a/main?db=1", Some("must be redis+sentinel://host:port")),
        ] {
            let error = Address::parse(url).err().map(|error| format!("{error} {error:?}"));
            match (error, refusal) {
                (None, None) => {}
                (Some(error), Some(refusal)) => {
                    assert!(error.contains(refusal) && !error.contains("s3cret"), "{name}: {error}");
                }
                (error, _) => panic!("{name}: {error:?}"),
            }
        }
    }

    #[test]
    fn each_host_has_its_port_and_its_user() {
        let text = "redis+sentinel://ada:p%40ss@a,b:7,[fd00::1]/main?sentinel_user=eve&sentinel_password=x%26+y";
        let Ok(Address::Sentinels { sentinels, master, server }) = Address::parse(text) else { panic!("refused") };
        let at: Vec<_> = sentinels.iter().map(|sentinel| sentinel.addr().to_string()).collect();
        assert_eq!(at, ["a:26379", "b:7", "fd00::1:26379"]);
        assert_eq!(master, "main");
        let user = |info: &ConnectionInfo| {
            let settings = info.redis_settings();
            (settings.username().map(str::to_owned), settings.password().map(str::to_owned))
        };
        assert_eq!(user(&server), (Some("ada".to_owned()), Some("p@ss".to_owned())));
        assert!(sentinels.iter().all(|one| user(one) == (Some("eve".to_owned()), Some("x&+y".to_owned()))));

        let Ok(Address::Cluster(nodes)) = Address::parse("redis+cluster://:s@a,b:7") else { panic!("refused") };
        let at: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
        assert_eq!(at, ["a:6379", "b:7"]);
        assert!(nodes.iter().all(|node| user(node) == (None, Some("s".to_owned()))));
    }
}
