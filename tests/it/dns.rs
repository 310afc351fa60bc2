//! From a name to a session: a real authoritative name server, which knows where clients are by their subnet and which
//! brokers are well, in front of three regions.
//!
//! PowerDNS stands for whatever geo-DNS an operator has: it is handed the client's network (RFC 7871), picks the nearest of
//! the addresses that answer its health checks, and gives it out for a few seconds.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use upload_broker::clock::Clock;

use super::support::broker::{Settings, configuration};
use super::support::mmdb::{Mmdb, place};
use super::support::process::{Process, command, serve};
use super::support::user::{User, request};

/// The name that clients know.
const NAME: &str = "uploads.test";

/// How long answers may be kept. Short, as a failover takes no less.
const TTL: Duration = Duration::from_secs(2);

/// The regions, each with its own address.
const REGIONS: [(&str, Ipv4Addr, (f64, f64)); 3] = [
    ("europe-west1", Ipv4Addr::new(127, 0, 1, 1), (50.47, 3.82)),
    ("us-east4", Ipv4Addr::new(127, 0, 1, 2), (39.04, -77.49)),
    ("asia-northeast1", Ipv4Addr::new(127, 0, 1, 3), (35.68, 139.69)),
];

/// A country, a network in it, where that is, the nearest region, and the next one.
type Client = (&'static str, Ipv4Addr, (f64, f64), &'static str, &'static str);

/// Clients in five countries.
const CLIENTS: [Client; 5] = [
    ("DE", Ipv4Addr::new(192, 0, 2, 0), (52.5, 13.4), "europe-west1", "us-east4"),
    ("PT", Ipv4Addr::new(192, 0, 2, 64), (38.7, -9.1), "europe-west1", "us-east4"),
    ("CA", Ipv4Addr::new(192, 0, 2, 128), (45.5, -73.6), "us-east4", "europe-west1"),
    ("BR", Ipv4Addr::new(198, 51, 100, 0), (-23.5, -46.6), "us-east4", "europe-west1"),
    ("KR", Ipv4Addr::new(198, 51, 100, 128), (37.6, 127.0), "asia-northeast1", "europe-west1"),
];

/// How long it may take until a region that is away is not given out any more, and until one that is back is again.
const FAILOVER: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_five_countries_get_sessions_beside_them_and_the_next_region_takes_over() {
    let folder = TempDir::new().unwrap();
    let port = free_port();
    let Some(names) = NameServer::start(folder.path(), port) else { return };
    let (_storage, endpoint) = emulator();
    let mut brokers: Vec<Option<Process>> = REGIONS
        .iter()
        .map(|(region, address, _)| Some(broker(folder.path(), region, *address, port, &endpoint)))
        .collect();

    // Before its first health checks, the name server knows of nobody that is well, and gives out any of them.
    names.settles(|nearest, _| nearest).await;
    for (country, network, _, nearest, _) in CLIENTS {
        let created = user(names.resolve(network), port, country).create_from(request(10)).await.is(201);
        assert_eq!(created.text("/region"), nearest, "{country}");
        assert_eq!(created.text("/bucket"), format!("media-{nearest}"), "{country}: the session is beside the bucket");
    }

    // The nearest region dies; its clients are sent to the next one.
    drop(brokers[0].take());
    let living = |nearest, next| if nearest == "europe-west1" { next } else { nearest };
    names.settles(living).await;
    for (country, network, _, nearest, next) in CLIENTS {
        let expected = living(nearest, next);
        let created = user(names.resolve(network), port, country).create_from(request(10)).await.is(201);
        assert_eq!(created.text("/region"), expected, "{country}");
    }

    // It comes back, and with it its clients: once, and for good.
    let (region, address, _) = REGIONS[0];
    brokers[0] = Some(broker(folder.path(), region, address, port, &endpoint));
    let (mut answers, begun) = (Vec::new(), Instant::now());
    let home = address_of("europe-west1");
    while answers.len() < 20 || answers[answers.len() - 20..].iter().any(|given| *given != home) {
        answers.push(names.resolve(CLIENTS[0].1));
        assert!(begun.elapsed() < 2 * FAILOVER, "it is not given out again: {answers:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let switches = answers.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(switches <= 2, "{switches} switches: {answers:?}");
    let created = user(names.resolve(CLIENTS[0].1), port, "DE").create_from(request(10)).await.is(201);
    assert_eq!(created.text("/region"), "europe-west1");
}

fn address_of(region: &str) -> Ipv4Addr {
    REGIONS.iter().find(|(name, ..)| *name == region).unwrap().1
}

/// A port that is free on the addresses of all regions.
fn free_port() -> u16 {
    (0..100)
        .map(|_| std::net::TcpListener::bind((REGIONS[0].1, 0)).unwrap().local_addr().unwrap().port())
        .find(|port| REGIONS.iter().all(|(_, address, _)| std::net::TcpListener::bind((*address, *port)).is_ok()))
        .unwrap()
}

fn user(address: Ipv4Addr, port: u16, country: &str) -> User {
    // Processes have no other clock than the system's.
    User::new(format!("http://{address}:{port}"), country, Clock::System.now())
}

/// One emulator that has the buckets of all regions.
fn emulator() -> (Process, String) {
    let mut command = command();
    command.args(["emulator", "--port", "0"]);
    for (region, ..) in REGIONS {
        command.args(["--bucket", &format!("media-{region}")]);
    }
    let process = Process::spawn(command);
    let line = process.line_with("storage emulator: ");
    let url = line.trim_start_matches("storage emulator: ").to_owned();
    (process, url)
}

/// The broker of a region, at its own address.
fn broker(folder: &Path, region: &str, address: Ipv4Addr, port: u16, endpoint: &str) -> Process {
    let folder = folder.join(region);
    std::fs::create_dir_all(&folder).unwrap();
    let text = configuration(&folder, endpoint, &Settings::default())
        .replace("region = \"europe-west1\"", &format!("region = \"{region}\""))
        .replace("name = \"europe-west1\"", &format!("name = \"{region}\""))
        .replace("bucket = \"media-eu\"", &format!("bucket = \"media-{region}\""))
        .replace("listen = \"127.0.0.1:0\"\nadmin", &format!("listen = \"{address}:{port}\"\nadmin"));
    let file = folder.join("broker.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = serve(&file, "info");
    command.arg("--insecure-loopback");
    Process::listening(command).0
}

/// A name server, gone with its test.
struct NameServer {
    child: std::process::Child,
    address: SocketAddr,
}

impl NameServer {
    /// Starts one; `None`, said aloud, where there is no `pdns_server`. In CI that is a failure.
    fn start(folder: &Path, port: u16) -> Option<Self> {
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
        while server.ask(CLIENTS[0].1).is_none() {
            let log = || std::fs::read_to_string(folder.join("pdns.log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(20), "the name server does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    /// The address that a client in that network is given.
    fn resolve(&self, network: Ipv4Addr) -> Ipv4Addr {
        self.ask(network).unwrap_or_else(|| panic!("no answer for {network}"))
    }

    /// Waits until every client is given the region that `expected` makes of its nearest and its next one, and stays there.
    async fn settles(&self, expected: impl Fn(&'static str, &'static str) -> &'static str) {
        let (begun, mut right_in_a_row) = (Instant::now(), 0);
        while right_in_a_row < 5 {
            let wrong = CLIENTS.iter().find_map(|(country, network, _, nearest, next)| {
                let given = self.resolve(*network);
                (given != address_of(expected(nearest, next))).then_some((country, given))
            });
            right_in_a_row = if wrong.is_none() { right_in_a_row + 1 } else { 0 };
            assert!(begun.elapsed() < FAILOVER, "not where it should be: {wrong:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn ask(&self, network: Ipv4Addr) -> Option<Ipv4Addr> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(&question(network), self.address).unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).ok()?;
        first_address(&answer[..length])
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
    for (country, network, at, ..) in CLIENTS {
        networks.push((format!("{network}/26"), place(Some(country), Some(at))));
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
    let (ttl, check) = (TTL.as_secs(), format!("http://{NAME}:{port}/openapi.json"));
    std::fs::write(
        folder.join(format!("{NAME}.zone")),
        format!(
            "$TTL {ttl}\n@ IN SOA ns root 1 3600 600 86400 {ttl}\n@ IN NS ns\nns IN A 127.0.0.1\n\
             @ IN LUA A \"ifurlup('{check}', {{{{{addresses}}}}}, {{selector='pickclosest', timeout=2}})\"\n"
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

/// A question for the address of [`NAME`] (RFC 1035, section 4), asked for a client in that network (RFC 7871, section 6).
fn question(network: Ipv4Addr) -> Vec<u8> {
    // Id 7; a standard query; one question, no answers, no authorities, one additional record.
    let mut message = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in NAME.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    // The root, type A, class IN; the root, type OPT, 1232 bytes, no flags, 12 bytes of options: client subnet, of 8 bytes:
    // IPv4, 26 bits, and no scope yet.
    message.extend([0, 0, 1, 0, 1]);
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 8, 0, 8, 0, 1, 26, 0]);
    message.extend(network.octets());
    message
}

/// The first address in an answer, if it has one.
fn first_address(answer: &[u8]) -> Option<Ipv4Addr> {
    let answers = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    // The header, and the question as it was sent: the name's labels, their end, type and class.
    let mut at = 12 + NAME.len() + 2 + 4;
    for _ in 0..answers {
        // The name, mostly as a pointer.
        while let Some(length @ 1..=63) = answer.get(at) {
            at += usize::from(*length) + 1;
        }
        at += if *answer.get(at)? >= 0xC0 { 2 } else { 1 };
        let (kind, length) = (answer.get(at..at + 2)?, answer.get(at + 8..at + 10)?);
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        at += 10;
        if kind == [0, 1] && length == 4 {
            let octets: [u8; 4] = answer.get(at..at + 4)?.try_into().ok()?;
            return Some(octets.into());
        }
        at += length;
    }
    None
}
