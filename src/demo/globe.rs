//! The world that the demo plays: regions that may be away, a client somewhere, and the network between them.
//!
//! Everything that the page switches is switched here. The edges and the emulators play it; nothing of it is known to the
//! brokers, which find out by their probes and by what the edges tell them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::distance;
use super::edge::Way;
use crate::emulator::network::{Link, Network};
use crate::geo::{Candidate, Country, Location, Wanted, nearest, regions};
use crate::model::name::RegionName;
use crate::model::time::Span;

/// The longest latency that can be played: a client's own time-outs are longer.
const LONGEST_LATENCY_MS: u64 = 5000;

/// One region, as those see it who play it.
pub(super) struct Region {
    pub(super) candidate: Candidate,
    pub(super) place: &'static str,
    pub(super) bucket: &'static str,
    /// The edge before its broker.
    pub(super) broker: String,
    /// Its storage.
    pub(super) storage: String,
    pub(super) way: watch::Sender<Way>,
    pub(super) network: Network,
}

/// Where somebody from a country is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// There.
    AtHome,
    /// Beside the region, with no way to go.
    Beside,
}

/// The world. Clients are all in one country, as far as edges and emulators can tell.
pub(super) struct Globe {
    regions: Vec<Region>,
    played: Mutex<Played>,
}

struct Played {
    client: Country,
    weather: Weather,
}

/// What the network does to uploads, as the page names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Weather {
    latency_ms: u64,
    drops: bool,
    lost_answers: bool,
    expired_session: bool,
}

/// What is to be otherwise. What is left out stays.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WeatherChange {
    latency_ms: Option<u64>,
    drops: Option<bool>,
    lost_answers: Option<bool>,
    expired_session: Option<bool>,
}

/// Why something cannot be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Impossible {
    #[error("latency_ms is at most {LONGEST_LATENCY_MS}")]
    Latency,
    #[error("there is no region {0:?}")]
    Region(String),
}

impl Globe {
    /// The world with its client in that country and a good network.
    pub(super) fn new(regions: Vec<Region>, client: Country) -> Self {
        let globe = Self { regions, played: Mutex::new(Played { client, weather: Weather::default() }) };
        globe.settle();
        globe
    }

    fn lock(&self) -> MutexGuard<'_, Played> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All regions.
    pub(super) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The client is in that country from now on.
    pub(super) fn set_client(&self, country: Country) {
        self.lock().client = country;
        self.settle();
    }

    /// The network is otherwise from now on.
    pub(super) fn set_weather(&self, change: &WeatherChange) -> Result<(), Impossible> {
        if change.latency_ms.is_some_and(|latency| latency > LONGEST_LATENCY_MS) {
            return Err(Impossible::Latency);
        }
        let mut played = self.lock();
        self.look_for_expiry(&mut played);
        let weather = &mut played.weather;
        weather.latency_ms = change.latency_ms.unwrap_or(weather.latency_ms);
        weather.drops = change.drops.unwrap_or(weather.drops);
        weather.lost_answers = change.lost_answers.unwrap_or(weather.lost_answers);
        weather.expired_session = change.expired_session.unwrap_or(weather.expired_session);
        for region in &self.regions {
            region.network.change(|conditions| {
                conditions.latency = Span(Duration::from_millis(weather.latency_ms));
                conditions.drops = weather.drops;
                conditions.lost_answers = weather.lost_answers;
                conditions.expired_session = weather.expired_session;
            });
        }
        Ok(())
    }

    /// The region goes away with its storage, or comes back with everything that was in it.
    pub(super) fn set_running(&self, name: &str, running: bool) -> Result<(), Impossible> {
        let named = self.regions.iter().find(|region| region.candidate.name.as_str() == name);
        let region = named.ok_or_else(|| Impossible::Region(name.to_owned()))?;
        region.way.send_modify(|way| way.running = running);
        region.network.change(|conditions| conditions.link = if running { Link::Up } else { Link::Down });
        Ok(())
    }

    /// All who come to any region come from where the client is.
    pub(super) fn settle(&self) {
        let client = self.lock().client;
        for region in &self.regions {
            region.lead(client, Stand::AtHome);
        }
    }

    /// The region that geo-DNS sends clients of that country to: of those that run the nearest one.
    pub(super) fn dns(&self, country: Country) -> Option<&Region> {
        let first = self.regions.first()?;
        let candidates: Vec<_> = self.regions.iter().map(|region| region.candidate.clone()).collect();
        let location = Location { country: Some(country), coordinates: None };
        let runs = |name: &RegionName| self.named(name).is_some_and(Region::is_running);
        let wanted = Wanted { location: &location, serving: &first.candidate.name, residency: None, healthy: runs };
        self.named(&nearest(&candidates, &wanted).first()?.region.name)
    }

    fn named(&self, name: &RegionName) -> Option<&Region> {
        self.regions.iter().find(|region| region.candidate.name == *name)
    }

    /// Where the client is, and what the network is like, as it is now.
    pub(super) fn played(&self) -> (Country, Weather) {
        let mut played = self.lock();
        self.look_for_expiry(&mut played);
        (played.client, played.weather)
    }

    /// One session is lost in all the world: as soon as one emulator has done it, none of the others will.
    fn look_for_expiry(&self, played: &mut Played) {
        let armed = |region: &Region| region.network.conditions().expired_session;
        if played.weather.expired_session && !self.regions.iter().all(armed) {
            played.weather.expired_session = false;
            for region in &self.regions {
                region.network.change(|conditions| conditions.expired_session = false);
            }
        }
    }
}

impl Region {
    /// Whoever comes to this region, comes from that country from now on.
    pub(super) fn lead(&self, country: Country, stand: Stand) {
        let (round_trip, line) = match stand {
            Stand::AtHome => (distance::round_trip(self.distance_km(country)), distance::LINE),
            Stand::Beside => (Duration::ZERO, None),
        };
        self.way.send_modify(|way| (way.country, way.round_trip) = (country, round_trip));
        self.network.change(|conditions| {
            (conditions.round_trip, conditions.bytes_per_second) = (Span(round_trip), line);
        });
    }

    /// How far it is from where the people of a country are.
    pub(super) fn distance_km(&self, country: Country) -> f64 {
        self.candidate.coordinates.map_or(0.0, |point| point.distance_km(country.point()))
    }

    pub(super) fn is_running(&self) -> bool {
        self.way.borrow().running
    }
}

/// A region of Google's as a candidate, with the town that it is in.
pub(super) fn candidate(name: &str) -> Option<(Candidate, &'static str)> {
    let known = regions::known(name)?;
    let candidate = Candidate { name: name.parse().ok()?, coordinates: Some(known.coordinates), countries: Vec::new() };
    Some((candidate, known.place))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::emulator::{Emulator, Settings};

    /// A world of these regions, with the storage of each.
    pub(in super::super) async fn globe(names: &[&str]) -> (Globe, Vec<Emulator>) {
        let (mut regions, mut storages) = (Vec::new(), Vec::new());
        for name in names {
            let (candidate, place) = candidate(name).unwrap();
            let storage = Emulator::start(Settings::default()).await.unwrap();
            let country = Country::of("DE").unwrap();
            let way = watch::Sender::new(Way { country, round_trip: Duration::ZERO, running: true });
            let (broker, network) = ("http://127.0.0.1:1".to_owned(), storage.network());
            let bucket = "media";
            regions.push(Region { candidate, place, bucket, broker, storage: storage.url(), way, network });
            storages.push(storage);
        }
        (Globe::new(regions, Country::of("DE").unwrap()), storages)
    }

    fn sent(globe: &Globe, country: &str) -> String {
        globe.dns(Country::of(country).unwrap()).unwrap().candidate.name.to_string()
    }

    #[tokio::test]
    async fn geo_dns_gives_the_nearest_region_that_runs() {
        let (globe, _storages) = globe(&["europe-west1", "us-central1", "asia-northeast1"]).await;
        for (country, nearest, next) in [
            ("DE", "europe-west1", "us-central1"),
            ("BR", "us-central1", "europe-west1"),
            ("JP", "asia-northeast1", "europe-west1"),
            ("ZA", "europe-west1", "asia-northeast1"),
            ("AU", "asia-northeast1", "us-central1"),
        ] {
            assert_eq!(sent(&globe, country), nearest);
            globe.set_running(nearest, false).unwrap();
            assert_eq!(sent(&globe, country), next, "{country}");
            globe.set_running(nearest, true).unwrap();
            assert_eq!(sent(&globe, country), nearest, "it is back");
        }
        for region in globe.regions() {
            globe.set_running(region.candidate.name.as_str(), false).unwrap();
        }
        assert_eq!(sent(&globe, "DE"), "europe-west1", "where none runs, some name has to be given");
        assert!(globe.set_running("moon", false).is_err());
    }

    #[tokio::test]
    async fn edges_and_storage_are_as_far_as_the_client_is() {
        let (globe, storages) = globe(&["europe-west1", "asia-northeast1"]).await;
        let ways = || globe.regions().iter().map(|region| region.way.borrow().round_trip).collect::<Vec<_>>();
        let networks =
            || storages.iter().map(|storage| storage.network().conditions().round_trip.0).collect::<Vec<_>>();
        let from_germany = ways();
        assert!(from_germany[0] < from_germany[1]);
        assert_eq!(networks(), from_germany);
        globe.set_client(Country::of("JP").unwrap());
        let from_japan = ways();
        assert!(from_japan[0] > from_japan[1]);
        assert_eq!(networks(), from_japan);
        globe.regions()[0].lead(Country::of("BE").unwrap(), Stand::Beside);
        assert_eq!((ways()[0], networks()[0], ways()[1]), (Duration::ZERO, Duration::ZERO, from_japan[1]));
        globe.settle();
        assert_eq!((ways(), networks()), (from_japan.clone(), from_japan));
    }

    #[tokio::test]
    async fn the_weather_is_the_same_everywhere_and_takes_one_session() {
        let (globe, storages) = globe(&["europe-west1", "us-central1"]).await;
        let change = |text: &str| globe.set_weather(&serde_json::from_str(text).unwrap());
        change(r#"{"latency_ms": 300, "drops": true, "expired_session": true}"#).unwrap();
        change(r#"{"latency_ms": 200}"#).unwrap();
        let expected = Weather { latency_ms: 200, drops: true, lost_answers: false, expired_session: true };
        assert_eq!(globe.played().1, expected, "what is left out stays");
        assert!(change(r#"{"latency_ms": 5001, "drops": false}"#).is_err());
        assert_eq!(globe.played().1, expected, "and everything does where something cannot be");
        for storage in &storages {
            let conditions = storage.network().conditions();
            assert_eq!((conditions.latency.0, conditions.drops), (Duration::from_millis(200), true));
        }
        // One of the two plays it.
        storages[1].network().change(|conditions| conditions.expired_session = false);
        assert!(!globe.played().1.expired_session);
        assert!(!storages[0].network().conditions().expired_session);
    }
}
