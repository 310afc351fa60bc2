//! What is written anew after it was lost: a server that dies may take acknowledged writes with it, and a client may hold
//! a session that nobody knows.
//!
//! What such a session makes bears a note in its metadata, sealed for its upload, that holds the record as it was when the
//! session was opened. Whoever holds the session can remove the note or copy it elsewhere, but neither read, change nor
//! make one; and it counts only for an object of the bucket and name that stand in it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::id::UploadId;
use crate::model::idempotency::{Fingerprint, IdempotencyKey};
use crate::model::principal::Owner;
use crate::model::time::Timestamp;
use crate::model::upload::{Attributes, Upload, UploadState};

use super::error::Error;
use super::keys::{INDEX_LIFE, KEY_LIFE, LEDGER_LIFE};
use super::ledger::{countable, reservation_end};
use super::memory::MemoryStore;
use super::metrics::Operation;
use super::record::{self, millis};
use super::redis::{RedisStore, life};
use super::reply::{Reply, unexpected};
use super::{Revision, Store, Tracked, live_retention, owners};

/// What a sealed note begins with, so that nothing else that is sealed can be taken for one.
const NOTE: &[u8] = b"note";

/// What was lost, and is to be written anew.
#[derive(Clone, Copy, Debug)]
pub struct Lost<'a> {
    /// The upload, as its record is to be.
    pub tracked: &'a Tracked,
    /// Whose it is, where that is known.
    pub owner: Option<Owner<'a>>,
    /// What makes a repeat of the request recognisable that created it, where that is known.
    pub idempotency: Option<(IdempotencyKey, Fingerprint)>,
}

impl Lost<'_> {
    /// Its idempotency key and fingerprint, and when these are to be forgotten, unless they are by now.
    fn remembered(&self, now: Timestamp) -> Option<(IdempotencyKey, Fingerprint, Timestamp)> {
        let (key, fingerprint) = self.idempotency?;
        let forget_at = self.tracked.upload.created_at.plus(KEY_LIFE);
        (forget_at > now).then_some((key, fingerprint, forget_at))
    }
}

impl Store {
    /// Whether notes are made: in this process nothing can be lost without everything else.
    pub fn makes_notes(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// A note from which the record of `upload` can be written anew; `None` where nothing can be lost without everything
    /// else. About 250 characters that can stand in a header.
    ///
    /// # Errors
    /// When nothing can be sealed.
    pub fn note(&self, upload: &Upload) -> Result<Option<String>, Error> {
        let Self::Redis(store) = self else { return Ok(None) };
        let attributes = Attributes { overwrite: upload.attributes.overwrite, ..Attributes::default() };
        let upload = Upload { state: UploadState::Pending, attributes, ..upload.clone() };
        let plain = [NOTE, &record::encode(&upload, Revision::FIRST, None)].concat();
        Ok(Some(URL_SAFE_NO_PAD.encode(store.keyring().seal(upload.id, &plain)?)))
    }

    /// The upload that a note is of, if it is one of ours for `id`.
    pub fn read_note(&self, id: UploadId, note: &str) -> Option<Upload> {
        let Self::Redis(store) = self else { return None };
        let sealed = URL_SAFE_NO_PAD.decode(note).ok()?;
        let plain = store.keyring().open_sealed(id, &sealed).ok()?;
        Some(record::decode(id, plain.strip_prefix(NOTE)?).ok()?.upload)
    }

    /// Writes the record of an upload that is not known any more, with its reservation, whatever the limits say: its
    /// bytes may be stored already. Where there is a record, that is given. It is due at `now`. One round trip.
    ///
    /// # Errors
    /// When the store cannot tell. Repeating the call is safe.
    pub async fn restore(&self, upload: &Upload, now: Timestamp) -> Result<Tracked, Error> {
        self.restore_lost(&Lost { tracked: &Tracked::restored(upload), owner: None, idempotency: None }, now).await
    }

    /// The same with the session and at the revision that the record had, and with what else is known: where there is a
    /// record, that is written beside it unless it is there.
    ///
    /// # Errors
    /// As [`Store::restore`].
    pub async fn restore_lost(&self, lost: &Lost<'_>, now: Timestamp) -> Result<Tracked, Error> {
        self.observed(Operation::Restore, async {
            match self {
                Self::Redis(store) => store.restore(lost, now).await,
                Self::Memory(store) => Ok(store.restore(lost, now)),
            }
        })
        .await
    }

    /// How often a connection was lost, or now leads elsewhere: each time, the last writes that were acknowledged may be
    /// gone. `None` where nothing can be lost without everything else.
    pub fn losses(&self) -> Option<u64> {
        match self {
            Self::Redis(store) => Some(store.metrics().reconnects.get()),
            Self::Memory(_) => None,
        }
    }
}

impl Tracked {
    fn restored(upload: &Upload) -> Self {
        Self { upload: upload.clone(), session: None, revision: Revision::FIRST }
    }
}

impl RedisStore {
    async fn restore(&self, lost: &Lost<'_>, now: Timestamp) -> Result<Tracked, Error> {
        let Lost { tracked: restored, owner, .. } = *lost;
        let upload = &restored.upload;
        let mut call = self.scripts.restore.prepare_invoke();
        call.key(self.keys.record(upload.id))
            .key(self.keys.ledger(upload.principal, &upload.policy))
            .key(self.keys.index(upload.principal))
            .key(self.keys.due(upload.id.partition(), &upload.region))
            .key(self.keys.owners(upload.id.partition()))
            .arg(&upload.id.random()[..])
            .arg(self.write(restored)?)
            .arg(life(live_retention(upload, now)))
            .arg(countable(upload.promise.size.reserve()))
            .arg(reservation_end(upload))
            .arg(life(LEDGER_LIFE))
            .arg(millis(upload.created_at))
            .arg(life(INDEX_LIFE))
            .arg(millis(now))
            .arg(&upload.principal.0[1..])
            .arg(owner.map(owners::packed).unwrap_or_default());
        if let Some((key, fingerprint, forget_at)) = lost.remembered(now) {
            let id = upload.id.random();
            let holds = [&id[..], &fingerprint.0[..], millis(forget_at).to_string().as_bytes()].concat();
            call.key(self.keys.idempotency(upload.principal, key)).arg(holds).arg(life(forget_at.since(now)));
        }
        let reply = Reply(self.script(&call).await?);
        match reply.code()? {
            0 => Ok(restored.clone()),
            1 => self.read(upload.id, reply.bytes(1)?),
            _ => Err(unexpected()),
        }
    }
}

impl MemoryStore {
    fn restore(&self, lost: &Lost<'_>, now: Timestamp) -> Tracked {
        let Lost { tracked: restored, owner, .. } = *lost;
        let upload = &restored.upload;
        let known = &mut *self.known();
        known.name(upload.principal, owner);
        if let Some((key, fingerprint, forget_at)) = lost.remembered(now) {
            known.remember(upload, key, fingerprint, forget_at, now);
        }
        if let Some(kept) = known.uploads.get(&upload.id) {
            return kept.tracked.clone();
        }
        known.keep(restored.clone(), now);
        let ledger = known.ledgers.entry((upload.principal, upload.policy.clone())).or_default();
        ledger.restore(upload.id.random(), countable(upload.promise.size.reserve()), reservation_end(upload));
        known.schedule(upload.id, Some(now));
        restored.clone()
    }
}
