//! Who did what to what is not theirs: one line in the log for each thing that an administrator changes.

use tracing::info;

use crate::model::id::UploadId;
use crate::model::principal::PrincipalId;

/// Where these lines go, for filters: whoever must account for administrators keeps them apart.
const TARGET: &str = "upload_broker::audit";

/// What the outcome is as long as nothing else is known.
pub(super) const INTERRUPTED: &str = "interrupted";

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

impl Drop for Audit<'_> {
    fn drop(&mut self) {
        let Self { administrator, action, upload, endpoint, replayed, outcome } = self;
        info!(
            target: TARGET, %administrator, action, upload.id = upload.map(tracing::field::display), endpoint, replayed, outcome,
            "an administrator acted"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::model::id::Partition;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_broke_off_halfway_is_written_down_too() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(move || writer.clone());
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
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
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
