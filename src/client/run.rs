//! One upload from admission to its final state: which question to ask whom, and when to begin again.

use std::time::Duration;

use crate::clock::Randomness;
use crate::model::id::UploadId;

use super::broker::{Broker, Completion};
use super::error::{Content, Error, Operation, Refusal, Trouble};
use super::http::Http;
use super::pace::{Pace, Patience};
use super::progress::{Anew, Event, Watch};
use super::session::{Begin, ChunkSize, Ended, Session, Tally, chunk_of};
use super::signed::{SignedPut, SignedStart};
use super::source::Source;
use super::state::{Declared, Left, State, StateFile};
use super::target::Target;
use super::wire::{self, CreateUpload, Transfer, TransferKind, Upload, presentable};
use super::{FinalState, UploadReport};

/// How many sessions one run may lose. Losing one is rare; losing so many says that something else is wrong.
const MAX_RENEWALS: u32 = 5;

/// Everything that one call of [`Client::upload`](super::Client::upload) works with.
pub(super) struct Run<'a> {
    pub(super) broker: Broker,
    pub(super) http: &'a Http,
    pub(super) patience: Patience,
    pub(super) randomness: &'a Randomness,
    pub(super) watch: Watch<'a>,
    pub(super) chunk: Option<ChunkSize>,
    pub(super) state_file: StateFile,
    pub(super) source: Source<'a>,
    pub(super) request: CreateUpload,
    pub(super) pace: Pace<'a>,
    pub(super) tally: Tally,
    /// What the broker calls the upload, as soon as it has said so.
    pub(super) known: Option<UploadId>,
}

/// An upload that the broker knows, ready to be transferred or final already.
struct Admitted {
    id: UploadId,
    upload: Upload,
    begin: Begin,
    /// Which answer of the broker's it comes from.
    operation: Operation,
}

/// What to do with what the broker handed out.
enum Way {
    Session(Session),
    Put(SignedPut),
    Start(SignedStart),
}

impl Way {
    /// # Errors
    /// When this client cannot or must not go it.
    fn open(
        transfer: &Transfer,
        chunk: Option<ChunkSize>,
        source: &Source<'_>,
        operation: Operation,
    ) -> Result<Self, Error> {
        let nonsense = |what| Error::Nonsense { operation, what };
        let kind: TransferKind = transfer
            .kind
            .parse()
            .map_err(|_| nonsense("it asks for a kind of transfer that this client does not know"))?;
        let target = Target::of(transfer, operation)?;
        let chunk = chunk_of(transfer, chunk, source, operation)?;
        match kind {
            TransferKind::Resumable => Ok(Self::Session(Session::new(target, chunk))),
            TransferKind::SignedResumable => Ok(Self::Start(SignedStart::new(target, chunk))),
            TransferKind::Simple if source.is_pipe() => Err(nonsense("it asks for a pipe in one request")),
            TransferKind::Simple => Ok(Self::Put(SignedPut::new(target))),
        }
    }

    const fn kind(&self) -> TransferKind {
        match self {
            Self::Session(_) => TransferKind::Resumable,
            Self::Put(_) => TransferKind::Simple,
            Self::Start(_) => TransferKind::SignedResumable,
        }
    }

    /// Why it cannot be gone any further, if that was left open until the broker had looked.
    const fn gave_up(&mut self) -> Option<Error> {
        match self {
            Self::Put(put) => put.gave_up(),
            Self::Session(_) | Self::Start(_) => None,
        }
    }
}

/// What is to be done after the broker looked.
enum Verdict {
    Final(Box<Upload>),
    SendMore,
    Renew,
}

impl Run<'_> {
    /// Admits or resumes, transfers, has it verified, and clears away what is of no more use.
    pub(super) async fn drive(mut self) -> Result<UploadReport, Error> {
        let outcome = match self.enter().await {
            Ok(admitted) => self.transfer(admitted).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(report) => {
                self.state_file.remove().await?;
                Ok(report)
            }
            Err(error) => {
                if let Some(id) = self.known.filter(|_| error.is_the_end() || self.source.is_pipe()) {
                    // The first error is the one to tell. A cancel that fails leaves an upload that expires.
                    self.cancel(id).await;
                    drop(self.state_file.remove().await);
                }
                Err(error)
            }
        }
    }

    /// The broker knows the upload: from here on there is something to cancel, whoever does it.
    fn admitted(&mut self, id: UploadId) {
        self.known = Some(id);
        (self.watch)(Event::Admitted { id });
    }

    async fn enter(&mut self) -> Result<Admitted, Error> {
        let anew = match self.state_file.load().await? {
            Left::Nothing => None,
            Left::Unreadable => Some(Anew::StateUnreadable),
            Left::State(state) => match self.resume(*state).await? {
                Ok(admitted) => return Ok(admitted),
                Err(anew) => Some(anew),
            },
        };
        if let Some(anew) = anew {
            (self.watch)(Event::StartedAnew(anew));
        }
        self.start().await
    }

    /// Takes up what an earlier run left, or says why not.
    async fn resume(&mut self, state: State) -> Result<Result<Admitted, Anew>, Error> {
        if state.broker != self.broker.address() {
            return Ok(Err(Anew::OtherBroker));
        }
        self.broker.ask_at(state.taker.as_deref());
        let id = match state.upload_id.as_deref().map(str::parse::<UploadId>) {
            Some(Err(_)) => return Ok(Err(Anew::StateUnreadable)),
            Some(Ok(id)) => Some(id),
            None => None,
        };
        if state.request != self.request {
            if let Some(id) = id {
                self.cancel(id).await;
            }
            let content = |request: &CreateUpload| (request.size_bytes, request.crc32c.clone(), request.md5.clone());
            let same_content = content(&state.request) == content(&self.request);
            return Ok(Err(if same_content { Anew::OrderChanged } else { Anew::FileChanged }));
        }
        let Some(id) = id else {
            // Killed while it was being created: the key tells the broker that this is the same request.
            let admitted = self.create(state).await?;
            return Ok(if ended_without_object(&admitted.upload) { Err(Anew::Ended) } else { Ok(admitted) });
        };
        let Some(upload) = self.broker.find(id, &mut self.pace).await? else {
            return Ok(Err(Anew::Forgotten));
        };
        if ended_without_object(&upload) {
            return Ok(Err(Anew::Ended));
        }
        self.admitted(id);
        let upload = self.ready(id, upload).await?;
        Ok(Ok(Admitted { id, upload, begin: Begin::WhereItStopped, operation: Operation::Find }))
    }

    async fn start(&mut self) -> Result<Admitted, Error> {
        let state = State::new(self.broker.address(), self.new_key(), self.request.clone());
        self.state_file.save(&state).await?;
        let admitted = self.create(state).await?;
        Ok(Admitted { begin: Begin::At(0), ..admitted })
    }

    /// Has the broker admit the upload of `state`, under its key, and writes down what it is called.
    async fn create(&mut self, mut state: State) -> Result<Admitted, Error> {
        let upload = loop {
            match self.broker.create(&state.body(), &state.idempotency_key, &mut self.pace).await {
                Ok(upload) => break upload,
                Err(Error::Refused { refusal, .. })
                    if state.declared == Declared::Digests && forbids_digests_only(&refusal) =>
                {
                    // Another body is another request, so it has another key.
                    state.declared = Declared::Nothing;
                    state.idempotency_key = self.new_key();
                    self.state_file.save(&state).await?;
                }
                Err(error) => {
                    // Refused for good: the next run is another request. With another token it may be the same one.
                    if matches!(&error, Error::Refused { refusal, .. } if refusal.status != 401) {
                        self.state_file.remove().await?;
                    }
                    return Err(error);
                }
            }
        };
        let operation = Operation::Create;
        let id: UploadId =
            upload.id.parse().map_err(|_| Error::Nonsense { operation, what: "its id is no upload id" })?;
        self.admitted(id);
        state.upload_id = Some(id.to_string());
        state.taker = self.broker.taker();
        self.state_file.save(&state).await?;
        let upload = self.ready(id, upload).await?;
        Ok(Admitted { id, upload, begin: Begin::WhereItStopped, operation })
    }

    /// Waits until there is a session to use, or an end: the broker may still be opening it for another request.
    async fn ready(&mut self, id: UploadId, mut upload: Upload) -> Result<Upload, Error> {
        while upload.state == wire::State::UnderWay && upload.transfer.is_none() {
            self.pace.pause(Trouble::BrokerOpening, None).await?;
            upload = self.find(id).await?;
        }
        Ok(upload)
    }

    async fn find(&mut self, id: UploadId) -> Result<Upload, Error> {
        let found = self.broker.find(id, &mut self.pace).await?;
        found.ok_or_else(|| Error::Refused {
            operation: Operation::Find,
            refusal: Box::new(Refusal { status: 404, ..Refusal::default() }),
        })
    }

    async fn transfer(&mut self, admitted: Admitted) -> Result<UploadReport, Error> {
        let Admitted { id, mut upload, mut begin, mut operation } = admitted;
        let mut kind = self.request.transfer_kind;
        let mut renewals = 0;
        // Whether the last that was heard of storage is that it refuses a signed URL.
        let mut was_refused = false;
        loop {
            if upload.state != wire::State::UnderWay {
                return self.report(id, &upload, kind);
            }
            let transfer = upload.transfer.take().ok_or(Error::Nonsense { operation, what: "it has no transfer" })?;
            let mut way = Way::open(&transfer, self.chunk, &self.source, operation)?;
            kind = way.kind();
            // A session that an earlier run opened by itself is forgotten, and with it what storage could be asked.
            let mut is_unsure = begin == Begin::WhereItStopped && kind != TransferKind::Resumable;
            loop {
                let ended = match &mut way {
                    _ if std::mem::take(&mut is_unsure) => Ended::Unsure,
                    Way::Session(session) => {
                        session.run(self.http, &mut self.source, begin, &mut self.tally, &mut self.pace).await?
                    }
                    Way::Put(put) => put.run(self.http, &mut self.source, &mut self.tally, &mut self.pace).await?,
                    Way::Start(start) => match start.run(self.http, &mut self.pace).await? {
                        Ok(session) => {
                            (way, begin) = (Way::Session(session), Begin::At(0));
                            was_refused = false;
                            continue;
                        }
                        Err(ended) => ended,
                    },
                };
                if let Ended::Grown(persisted) = ended {
                    if let Some(upload) = self.ended_meanwhile(id).await {
                        return self.report(id, &upload, kind);
                    }
                    begin = Begin::At(persisted);
                    continue;
                }
                let verdict = self.verify(id, &ended, was_refused).await?;
                was_refused = matches!(ended, Ended::Refused { .. });
                match (verdict, way.gave_up()) {
                    (Verdict::Final(upload), _) => return self.report(id, &upload, kind),
                    (Verdict::SendMore | Verdict::Renew, Some(error)) => return Err(error),
                    (Verdict::SendMore, None) => begin = Begin::WhereItStopped,
                    (Verdict::Renew, None) => break,
                }
            }
            if self.source.kept_from() > 0 {
                return Err(Error::PipeLost);
            }
            renewals += 1;
            if renewals > MAX_RENEWALS {
                return Err(Error::SessionLostAgain(renewals));
            }
            (upload, begin, operation) = (self.renew(id, kind).await?, Begin::At(0), Operation::Renew);
        }
    }

    /// Asks the broker what became of the upload after its session ended. Also when the session is lost: the object may
    /// be there, and only the answer that said so gone. `was_refused` tells of the signed URL before this one.
    async fn verify(&mut self, id: UploadId, ended: &Ended, was_refused: bool) -> Result<Verdict, Error> {
        (self.watch)(Event::Verifying);
        loop {
            match self.broker.complete(id, &mut self.pace).await? {
                Completion::Upload(upload) if upload.state != wire::State::UnderWay => {
                    return Ok(Verdict::Final(upload));
                }
                Completion::Ended => {
                    let upload = self.find(id).await?;
                    if upload.state != wire::State::UnderWay {
                        return Ok(Verdict::Final(Box::new(upload)));
                    }
                }
                Completion::Upload(_) => {}
                Completion::SessionLost => return Ok(Verdict::Renew),
                Completion::NotComplete => match ended {
                    Ended::Lost => return Ok(Verdict::Renew),
                    Ended::Exists => {
                        let offset = self.source.known();
                        return Err(Error::StorageRefused { status: 412, reason: None, offset });
                    }
                    Ended::Unsure | Ended::Grown(_) => return Ok(Verdict::SendMore),
                    // Storage, whose clock is another, may find a URL ended before the broker does. That is not so of
                    // two in a row: then something else is wrong.
                    Ended::Refused { status: 400 | 403, .. } if !was_refused => return Ok(Verdict::Renew),
                    Ended::Refused { status, reason } => {
                        return Err(Error::StorageRefused { status: *status, reason: reason.clone(), offset: 0 });
                    }
                    Ended::Stored => {
                        self.pace.pause(Trouble::BrokerUnaware, None).await?;
                        return Ok(Verdict::SendMore);
                    }
                },
            }
            self.pace.pause(Trouble::BrokerUnaware, None).await?;
        }
    }

    /// What has become of the upload while it was sent, if it is over: it may have outgrown its policy, or be cancelled.
    /// Tries once, since the upload does not depend on it.
    async fn ended_meanwhile(&self, id: UploadId) -> Option<Upload> {
        let mut pace = Pace::hasty(self.patience, self.randomness, self.watch);
        let upload = self.broker.look(id, &mut pace).await.ok().flatten()?;
        (upload.state != wire::State::UnderWay).then_some(upload)
    }

    async fn renew(&mut self, id: UploadId, kind: TransferKind) -> Result<Upload, Error> {
        match self.broker.renew(id, &mut self.pace).await {
            Ok(upload) => {
                let upload = self.ready(id, upload).await?;
                // It may have turned out to be final.
                if upload.state == wire::State::UnderWay {
                    self.tally.renewals += 1;
                    (self.watch)(Event::Renewed { kind });
                }
                Ok(upload)
            }
            // Something ended it in the meantime: its final state is the answer.
            Err(Error::Refused { operation, refusal }) if refusal.status == 409 => {
                let upload = self.find(id).await?;
                if upload.state == wire::State::UnderWay {
                    return Err(Error::Refused { operation, refusal });
                }
                Ok(upload)
            }
            Err(error) => Err(error),
        }
    }

    /// Tries once. Whom it does not reach, the upload's own expiry will.
    async fn cancel(&mut self, id: UploadId) {
        let mut pace = Pace::hasty(self.patience, self.randomness, self.watch);
        drop(self.broker.cancel(id, &mut pace).await);
    }

    fn report(&self, id: UploadId, upload: &Upload, transfer: TransferKind) -> Result<UploadReport, Error> {
        let operation = Operation::Complete;
        let state = match upload.state {
            wire::State::Completed => {
                let stored = upload.result.as_ref();
                let stored = stored.ok_or(Error::Nonsense { operation, what: "it is completed without a result" })?;
                self.compare(stored)?;
                FinalState::Completed
            }
            wire::State::Rejected => {
                let (code, detail) =
                    upload.rejection.as_ref().map_or(("", ""), |rejection| (&rejection.code, &rejection.detail));
                FinalState::Rejected { code: presentable(code), detail: presentable(detail) }
            }
            wire::State::Cancelled => FinalState::Cancelled,
            wire::State::Expired => FinalState::Expired,
            wire::State::UnderWay => return Err(Error::Nonsense { operation, what: "it is not final" }),
        };
        Ok(UploadReport {
            id,
            policy: presentable(&upload.policy),
            region: upload.region.as_deref().map(presentable),
            object: presentable(&upload.object),
            transfer,
            bytes: self.source.known(),
            crc32c: self.source.digests().crc32c,
            chunks: self.tally.chunks,
            resumes: self.tally.resumes,
            renewals: self.tally.renewals,
            state,
            elapsed: Duration::ZERO,
        })
    }

    /// Holds what is stored to what this file has. The broker did so too, if the policy let the digests be declared.
    fn compare(&self, stored: &wire::Stored) -> Result<(), Error> {
        let operation = Operation::Complete;
        let Some(bytes) = self.source.size() else {
            return Err(Error::Nonsense { operation, what: "it is completed before the pipe has ended" });
        };
        let sent = Content { bytes, crc32c: Some(self.source.digests().crc32c) };
        let crc32c = stored.crc32c.as_deref().map(str::parse).transpose();
        let crc32c = crc32c.map_err(|_| Error::Nonsense { operation, what: "its result has no readable checksum" })?;
        let stored = Content { bytes: stored.size_bytes.unwrap_or(sent.bytes), crc32c };
        if stored.bytes == sent.bytes && (stored.crc32c.is_none() || stored.crc32c == sent.crc32c) {
            Ok(())
        } else {
            Err(Error::Mismatch { stored, sent })
        }
    }

    fn new_key(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.randomness.bytes()))
    }
}

const fn ended_without_object(upload: &Upload) -> bool {
    match upload.state {
        wire::State::Rejected | wire::State::Cancelled | wire::State::Expired => true,
        wire::State::Completed | wire::State::UnderWay => false,
    }
}

/// Whether the policy would admit the same upload without its digests.
fn forbids_digests_only(refusal: &Refusal) -> bool {
    let forbids = |limit: &str, allowed: &str| limit == "digest" && allowed == "none";
    refusal.status == 422
        && !refusal.violations.is_empty()
        && refusal.violations.iter().all(|violation| forbids(&violation.limit, &violation.allowed))
}
