//! Which region is nearest to a client. Pure: what is known goes in, an order comes out.

use std::cmp::Ordering;

use super::coordinates::Coordinates;
use super::country::Country;
use super::location::Location;
use crate::model::name::RegionName;

/// A region that a client may be sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// What it is called.
    pub name: RegionName,
    /// Where it is. Regions of which that is not known come behind those of which it is.
    pub coordinates: Option<Coordinates>,
    /// The countries whose clients always come here.
    pub countries: Vec<Country>,
}

/// What an order of regions is asked for.
#[derive(Clone, Copy)]
pub struct Wanted<'a, Healthy> {
    /// Where the client is.
    pub location: &'a Location,
    /// The region that asks: the best guess where nothing else decides.
    pub serving: &'a RegionName,
    /// The regions that the policy is bound to; `None` for any.
    pub residency: Option<&'a [RegionName]>,
    /// Whether a region is up.
    pub healthy: Healthy,
}

/// A region in its place of the order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked<'a> {
    /// The region.
    pub region: &'a Candidate,
    /// How far it is from the client, or from the client's country, if both places are known.
    pub distance_km: Option<f64>,
    /// Whether it is up, as [`Wanted::healthy`] said.
    pub healthy: bool,
    /// Whether it is there for the client's country.
    pub claims_country: bool,
}

/// The regions, in the order in which the client is to be sent to them; the first is its own.
///
/// Those outside the residency are left out, so that there may be none. Of the others come first
/// 1. those that are up. None is left out for being down: when all are, the order is the same as when none is,
/// 2. those that name the client's country,
/// 3. the nearest; those whose distance is not known come last, and among them the serving one first,
/// 4. those that stand first in `regions`.
pub fn nearest<'a, Healthy>(regions: &'a [Candidate], wanted: &Wanted<'_, Healthy>) -> Vec<Ranked<'a>>
where
    Healthy: Fn(&RegionName) -> bool,
{
    let allowed = |region: &&Candidate| wanted.residency.is_none_or(|names| names.contains(&region.name));
    let point = wanted.location.point();
    let rank = |region: &'a Candidate| Ranked {
        region,
        distance_km: point.zip(region.coordinates).map(|(client, region)| client.distance_km(region)),
        healthy: (wanted.healthy)(&region.name),
        claims_country: wanted.location.country.is_some_and(|country| region.countries.contains(&country)),
    };
    let mut order: Vec<_> = regions.iter().filter(allowed).map(rank).collect();
    // Stable, so that what is alike stays in the order of the configuration.
    order.sort_by(|a, b| {
        // `false` is less than `true`: what speaks for a region stands on the other side.
        (b.healthy.cmp(&a.healthy))
            .then(b.claims_country.cmp(&a.claims_country))
            .then_with(|| by_distance(a, b, wanted.serving))
    });
    order
}

fn by_distance(a: &Ranked<'_>, b: &Ranked<'_>, serving: &RegionName) -> Ordering {
    match (a.distance_km, b.distance_km) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => (b.region.name == *serving).cmp(&(a.region.name == *serving)),
    }
}
