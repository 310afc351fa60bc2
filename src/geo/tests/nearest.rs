//! Orders of regions: a table of what must come first, and properties of any order.

use proptest::prelude::*;

use super::anywhere;
use crate::geo::{Candidate, Coordinates, Country, Location, Ranked, Wanted, nearest, regions};
use crate::model::name::RegionName;

fn name(text: &str) -> RegionName {
    text.parse().unwrap()
}

fn country(code: &str) -> Country {
    code.parse().unwrap()
}

fn region(name: &str, countries: &[&str]) -> Candidate {
    Candidate {
        name: name.parse().unwrap(),
        coordinates: regions::known(name).map(|region| region.coordinates),
        countries: countries.iter().map(|code| country(code)).collect(),
    }
}

/// Three of Google's, and one that nobody knows the place of.
fn deployment() -> Vec<Candidate> {
    vec![
        region("us-central1", &[]),
        region("europe-west1", &["BE"]),
        region("asia-southeast1", &["BE", "NZ"]),
        region("attic", &["LU"]),
    ]
}

fn location(code: &str, coordinates: &str) -> Location {
    Location { country: Country::of(code), coordinates: coordinates.parse().ok() }
}

fn names(order: &[Ranked<'_>]) -> Vec<String> {
    order.iter().map(|ranked| ranked.region.name.to_string()).collect()
}

#[test]
fn a_client_is_sent_to_the_nearest_region_that_may_have_it() {
    let regions = deployment();
    for (case, location, down, residency, expected) in [
        ("by coordinates", location("", "52.5,13.4"), "", "", "europe-west1 us-central1 asia-southeast1 attic"),
        ("by country alone", location("DE", ""), "", "", "europe-west1 us-central1 asia-southeast1 attic"),
        ("in the south", location("AU", ""), "", "", "asia-southeast1 us-central1 europe-west1 attic"),
        ("by country, far away", location("NZ", "52.5,13.4"), "", "", "asia-southeast1 europe-west1 us-central1 attic"),
        ("by country, of two", location("BE", ""), "", "", "europe-west1 asia-southeast1 us-central1 attic"),
        ("by country, place unknown", location("LU", ""), "", "", "attic europe-west1 us-central1 asia-southeast1"),
        ("nothing known", Location::UNKNOWN, "", "", "asia-southeast1 us-central1 europe-west1 attic"),
        ("nearest down", location("DE", ""), "europe-west1", "", "us-central1 asia-southeast1 attic europe-west1"),
        ("that of the country down", location("LU", ""), "attic", "", "europe-west1 us-central1 asia-southeast1 attic"),
        (
            "two down",
            location("DE", ""),
            "us-central1 europe-west1",
            "",
            "asia-southeast1 attic europe-west1 us-central1",
        ),
        (
            "all down",
            location("DE", ""),
            "us-central1 europe-west1 asia-southeast1 attic",
            "",
            "europe-west1 us-central1 asia-southeast1 attic",
        ),
        (
            "the serving one down",
            Location::UNKNOWN,
            "asia-southeast1",
            "",
            "us-central1 europe-west1 attic asia-southeast1",
        ),
        ("bound to others", location("DE", ""), "", "attic us-central1", "us-central1 attic"),
        ("bound to one that is down", location("DE", ""), "us-central1", "us-central1", "us-central1"),
        ("bound away from its country", location("BE", ""), "", "us-central1", "us-central1"),
        ("bound to none that there is", location("DE", ""), "", "moon", ""),
    ] {
        let residency: Vec<_> = residency.split_whitespace().map(name).collect();
        let order = nearest(
            &regions,
            &Wanted {
                location: &location,
                serving: &name("asia-southeast1"),
                residency: (!residency.is_empty()).then_some(&residency),
                healthy: |region: &RegionName| !down.split_whitespace().any(|down| down == region.as_str()),
            },
        );
        assert_eq!(names(&order), expected.split_whitespace().collect::<Vec<_>>(), "{case}");
    }
}

#[test]
fn equal_distances_keep_the_order_of_the_configuration() {
    let at = |name: &str, coordinates: &str| Candidate {
        name: name.parse().unwrap(),
        coordinates: Some(coordinates.parse().unwrap()),
        countries: Vec::new(),
    };
    let regions = [at("c", "0,10"), at("a", "0,10"), at("b", "0,10"), at("near", "0,1")];
    let location = location("", "0,0");
    let order = nearest(
        &regions,
        &Wanted { location: &location, serving: &name("b"), residency: None, healthy: |_: &RegionName| true },
    );
    assert_eq!(names(&order), ["near", "c", "a", "b"]);
}

#[test]
fn an_order_says_how_far_and_why() {
    let regions = deployment();
    let location = location("BE", "50.85,4.35");
    let order = nearest(
        &regions,
        &Wanted {
            location: &location,
            serving: &name("us-central1"),
            residency: None,
            healthy: |region: &RegionName| region.as_str() != "us-central1",
        },
    );
    let told: Vec<_> = order
        .iter()
        .map(|Ranked { region, distance_km, healthy, claims_country }| {
            (region.name.as_str(), distance_km.map(f64::round), *healthy, *claims_country)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("europe-west1", Some(56.0), true, true),
            ("asia-southeast1", Some(10_553.0), true, true),
            ("attic", None, true, false),
            ("us-central1", Some(7195.0), false, false),
        ]
    );
}

/// A deployment of up to eight regions, and what is asked of it.
#[derive(Clone, Debug)]
struct Situation {
    regions: Vec<Candidate>,
    down: Vec<bool>,
    residency: Option<Vec<RegionName>>,
    serving: RegionName,
    location: Location,
}

impl Situation {
    fn order(&self) -> Vec<Ranked<'_>> {
        nearest(&self.regions, &self.wanted())
    }

    fn wanted(&self) -> Wanted<'_, impl Fn(&RegionName) -> bool> {
        Wanted {
            location: &self.location,
            serving: &self.serving,
            residency: self.residency.as_deref(),
            healthy: |name: &RegionName| self.is_up(name),
        }
    }

    fn position(&self, name: &RegionName) -> usize {
        self.regions.iter().position(|region| region.name == *name).unwrap()
    }

    fn is_up(&self, name: &RegionName) -> bool {
        !self.down[self.position(name)]
    }

    fn allowed(&self) -> impl Iterator<Item = &Candidate> {
        let may = |name| self.residency.as_ref().is_none_or(|names| names.contains(name));
        self.regions.iter().filter(move |region| may(&region.name))
    }
}

fn some_country() -> impl Strategy<Value = Country> {
    prop::sample::select(vec!["BE", "DE", "NZ", "US"]).prop_map(country)
}

fn situation() -> impl Strategy<Value = Situation> {
    let place = prop_oneof![
        6 => anywhere().prop_map(Some),
        // Regions in one place, so that there are ties.
        2 => Just(Some(Coordinates::fact(50.0, 4.0))),
        1 => Just(None),
    ];
    let region = (place, prop::collection::vec(some_country(), 0..2), prop::bool::weighted(0.3));
    let location = (prop::option::of(some_country()), prop::option::of(anywhere()))
        .prop_map(|(country, coordinates)| Location { country, coordinates });
    let residency = prop::option::weighted(0.4, prop::collection::vec(0_usize..9, 0..4));
    (prop::collection::vec(region, 1..9), residency, any::<prop::sample::Index>(), location).prop_map(
        |(regions, residency, serving, location)| {
            let name = |number: usize| format!("r{number}").parse::<RegionName>().unwrap();
            let down = regions.iter().map(|(_, _, down)| *down).collect();
            let regions: Vec<_> = regions
                .into_iter()
                .enumerate()
                .map(|(number, (coordinates, countries, _))| Candidate { name: name(number), coordinates, countries })
                .collect();
            let serving = serving.get(&regions).name.clone();
            let residency = residency.map(|numbers| numbers.into_iter().map(name).collect());
            Situation { regions, down, residency, serving, location }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn residency_is_never_broken_and_no_region_is_lost(situation in situation()) {
        let mut given = names(&situation.order());
        let mut allowed: Vec<_> = situation.allowed().map(|region| region.name.to_string()).collect();
        given.sort();
        allowed.sort();
        prop_assert_eq!(given, allowed);
    }

    #[test]
    fn nothing_down_comes_before_anything_up(situation in situation()) {
        let order = situation.order();
        prop_assert!(order.is_sorted_by_key(|ranked| !ranked.healthy));
        for ranked in &order {
            prop_assert_eq!(ranked.healthy, situation.is_up(&ranked.region.name));
        }
    }

    #[test]
    fn all_down_is_the_order_of_all_up(mut situation in situation()) {
        situation.down.fill(true);
        let all_down = names(&situation.order());
        situation.down.fill(false);
        prop_assert_eq!(all_down, names(&situation.order()));
    }

    #[test]
    fn the_country_wins_over_any_distance(situation in situation()) {
        let order = situation.order();
        if let (Some(first), Some(country)) = (order.first(), situation.location.country) {
            let claims = |region: &Candidate| region.countries.contains(&country);
            let any = situation.allowed().any(|region| claims(region) && situation.is_up(&region.name));
            prop_assert!(!any || claims(first.region), "{order:?}");
        }
    }

    #[test]
    fn the_first_is_the_nearest_of_its_like_by_brute_force(situation in situation()) {
        let order = situation.order();
        let Some(first) = order.first() else { return Ok(()) };
        let claims = |region: &Candidate| {
            situation.location.country.is_some_and(|country| region.countries.contains(&country))
        };
        let like = |region: &&Candidate| {
            situation.is_up(&region.name) == first.healthy && claims(region) == first.claims_country
        };
        for other in situation.allowed().filter(like) {
            let distance = |region: &Candidate| Some(situation.location.point()?.distance_km(region.coordinates?));
            let (mine, others) = (distance(first.region), distance(other));
            let earlier = situation.position(&first.region.name) <= situation.position(&other.name);
            let holds = match (mine, others) {
                (Some(mine), Some(others)) => mine < others || (mine <= others && earlier),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => {
                    first.region.name == situation.serving || (other.name != situation.serving && earlier)
                }
            };
            prop_assert!(holds, "{} before {}", first.region.name, other.name);
        }
    }

    #[test]
    fn an_order_depends_on_nothing_but_what_is_asked(situation in situation()) {
        let order = names(&situation.order());
        prop_assert_eq!(&order, &names(&situation.clone().order()));
        // Without its first region the others keep their order: no region's place depends on a third one.
        let mut rest = situation.clone();
        if let Some(first) = order.first() {
            let position = situation.position(&first.parse().unwrap());
            rest.regions.remove(position);
            rest.down.remove(position);
            prop_assert_eq!(&order[1..], &names(&rest.order())[..]);
        }
    }
}
