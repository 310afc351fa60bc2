//! What there is to see of the world, as the page gets it.

use serde::Serialize;

use super::distance;
use super::globe::{Globe, Region, Weather};
use crate::geo::Country;

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
    /// The edge before its broker.
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

impl View {
    /// Everything, as it is now.
    pub(super) fn of(globe: &Globe) -> Self {
        let (client, weather) = globe.played();
        let is_listed = COUNTRIES.iter().any(|(code, _)| *code == client.code());
        let own = (!is_listed).then(|| (client.code(), name_of(client)));
        Self {
            regions: globe.regions().iter().map(|region| RegionView::of(region, client)).collect(),
            countries: COUNTRIES.into_iter().chain(own).filter_map(CountryView::of).collect(),
            client: ClientView { country: client },
            dns: DnsView {
                region: globe.dns(client).map(|region| region.candidate.name.to_string()).unwrap_or_default(),
            },
            network: weather,
        }
    }
}

impl RegionView {
    fn of(region: &Region, client: Country) -> Self {
        let distance_km = region.distance_km(client);
        let point = region.candidate.coordinates.map(|point| (point.latitude(), point.longitude()));
        let (latitude, longitude) = point.unwrap_or_default();
        Self {
            name: region.candidate.name.to_string(),
            place: region.place,
            latitude,
            longitude,
            bucket: region.bucket,
            broker: region.broker.clone(),
            storage: region.storage.clone(),
            running: region.is_running(),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::globe::tests::globe;
    use super::*;

    #[tokio::test]
    async fn the_view_has_what_a_map_needs() {
        let (globe, storages) = globe(&["europe-west1"]).await;
        globe.set_client(Country::of("NZ").unwrap());
        let view = serde_json::to_value(View::of(&globe)).unwrap();
        let region = &view["regions"][0];
        assert_eq!((&region["name"], &region["place"]), (&json!("europe-west1"), &json!("St. Ghislain, Belgium")));
        assert_eq!((&region["storage"], &region["running"]), (&json!(storages[0].url()), &json!(true)));
        assert!(region["distance_km"].as_u64().unwrap() > 18_000 && region["round_trip_ms"].as_u64().unwrap() > 250);
        let countries = view["countries"].as_array().unwrap();
        assert_eq!(countries.len(), COUNTRIES.len() + 1, "the client's own is among them");
        assert!(countries.iter().all(|country| country["latitude"].is_number() && country["name"].is_string()));
        assert_eq!((&view["client"]["country"], &view["dns"]["region"]), (&json!("NZ"), &json!("europe-west1")));
        let network = json!({"latency_ms": 0, "drops": false, "lost_answers": false, "expired_session": false});
        assert_eq!(view["network"], network);
    }
}
