//! The same upload from several countries, each to the region that it is sent to and to the farthest one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::Demo;
use super::distance;
use super::globe::{Region, Stand};
use super::samples::{file, order};
use super::table::columns;
use super::view::{name_of, whole};
use crate::client::{Client, FinalState, Http, Order, Patience, Token, UploadReport};
use crate::clock::Randomness;
use crate::geo::Country;
use crate::model::secret::SecretText;

/// Where the clients of the tour are.
const CLIENTS: [&str; 5] = ["DE", "BR", "JP", "ZA", "AU"];

/// How much each of them uploads, in chunks of 1 MiB.
const BYTES: usize = 4 << 20;

/// What stands above the table of a tour.
pub const CAPTION: &str = "\
The same 4 MiB from five countries: where geo-DNS sends the client, and what it costs from the region farthest away.
Distance is a model here: 4 ms and 1.5 times light's way in fibre for a round trip, slow start, a line of 100 Mbit/s.
";

/// A client, and how its uploads went.
#[derive(Clone, Debug)]
pub struct Journey {
    /// Where it is.
    pub country: Country,
    /// To the region that geo-DNS sends it to.
    pub sent: Leg,
    /// To the region that is farthest away.
    pub astray: Leg,
}

/// One of its uploads.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The region that it went to.
    pub region: String,
    /// How far that is, in km.
    pub distance_km: f64,
    /// How long it takes there and back.
    pub round_trip: Duration,
    /// How it went.
    pub report: UploadReport,
}

impl Journey {
    /// Whether both uploads were completed, each by the region that it went to, and the nearer one is the one that the
    /// client was sent to.
    pub fn is_good(&self) -> bool {
        self.sent.is_good() && self.astray.is_good() && self.sent.distance_km < self.astray.distance_km
    }

    /// How many times as long it took to the farthest region.
    fn ratio(&self) -> f64 {
        self.astray.report.elapsed.as_secs_f64() / self.sent.report.elapsed.as_secs_f64().max(f64::EPSILON)
    }
}

impl Leg {
    fn is_good(&self) -> bool {
        self.report.state == FinalState::Completed && self.report.region.as_deref() == Some(&self.region)
    }
}

impl Demo {
    /// Uploads a file from five countries to the nearest and to the farthest region. `folder` takes the files. There is
    /// nothing to see where there is one region.
    ///
    /// Each region has one client at a time, and the regions are visited at once: distance is that of a region. Whoever moves
    /// the client on the page meanwhile spoils the figures, and nothing else.
    ///
    /// # Errors
    /// When an upload has no final state.
    pub async fn tour(&self, folder: &Path) -> anyhow::Result<Vec<Journey>> {
        let regions = self.globe.regions();
        if regions.len() < 2 {
            return Ok(Vec::new());
        }
        let clients: Vec<Country> = CLIENTS.into_iter().filter_map(Country::of).collect();
        let mut visits: Vec<Vec<Country>> = vec![Vec::new(); regions.len()];
        let mut plans = Vec::new();
        for country in clients {
            let sent = self.globe.dns(country).context("geo-DNS knows no region")?;
            let astray = (0..regions.len())
                .max_by(|a, b| regions[*a].distance_km(country).total_cmp(&regions[*b].distance_km(country)));
            let sent = regions.iter().position(|region| std::ptr::eq(region, sent));
            let (sent, astray) = sent.zip(astray).context("there is no region")?;
            for at in [sent, astray] {
                visits[at].push(country);
            }
            plans.push((country, sent, astray));
        }

        let mut touring = JoinSet::new();
        for (at, countries) in visits.into_iter().enumerate() {
            let name = format!("{}.mp4", regions[at].candidate.name);
            let (path, order) = file(folder, &name, BYTES, order("videos")?).await?;
            let (globe, token) = (Arc::clone(&self.globe), self.token("ada")?);
            touring.spawn(async move {
                let mut legs = Vec::new();
                for country in countries {
                    legs.push((at, country, visit(&globe.regions()[at], country, &path, &order, &token).await?));
                }
                anyhow::Ok(legs)
            });
        }
        let mut legs = Vec::new();
        while let Some(joined) = touring.join_next().await {
            legs.extend(joined??);
        }
        self.globe.settle();

        let leg = |region: usize, country: Country| {
            let made = legs.iter().find(|(at, from, _)| (*at, *from) == (region, country));
            made.map(|(.., leg)| leg.clone()).context("a client did not come")
        };
        let journey = |(country, sent, astray): (Country, usize, usize)| {
            Ok(Journey { country, sent: leg(sent, country)?, astray: leg(astray, country)? })
        };
        plans.into_iter().map(journey).collect()
    }
}

/// Uploads a file from a country to a region, over connections that are new.
async fn visit(region: &Region, country: Country, file: &Path, order: &Order, token: &str) -> anyhow::Result<Leg> {
    region.lead(country, Stand::AtHome);
    let client = Client {
        http: Http::new(&[])?,
        broker: region.broker.parse()?,
        token: Token::Fixed(SecretText::new(token.to_owned())),
        patience: Patience::default(),
        randomness: Randomness::System,
    };
    let report = client.upload(file, order, &|_| {}).await?;
    let distance_km = region.distance_km(country);
    let round_trip = distance::round_trip(distance_km);
    Ok(Leg { region: region.candidate.name.to_string(), distance_km, round_trip, report })
}

/// The journeys as text, in columns.
pub fn tour_table(journeys: &[Journey]) -> String {
    let head = ["client", "sent to", "km", "rtt ms", "ms", "farthest", "km", "rtt ms", "ms", "times"];
    let lines: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(journeys.iter().map(cells)).collect();
    let is_word = |column| matches!(column, 0 | 1 | 5);
    columns(&lines, std::array::from_fn(|column| !is_word(column)))
}

fn cells(journey: &Journey) -> [String; 10] {
    let numbers = |leg: &Leg| {
        let Leg { distance_km, round_trip, report, .. } = leg;
        let round_trip_ms = whole(round_trip.as_secs_f64() * 1000.0);
        [whole(*distance_km).to_string(), round_trip_ms.to_string(), report.elapsed.as_millis().to_string()]
    };
    let Journey { country, sent, astray } = journey;
    let ([sent_km, sent_trip, sent_ms], [astray_km, astray_trip, astray_ms]) = (numbers(sent), numbers(astray));
    [
        name_of(*country).to_owned(),
        sent.region.clone(),
        sent_km,
        sent_trip,
        sent_ms,
        astray.region.clone(),
        astray_km,
        astray_trip,
        astray_ms,
        format!("{:.1}", journey.ratio()),
    ]
}
