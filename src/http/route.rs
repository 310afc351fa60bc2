//! `/v1/route`: which region is near.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use url::Url;
use utoipa::ToSchema;

use super::arrival::Whereabouts;
use super::problem::{self, Problem};
use super::readiness::Readiness;
use crate::geo::{Country, How, Located, Ranked};
use crate::routing::Routing;

/// List regions
///
/// Nearest first for this client; those that are down come last. Needs no token. A broker that takes no uploads at the
/// moment answers 503: health checks of geo-DNS and of other regions ask this.
#[utoipa::path(
    get, path = "/v1/route", operation_id = "route", tag = "routing",
    security(()),
    responses(
        (status = 200, description = "The regions, in the order in which to try them", body = RegionList),
        (status = 503, description = "`storage-unavailable`, `store-unavailable`, `overloaded`: this region takes no uploads at the moment", body = problem::Document, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn route(
    State(routing): State<Arc<Routing>>,
    State(readiness): State<Arc<Readiness>>,
    Whereabouts(located): Whereabouts,
) -> Result<Json<RegionList>, Problem> {
    readiness.recent().await.map_err(|unready| Problem::from(&unready))?;
    Ok(Json(RegionList::new(&routing, &located)))
}

/// The regions, nearest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RegionList {
    /// The region whose broker answers.
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "europe-west1")]
    region: String,
    #[schema(max_items = 1000)]
    regions: Vec<Region>,
    located_by: LocatedBy,
    /// The client's country (ISO 3166-1 alpha-2), where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 2, max_length = 2, example = "BE")]
    country: Option<&'static str>,
}

/// A region, as this one sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Region {
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9_-]+$", example = "europe-west1")]
    name: String,
    /// Its broker.
    #[schema(format = "uri", example = "https://eu.uploads.example.com")]
    url: String,
    /// How far it is from the client, in km; left out where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, maximum = 20_038, example = 70)]
    distance_km: Option<u32>,
    /// Whether it is up.
    healthy: bool,
}

/// How it is known where a client is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LocatedBy {
    /// A trusted proxy said it.
    Header,
    /// The database of addresses has its address.
    Database,
    /// It is not.
    None,
}

impl LocatedBy {
    pub(super) const fn of(how: How) -> Self {
        match how {
            How::Header => Self::Header,
            How::Database => Self::Database,
            How::Unknown => Self::None,
        }
    }
}

impl RegionList {
    fn new(routing: &Routing, located: &Located) -> Self {
        Self {
            region: routing.own().to_string(),
            regions: routing.order(&located.location).into_iter().map(Region::new).collect(),
            located_by: LocatedBy::of(located.how),
            country: located.location.country.map(Country::code),
        }
    }
}

impl Region {
    fn new((ranked, url): (Ranked<'_>, &Url)) -> Self {
        Self {
            name: ranked.region.name.to_string(),
            url: base(url),
            distance_km: ranked.distance_km.map(whole),
            healthy: ranked.healthy,
        }
    }
}

/// Without the slash at the end, so that paths can be put behind it.
pub(super) fn base(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// Whole kilometres: where a client is, is not known better.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no two places are 40 000 km apart")]
fn whole(distance_km: f64) -> u32 {
    distance_km.round() as u32
}
