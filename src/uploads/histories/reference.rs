//! The reference: what each operation comes to when nothing stands in its way, told from what storage has by the rules
//! of the contract, without a line of the service.

use super::invariants::{keeps, reserved_until, used_by_records};
use super::steps::{Act, Notice};
use super::world::{Snapshot, Truth};
use super::*;
use crate::emulator::ObjectSnapshot;
use crate::model::limits::Limits;
use crate::model::upload::{PromisedSize, StateKind, TransferKind};

/// How long an idempotency key is remembered.
const KEY_LIFE: Duration = Duration::from_secs(86_400);

/// How long an intent is kept behind its lease, for whoever repeats it.
const REPEAT_GRACE: Duration = Duration::from_secs(600);

/// What an operation comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Comes {
    /// The upload is in this state.
    To(StateKind),
    /// It fails so.
    Not(&'static str),
    /// What a notification is answered.
    Noticed(&'static str),
    /// A look settles nothing that could be foretold.
    Unforeseen,
}

/// An upload before something is done, and what storage has of it.
pub(super) struct Standing<'a> {
    pub(super) tracked: &'a Tracked,
    /// What its session says, if it has one that is no signed URL.
    pub(super) session: Option<Truth>,
    /// The object of its name.
    pub(super) object: Option<&'a ObjectSnapshot>,
    pub(super) now: Timestamp,
}

/// What storage shows of an upload.
enum Shows {
    /// An object that ends it so.
    End(StateKind),
    /// So many bytes.
    Bytes(u64),
    /// Neither session nor object.
    Nothing,
    /// An object that another has replaced.
    Unforeseen,
}

impl Standing<'_> {
    fn upload(&self) -> &Upload {
        &self.tracked.upload
    }

    fn has_run_out(&self) -> bool {
        !self.upload().state.is_final() && self.upload().expires_at <= self.now
    }

    fn judged(&self, object: &ObjectSnapshot) -> Shows {
        let is_kept = keeps(&self.upload().promise, object);
        Shows::End(if is_kept { StateKind::Completed } else { StateKind::Rejected })
    }

    /// The object of this name, if it can only be this upload's.
    fn own_object(&self) -> Option<&ObjectSnapshot> {
        let id = self.upload().id.to_string();
        let is_own = |object: &&ObjectSnapshot| {
            self.upload().object.as_str().contains(&id) || object.metadata.get("upload-broker-id") == Some(&id)
        };
        self.object.filter(is_own)
    }

    fn shows(&self) -> Shows {
        let own = self.own_object().map(|object| self.judged(object));
        match self.session {
            Some(Truth::Open(received)) => Shows::Bytes(received),
            Some(Truth::Made(generation)) => match self.object {
                Some(object) if object.generation == generation => self.judged(object),
                _ => Shows::Unforeseen,
            },
            Some(Truth::Dead) => own.unwrap_or(Shows::Nothing),
            None => own.unwrap_or_else(|| if self.url_has_ended() { Shows::Nothing } else { Shows::Bytes(0) }),
        }
    }

    /// A simple upload cannot begin any more when its URL has ended.
    fn url_has_ended(&self) -> bool {
        let url = self.tracked.session.as_ref().filter(|_| self.upload().transfer == TransferKind::Simple);
        url.and_then(crate::storage::signed_until).is_some_and(|until| until <= self.now)
    }

    /// What it becomes when it is to end as `wanted`.
    fn ended(&self, wanted: StateKind) -> Comes {
        // Nobody was told of a session that is not recorded yet.
        if self.tracked.session.is_none() {
            return Comes::To(wanted);
        }
        match self.shows() {
            Shows::End(kind) => Comes::To(kind),
            Shows::Bytes(_) | Shows::Nothing => Comes::To(wanted),
            Shows::Unforeseen => Comes::Unforeseen,
        }
    }

    /// What a look makes of it: its state then, or that the session is lost.
    fn looked(&self) -> Result<StateKind, Comes> {
        let state = &self.upload().state;
        match self.shows() {
            Shows::End(kind) => Ok(kind),
            Shows::Bytes(received) if received > self.upload().promise.size.reserve().0 => Ok(StateKind::Rejected),
            Shows::Bytes(received) if received.max(state.received().0) > 0 => Ok(StateKind::Uploading),
            Shows::Bytes(_) => Ok(StateKind::Pending),
            Shows::Nothing => Err(Comes::Not("session-lost")),
            Shows::Unforeseen => Err(Comes::Unforeseen),
        }
    }

    /// What the owner is answered.
    pub(super) fn foretell(&self, act: Act) -> Comes {
        let kind = self.upload().state.kind();
        let is_final = self.upload().state.is_final();
        if let Act::Notify(notice) = act {
            return self.foretell_notice(notice);
        }
        if self.has_run_out() {
            return match (act, self.ended(StateKind::Expired)) {
                (Act::Complete, Comes::To(StateKind::Expired)) | (Act::Renew, Comes::To(_)) => {
                    Comes::Not("invalid-state")
                }
                (_, comes) => comes,
            };
        }
        match act {
            Act::Find => Comes::To(kind),
            Act::Complete if matches!(kind, StateKind::Cancelled | StateKind::Expired) => Comes::Not("invalid-state"),
            Act::Renew if is_final => Comes::Not("invalid-state"),
            _ if is_final => Comes::To(kind),
            Act::Refresh => match self.looked() {
                Err(Comes::Not(_)) => Comes::To(kind),
                Ok(kind) => Comes::To(kind),
                Err(comes) => comes,
            },
            Act::Complete => match self.looked() {
                Ok(StateKind::Pending | StateKind::Uploading) => Comes::Not("not-complete"),
                Ok(kind) => Comes::To(kind),
                Err(comes) => comes,
            },
            Act::Cancel | Act::CancelAny => self.ended(StateKind::Cancelled),
            Act::Renew => match self.upload().state {
                UploadState::Admitted { lease_until } if lease_until > self.now => Comes::Not("contended"),
                UploadState::Admitted { .. } => Comes::Not("invalid-state"),
                _ => self.ended(StateKind::Pending),
            },
            Act::Notify(_) => Comes::Unforeseen,
        }
    }

    fn foretell_notice(&self, notice: Notice) -> Comes {
        match notice {
            Notice::OtherBucket => return Comes::Noticed("foreign"),
            Notice::OtherObject => return Comes::Noticed("unknown"),
            // Where names repeat, only the hint tells whose it is.
            Notice::Vague | Notice::Misleading
                if !self.upload().object.as_str().contains(&self.upload().id.to_string()) =>
            {
                return Comes::Unforeseen;
            }
            Notice::Right | Notice::Vague | Notice::Misleading => {}
        }
        match self.upload().state.kind() {
            StateKind::Completed => Comes::Noticed("already-final"),
            StateKind::Rejected | StateKind::Cancelled | StateKind::Expired => {
                let left = matches!(self.session, Some(Truth::Open(_))) || self.own_object().is_some();
                let is_own = self.upload().object.as_str().contains(&self.upload().id.to_string());
                if is_own {
                    Comes::Noticed(if left { "cleaned-up" } else { "already-final" })
                } else {
                    Comes::Unforeseen
                }
            }
            StateKind::Pending | StateKind::Uploading => match self.looked() {
                Ok(StateKind::Pending | StateKind::Uploading) | Err(Comes::Not(_)) => Comes::Noticed("still-open"),
                Ok(_) => Comes::Noticed("advanced"),
                Err(comes) => comes,
            },
        }
    }

    /// What a sweep makes of it when it is due; `None` when it is withdrawn.
    pub(super) fn swept(&self) -> Option<Comes> {
        let kind = self.upload().state.kind();
        match self.upload().state {
            UploadState::Admitted { lease_until } if lease_until > self.now => Some(Comes::To(kind)),
            UploadState::Admitted { lease_until } => match self.own_object().map(|object| self.judged(object)) {
                Some(Shows::End(kind)) => Some(Comes::To(kind)),
                _ => {
                    (lease_until.plus(REPEAT_GRACE).min(self.upload().expires_at) > self.now).then_some(Comes::To(kind))
                }
            },
            _ if self.has_run_out() => Some(self.ended(StateKind::Expired)),
            _ if self.upload().state.is_final() => Some(Comes::To(kind)),
            _ => Some(match self.looked() {
                Ok(kind) => Comes::To(kind),
                Err(Comes::Not(_)) => Comes::To(kind),
                Err(comes) => comes,
            }),
        }
    }
}

/// The tokens of a rate, as time that has been saved up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    interval: u64,
    full: u64,
    saved: u64,
    at: Timestamp,
}

impl Bucket {
    pub(super) fn of(limits: &Limits, now: Timestamp) -> Option<Self> {
        let rate = limits.rate?;
        let interval = u64::try_from(rate.per.as_millis()).unwrap() / u64::from(rate.events);
        let full = interval * u64::from(rate.events);
        Some(Self { interval, full, saved: full, at: now })
    }

    pub(super) fn left(&mut self, now: Timestamp) -> u32 {
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap();
        self.saved = self.full.min(self.saved + passed);
        self.at = now;
        u32::try_from(self.saved / self.interval).unwrap()
    }

    pub(super) fn take(&mut self, now: Timestamp) {
        self.left(now);
        self.saved = self.saved.saturating_sub(self.interval);
    }

    /// Believes the service, where it cannot be known how many tokens were taken.
    pub(super) fn believe(&mut self, usage: &Usage, now: Timestamp) {
        self.at = now;
        let missing = usage.rate_resets_at.map_or(0, |at| u64::try_from(at.since(now).as_millis()).unwrap());
        self.saved = self.full.saturating_sub(missing);
    }
}

/// What an idempotency key was used for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) fingerprint: Fingerprint,
    /// `None` where an answer was lost.
    pub(super) upload: Option<(UploadId, Timestamp)>,
}

/// Somebody wants to create an upload.
pub(super) struct Wanted<'a> {
    pub(super) user: &'a Principal,
    pub(super) policy: &'a Policy,
    pub(super) reserve: u64,
    pub(super) key: Option<(Fingerprint, Option<Used>)>,
    /// The tokens that the rate has left.
    pub(super) tokens: Option<u32>,
}

/// What a create comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Creates {
    New,
    /// The same upload with a new session.
    Resumed(UploadId),
    /// The same upload as it stands.
    Replayed(UploadId),
    Not(&'static str),
    Unforeseen,
}

impl Wanted<'_> {
    pub(super) fn foretell(&self, snapshot: &Snapshot) -> Creates {
        let now = snapshot.now;
        let mut taken_over = None;
        if let Some((fingerprint, Some(used))) = &self.key {
            let Some((id, at)) = used.upload else { return Creates::Unforeseen };
            let found = snapshot.records.get(&id).filter(|_| at.plus(KEY_LIFE) > now);
            if let Some(Tracked { upload, .. }) = found {
                if used.fingerprint != *fingerprint {
                    return Creates::Not("idempotency-mismatch");
                }
                match upload.state {
                    UploadState::Admitted { lease_until } if lease_until > now => {
                        return Creates::Not("idempotency-in-progress");
                    }
                    UploadState::Admitted { .. } if upload.expires_at > now => taken_over = Some(id),
                    UploadState::Admitted { .. } => {}
                    _ => return Creates::Replayed(id),
                }
            }
        }
        let limits = self.policy.limits();
        if taken_over.is_none() && self.tokens == Some(0) {
            return Creates::Not("rate");
        }
        let is_theirs = |tracked: &&Tracked| {
            let upload = &tracked.upload;
            upload.principal == self.user.id && upload.policy == *self.policy.name() && Some(upload.id) != taken_over
        };
        let (active, bytes) = used_by_records(snapshot.records.values().filter(is_theirs), now);
        if limits.max_active.is_some_and(|most| active >= most) {
            return Creates::Not("max_active");
        }
        if limits.daily_bytes.is_some_and(|most| bytes + self.reserve > most.0) {
            return Creates::Not("daily_bytes");
        }
        taken_over.map_or(Creates::New, Creates::Resumed)
    }
}

/// Whether the bytes of a completed upload come on top of what was made room for, because its reservation had ended.
pub(super) fn is_late(before: &Upload, completed_at: Timestamp) -> bool {
    reserved_until(before) <= completed_at
}

/// The bytes that are reserved for a request.
pub(super) fn reserve(size: Option<ByteCount>, most: ByteCount) -> u64 {
    match size {
        Some(size) => PromisedSize::Exactly(size).reserve().0,
        None => most.0,
    }
}
