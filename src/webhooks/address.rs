//! Keeps events from being sent inside: to this machine, to private networks, to the metadata server of a cloud.
//!
//! The address is looked at where it is connected to, and not before: a name could resolve to another one by then.

use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

/// How many names an endpoint may have resolved at a time. The system's resolver cannot be stopped, and has a thread for
/// each while its servers are silent.
const LOOKUPS_AT_ONCE: usize = 4;

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(first: u16, second: u16, third: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0), length)
}

/// What the registry of special-purpose addresses does not call globally reachable (IANA, RFC 6890), and one more.
const REFUSED_V4: [Ipv4Net; 16] = [
    // "This" network, which Linux takes for this machine; this machine.
    v4(0, 0, 0, 0, 8),
    v4(127, 0, 0, 0, 8),
    // Private (RFC 1918), and behind a carrier's translation (RFC 6598).
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v4(100, 64, 0, 0, 10),
    // Link-local, with the metadata servers of most clouds.
    v4(169, 254, 0, 0, 16),
    // Protocol assignments, among them the metadata server of another cloud; the relays of 6to4.
    v4(192, 0, 0, 0, 24),
    v4(192, 88, 99, 0, 24),
    // Benchmarking (RFC 2544); documentation (RFC 5737).
    v4(198, 18, 0, 0, 15),
    v4(192, 0, 2, 0, 24),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    // Multicast; reserved, and broadcast.
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
    // What virtual machines of Azure reach, and nobody else (Microsoft, "What is IP address 168.63.129.16?").
    v4(168, 63, 129, 16, 32),
];

/// The only part of version 6 that is globally reachable, translations aside.
const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 0, 3);

/// What of it is not.
const REFUSED_V6: [Ipv6Net; 3] = [
    // Protocol assignments, among them Teredo and benchmarking (RFC 2928).
    v6(0x2001, 0, 0, 23),
    // Documentation (RFC 3849, RFC 9637).
    v6(0x2001, 0xdb8, 0, 32),
    v6(0x3fff, 0, 0, 20),
];

/// Whether `address` leads inside, or nowhere. Addresses that embed one of version 4 are judged by that.
pub(super) fn is_refused(address: IpAddr) -> bool {
    let address = match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => embedded(address).ok_or(address),
    };
    match address {
        Ok(address) => REFUSED_V4.iter().any(|network| network.contains(&address)),
        Err(address) => {
            !GLOBAL_UNICAST.contains(&address) || REFUSED_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// The address of version 4 that an address of version 6 leads to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    // Mapped (RFC 4291, section 2.5.5.2); translated by NAT64 (RFC 6052); 6to4 (RFC 3056).
    let ([0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..]) =
        address.segments()
    else {
        return None;
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

/// The name resolves to addresses that are refused, and to no other.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to private addresses only")]
pub(super) struct RefusedAddress;

/// The name does not resolve.
#[derive(Debug, thiserror::Error)]
#[error("the name does not resolve")]
pub(super) struct Unresolved(#[source] std::io::Error);

/// Whether addresses that lead inside are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// They are not.
    Public,
    /// They are, as the configuration allows.
    Anywhere,
}

/// Resolves names by the system, and gives the client no address that it must not connect to.
#[derive(Clone)]
pub(super) struct Resolver {
    reach: Reach,
    lookups: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new(reach: Reach) -> Self {
        Self { reach, lookups: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)) }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, lookups) = (self.reach, Arc::clone(&self.lookups));
        Box::pin(async move {
            let permit = lookups.acquire_owned().await?;
            let found = tokio::task::spawn_blocking(move || {
                // Held until the system has answered, also when nobody waits any more.
                let _permit = permit;
                (name.as_str(), 0).to_socket_addrs().map(Vec::from_iter)
            });
            let addresses = permitted(reach, found.await?.map_err(Unresolved)?)?;
            Ok::<Addrs, Box<dyn StdError + Send + Sync>>(Box::new(addresses.into_iter()))
        })
    }
}

fn permitted(reach: Reach, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, RefusedAddress> {
    if reach == Reach::Public {
        found.retain(|address| !is_refused(address.ip()));
    }
    if found.is_empty() { Err(RefusedAddress) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_lead_inside_are_refused_in_every_form() {
        for (address, refused) in [
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("100.63.255.255", false),
            ("100.64.0.0", true),
            ("100.100.100.200", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("127.0.0.1", true),
            ("127.255.255.255", true),
            ("168.63.129.15", false),
            ("168.63.129.16", true),
            ("169.253.255.255", false),
            ("169.254.169.254", true),
            ("169.255.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.0.0.192", true),
            ("192.0.1.1", false),
            ("192.0.2.1", true),
            ("192.88.99.1", true),
            ("192.167.255.255", false),
            ("192.168.0.1", true),
            ("192.169.0.0", false),
            ("198.17.255.255", false),
            ("198.18.0.1", true),
            ("198.19.255.255", true),
            ("198.20.0.0", false),
            ("198.51.100.1", true),
            ("203.0.113.1", true),
            ("223.255.255.255", false),
            ("224.0.0.1", true),
            ("239.255.255.255", true),
            ("240.0.0.1", true),
            ("255.255.255.255", true),
            ("8.8.8.8", false),
            ("::", true),
            ("::1", true),
            ("::7f00:1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("::ffff:8.8.8.8", false),
            ("64:ff9b::10.0.0.1", true),
            ("64:ff9b::169.254.169.254", true),
            ("64:ff9b::8.8.8.8", false),
            ("64:ff9b:1::8.8.8.8", true),
            ("100::1", true),
            ("1fff::1", true),
            ("2001::1", true),
            ("2001:2::1", true),
            ("2001:1ff::1", true),
            ("2001:200::1", false),
            ("2001:db8::1", true),
            ("2001:4860:4860::8888", false),
            ("2002:a00:1::1", true),
            ("2002:c0a8:1::1", true),
            ("2002:808:808::1", false),
            ("2a00:1450:4001::1", false),
            ("3fff::1", true),
            ("3fff:1000::1", false),
            ("4000::1", true),
            ("5f00::1", true),
            ("fc00::1", true),
            ("fd20:ce::254", true),
            ("fe80::1", true),
            ("fec0::1", true),
            ("ff02::1", true),
        ] {
            assert_eq!(is_refused(address.parse().unwrap()), refused, "{address}");
        }
    }

    #[test]
    fn a_name_with_public_and_private_addresses_leads_to_the_public_ones() {
        let [inside, outside] = ["10.0.0.1:0", "8.8.8.8:0"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(permitted(Reach::Public, vec![inside, outside]).unwrap(), [outside]);
        assert!(permitted(Reach::Public, vec![inside]).is_err());
        assert_eq!(permitted(Reach::Anywhere, vec![inside, outside]).unwrap(), [inside, outside]);
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_resolves_only_where_that_is_allowed() {
        let resolve = |reach| Resolver::new(reach).resolve("localhost".parse().unwrap());
        assert!(resolve(Reach::Public).await.err().unwrap().is::<RefusedAddress>());
        assert!(resolve(Reach::Anywhere).await.unwrap().all(|address| address.ip().is_loopback()));
    }
}
