//! How bytes may be sent to storage: a session that the broker opens, or a URL that it signs; and what a client is told
//! of either.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::{Error, Uploads};
use crate::model::id::UploadId;
use crate::model::secret::SessionUri;
use crate::model::time::Timestamp;
use crate::model::upload::{Attributes, MAX_METADATA_BYTES, TransferKind, UPLOAD_HINT, UPLOAD_NOTE, Upload};
use crate::policy::{ViolatedLimit, Violation};
use crate::storage::{self, Initiation, SignedMethod};
use crate::store::Tracked;

/// How long a signed URL is good for, unless its upload ends before. It cannot be taken back, so it is short; and it
/// limits only when a request may begin (storage documentation, "Signed URLs"), so it need not be long.
const SIGNED_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long it may take to revoke a session that nobody is told of, whatever is left of the request's time.
const REVOKE_WITHIN: Duration = Duration::from_secs(5);

/// What the owner of an upload sends its bytes with.
pub struct Offer<'a> {
    /// The kind.
    pub kind: TransferKind,
    /// Where to: a session of storage, or a signed URL. Secret.
    pub uri: &'a SessionUri,
    /// The method of the first request.
    pub method: &'static str,
    /// The headers of the first request, all of them.
    pub headers: BTreeMap<String, String>,
    /// When the URI ends.
    pub expires_at: Timestamp,
}

impl<'a> Offer<'a> {
    /// What the owner of the upload sends its bytes with, while it is not final and has a session or a URL.
    pub fn of(tracked: &'a Tracked) -> Option<Self> {
        let Tracked { upload, session, .. } = tracked;
        let uri = session.as_ref().filter(|_| !upload.state.is_final())?;
        let (method, headers) = match signed_method(upload.transfer) {
            None => ("PUT", BTreeMap::from([("content-type".to_owned(), upload.promise.content_type.to_string())])),
            Some(method) => (method.as_str(), storage::signed_headers(method, &initiation(upload, None, None))),
        };
        // Of a session, the upload's end is all that is known; it need not be taken apart to find that out.
        let until = upload.transfer.is_signed().then(|| storage::signed_until(uri)).flatten();
        let expires_at = until.map_or(upload.expires_at, |until| until.min(upload.expires_at));
        Some(Self { kind: upload.transfer, uri, method, headers, expires_at })
    }
}

/// What is signed for a client, if anything is.
const fn signed_method(transfer: TransferKind) -> Option<SignedMethod> {
    match transfer {
        TransferKind::Resumable => None,
        TransferKind::Simple => Some(SignedMethod::Put),
        TransferKind::SignedResumable => Some(SignedMethod::ResumableStart),
    }
}

/// What storage is told of the upload.
fn initiation<'a>(upload: &'a Upload, note: Option<&'a str>, origin: Option<&'a str>) -> Initiation<'a> {
    let Attributes { metadata, cache_control, overwrite } = &upload.attributes;
    Initiation {
        id: upload.id,
        note,
        bucket: &upload.bucket,
        object: &upload.object,
        promise: &upload.promise,
        metadata,
        cache_control: cache_control.as_deref(),
        overwrite: *overwrite,
        origin,
    }
}

/// Whether a note finds room beside the other metadata. Without one, the upload is lost if the store loses it.
fn fits(note: &str, attributes: &Attributes) -> bool {
    let others: usize = attributes.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    others + UPLOAD_HINT.len() + UploadId::TEXT_LEN + UPLOAD_NOTE.len() + note.len() <= MAX_METADATA_BYTES
}

impl Uploads {
    /// Opens a session for the upload, or signs a URL: whatever its bytes travel by.
    pub(super) async fn open_transfer(
        &self,
        upload: &Upload,
        origin: Option<&str>,
        deadline: Instant,
    ) -> Result<SessionUri, Error> {
        let Some(method) = signed_method(upload.transfer) else {
            let note = self.store.note(upload)?.filter(|note| fits(note, &upload.attributes));
            let initiation = initiation(upload, note.as_deref(), origin);
            return Ok(self.storage.initiate(&initiation, deadline).await?);
        };
        // The client has to send all that is signed, and is told it anew whenever it asks: a note is another each time.
        let initiation = initiation(upload, None, origin);
        let now = self.clock.now();
        // A signature is for whole seconds, and for one at least.
        let lifetime = upload.expires_at.since(now).clamp(Duration::from_secs(1), SIGNED_LIFETIME);
        Ok(self.storage.sign(method, &initiation, now, lifetime, deadline).await?)
    }

    /// Refuses metadata that cannot travel: signed requests and the XML interface have it in headers.
    pub(super) fn check_metadata(&self, transfer: TransferKind, attributes: &Attributes) -> Result<(), Error> {
        if !transfer.is_signed() && !self.storage.initiates_by_headers() {
            return Ok(());
        }
        storage::metadata_in_headers(&attributes.metadata).map_err(|reason| {
            let allowed = "keys and values that can stand in headers".to_owned();
            Error::Violations(vec![Violation { limit: ViolatedLimit::Metadata, allowed, given: reason }])
        })
    }

    /// Takes back what nobody was told of. A signed URL needs no taking back: whoever does not know it cannot make it.
    pub(super) async fn discard(&self, upload: &Upload, session: &SessionUri) {
        if upload.transfer.is_signed() {
            return;
        }
        // The time of the request is mostly spent by now, and this is not for the client alone.
        if let Err(error) = self.storage.cancel(session, Instant::now() + REVOKE_WITHIN).await {
            info!(upload.id = %upload.id, error = %error, "a session that nobody was told of stays until it expires");
        }
    }

    /// Whether nothing can be begun with the upload's URL any more. A session says so by itself, when it is asked.
    pub(super) fn url_has_ended(&self, upload: &Upload, session: &SessionUri) -> bool {
        // A session that the client opened with its URL outlives it.
        upload.transfer == TransferKind::Simple
            && storage::signed_until(session).is_some_and(|until| until <= self.clock.now())
    }
}
