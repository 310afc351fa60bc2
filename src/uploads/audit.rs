//! Who was given what, and who took it back: one line in the log for each capability that is granted (a create or a
//! renewal; reading it again is none), for each upload that is cancelled, and for each thing that an administrator reads or
//! changes. No line holds an address, an object's name or a claim: whoever must know more finds it by the upload's id.

use tracing::info;

use super::Error;
use crate::model::id::UploadId;
use crate::model::principal::{Principal, PrincipalId};
use crate::model::upload::PromisedSize;
use crate::store::Tracked;
use crate::telemetry::AUDIT;

/// What the outcome is as long as nothing else is known.
pub(super) const INTERRUPTED: &str = "interrupted";

/// Whether a capability is a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// It is.
    First,
    /// It was handed out before, to the same principal.
    Repeated,
}

/// A session or a signed URL goes out. Nothing is said of an upload that has none any more.
pub(super) fn granted(action: &'static str, grant: Grant, tracked: &Tracked) {
    let Tracked { upload, session: Some(_), .. } = tracked else { return };
    if upload.state.is_final() {
        return;
    }
    let (size_bytes, max_size_bytes) = match upload.promise.size {
        PromisedSize::Exactly(size) => (Some(size.0), None),
        PromisedSize::Between { most, .. } => (None, Some(most.0)),
    };
    let outcome = match grant {
        Grant::First => "granted",
        Grant::Repeated => "repeated",
    };
    info!(
        target: AUDIT, principal = %upload.principal, action, upload.id = %upload.id, policy = %upload.policy,
        bucket = upload.bucket.as_str(), transfer = upload.transfer.name(), size_bytes, max_size_bytes, outcome,
        "a capability was granted"
    );
}

/// An owner cancels an upload. It is written down when this is dropped, as [`Audit`] is.
pub(super) struct Cancel {
    /// Who does it.
    pub(super) principal: PrincipalId,
    /// Which upload.
    pub(super) upload: UploadId,
    /// What came of it: the state that it is in, or that it failed; [`INTERRUPTED`] at first.
    pub(super) outcome: &'static str,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        let Self { principal, upload, outcome } = self;
        info!(target: AUDIT, %principal, action = "cancel", upload.id = %upload, outcome, "an owner cancelled");
    }
}

/// Something that an administrator does. It is written down when this is dropped, and so also when the request breaks off
/// halfway: it may or may not have happened then.
pub(super) struct Audit<'a> {
    /// Who does it.
    pub(super) administrator: PrincipalId,
    /// What is done.
    pub(super) action: &'static str,
    /// To which upload.
    pub(super) upload: Option<UploadId>,
    /// For which endpoint.
    pub(super) endpoint: Option<&'a str>,
    /// How many deliveries it was done to.
    pub(super) replayed: Option<u32>,
    /// What came of it; [`INTERRUPTED`] at first.
    pub(super) outcome: &'static str,
}

impl<'a> Audit<'a> {
    /// Of something that begins now.
    pub(super) fn begin(administrator: &Principal, action: &'static str) -> Self {
        let administrator = administrator.id;
        Self { administrator, action, upload: None, endpoint: None, replayed: None, outcome: INTERRUPTED }
    }

    /// Of something that concerns this upload.
    pub(super) fn of_upload(mut self, id: UploadId) -> Self {
        self.upload = Some(id);
        self
    }

    /// Of something that concerns this endpoint.
    pub(super) fn of_endpoint(mut self, name: &'a str) -> Self {
        self.endpoint = Some(name);
        self
    }

    /// Takes down what came of reading.
    pub(super) fn read<T>(&mut self, outcome: &Result<T, Error>) {
        self.outcome = match outcome {
            Ok(_) => "read",
            Err(Error::NotFound) => "not found",
            Err(_) => "failed",
        };
    }
}

impl Drop for Audit<'_> {
    fn drop(&mut self) {
        let Self { administrator, action, upload, endpoint, replayed, outcome } = self;
        info!(
            target: AUDIT, %administrator, action, upload.id = upload.map(tracing::field::display), endpoint, replayed, outcome,
            "an administrator acted"
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::model::id::Partition;
    use crate::telemetry::testing::Log;

    #[tokio::test]
    async fn what_broke_off_halfway_is_written_down_too() {
        let log = Log::default();
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(log.clone());
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        let replay = async {
            let mut audit = Audit {
                administrator: PrincipalId([0x3F; 16]),
                action: "replay",
                upload: Some(UploadId::new(Partition(0x3F), [1; 16])),
                endpoint: Some("backend"),
                replayed: None,
                outcome: INTERRUPTED,
            };
            std::future::pending::<()>().await;
            audit.outcome = "replayed";
        };
        // The first poll begins it; then whoever asked is gone.
        tokio::select! {
            biased;
            () = replay => panic!("it is not to come to its end"),
            () = std::future::ready(()) => {}
        }
        let text = log.text();
        let line: Value = serde_json::from_str(&text).unwrap();
        for (field, expected) in [
            ("target", json!("upload_broker::audit")),
            ("administrator", json!("3f".repeat(16))),
            ("action", json!("replay")),
            ("upload.id", json!(format!("3f{}", "01".repeat(16)))),
            ("endpoint", json!("backend")),
            ("outcome", json!("interrupted")),
        ] {
            assert_eq!(line[field], expected, "{field}");
        }
        assert_eq!(line.get("replayed"), None, "one delivery is not counted");
    }
}
