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

/// Countries on every continent that has people: code and name.
const COUNTRIES: [(&str, &str); 15] = [
    ("AR", "Argentina"),
    ("AU", "Australia"),
    ("BR", "Brazil"),
    ("CA", "Canada"),
    ("DE", "Germany"),
    ("EG", "Egypt"),
    ("GB", "United Kingdom"),
    ("ID", "Indonesia"),
    ("IN", "India"),
    ("JP", "Japan"),
    ("KE", "Kenya"),
    ("MX", "Mexico"),
    ("NG", "Nigeria"),
    ("US", "United States"),
    ("ZA", "South Africa"),
];

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

/// Everything that there is to see.
#[derive(Debug, Serialize)]
pub(super) struct View {
    regions: Vec<RegionView>,
    countries: Vec<CountryView>,
    client: ClientView,
    dns: DnsView,
    network: Weather,
}

#[derive(Debug, Serialize)]
struct RegionView {
    name: String,
    place: &'static str,
    latitude: f64,
    longitude: f64,
    bucket: &'static str,
    broker: String,
    storage: String,
    running: bool,
    distance_km: u64,
    round_trip_ms: u64,
}

#[derive(Debug, Serialize)]
struct CountryView {
    code: &'static str,
    name: &'static str,
    latitude: f64,
    longitude: f64,
}

#[derive(Debug, Serialize)]
struct ClientView {
    country: Country,
}

#[derive(Debug, Serialize)]
struct DnsView {
    region: String,
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

    /// Everything, as it is now.
    pub(super) fn view(&self) -> View {
        let mut played = self.lock();
        self.look_for_expiry(&mut played);
        let Played { client, weather } = *played;
        drop(played);
        let others =
            (!COUNTRIES.iter().any(|(code, _)| *code == client.code())).then(|| (client.code(), client.code()));
        View {
            regions: self.regions.iter().map(|region| region.view(client)).collect(),
            countries: COUNTRIES.into_iter().chain(others).filter_map(CountryView::of).collect(),
            client: ClientView { country: client },
            dns: DnsView {
                region: self.dns(client).map(|region| region.candidate.name.to_string()).unwrap_or_default(),
            },
            network: weather,
        }
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

    fn is_running(&self) -> bool {
        self.way.borrow().running
    }

    fn view(&self, client: Country) -> RegionView {
        let distance_km = self.distance_km(client);
        let point = self.candidate.coordinates.map(|point| (point.latitude(), point.longitude())).unwrap_or_default();
        RegionView {
            name: self.candidate.name.to_string(),
            place: self.place,
            latitude: point.0,
            longitude: point.1,
            bucket: self.bucket,
            broker: self.broker.clone(),
            storage: self.storage.clone(),
            running: self.is_running(),
            distance_km: whole(distance_km),
            round_trip_ms: whole(distance::round_trip(distance_km).as_secs_f64() * 1000.0),
        }
    }
}

impl CountryView {
    fn of((code, name): (&'static str, &'static str)) -> Option<Self> {
        let point = Country::of(code)?.point();
        Some(Self { code, name, latitude: point.latitude(), longitude: point.longitude() })
    }
}

/// What a country is called, or else its code.
pub(super) fn name_of(country: Country) -> &'static str {
    let named = COUNTRIES.iter().find(|(code, _)| *code == country.code());
    named.map_or(country.code(), |(_, name)| name)
}

/// Nobody needs it more exactly.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "kilometres and milliseconds on one earth")]
pub(super) fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// A region of Google's as a candidate, with the town that it is in.
pub(super) fn candidate(name: &str) -> Option<(Candidate, &'static str)> {
    let known = regions::known(name)?;
    let candidate = Candidate { name: name.parse().ok()?, coordinates: Some(known.coordinates), countries: Vec::new() };
    Some((candidate, known.place))
}
