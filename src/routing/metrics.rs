//! Where uploads went, in numbers. Labels name regions of the configuration, and no client.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use reqwest::StatusCode;

use crate::geo::Description;
use crate::model::name::RegionName;
use crate::telemetry::NoLabels;

/// Counters of where uploads went. Clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    routed: Family<RoutedLabels, Counter>,
    forwards: Family<ForwardLabels, Counter>,
    healthy: Family<PeerLabel, Gauge>,
    /// Where there is to be one.
    database_built: Family<NoLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoutedLabels {
    served_by: String,
    nearest: String,
    how: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForwardLabels {
    peer: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabel {
    peer: String,
}

/// What came of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForwardResult {
    /// The upload was taken.
    Created,
    /// It was refused, and the refusal passed on.
    Refused,
    /// The broker could not do it, or what answered is none.
    Failed,
    /// The broker does not let in whom this one does: their configurations differ.
    Disagreed,
    /// Nothing came in time.
    TimedOut,
    /// There was no connection, or it broke.
    NoConnection,
    /// It was not asked: too many are waiting for it.
    Overloaded,
}

impl ForwardResult {
    const ALL: [Self; 7] = [
        Self::Created,
        Self::Refused,
        Self::Failed,
        Self::Disagreed,
        Self::TimedOut,
        Self::NoConnection,
        Self::Overloaded,
    ];

    /// That of an answer that decides.
    pub(super) fn of(status: StatusCode) -> Self {
        if status == StatusCode::CREATED { Self::Created } else { Self::Refused }
    }

    /// What metrics and logs call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Disagreed => "disagreed",
            Self::TimedOut => "timed_out",
            Self::NoConnection => "no_connection",
            Self::Overloaded => "overloaded",
        }
    }
}

impl Metrics {
    /// Makes the counters visible in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "routed",
            "Uploads created, by the region that took them, the nearest one that could, and how the client was located",
            self.routed.clone(),
        );
        registry.register("forwards", "Creates sent on to a nearer region, by what came of it", self.forwards.clone());
        registry.register(
            "region_healthy",
            "Whether the broker of another region is up, as the probes of this one see it",
            self.healthy.clone(),
        );
        registry.register(
            "geoip_database_build_timestamp_seconds",
            "When the database that addresses are looked up in was built, in seconds since the epoch; 0 while there is none that can be used",
            self.database_built.clone(),
        );
    }

    /// Takes down which database is used.
    pub(super) fn observe_database(&self, description: Option<&Description>) {
        let built = description.map_or(0, |description| description.built_at.as_secs());
        self.database_built.get_or_create(&[]).set(built);
    }

    /// Counts an upload that was created, or sent on and served here after all.
    pub fn observe_routed(&self, served_by: &RegionName, nearest: Option<&RegionName>, how: &'static str) {
        let nearest = nearest.map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let labels = RoutedLabels { served_by: served_by.to_string(), nearest, how };
        self.routed.get_or_create(&labels).inc();
    }

    /// Makes every result of a forward to a region visible, so that the first of its kind is seen as an increase.
    pub(super) fn introduce_forwards(&self, region: &RegionName) {
        for result in ForwardResult::ALL {
            drop(self.forwards.get_or_create(&ForwardLabels { peer: region.to_string(), result: result.name() }));
        }
    }

    pub(super) fn observe_forward(&self, region: &RegionName, result: ForwardResult) {
        self.forwards.get_or_create(&ForwardLabels { peer: region.to_string(), result: result.name() }).inc();
    }

    /// None is to be used any more.
    pub(super) fn forget_database(&self) {
        self.database_built.clear();
    }

    pub(super) fn forget_health(&self) {
        self.healthy.clear();
    }

    pub(super) fn observe_health(&self, region: &RegionName, is_up: bool) {
        self.healthy.get_or_create(&PeerLabel { peer: region.to_string() }).set(i64::from(is_up));
    }
}
