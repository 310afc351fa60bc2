//! What happened to uploads, in numbers. No label names a user.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::lag::Lag;
use super::sweep::{Round, Settled};
use crate::model::limits::Enforcement;
use crate::model::name::{PolicyName, RegionName};
use crate::model::time::Timestamp;
use crate::model::upload::{StateKind, Upload, UploadState};
use crate::policy::Policy;

/// Counters of uploads. Clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    created: Family<UploadLabels, Counter>,
    renewed: Family<UploadLabels, Counter>,
    restored: Family<UploadLabels, Counter>,
    recalled: Family<UploadLabels, Counter>,
    ended: Family<OutcomeLabels, Counter>,
    reported: Family<LimitLabels, Counter>,
    refused: Family<LimitLabels, Counter>,
    settled: Family<SettledLabels, Counter>,
    oldest_due: Gauge<f64, AtomicU64>,
    lag: Lag,
    listeners: Gauge,
    events: Family<EventLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SettledLabels {
    result: &'static str,
}

impl SettledLabels {
    fn of(settled: Option<Settled>) -> Self {
        let result = match settled {
            Some(Settled::Ended) => "ended",
            Some(Settled::UnderWay) => "under_way",
            Some(Settled::Interrupted) => "interrupted",
            Some(Settled::Clean) => "clean",
            Some(Settled::Cleaned) => "cleaned",
            Some(Settled::Forgotten) => "forgotten",
            None => "failed",
        };
        Self { result }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UploadLabels {
    policy: String,
    region: String,
}

impl UploadLabels {
    fn of(upload: &Upload) -> Self {
        Self { policy: upload.policy.to_string(), region: upload.region.to_string() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    policy: String,
    region: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    policy: String,
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

impl Metrics {
    /// Makes the counters visible in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("uploads_created", "Uploads whose session was handed out", self.created.clone());
        registry.register("uploads_renewed", "Sessions that took the place of a lost one", self.renewed.clone());
        registry.register(
            "uploads_restored",
            "Uploads that the store had lost, and whose object told of them",
            self.restored.clone(),
        );
        registry.register(
            "uploads_recalled",
            "Uploads of which the store had lost what it had acknowledged, and that this instance remembered",
            self.recalled.clone(),
        );
        registry.register("uploads_ended", "Uploads that entered a final state", self.ended.clone());
        registry.register(
            "policy_reports",
            "Uploads that a policy with report_only would have refused",
            self.reported.clone(),
        );
        registry.register(
            "limit_refusals",
            "Uploads refused because a limit of their policy was reached",
            self.refused.clone(),
        );
        // All of them from the start, so that the first of its kind is seen as an increase.
        for settled in Settled::ALL.into_iter().map(Some).chain([None]) {
            drop(self.settled.get_or_create(&SettledLabels::of(settled)));
        }
        registry.register("sweep_settled", "Uploads that were due, by what was done about them", self.settled.clone());
        registry.register(
            "sweep_oldest_due_seconds",
            "How long uploads have been due that are not settled, as far as this instance knows",
            self.oldest_due.clone(),
        );
        registry.register("event_listeners", "Streams of events that are open", self.listeners.clone());
        registry.register("events_sent", "Events given to streams", self.events.clone());
    }

    /// Makes what happens to uploads under a policy visible, so that the first of each kind is seen as an increase.
    pub(super) fn introduce(&self, policy: &Policy, region: &RegionName) {
        let (policy_name, region) = (policy.name().to_string(), region.to_string());
        let labels = UploadLabels { policy: policy_name.clone(), region: region.clone() };
        for family in [&self.created, &self.renewed, &self.restored, &self.recalled] {
            drop(family.get_or_create(&labels));
        }
        for kind in StateKind::FINAL {
            let (policy, region) = (policy_name.clone(), region.clone());
            drop(self.ended.get_or_create(&OutcomeLabels { policy, region, outcome: kind.name() }));
        }
        if policy.enforcement() == Enforcement::Enforce {
            for limit in policy.limits().names() {
                drop(self.refused.get_or_create(&LimitLabels { policy: policy_name.clone(), limit }));
            }
        }
    }

    /// `None` for what failed.
    pub(super) fn observe_settled(&self, settled: Option<Settled>) {
        self.settled.get_or_create(&SettledLabels::of(settled)).inc();
    }

    /// Shows how far sweeping lags behind after a round that has just ended, and gives it.
    pub(super) fn observe_round(&self, round: &Round, now: Timestamp) -> Duration {
        let lag = self.lag.after(round, now);
        self.oldest_due.set(lag.as_secs_f64());
        lag
    }

    /// Shows it while a round is under way, which may take long.
    pub(super) fn observe_overdue(&self, overdue: Duration) {
        self.oldest_due.set(self.oldest_due.get().max(overdue.as_secs_f64()));
    }

    pub(super) fn observe_created(&self, upload: &Upload) {
        self.created.get_or_create(&UploadLabels::of(upload)).inc();
    }

    pub(super) fn observe_renewed(&self, upload: &Upload) {
        self.renewed.get_or_create(&UploadLabels::of(upload)).inc();
    }

    pub(super) fn observe_restored(&self, upload: &Upload) {
        self.restored.get_or_create(&UploadLabels::of(upload)).inc();
    }

    pub(super) fn observe_recalled(&self, upload: &Upload) {
        self.recalled.get_or_create(&UploadLabels::of(upload)).inc();
    }

    pub(super) fn observe_transition(&self, before: &UploadState, upload: &Upload) {
        if !before.is_final() && upload.state.is_final() {
            self.ended
                .get_or_create(&OutcomeLabels {
                    policy: upload.policy.to_string(),
                    region: upload.region.to_string(),
                    outcome: upload.state.name(),
                })
                .inc();
        }
    }

    pub(super) fn observe_listeners(&self, count: usize) {
        self.listeners.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn observe_event(&self, event: &'static str) {
        self.events.get_or_create(&EventLabels { event }).inc();
    }

    pub(super) fn observe_report(&self, policy: &PolicyName, limit: &'static str) {
        self.reported.get_or_create(&LimitLabels { policy: policy.to_string(), limit }).inc();
    }

    pub(super) fn observe_refusal(&self, policy: &PolicyName, limit: &'static str) {
        self.refused.get_or_create(&LimitLabels { policy: policy.to_string(), limit }).inc();
    }
}
