//! A real authoritative name server, PowerDNS, which looks up where clients are and whether brokers are well.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::resolver::ask;
use super::{CLIENTS, Client, FAILOVER, NAME, REGIONS, TTL, address_of};
use crate::support::mmdb::{Mmdb, place};

/// A name server, gone with its test.
pub struct NameServer {
    child: Child,
    pub address: SocketAddr,
}

impl NameServer {
    /// Starts one; `None`, said aloud, where there is no `pdns_server`. In CI that is a failure.
    pub async fn start(folder: &Path, port: u16) -> Option<Self> {
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        write_files(folder, address.port(), port);
        let child = Command::new("pdns_server")
            .arg(format!("--config-dir={}", folder.display()))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("pdns.log")).unwrap())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "pdns_server is needed: {error}");
                #[expect(clippy::print_stderr, reason = "a test that does not run must say so")]
                {
                    eprintln!("skipped: there is no pdns_server");
                }
                return None;
            }
        };
        let server = Self { child, address };
        let begun = Instant::now();
        while ask(server.address, CLIENTS[0].network).await.is_none() {
            let log = || std::fs::read_to_string(folder.join("pdns.log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(20), "the name server does not answer: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(server)
    }

    /// Waits until every client is given the region that `expected` makes of it, and goes on being given it.
    pub async fn settles(&self, expected: impl Fn(&Client) -> &'static str) {
        let (begun, mut right_in_a_row) = (Instant::now(), 0);
        while right_in_a_row < 5 {
            let mut wrong = None;
            for client in &CLIENTS {
                let given = ask(self.address, client.network).await.map(|(address, _)| address);
                if given != Some(address_of(expected(client))) {
                    wrong = Some((client.country, given));
                }
            }
            right_in_a_row = if wrong.is_none() { right_in_a_row + 1 } else { 0 };
            assert!(begun.elapsed() < FAILOVER, "not where it should be: {wrong:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_files(folder: &Path, dns_port: u16, port: u16) {
    let mut networks: Vec<(String, _)> = Vec::new();
    for client in &CLIENTS {
        networks.push((format!("{}/26", client.network), place(Some(client.country), Some(client.place))));
    }
    for (_, address, at) in REGIONS {
        networks.push((format!("{address}/32"), place(None, Some(at))));
    }
    let networks: Vec<_> = networks.iter().map(|(network, value)| (network.as_str(), value.clone())).collect();
    std::fs::write(folder.join("city.mmdb"), Mmdb::cities(&networks).bytes()).unwrap();
    std::fs::write(folder.join("geo.yaml"), "domains: []\n").unwrap();
    let place = folder.display();
    std::fs::write(
        folder.join("named.conf"),
        format!("zone \"{NAME}\" {{ type master; file \"{place}/{NAME}.zone\"; }};\n"),
    )
    .unwrap();
    let addresses = REGIONS.map(|(_, address, _)| format!("'{address}'")).join(", ");
    // A broker answers this with 200 while it takes uploads, and with 503 while it does not.
    let (ttl, check) = (TTL.as_secs(), format!("http://{NAME}:{port}/v1/route"));
    std::fs::write(
        folder.join(format!("{NAME}.zone")),
        format!(
            "$TTL {ttl}\n@ IN SOA ns root 1 3600 600 86400 {ttl}\n@ IN NS ns\nns IN A 127.0.0.1\n\
             @ IN LUA A \"ifurlup('{check}', {{{{{addresses}}}}}, {{selector='pickclosest', timeout=5}})\"\n"
        ),
    )
    .unwrap();
    std::fs::write(
        folder.join("pdns.conf"),
        format!(
            "launch=bind,geoip\nbind-config={place}/named.conf\ngeoip-database-files={place}/city.mmdb\n\
             geoip-zones-file={place}/geo.yaml\nenable-lua-records=yes\nedns-subnet-processing=yes\n\
             lua-health-checks-interval=2\ncache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\n\
             local-address=127.0.0.1\nlocal-port={dns_port}\nsocket-dir={place}\ndaemon=no\nguardian=no\n\
             disable-syslog=yes\nwebserver=no\n"
        ),
    )
    .unwrap();
}
