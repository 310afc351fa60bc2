//! Where this machine is, and whether a bucket is there, too.

use super::report::Row;
use crate::geo::regions::known;
use crate::model::name::RegionName;
use crate::storage::Place;
use crate::uploads::Region;

/// The predefined dual-regions (storage documentation, "Bucket locations").
const PAIRS: [(&str, [&str; 2]); 6] = [
    ("ASIA1", ["asia-northeast1", "asia-northeast2"]),
    ("EUR4", ["europe-north1", "europe-west4"]),
    ("EUR5", ["europe-west1", "europe-west2"]),
    ("EUR7", ["europe-west2", "europe-west3"]),
    ("EUR8", ["europe-west3", "europe-west6"]),
    ("NAM4", ["us-central1", "us-east1"]),
];

/// The multi-regions, and what the names of their regions begin with.
const CONTINENTS: [(&str, &str); 3] = [("US", "us-"), ("EU", "europe-"), ("ASIA", "asia-")];

/// London and Zurich are in no member state of the EU, and hold nothing of a bucket there (storage documentation, "Bucket
/// locations").
const OUTSIDE_THE_EU: [&str; 2] = ["europe-west2", "europe-west6"];

/// How a bucket lies to a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lies {
    /// In it, or in several of which it is one.
    Within,
    /// In a zone of it: there are no resumable sessions.
    InZone,
    /// Elsewhere.
    Elsewhere,
    /// Nobody can say: the region has no name of Google's, or storage does not say where the bucket is.
    Unknown,
}

impl Lies {
    /// How a bucket at `place` lies to `region`.
    pub(super) fn of(place: &Place, region: &RegionName) -> Self {
        let is_region = |name: &str| name.eq_ignore_ascii_case(region.as_str());
        let location = place.location.to_ascii_uppercase();
        let kind = place.location_type.as_deref();
        if kind == Some("zone") {
            return Self::InZone;
        }
        if is_region(&location) {
            return Self::Within;
        }
        if known(region.as_str()).is_none() || location.is_empty() {
            return Self::Unknown;
        }
        let within = if !place.data_locations.is_empty() {
            place.data_locations.iter().any(|name| is_region(name))
        } else if let Some((_, pair)) = PAIRS.iter().find(|(code, _)| *code == location) {
            pair.iter().any(|name| is_region(name))
        } else if let Some((_, prefix)) = CONTINENTS.iter().find(|(code, _)| *code == location) {
            region.as_str().starts_with(prefix) && !OUTSIDE_THE_EU.contains(&region.as_str())
        } else {
            false
        };
        if within { Self::Within } else { Self::Elsewhere }
    }
}

/// Where a bucket is, in words.
pub(super) fn words(place: &Place) -> String {
    let kind = place.location_type.as_deref().unwrap_or("location");
    if place.data_locations.is_empty() {
        format!("the {kind} {}", place.location)
    } else {
        format!("the {kind} {} ({})", place.location, place.data_locations.join(", "))
    }
}

/// Whether this machine is where the configuration says.
pub(super) fn instance(own: Option<&RegionName>, regions: &[Region], here: Result<&RegionName, &String>) -> Row {
    const NAME: &str = "instance";
    let Some(own) = own else {
        return match here {
            Ok(here) if regions.iter().any(|region| region.name == *here) => {
                Row::ok(NAME, here.as_str(), "region = \"auto\" is this one: it is where this machine is")
            }
            Ok(here) => Row::failed(
                NAME,
                here.as_str(),
                "region = \"auto\", and this machine is in none of the [[regions]]",
                "run it in one of them, or add this one",
            ),
            Err(reason) => Row::failed(
                NAME,
                "auto",
                format!("region = \"auto\", and nobody says where this machine is: {reason}"),
                "name the region",
            ),
        };
    };
    match here {
        Ok(here) if here == own => Row::ok(NAME, own.as_str(), "this machine is there"),
        Ok(here) if known(own.as_str()).is_some() => Row::failed(
            NAME,
            own.as_str(),
            format!("this machine is in {here}: sessions that it opens are bound to that region"),
            format!("run it in {own}, or set region = \"{here}\""),
        ),
        Ok(here) => Row::warning(
            NAME,
            own.as_str(),
            format!("this machine is in {here}; whether that is the same place cannot be said"),
            "call regions by Google's names where the broker runs there",
        ),
        Err(reason) => Row::skipped(NAME, own.as_str(), format!("not a machine of Google's, as it seems: {reason}")),
    }
}

/// Whether the regions have names that are known.
pub(super) fn regions(regions: &[Region]) -> Row {
    let count = regions.len().to_string();
    let strange: Vec<_> =
        regions.iter().map(|region| region.name.as_str()).filter(|name| known(name).is_none()).collect();
    if strange.is_empty() {
        return Row::ok("regions", count, "each is one of Google's");
    }
    let found = format!("not known as regions of Google's: {}", strange.join(", "));
    let remedy = "look for a slip in the name; where it is meant, nothing can be said of the place of its bucket";
    Row::warning("regions", count, found, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_lie_in_regions_as_storage_has_them() {
        use Lies::{Elsewhere, InZone, Unknown, Within};
        for (kind, location, data, region, expected) in [
            ("region", "EUROPE-WEST1", "", "europe-west1", Within),
            ("region", "europe-west1", "", "europe-west1", Within),
            ("region", "EUROPE-WEST1", "", "europe-west10", Elsewhere),
            ("region", "US-EAST1", "", "europe-west1", Elsewhere),
            ("region", "US-EAST1", "", "eu", Unknown),
            ("region", "EU", "", "eu", Within),
            ("region", "", "", "europe-west1", Unknown),
            ("", "EUROPE-WEST1", "", "europe-west1", Within),
            ("zone", "EUROPE-WEST1", "EUROPE-WEST1-B", "europe-west1", InZone),
            ("dual-region", "EUR4", "", "europe-west4", Within),
            ("dual-region", "EUR4", "", "europe-north1", Within),
            ("dual-region", "EUR4", "", "europe-west1", Elsewhere),
            ("dual-region", "EUR5", "", "europe-west2", Within),
            ("dual-region", "EUR7", "", "europe-west3", Within),
            ("dual-region", "EUR8", "", "europe-west6", Within),
            ("dual-region", "NAM4", "", "us-east1", Within),
            ("dual-region", "ASIA1", "", "asia-northeast3", Elsewhere),
            ("dual-region", "EU", "EUROPE-WEST1,EUROPE-WEST4", "europe-west4", Within),
            ("dual-region", "EU", "EUROPE-WEST1,EUROPE-WEST4", "europe-west3", Elsewhere),
            ("dual-region", "NEW9", "", "us-east1", Elsewhere),
            ("multi-region", "EU", "", "europe-west3", Within),
            ("multi-region", "EU", "", "europe-west2", Elsewhere),
            ("multi-region", "EU", "", "europe-west6", Elsewhere),
            ("multi-region", "US", "", "us-west8", Within),
            ("multi-region", "US", "", "northamerica-northeast1", Elsewhere),
            ("multi-region", "ASIA", "", "asia-south1", Within),
            ("multi-region", "ASIA", "", "australia-southeast1", Elsewhere),
        ] {
            let place = Place {
                location: location.to_owned(),
                location_type: Some(kind.to_owned()).filter(|kind| !kind.is_empty()),
                data_locations: data.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            };
            assert_eq!(Lies::of(&place, &region.parse().unwrap()), expected, "{location} and {region}");
        }
    }
}
