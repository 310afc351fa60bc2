//! Where Google's regions are.

use super::coordinates::Coordinates;

/// A region of Google Cloud.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// What Google calls it.
    pub name: &'static str,
    /// The town or area that Google names for it.
    pub place: &'static str,
    /// The middle of that town or area, to a hundredth of a degree.
    pub coordinates: Coordinates,
}

/// All regions of Cloud Storage, as of October 2026.
///
/// Names and towns are those of its documentation, "Bucket locations"
/// (<https://docs.cloud.google.com/storage/docs/locations>), and of its price list; that `us-west8` is in Phoenix is not
/// confirmed by either. Google does not publish where its buildings are: the coordinates are those of the towns. They
/// were not taken from Google's open-source region picker, which has Johannesburg in the northern hemisphere.
const REGIONS: [Place; 44] = [
    place("africa-south1", "Johannesburg", -26.20, 28.03),
    place("asia-east1", "Changhua County, Taiwan", 24.05, 120.52),
    place("asia-east2", "Hong Kong", 22.32, 114.17),
    place("asia-northeast1", "Tokyo", 35.68, 139.69),
    place("asia-northeast2", "Osaka", 34.69, 135.50),
    place("asia-northeast3", "Seoul", 37.57, 126.98),
    place("asia-south1", "Mumbai", 19.08, 72.88),
    place("asia-south2", "Delhi", 28.61, 77.21),
    place("asia-southeast1", "Singapore", 1.35, 103.82),
    place("asia-southeast2", "Jakarta", -6.21, 106.85),
    place("asia-southeast3", "Bangkok", 13.76, 100.50),
    place("australia-southeast1", "Sydney", -33.87, 151.21),
    place("australia-southeast2", "Melbourne", -37.81, 144.96),
    place("europe-central2", "Warsaw", 52.23, 21.01),
    place("europe-north1", "Hamina", 60.57, 27.19),
    place("europe-north2", "Stockholm", 59.33, 18.07),
    place("europe-southwest1", "Madrid", 40.42, -3.70),
    place("europe-west1", "St. Ghislain, Belgium", 50.47, 3.82),
    place("europe-west2", "London", 51.51, -0.13),
    place("europe-west3", "Frankfurt", 50.11, 8.68),
    place("europe-west4", "Eemshaven", 53.44, 6.84),
    place("europe-west6", "Zurich", 47.38, 8.54),
    place("europe-west8", "Milan", 45.47, 9.19),
    place("europe-west9", "Paris", 48.86, 2.35),
    place("europe-west10", "Berlin", 52.52, 13.41),
    place("europe-west12", "Turin", 45.07, 7.69),
    place("me-central1", "Doha", 25.29, 51.53),
    place("me-central2", "Dammam", 26.42, 50.09),
    place("me-west1", "Tel Aviv", 32.09, 34.78),
    place("northamerica-northeast1", "Montréal", 45.50, -73.57),
    place("northamerica-northeast2", "Toronto", 43.65, -79.38),
    place("northamerica-south1", "Querétaro", 20.59, -100.39),
    place("southamerica-east1", "Osasco, São Paulo", -23.53, -46.79),
    place("southamerica-west1", "Santiago", -33.45, -70.67),
    place("us-central1", "Council Bluffs, Iowa", 41.26, -95.86),
    place("us-east1", "Moncks Corner, S. Carolina", 33.20, -80.01),
    place("us-east4", "Ashburn, Virginia", 39.04, -77.49),
    place("us-east5", "Columbus, Ohio", 39.96, -83.00),
    place("us-south1", "Dallas", 32.78, -96.80),
    place("us-west1", "The Dalles, Oregon", 45.59, -121.18),
    place("us-west2", "Los Angeles", 34.05, -118.24),
    place("us-west3", "Salt Lake City", 40.76, -111.89),
    place("us-west4", "Las Vegas", 36.17, -115.14),
    place("us-west8", "Phoenix", 33.45, -112.07),
];

/// The region of that name, if Google has one.
pub fn known(name: &str) -> Option<&'static Place> {
    REGIONS.iter().find(|region| region.name == name)
}

const fn place(name: &'static str, place: &'static str, latitude: f64, longitude: f64) -> Place {
    Place { name, place, coordinates: Coordinates::fact(latitude, longitude) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::name::RegionName;

    #[test]
    fn every_region_is_on_the_earth_and_has_a_name_and_a_point_of_its_own() {
        let names: BTreeSet<_> = REGIONS.iter().map(|region| region.name).collect();
        let places: BTreeSet<_> = REGIONS.iter().map(|region| region.place).collect();
        let points: BTreeSet<_> = REGIONS.iter().map(|region| region.coordinates.to_string()).collect();
        assert_eq!((names.len(), places.len(), points.len()), (REGIONS.len(), REGIONS.len(), REGIONS.len()));
        for Place { name, coordinates, .. } in REGIONS {
            assert_eq!(Coordinates::new(coordinates.latitude(), coordinates.longitude()), Ok(coordinates), "{name}");
            assert!(name.parse::<RegionName>().is_ok(), "{name} could not be configured");
            assert_eq!(known(name).map(|region| region.coordinates), Some(coordinates));
        }
        assert_eq!(known("europe-west15"), None);
        assert_eq!(known("EUROPE-WEST1"), None, "names of regions are in lower case");
    }

    #[test]
    fn every_region_is_in_the_part_of_the_world_that_its_name_says() {
        for Place { name, coordinates, .. } in REGIONS {
            let (latitudes, longitudes) = match name.split_once('-').unwrap().0 {
                "africa" => (-35.0..37.0, -18.0..52.0),
                "asia" => (-11.0..46.0, 68.0..146.0),
                "australia" => (-44.0..-10.0, 113.0..154.0),
                "europe" => (36.0..71.0, -10.0..40.0),
                "me" => (12.0..42.0, 34.0..60.0),
                "northamerica" => (14.0..84.0, -141.0..-52.0),
                "southamerica" => (-56.0..13.0, -82.0..-34.0),
                "us" => (24.0..49.5, -125.0..-66.0),
                other => panic!("{other} is no part of the world"),
            };
            assert!(latitudes.contains(&coordinates.latitude()), "{name}");
            assert!(longitudes.contains(&coordinates.longitude()), "{name}");
        }
    }

    #[test]
    fn the_south_is_south() {
        let south: BTreeSet<_> =
            REGIONS.iter().filter(|region| region.coordinates.latitude() < 0.0).map(|region| region.name).collect();
        let expected = [
            "africa-south1",
            "asia-southeast2",
            "australia-southeast1",
            "australia-southeast2",
            "southamerica-east1",
            "southamerica-west1",
        ];
        assert_eq!(south, BTreeSet::from(expected));
    }

    #[test]
    fn neighbours_are_near_and_others_far() {
        let between =
            |from: &str, to: &str| known(from).unwrap().coordinates.distance_km(known(to).unwrap().coordinates);
        for (from, to, expected) in [
            ("europe-west1", "europe-west4", 390.0),
            ("us-east4", "us-west2", 3670.0),
            ("africa-south1", "europe-west2", 9070.0),
            ("australia-southeast1", "us-west2", 12_060.0),
            ("asia-northeast1", "asia-northeast2", 395.0),
        ] {
            let distance = between(from, to);
            assert!((distance - expected).abs() < expected * 0.02, "{from} to {to}: {distance} km");
        }
    }
}
