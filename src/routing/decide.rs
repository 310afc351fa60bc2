//! Here, there, or a refusal. Pure: what is known goes in, a choice comes out.

use crate::geo::{Candidate, How, Located, Location, Misdirected, Wanted, nearest};
use crate::model::name::RegionName;

/// How a request came here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Where its client is.
    pub located: Located,
    /// Over which brokers it came.
    pub hop: Hop,
}

impl Arrival {
    /// A client's own request, of whom nothing is known.
    pub const UNKNOWN: Self = Self { located: Located::UNKNOWN, hop: Hop::First };
}

/// Over which brokers a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// Over none.
    First,
    /// The broker of another region has sent it on. It is not sent on once more, and not turned away for being far.
    Second,
    /// Over none: the broker that it was sent on to did not answer.
    Back,
}

/// What is asked about a request for an upload.
pub struct Question<'a, Healthy> {
    /// The client, the region that asks, the residency of the policy, and which regions are up. The region that asks has
    /// to be among these.
    pub wanted: Wanted<'a, Healthy>,
    /// What becomes of requests that another region is nearer for.
    pub misdirected: Misdirected,
    /// How far this one has come.
    pub hop: Hop,
}

/// What becomes of the request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice<'a> {
    /// It is served here.
    Here,
    /// The broker of that region, which is up, is asked to serve it.
    Ask {
        /// The region.
        region: &'a RegionName,
        /// Whether it may be served here should that fail.
        or_here: bool,
    },
    /// The client is told to go to that region.
    Refer {
        /// The region.
        region: &'a RegionName,
        /// Whether it may be served here, had it begun here.
        or_here: bool,
    },
}

/// The choice, and what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed<'a> {
    /// What becomes of the request.
    pub choice: Choice<'a>,
    /// The nearest region that is up and allowed; `None` where nobody knows, because nobody knows where the client is.
    pub nearest: Option<&'a RegionName>,
}

impl<Healthy: Fn(&RegionName) -> bool> Question<'_, Healthy> {
    /// The answer; `None` when none of the regions is allowed.
    ///
    /// A region that is down is named only in a refusal, and only when all that are allowed are down: the client may get
    /// through where this broker does not, and it may wait.
    pub fn answer<'a>(&self, regions: &'a [Candidate]) -> Option<Placed<'a>> {
        let order = nearest(regions, &self.wanted);
        let first = order.first()?;
        let is_known = self.wanted.location != &Location::UNKNOWN || order.len() == 1;
        let (serving, name) = (self.wanted.serving, &first.region.name);
        let or_here = order.iter().any(|ranked| ranked.region.name == *serving);
        let choice = match (self.misdirected, self.hop) {
            _ if name == serving => Choice::Here,
            (Misdirected::Forward, Hop::First) if first.healthy => Choice::Ask { region: name, or_here },
            // One broker has sent it here already, and two that are not of one mind must not send it to and fro.
            (Misdirected::Reject, Hop::First) => Choice::Refer { region: name, or_here },
            _ if or_here => Choice::Here,
            // The nearest was asked in vain: another one that is up is a better word than that.
            (_, Hop::Back) => {
                let next = order.iter().skip(1).find(|ranked| ranked.healthy);
                Choice::Refer { region: next.map_or(name, |ranked| &ranked.region.name), or_here }
            }
            _ => Choice::Refer { region: name, or_here },
        };
        Some(Placed { choice, nearest: Some(name).filter(|_| is_known) })
    }
}

impl Arrival {
    /// How the client was located.
    pub const fn how(&self) -> How {
        self.located.how
    }

    /// The same as metrics call it: of what another broker has sent on, that one knows.
    pub const fn how_in_metrics(&self) -> &'static str {
        match self.hop {
            Hop::Second => "forwarded",
            Hop::First | Hop::Back => self.located.how.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geo::{Country, regions};

    const NAMES: [&str; 4] = ["europe-west1", "us-central1", "asia-southeast1", "attic"];

    fn name(text: &str) -> RegionName {
        text.parse().unwrap()
    }

    fn deployment() -> Vec<Candidate> {
        let region = |text: &str| Candidate {
            name: name(text),
            coordinates: regions::known(text).map(|place| place.coordinates),
            countries: if text == "attic" { vec![Country::of("LU").unwrap()] } else { Vec::new() },
        };
        NAMES.map(region).to_vec()
    }

    fn words(text: &str) -> Vec<RegionName> {
        text.split_whitespace().map(name).collect()
    }

    /// A choice in a word or two, and the nearest region.
    fn answer(client: &str, residency: &str, down: &str, mode: Misdirected, hop: Hop) -> (String, String) {
        let (regions, down, residency) = (deployment(), words(down), words(residency));
        let location = Location::from_header(client).unwrap_or_default();
        let question = Question {
            wanted: Wanted {
                location: &location,
                serving: &name("europe-west1"),
                residency: (!residency.is_empty()).then_some(&residency),
                healthy: |region: &RegionName| !down.contains(region),
            },
            misdirected: mode,
            hop,
        };
        let Some(placed) = question.answer(&regions) else { return ("nowhere".to_owned(), String::new()) };
        let choice = match placed.choice {
            Choice::Here => "here".to_owned(),
            Choice::Ask { region, or_here: true } => format!("ask {region} or here"),
            Choice::Ask { region, or_here: false } => format!("ask {region}"),
            Choice::Refer { region, or_here: true } => format!("refer {region} or here"),
            Choice::Refer { region, or_here: false } => format!("refer {region}"),
        };
        (choice, placed.nearest.map(ToString::to_string).unwrap_or_default())
    }

    #[test]
    fn a_request_is_served_sent_on_or_refused() {
        use Hop::{Back, First, Second};
        use Misdirected::{Forward, Reject, Serve};
        const ASIA: &str = "asia-southeast1";
        const US: &str = "us-central1";
        const EU: &str = "europe-west1";
        for (case, client, residency, down, mode, hop, choice, nearest) in [
            ("a client of this region", "DE", "", "", Reject, First, "here", EU),
            ("of another, served", "JP", "", "", Serve, First, "here", ASIA),
            ("of another, forwarded", "JP", "", "", Forward, First, "ask asia-southeast1 or here", ASIA),
            ("of another, forwarded to here", "JP", "", "", Forward, Second, "here", ASIA),
            ("of another, which did not answer", "JP", "", "", Forward, Back, "here", ASIA),
            ("of another, rejected", "JP", "", "", Reject, First, "refer asia-southeast1 or here", ASIA),
            ("sent here by another broker", "JP", "", "", Reject, Second, "here", ASIA),
            ("of a country", "LU", "", "", Forward, First, "ask attic or here", "attic"),
            ("the nearest is down", "JP", "", ASIA, Forward, First, "here", EU),
            ("the nearest is down, and here is far", "BR", "", "attic", Reject, First, "refer us-central1 or here", US),
            ("not located", "", "", "", Forward, First, "here", ""),
            ("not located, to be rejected", "", "", "", Reject, First, "here", ""),
            ("not located, one region allowed", "", EU, "", Reject, First, "here", EU),
            ("kept elsewhere, served", "DE", US, "", Serve, First, "refer us-central1", US),
            ("kept elsewhere, forwarded", "DE", US, "", Forward, First, "ask us-central1", US),
            ("kept elsewhere, forwarded to here", "DE", US, "", Forward, Second, "refer us-central1", US),
            ("kept elsewhere, which did not answer", "DE", US, "", Forward, Back, "refer us-central1", US),
            (
                "kept elsewhere, of which the nearest did not answer",
                "JP",
                "us-central1 asia-southeast1",
                "",
                Forward,
                Back,
                "refer us-central1",
                ASIA,
            ),
            (
                "kept elsewhere, of which the nearest did not answer and the other is down",
                "JP",
                "us-central1 asia-southeast1",
                US,
                Forward,
                Back,
                "refer asia-southeast1",
                ASIA,
            ),
            ("kept elsewhere, rejected", "DE", US, "", Reject, First, "refer us-central1", US),
            ("kept elsewhere, which is down", "DE", US, US, Forward, First, "refer us-central1", US),
            (
                "kept elsewhere, of which one is up",
                "JP",
                "us-central1 asia-southeast1",
                ASIA,
                Forward,
                First,
                "ask us-central1",
                US,
            ),
            (
                "kept elsewhere, all down",
                "JP",
                "us-central1 asia-southeast1",
                "us-central1 asia-southeast1",
                Forward,
                First,
                "refer asia-southeast1",
                ASIA,
            ),
            (
                "kept elsewhere, not located",
                "",
                "us-central1 asia-southeast1",
                "",
                Serve,
                First,
                "refer us-central1",
                "",
            ),
            ("kept here, by a client of another", "JP", EU, "", Reject, First, "here", EU),
            (
                "kept in this one and another, which is down",
                "JP",
                "asia-southeast1 europe-west1",
                ASIA,
                Forward,
                First,
                "here",
                EU,
            ),
            ("kept nowhere", "DE", "moon", "", Serve, First, "nowhere", ""),
        ] {
            let expected = (choice.to_owned(), nearest.to_owned());
            assert_eq!(answer(client, residency, down, mode, hop), expected, "{case}");
        }
    }

    fn clients() -> impl Strategy<Value = Location> {
        let country = prop::option::of(prop::sample::select(vec!["DE", "JP", "BR", "LU", "US", "AU"]));
        let point = prop::option::of((-90.0..=90.0_f64, -180.0..=180.0_f64));
        (country, point).prop_map(|(country, point)| Location {
            country: country.and_then(Country::of),
            coordinates: point.and_then(|(latitude, longitude)| format!("{latitude},{longitude}").parse().ok()),
        })
    }

    fn some_regions() -> impl Strategy<Value = Vec<RegionName>> {
        prop::sample::subsequence(NAMES.to_vec(), 0..=NAMES.len())
            .prop_map(|names| names.into_iter().map(name).collect())
    }

    /// What a policy may be bound to: nothing; any of the regions, in any order; one alone; and names of no region, as a
    /// broker has them that does not know yet of the region that was added.
    fn residencies() -> impl Strategy<Value = Option<Vec<RegionName>>> {
        let strange = prop::sample::select(vec![vec!["moon"], vec!["moon", "mars"]]);
        let listed = prop_oneof![
            4 => some_regions().prop_shuffle(),
            2 => prop::sample::select(NAMES.to_vec()).prop_map(|one| vec![name(one)]),
            1 => strange.prop_map(|names| names.into_iter().map(name).collect()),
            2 => some_regions().prop_map(|mut names| { names.insert(0, name("moon")); names }),
        ];
        prop::option::weighted(0.9, listed)
    }

    /// One broker: which regions it takes to be down, and its mode.
    fn brokers() -> impl Strategy<Value = Vec<(Vec<RegionName>, Misdirected)>> {
        let down = prop_oneof![
            3 => some_regions(),
            1 => Just(NAMES.map(name).to_vec()),
        ];
        let mode = prop::sample::select(vec![Misdirected::Serve, Misdirected::Forward, Misdirected::Reject]);
        prop::collection::vec((down, mode), NAMES.len())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 10_000, ..ProptestConfig::default() })]

        /// An upload goes through any brokers that it can, each with its own view of the others' health, and its own mode.
        /// It may begin anywhere, and claim to have come over other brokers.
        #[test]
        fn a_residency_policy_is_never_broken(
            location in clients(), residency in residencies(), entry in prop::sample::select(NAMES.to_vec()),
            claimed in prop::sample::select(vec![Hop::First, Hop::Second, Hop::Back]), brokers in brokers(),
            answers in any::<bool>(),
        ) {
            let regions = deployment();
            let ask = |serving: &RegionName, hop| {
                let (down, mode) = &brokers[NAMES.iter().position(|name| *name == serving.as_str()).unwrap()];
                let wanted = Wanted {
                    location: &location, serving, residency: residency.as_deref(),
                    // Who asks is up.
                    healthy: |region: &RegionName| region == serving || !down.contains(region),
                };
                Question { wanted, misdirected: *mode, hop }.answer(&regions)
            };
            let exists = |region: &RegionName| NAMES.contains(&region.as_str());
            let allowed = |region: &RegionName| residency.as_ref().is_none_or(|names| names.contains(region));
            let (mut at, mut hop) = (name(entry), claimed);
            for step in 0.. {
                prop_assert!(step < 3, "it is sent on for ever");
                let Some(placed) = ask(&at, hop) else {
                    prop_assert!(!NAMES.map(name).iter().any(allowed), "refused although some region is allowed");
                    break;
                };
                let is_right = |region: &RegionName| exists(region) && allowed(region);
                prop_assert!(placed.nearest.is_none_or(is_right), "{:?} is called the nearest", placed.nearest);
                match placed.choice {
                    Choice::Here => {
                        prop_assert!(is_right(&at), "served in {at:?}");
                        break;
                    }
                    Choice::Refer { region, or_here } => {
                        prop_assert!(is_right(region) && *region != at, "sent to {region:?}");
                        // A repeat may be served here after all.
                        prop_assert_eq!(or_here, allowed(&at));
                        break;
                    }
                    Choice::Ask { region, or_here } => {
                        prop_assert!(is_right(region) && *region != at, "forwarded to {region:?}");
                        prop_assert_eq!(or_here, allowed(&at));
                        prop_assert_eq!(hop, Hop::First, "forwarded twice");
                        (at, hop) = if answers { (region.clone(), Hop::Second) } else { (at, Hop::Back) };
                    }
                }
            }
        }
    }
}
