//! Does what a step says: as a client, as whoever calls the broker, and as whoever delivers events.

use std::collections::BTreeMap;

use super::play::History;
use super::reference::Comes;
use super::steps::{Act, Does, Fate, Notice, Sending, Wish};
use super::*;
use crate::emulator::faults::{Action, Fault, Reply};
use crate::emulator::journal::Operation;
use crate::model::notice::ObjectNotice;
use crate::model::upload::{StateKind, TransferKind};
use crate::routing::Arrival;
use crate::store::{Attempted, Failures, Wanted};
use crate::uploads::tests::here;

/// How long what is taken to be delivered belongs to whoever took it.
const LEASE: Duration = Duration::from_secs(60);

/// An upload as its client knows it.
pub(super) struct Sent {
    pub(super) id: UploadId,
    pub(super) user: usize,
    pub(super) payload: Vec<u8>,
    /// What it was given to send bytes with, in order: sessions or signed URLs, with the headers that go with them.
    pub(super) offers: Vec<(SessionUri, BTreeMap<String, String>)>,
    /// The sessions that it opened with signed URLs.
    pub(super) opened: Mutex<Vec<SessionUri>>,
}

impl Sent {
    /// Takes what it is given.
    pub(super) fn take(&mut self, given: &Tracked) {
        let Some(offer) = Offer::of(given) else { return };
        if !self.offers.iter().any(|(uri, _)| uri == offer.uri) {
            self.offers.push((offer.uri.clone(), offer.headers));
        }
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &SessionUri> {
        self.offers.iter().map(|(uri, _)| uri)
    }

    /// The session so far back, if it has one that the broker opened.
    pub(super) fn session(&self, back: usize) -> Option<&SessionUri> {
        let (uri, _) = self.offer(back)?;
        uri.expose().contains("upload_id=").then_some(uri)
    }

    fn offer(&self, back: usize) -> Option<&(SessionUri, BTreeMap<String, String>)> {
        let last = self.offers.len().checked_sub(1)?;
        Some(&self.offers[last - back % self.offers.len()])
    }
}

/// What a step came to.
pub(super) enum Done {
    Created { wish: Wish, result: Result<Created, &'static str> },
    Acted { user: usize, came: Comes, given: Option<Tracked> },
    Swept(Round),
    Delivered { attempts: Vec<Attempt> },
    Other,
}

/// An attempt to deliver.
pub(super) struct Attempt {
    pub(super) endpoint: EndpointId,
    pub(super) id: UploadId,
    pub(super) kind: StateKind,
    /// Whether that is recorded for certain.
    pub(super) is_taken: bool,
}

impl Done {
    /// What was handed out.
    pub(super) fn given(&self) -> Option<&Tracked> {
        match self {
            Self::Created { result: Ok(created), .. } => Some(&created.tracked),
            Self::Acted { given, .. } => given.as_ref(),
            _ => None,
        }
    }

    pub(super) fn user(&self) -> Option<usize> {
        match self {
            Self::Created { wish, .. } => Some(wish.user),
            Self::Acted { user, .. } => Some(*user),
            _ => None,
        }
    }
}

impl Wish {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(format!("{:?}", self.request()).as_bytes())
    }
}

impl History {
    pub(super) async fn perform(&self, does: &Does, persisted: u64) -> Done {
        match does {
            Does::Create(wish) => self.create(wish).await,
            Does::Send { upload, what, session } => {
                if let Some(sent) = self.target(*upload) {
                    self.send(sent, *what, *session, persisted).await;
                }
                Done::Other
            }
            Does::Act { upload, act, broker } => match self.target(*upload) {
                Some(sent) => self.act(sent, sent.user, *act, *broker).await,
                None => Done::Other,
            },
            Does::Intrude { upload, act } => match self.target(*upload) {
                Some(sent) if !matches!(act, Act::Notify(_) | Act::CancelAny) => {
                    self.act(sent, (sent.user + 1) % 3, *act, 0).await
                }
                _ => Done::Other,
            },
            Does::Sweep { broker } => Done::Swept(self.world.brokers[*broker].sweep().await),
            Does::Deliver { fate, limit } => Done::Delivered { attempts: self.deliver(*fate, *limit).await },
            Does::Replay => {
                let broker = &self.world.brokers[0];
                for endpoint in &broker.endpoints {
                    let _ = broker.replay_all(&self.world.users[0], endpoint).await;
                }
                Done::Other
            }
            Does::Wait(time) => {
                self.world.clock.advance(*time);
                Done::Other
            }
            Does::Forget => {
                let store = &self.world.brokers[0].store;
                for Tracked { upload, .. } in self.over() {
                    store.forget(upload.id).await;
                }
                Done::Other
            }
            Does::Cut => {
                for broker in &self.world.brokers {
                    broker.store.cut().await;
                }
                Done::Other
            }
        }
    }

    async fn create(&self, wish: &Wish) -> Done {
        let key = wish.key.map(|(key, _)| (IdempotencyKey([key; 16]), wish.fingerprint()));
        let context = CreateContext { idempotency: key, origin: None, arrival: Arrival::UNKNOWN, deadline: soon() };
        let user = Arc::clone(&self.world.users[wish.user]);
        let broker = &self.world.brokers[wish.broker];
        let result = if wish.is_mortal {
            broker.create_now(&user, &wish.request(), &context).await
        } else {
            broker.create(user, wish.request(), context).await
        };
        Done::Created { wish: wish.clone(), result: result.map(here).map_err(|error| name_of(&error)) }
    }

    async fn act(&self, sent: &Sent, user: usize, act: Act, broker: usize) -> Done {
        let (uploads, principal) = (&self.world.brokers[broker], &self.world.users[user]);
        let result = match act {
            Act::Find => uploads.find(principal, sent.id, Freshness::Known, soon()).await,
            Act::Refresh => uploads.find(principal, sent.id, Freshness::Refreshed, soon()).await,
            Act::Complete => uploads.complete(principal, sent.id, soon()).await,
            Act::Cancel => uploads.cancel(principal, sent.id, soon()).await,
            Act::Renew => uploads.renew(principal, sent.id, None, soon()).await,
            Act::CancelAny => {
                let cancelled = uploads.cancel_any(principal, sent.id, soon()).await;
                let came = match cancelled {
                    Ok(owned) => Comes::To(owned.upload.state.kind()),
                    Err(error) => Comes::Not(name_of(&error)),
                };
                return Done::Acted { user, came, given: None };
            }
            Act::Notify(notice) => {
                let came = match self.notice(sent, notice) {
                    Some(notice) => match uploads.notified(&notice, soon()).await {
                        Ok(noticed) => Comes::Noticed(name_of_noticed(&noticed)),
                        Err(error) => Comes::Not(name_of(&error)),
                    },
                    None => return Done::Other,
                };
                return Done::Acted { user, came, given: None };
            }
        };
        match result {
            Ok(tracked) => {
                let given = (!tracked.upload.state.is_final()).then(|| tracked.clone());
                Done::Acted { user, came: Comes::To(tracked.upload.state.kind()), given }
            }
            Err(error) => Done::Acted { user, came: Comes::Not(name_of(&error)), given: None },
        }
    }

    fn notice(&self, sent: &Sent, notice: Notice) -> Option<ObjectNotice> {
        let Upload { bucket, object, .. } = &self.record(sent.id)?.upload;
        let right =
            ObjectNotice { bucket: bucket.clone(), object: object.clone(), generation: None, hint: Some(sent.id) };
        Some(match notice {
            Notice::Right => right,
            Notice::Vague => ObjectNotice { generation: Some(1), hint: None, ..right },
            Notice::Misleading => ObjectNotice { hint: Some(self.sent[0].id), ..right },
            Notice::OtherBucket => ObjectNotice { bucket: "media-us".parse().unwrap(), ..right },
            Notice::OtherObject => ObjectNotice { object: format!("{object}.mp4").parse().unwrap(), ..right },
        })
    }

    async fn deliver(&self, fate: Fate, limit: u32) -> Vec<Attempt> {
        let (broker, now) = (&self.world.brokers[1], self.world.now());
        let wanted: Vec<_> = broker.endpoints.iter().map(|endpoint| Wanted { endpoint: endpoint.id, limit }).collect();
        let mut attempts = Vec::new();
        for partition in self.world.partitions() {
            let Ok(claimed) = broker.store.claim_deliveries(partition, &wanted, now, now.plus(LEASE)).await else {
                continue;
            };
            for delivery in claimed {
                let Ok(found) = broker.store.find(delivery.id).await else { continue };
                let failures = Failures { count: delivery.failures.count + 1, last: "HTTP 503".to_owned() };
                let attempted = match fate {
                    _ if found.is_none() => Attempted::Done,
                    Fate::Taken => Attempted::Done,
                    Fate::Refused => Attempted::Failed { failures, next: now.plus(LEASE), at: now },
                    Fate::GivenUp => Attempted::GivenUp { failures, at: now },
                    Fate::Lost => continue,
                };
                let settled = broker.store.settle_delivery(delivery.id, delivery.endpoint, &attempted).await;
                let is_taken = settled.is_ok() && attempted == Attempted::Done;
                if let Some(Tracked { upload, .. }) = found {
                    let kind = upload.state.kind();
                    attempts.push(Attempt { endpoint: delivery.endpoint, id: delivery.id, kind, is_taken });
                }
            }
        }
        attempts
    }

    async fn send(&self, sent: &Sent, what: Sending, back: usize, persisted: u64) {
        let Some((uri, headers)) = sent.offer(back) else { return };
        let Some(Tracked { upload, .. }) = self.record(sent.id) else { return };
        let (size, most) = (sent.payload.len(), usize::try_from(upload.promise.size.reserve().0).unwrap());
        let mut bytes = sent.payload.clone();
        match what {
            Sending::All | Sending::Rest | Sending::Part(_) => {}
            Sending::Other => bytes[0] ^= 1,
            Sending::TooMany | Sending::TooManySoFar => bytes.resize(most + 5, 7),
            Sending::TooFew => bytes.truncate(size.div_ceil(2)),
        }
        match upload.transfer {
            TransferKind::Simple => {
                let mut request = self.world.client.put(uri.expose()).body(bytes);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let _ = request.send().await;
            }
            TransferKind::SignedResumable => {
                let mut request = self.world.client.post(uri.expose()).header("content-length", "0");
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let known = sent.opened.lock().unwrap().last().cloned();
                let location = if known.is_some() {
                    known
                } else {
                    let answer = request.send().await.ok();
                    let location = answer.as_ref().and_then(|answer| answer.headers().get("location"));
                    location.and_then(|location| SessionUri::parse(location.to_str().ok()?).ok())
                };
                if let Some(session) = location {
                    sent.opened.lock().unwrap().push(session.clone());
                    self.put(&session, what, bytes, 0).await;
                }
            }
            TransferKind::Resumable => self.put(uri, what, bytes, persisted).await,
        }
    }

    async fn put(&self, session: &SessionUri, what: Sending, bytes: Vec<u8>, persisted: u64) {
        let (faults, size) = (self.world.emulator.faults(), bytes.len() as u64);
        let kept = |bytes| Action::PersistThenRespond { bytes, reply: Reply::status(503) };
        let mut request = self.world.client.put(session.expose());
        match what {
            Sending::Part(share) => faults.add(Fault::once(Operation::Chunk, kept(size / share))),
            Sending::TooManySoFar => faults.add(Fault::once(Operation::Chunk, kept(size))),
            Sending::Rest if (1..size).contains(&persisted) => {
                request = request.header("content-range", format!("bytes {persisted}-{}/{size}", size - 1));
                let _ = request.body(bytes[usize::try_from(persisted).unwrap()..].to_vec()).send().await;
                return;
            }
            _ => {}
        }
        if what == Sending::TooManySoFar {
            request = request.header("content-range", format!("bytes 0-{}/*", size - 1));
        }
        let _ = request.body(bytes).send().await;
    }
}

/// What an error is called.
fn name_of(error: &Error) -> &'static str {
    match error {
        Error::Limit { hit, .. } => hit.name(),
        Error::IdempotencyInProgress { .. } => "idempotency-in-progress",
        Error::IdempotencyMismatch => "idempotency-mismatch",
        Error::NotFound => "not-found",
        Error::NotComplete { .. } => "not-complete",
        Error::SessionLost => "session-lost",
        Error::InvalidState { .. } => "invalid-state",
        Error::Contended => "contended",
        Error::Store(_) => "store",
        Error::Storage(_) => "storage",
        _ => "other",
    }
}

fn name_of_noticed(noticed: &Noticed) -> &'static str {
    match noticed {
        Noticed::Advanced(_) => "advanced",
        Noticed::AlreadyFinal(_) => "already-final",
        Noticed::CleanedUp(_) => "cleaned-up",
        Noticed::StillOpen(_) => "still-open",
        Noticed::Unknown => "unknown",
        Noticed::Foreign => "foreign",
    }
}
