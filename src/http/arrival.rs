//! How a request came here: from where, and over whom. A client's own word on that counts for nothing.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::extract::IDEMPOTENCY_KEY;
use super::problem::{Code, Problem};
use crate::geo::{Located, Locator};
use crate::model::name::RegionName;
use crate::routing::{Arrival, FORWARDED, Hop, Routing};
use crate::server::Peer;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks of the proxies that are believed.
#[derive(Clone, Debug)]
pub struct TrustedProxies(pub Arc<[IpNet]>);

impl TrustedProxies {
    /// Whether what this address says of others is believed.
    pub fn include(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address: that of the peer, or the one that trusted proxies tell of. Each of them adds on the right
    /// whom it was called by, so the first one from there that is no proxy itself is the client. What stands left of it
    /// was written by the client.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let hops = headers.get_all(FORWARDED_FOR).iter().rev();
        for hop in hops.flat_map(|value| value.to_str().unwrap_or_default().rsplit(',')) {
            if !self.include(client) {
                break;
            }
            // One that says nothing of use leaves us with the proxy, of whose place nobody knows.
            let Some(address) = read_hop(hop) else { break };
            client = address;
        }
        client
    }
}

/// An address, perhaps in brackets and with a port.
fn read_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse().or_else(|_| text.parse().map(|socket: std::net::SocketAddr| socket.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.ok().or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

/// Where whoever sent the request is.
pub struct Whereabouts(pub Located);

impl<S> FromRequestParts<S> for Whereabouts
where
    S: Send + Sync,
    Arc<Routing>: FromRef<S>,
    TrustedProxies: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Some(peer) = parts.extensions.get::<Peer>() else { return Err(Problem::new(Code::InternalError)) };
        let (routing, proxies) = (Arc::<Routing>::from_ref(state), TrustedProxies::from_ref(state));
        Ok(Self(locate(&routing.locator, &proxies, peer.address.ip(), &parts.headers)))
    }
}

/// How the request came here, and what goes along when it is sent on.
pub struct Arrived {
    /// Where its client is, and over which brokers it came.
    pub arrival: Arrival,
    /// Who asks, from which page, and under which key.
    pub credentials: HeaderMap,
}

impl<S> FromRequestParts<S> for Arrived
where
    S: Send + Sync,
    Whereabouts: FromRequestParts<S, Rejection = Problem>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let arrival = if is_forwarded(&parts.headers) {
            // Whoever sent it is a broker, and where that is says nothing.
            Arrival { located: Located::UNKNOWN, hop: Hop::Second }
        } else {
            let Whereabouts(located) = Whereabouts::from_request_parts(parts, state).await?;
            Arrival { located, hop: Hop::First }
        };
        Ok(Self { arrival, credentials: credentials(&parts.headers) })
    }
}

fn credentials(headers: &HeaderMap) -> HeaderMap {
    let sent = |name: HeaderName| {
        let mut value = headers.get(&name)?.clone();
        value.set_sensitive(name == AUTHORIZATION);
        Some((name, value))
    };
    [AUTHORIZATION, ORIGIN, IDEMPOTENCY_KEY].into_iter().filter_map(sent).collect()
}

/// Where the client is, by the word of a trusted proxy or by its address.
fn locate(locator: &Locator, proxies: &TrustedProxies, peer: IpAddr, headers: &HeaderMap) -> Located {
    let told = locator.header.as_ref().filter(|_| proxies.include(peer)).and_then(|name| only(headers, name.as_str()));
    locator.locate(told, proxies.client(peer, headers))
}

/// Whether the broker of another region has sent the request on, or somebody says so: nobody can tell, also behind a
/// trusted proxy, which lets such a header through. So nothing follows from it but that the way ends here. It need not
/// be a region of this configuration: while one is added, it knows the others before they know it.
fn is_forwarded(headers: &HeaderMap) -> bool {
    let is_region = |value: &str| value.parse::<RegionName>().is_ok();
    headers.get_all(FORWARDED).iter().any(|value| value.to_str().is_ok_and(is_region))
}

/// The value of a header that stands there once. Where it stands twice, the client may have added the other.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> TrustedProxies {
        TrustedProxies(["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()].into())
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_client_is_whom_the_last_trusted_proxy_was_called_by() {
        const FOR: &str = "x-forwarded-for";
        for (name, peer, sent, expected) in [
            ("the peer itself", "203.0.113.7", vec![], "203.0.113.7"),
            ("a peer that is no proxy", "203.0.113.7", vec![(FOR, "198.51.100.1")], "203.0.113.7"),
            ("behind a proxy", "10.0.0.1", vec![(FOR, "198.51.100.1")], "198.51.100.1"),
            ("behind two", "10.0.0.1", vec![(FOR, "198.51.100.1, 10.9.9.9")], "198.51.100.1"),
            ("behind two, in two lines", "10.0.0.1", vec![(FOR, "198.51.100.1"), (FOR, "10.9.9.9")], "198.51.100.1"),
            ("forged by the client", "10.0.0.1", vec![(FOR, "192.0.2.1, 198.51.100.1")], "198.51.100.1"),
            (
                "forged in a line of its own",
                "10.0.0.1",
                vec![(FOR, "192.0.2.1"), (FOR, "198.51.100.1")],
                "198.51.100.1",
            ),
            ("all proxies", "10.0.0.1", vec![(FOR, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            ("a proxy that says nothing", "10.0.0.1", vec![], "10.0.0.1"),
            ("nonsense", "10.0.0.1", vec![(FOR, "192.0.2.1, unknown")], "10.0.0.1"),
            ("nonsense behind a proxy", "10.0.0.1", vec![(FOR, "unknown, 10.0.0.2")], "10.0.0.2"),
            ("with a port", "10.0.0.1", vec![(FOR, "198.51.100.1:4711")], "198.51.100.1"),
            ("IPv6", "2001:db8::1", vec![(FOR, "2001:4860::7")], "2001:4860::7"),
            ("IPv6 with a port", "10.0.0.1", vec![(FOR, "[2001:4860::7]:4711")], "2001:4860::7"),
            ("IPv6 in brackets", "10.0.0.1", vec![(FOR, "[2001:4860::7]")], "2001:4860::7"),
            ("a proxy written as IPv6", "::ffff:10.0.0.1", vec![(FOR, "::ffff:198.51.100.1")], "198.51.100.1"),
        ] {
            let found = proxies().client(peer.parse().unwrap(), &headers(&sent));
            assert_eq!(found.to_string(), expected, "{name}");
        }
    }

    #[test]
    fn a_place_is_believed_of_trusted_proxies_that_say_it_once() {
        const GEO: &str = "x-client-geo";
        let locator = Locator { header: Some(GEO.parse().unwrap()), database: None };
        for (name, peer, sent, expected) in [
            ("a proxy", "10.0.0.1", vec![(GEO, "DE")], "DE header"),
            ("the same, written as IPv6", "::ffff:10.0.0.1", vec![(GEO, "DE")], "DE header"),
            ("anybody else", "203.0.113.7", vec![(GEO, "DE")], " none"),
            ("anybody who names a proxy", "203.0.113.7", vec![(GEO, "DE"), ("x-forwarded-for", "10.0.0.1")], " none"),
            ("twice", "10.0.0.1", vec![(GEO, "DE"), (GEO, "JP")], " none"),
            ("nonsense", "10.0.0.1", vec![(GEO, "Berlin")], " none"),
            ("nothing", "10.0.0.1", vec![], " none"),
        ] {
            let found = locate(&locator, &proxies(), peer.parse().unwrap(), &headers(&sent));
            assert_eq!(format!("{} {}", found.location, found.how.name()), expected, "{name}");
        }
    }

    #[test]
    fn what_any_region_has_sent_on_ends_here() {
        const BY: &str = "x-upload-broker-forwarded";
        for (name, sent, expected) in [
            ("a region", vec![(BY, "us-east1")], true),
            ("a region that is not known yet", vec![(BY, "moon")], true),
            ("two regions", vec![(BY, "us-east1"), (BY, "us-west1")], true),
            ("no region", vec![], false),
            ("nothing", vec![(BY, "")], false),
            ("what is no name of a region", vec![(BY, "Not a region")], false),
        ] {
            assert_eq!(is_forwarded(&headers(&sent)), expected, "{name}");
        }
    }
}
