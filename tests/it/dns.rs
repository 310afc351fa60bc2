//! From a name to a session: a real authoritative name server, which knows where clients are by their subnet and which
//! brokers are well, in front of three regions.
//!
//! PowerDNS stands for whatever geo-DNS an operator has: it is handed the client's network (RFC 7871), picks the nearest of
//! the addresses that answer its health checks, and gives it out for a few seconds.

mod course;
mod name_server;
mod resolver;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::broker::{Settings, configuration};
use crate::support::process::{Process, command, serve};
use crate::support::redis;
use course::Clients;
use name_server::NameServer;

/// The name that clients know.
const NAME: &str = "uploads.test";

/// How long answers may be kept. Short, as a failover takes no less.
const TTL: Duration = Duration::from_secs(2);

/// The regions, each with its own address.
const REGIONS: [(&str, Ipv4Addr, (f64, f64)); 3] = [
    (LOST, Ipv4Addr::new(127, 0, 1, 1), (50.47, 3.82)),
    ("us-east4", Ipv4Addr::new(127, 0, 1, 2), (39.04, -77.49)),
    ("asia-northeast1", Ipv4Addr::new(127, 0, 1, 3), (35.68, 139.69)),
];

/// The region that is lost.
const LOST: &str = "europe-west1";

/// Somebody who uploads.
struct Client {
    country: &'static str,
    /// A network in that country.
    network: Ipv4Addr,
    /// Where that is.
    place: (f64, f64),
    nearest: &'static str,
    /// The nearest region but one.
    next: &'static str,
}

/// Clients in five countries.
const CLIENTS: [Client; 5] = [
    client("DE", [192, 0, 2, 0], (52.5, 13.4), "europe-west1", "us-east4"),
    client("PT", [192, 0, 2, 64], (38.7, -9.1), "europe-west1", "us-east4"),
    client("CA", [192, 0, 2, 128], (45.5, -73.6), "us-east4", "europe-west1"),
    client("BR", [198, 51, 100, 0], (-23.5, -46.6), "us-east4", "europe-west1"),
    client("KR", [198, 51, 100, 128], (37.6, 127.0), "asia-northeast1", "europe-west1"),
];

const fn client(
    country: &'static str,
    [a, b, c, d]: [u8; 4],
    place: (f64, f64),
    nearest: &'static str,
    next: &'static str,
) -> Client {
    Client { country, network: Ipv4Addr::new(a, b, c, d), place, nearest, next }
}

impl Client {
    /// Where it belongs while [`LOST`] is lost.
    fn nearest_left(&self) -> &'static str {
        if self.nearest == LOST { self.next } else { self.nearest }
    }
}

/// How long it may take until clients of a region that is away have sessions in the next one, and until those of one that
/// is back have them there again.
const FAILOVER: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_five_countries_get_sessions_beside_them_and_the_next_region_takes_over() {
    let folder = TempDir::new().unwrap();
    let port = free_port();
    let Some(names) = NameServer::start(folder.path(), port).await else { return };
    let (_storage, endpoint) = emulator();
    let start = |region: &str| broker(folder.path(), region, port, &endpoint, Settings::default());
    let mut lost = start(LOST);
    let _others = REGIONS[1..].iter().map(|(region, ..)| start(region)).collect::<Vec<_>>();
    // Before its first health checks, the name server knows of nobody that is well, and gives out any of them.
    names.settles(|client| client.nearest).await;
    let clients = Clients::start(names.address, port);
    clients.settle(|client| client.nearest).await;

    // The region dies; its clients are sent to the next one.
    let killed = Instant::now();
    lost.kill();
    clients.settle(Client::nearest_left).await;

    // It comes back, and with it its clients: once, and for good.
    let _back = start(LOST);
    let back = Instant::now();
    clients.settle(|client| client.nearest).await;

    for (client, course) in CLIENTS.iter().zip(clients.stop().await) {
        let country = client.country;
        if client.nearest != LOST {
            assert_eq!(course.stays(), [client.nearest], "{country} has nothing to do with it: {course:#?}");
            assert_eq!(course.given_stays(), [client.nearest], "{country}: {course:#?}");
            assert_eq!(course.failures().count(), 0, "{country}: {course:#?}");
            continue;
        }
        assert_eq!(course.stays(), [LOST, client.next, LOST], "{country} goes away and comes back: {course:#?}");
        assert_eq!(course.given_stays(), [LOST, client.next, LOST], "{country}: {course:#?}");
        let elsewhere = course.first_session(client.next, killed).unwrap().ended;
        let at_home = course.first_session(LOST, back).unwrap().ended;
        for (event, time) in [("lost", elsewhere - killed), ("back", at_home - back)] {
            assert!(time <= FAILOVER, "{country} has no session {time:?} after its region is {event}: {course:#?}");
        }
        // What it cannot get, it cannot get from the region that was killed, and only until it knows better.
        for failed in course.failures() {
            let is_of_the_kill = failed.sent_to == LOST && failed.ended >= killed && failed.begun <= elsewhere;
            assert!(is_of_the_kill, "{country}: {failed:?} in {course:#?}");
        }
    }
}

/// The health check is `GET /v1/route`, and no page that a broker has whatever state it is in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_runs_and_takes_no_uploads_is_not_given_out() {
    let folder = TempDir::new().unwrap();
    let port = free_port();
    let Some(names) = NameServer::start(folder.path(), port).await else { return };
    let Some(mut store) = redis::start().await else { return };
    let (_storage, endpoint) = emulator();
    let settings = |region| match region {
        LOST => Settings { store: store.url(), ..Settings::default() },
        _ => Settings::default(),
    };
    let start =
        |(region, ..): &(&'static str, Ipv4Addr, _)| broker(folder.path(), region, port, &endpoint, settings(region));
    let _brokers = REGIONS.iter().map(start).collect::<Vec<_>>();
    names.settles(|client| client.nearest).await;
    store.kill();
    names.settles(Client::nearest_left).await;
    store.restart().await;
    names.settles(|client| client.nearest).await;
}

fn address_of(region: &str) -> Ipv4Addr {
    REGIONS.iter().find(|(name, ..)| *name == region).unwrap().1
}

fn region_of(address: Ipv4Addr) -> &'static str {
    REGIONS.iter().find(|(_, known, _)| *known == address).unwrap().0
}

/// A port that is free on the addresses of all regions.
fn free_port() -> u16 {
    (0..100)
        .map(|_| std::net::TcpListener::bind((REGIONS[0].1, 0)).unwrap().local_addr().unwrap().port())
        .find(|port| REGIONS.iter().all(|(_, address, _)| std::net::TcpListener::bind((*address, *port)).is_ok()))
        .unwrap()
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
fn broker(folder: &Path, region: &str, port: u16, endpoint: &str, settings: Settings) -> Process {
    let (folder, address) = (folder.join(region), address_of(region));
    std::fs::create_dir_all(&folder).unwrap();
    let settings = Settings { storage_timeout: "10s", ..settings };
    let text = configuration(&folder, endpoint, &settings)
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
