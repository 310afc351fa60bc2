//! One resumable session: what may be sent next, what counts, and what it has become. Pure: no HTTP, no clock.
//!
//! Bytes count ("are persisted") only at multiples of 256 KiB, except for the last ones of an object. What a request
//! has sent beyond the last multiple waits in its own [`Intake`] and is lost with it. One request at a time writes: a
//! later one takes the session over, and what the earlier one still has to say is refused.

use std::sync::Arc;

use hyper::http::HeaderValue;

use super::content::{Content, Memory};
use super::insertion::Insertion;
use super::objects::Description;
use super::range::Extent;
use crate::model::size::ByteCount;

/// What chunks must be multiples of (storage documentation, "Resumable uploads").
pub(super) const QUANTUM: u64 = 256 * 1024;

const LARGEST: u64 = ByteCount::LARGEST_OBJECT.0;

/// A session from its initiation to its end.
#[derive(Debug)]
pub(super) struct Session {
    /// Counts the initiations of this server from 1: the name of a session that is no secret.
    pub(super) number: u64,
    pub(super) bucket: Arc<str>,
    /// The `Origin` of the initiation, which every later answer is bound to.
    pub(super) origin: Option<HeaderValue>,
    pub(super) insertion: Arc<Insertion>,
    pub(super) state: State,
    /// Which request may write: the latest one.
    writer: u64,
}

/// What a session is.
#[derive(Debug)]
pub(super) enum State {
    /// Takes bytes.
    Open {
        content: Box<Content>,
        /// How large the object will be, as soon as someone said so.
        total: Option<u64>,
    },
    /// Became an object.
    Completed(Arc<Description>),
    /// Ended by `DELETE`.
    Cancelled,
    /// Ended by a failed check, or by a fault: 410.
    Dead,
    /// As if it had never been: 404.
    Forgotten,
}

/// Why a session takes nothing any more.
#[derive(Debug)]
pub(super) enum Closed {
    Completed(Arc<Description>),
    Cancelled,
    Dead,
    Forgotten,
}

/// Why a request was refused. None of these ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "Invalid request.  According to the Content-Range header, the upload offset is {offset} byte(s), which \
         exceeds already uploaded size of {persisted} byte(s)."
    )]
    Gap { offset: u64, persisted: u64 },
    #[error(
        "Invalid request.  The number of bytes uploaded is required to be equal or greater than {QUANTUM}, except for \
         the final request (it's recommended to be the exact multiple of {QUANTUM}).  The received request contained \
         {0} byte(s), which does not meet this requirement."
    )]
    SmallChunk(u64),
    #[error(
        "Invalid request.  The total of {given} byte(s) disagrees with the {agreed} byte(s) of an earlier request."
    )]
    TotalDisagrees { given: u64, agreed: u64 },
    #[error("Invalid request.  The upload is complete at {given} byte(s), but {expected} byte(s) were expected.")]
    TooFew { given: u64, expected: u64 },
    #[error("Invalid request.  There were more bytes than the {0} byte(s) that the request or the upload has.")]
    TooMany(u64),
    #[error(
        "Invalid request.  There were {given} byte(s) in the request body, where its range has {expected} byte(s)."
    )]
    WrongLength { given: u64, expected: u64 },
    #[error("Invalid request.  An object has at most {LARGEST} bytes.")]
    TooLarge,
    #[error("Another request took the upload over.")]
    Superseded,
}

/// Why bytes were not taken.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Refusal),
    Closed(Closed),
    /// The allowance of a fault is used up.
    Allowance,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Closed> for Stop {
    fn from(closed: Closed) -> Self {
        Self::Closed(closed)
    }
}

/// One request's place in the object, while its body comes in.
#[derive(Debug)]
pub(super) struct Intake {
    writer: u64,
    first: u64,
    /// The offset of the next byte of the body.
    position: u64,
    /// Where the body must end, if that is known.
    end: Option<u64>,
    completes: Completes,
    /// What was received beyond the last multiple of 256 KiB.
    pending: Vec<u8>,
    /// Under a fault: how many more bytes are persisted, exactly, before the request fails.
    allowance: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completes {
    /// The end of this body is the end of the object.
    Object,
    /// More is to come.
    Nothing,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Whole,
    /// The connection broke.
    Cut,
}

/// Where the session is after a request that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Incomplete,
    /// Every byte is there: the object can be made.
    Ready,
}

impl Session {
    pub(super) fn new(
        number: u64,
        bucket: Arc<str>,
        origin: Option<HeaderValue>,
        insertion: Insertion,
        declared: Option<u64>,
        memory: &Arc<Memory>,
    ) -> Self {
        let state = State::Open { content: Box::new(Content::empty(memory)), total: declared };
        Self { number, bucket, origin, insertion: Arc::new(insertion), state, writer: 0 }
    }

    /// How many bytes are persisted; `None` when it takes no more.
    pub(super) fn persisted(&self) -> Option<u64> {
        match &self.state {
            State::Open { content, .. } => Some(content.size()),
            _ => None,
        }
    }

    fn open(&mut self) -> Result<(&mut Content, &mut Option<u64>), Closed> {
        match &mut self.state {
            State::Open { content, total } => Ok((content, total)),
            State::Completed(object) => Err(Closed::Completed(Arc::clone(object))),
            State::Cancelled => Err(Closed::Cancelled),
            State::Dead => Err(Closed::Dead),
            State::Forgotten => Err(Closed::Forgotten),
        }
    }

    /// Answers `bytes */N` and `bytes */*`. `*/N` ends an upload whose bytes are all there, also one whose size had
    /// never been declared; a total that was only asked with binds nobody.
    pub(super) fn status(&mut self, asked: Option<u64>) -> Result<Progress, Stop> {
        let (content, total) = self.open()?;
        let size = content.size();
        if let (Some(given), Some(agreed)) = (asked, *total)
            && given != agreed
        {
            return Err(Refusal::TotalDisagrees { given, agreed }.into());
        }
        match asked {
            Some(given) if given < size => Err(Refusal::TooFew { given, expected: size }.into()),
            Some(given) if given == size => Ok(Progress::Ready),
            // An empty object is only made when someone says that it is empty.
            None if size > 0 && *total == Some(size) => Ok(Progress::Ready),
            _ => Ok(Progress::Incomplete),
        }
    }

    /// Begins to take the body of a request that is `extent` of the object and has `length` bytes, if it says so. From
    /// here on earlier requests of this session are refused.
    pub(super) fn begin(
        &mut self,
        extent: Extent,
        length: Option<u64>,
        allowance: Option<u64>,
    ) -> Result<Intake, Stop> {
        let (content, agreed) = self.open()?;
        let persisted = content.size();
        let (first, stated) = match extent {
            Extent::Whole => (0, None),
            Extent::Chunk { first, total, .. } | Extent::Stream { first, total } => (first, total),
        };
        // The length of a body that ends the object implies a total, which binds nobody before it has all come.
        let implied = match extent {
            Extent::Chunk { .. } => None,
            Extent::Whole | Extent::Stream { .. } => length.map(|length| first.saturating_add(length)),
        };
        let total = stated.or(implied);
        match (total, *agreed, stated) {
            (Some(given), Some(expected), None) if given < expected => {
                return Err(Refusal::TooFew { given, expected }.into());
            }
            (Some(given), Some(expected), None) if given > expected => {
                return Err(Refusal::TooMany(expected).into());
            }
            (Some(given), Some(agreed), _) if given != agreed => {
                return Err(Refusal::TotalDisagrees { given, agreed }.into());
            }
            (Some(given), ..) if given < persisted => {
                return Err(Refusal::TooFew { given, expected: persisted }.into());
            }
            (Some(given), ..) if given > LARGEST => return Err(Refusal::TooLarge.into()),
            _ => {}
        }
        if first > persisted {
            return Err(Refusal::Gap { offset: first, persisted }.into());
        }
        let known = total.or(*agreed);
        let (end, completes) = match extent {
            Extent::Chunk { last, .. } if known == Some(last + 1) => (known, Completes::Object),
            Extent::Chunk { last, .. } => (Some(last + 1), Completes::Nothing),
            Extent::Whole | Extent::Stream { .. } => (total, Completes::Object),
        };
        if let Some(end) = end {
            let expected = end - first;
            match (known, length) {
                (Some(known), _) if end > known => return Err(Refusal::TooMany(known).into()),
                (_, Some(given)) if given > expected => return Err(Refusal::WrongLength { given, expected }.into()),
                _ => {}
            }
            if end > LARGEST {
                return Err(Refusal::TooLarge.into());
            }
            if completes == Completes::Nothing && expected < QUANTUM {
                return Err(Refusal::SmallChunk(expected).into());
            }
        }
        *agreed = stated.or(*agreed);
        self.writer += 1;
        Ok(Intake { writer: self.writer, first, position: first, end, completes, pending: Vec::new(), allowance })
    }

    /// The content that `intake` still may write to.
    fn content_for(&mut self, intake: &Intake) -> Result<(&mut Content, Option<u64>), Stop> {
        let writer = self.writer;
        let (content, total) = self.open()?;
        if writer == intake.writer { Ok((content, *total)) } else { Err(Refusal::Superseded.into()) }
    }

    /// Takes the next bytes of the body. Those that are persisted already are skipped without comparing.
    pub(super) fn push(&mut self, intake: &mut Intake, data: &[u8]) -> Result<(), Stop> {
        let (content, total) = self.content_for(intake)?;
        let limit = intake.end.unwrap_or(u64::MAX).min(total.unwrap_or(LARGEST));
        let after = intake.position.saturating_add(data.len() as u64);
        if after > limit {
            return Err(if limit == LARGEST { Refusal::TooLarge } else { Refusal::TooMany(limit) }.into());
        }
        let known = content.size() + intake.pending.len() as u64;
        let skipped = usize::try_from(known.saturating_sub(intake.position)).unwrap_or(usize::MAX).min(data.len());
        intake.position = after;
        let mut fresh = &data[skipped..];

        if let Some(allowance) = &mut intake.allowance {
            let taken = usize::try_from(*allowance).unwrap_or(usize::MAX).min(fresh.len());
            content.append(&fresh[..taken]);
            *allowance -= taken as u64;
            return if *allowance == 0 { Err(Stop::Allowance) } else { Ok(()) };
        }
        while !fresh.is_empty() {
            let held = intake.pending.len() as u64;
            let room = QUANTUM - (content.size() + held) % QUANTUM;
            let taken = usize::try_from(room).unwrap_or(usize::MAX).min(fresh.len());
            let (now, later) = fresh.split_at(taken);
            if (taken as u64) < room {
                intake.pending.extend_from_slice(now);
            } else if intake.pending.is_empty() {
                content.append(now);
            } else {
                intake.pending.extend_from_slice(now);
                content.append(&intake.pending);
                intake.pending.clear();
            }
            fresh = later;
        }
        Ok(())
    }

    /// Ends the body. Only the end of an object makes the bytes behind the last multiple of 256 KiB count.
    pub(super) fn finish(&mut self, intake: &Intake, ended: Ended) -> Result<Progress, Stop> {
        let (content, total) = self.content_for(intake)?;
        if intake.allowance.is_some() {
            return Err(Stop::Allowance);
        }
        if ended == Ended::Whole {
            if let Some(end) = intake.end
                && intake.position < end
            {
                let (given, expected) = (intake.position - intake.first, end - intake.first);
                return Err(Refusal::WrongLength { given, expected }.into());
            }
            if intake.completes == Completes::Object {
                let expected = total.unwrap_or_else(|| content.size());
                if intake.position < expected {
                    return Err(Refusal::TooFew { given: intake.position, expected }.into());
                }
                content.append(&intake.pending);
                return Ok(Progress::Ready);
            }
        }
        let everything = content.size() > 0 && total == Some(content.size());
        Ok(if everything { Progress::Ready } else { Progress::Incomplete })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;

    use super::super::target::Query;
    use super::*;

    fn session(declared: Option<u64>) -> Session {
        let insertion = Insertion::new(&Query::of("name=o").unwrap(), &Map::new(), None).unwrap();
        Session::new(1, "b".into(), None, insertion, declared, &Memory::new(u64::MAX, u64::MAX))
    }

    /// One request: where it begins, as a part of what is persisted; how many bytes it has; where it is cut.
    #[derive(Debug, Clone)]
    struct Attempt {
        from: u8,
        length: usize,
        cut: Option<usize>,
        piece: usize,
        streamed: bool,
    }

    fn attempt() -> impl Strategy<Value = Attempt> {
        let lengths = prop_oneof![Just(262_144), Just(524_288), 1..600_000_usize];
        let cut = proptest::option::of(0..600_000_usize);
        (any::<u8>(), lengths, cut, 1000..300_000_usize, any::<bool>())
            .prop_map(|(from, length, cut, piece, streamed)| Attempt { from, length, cut, piece, streamed })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever is sent, cut, repeated and refused: what is persisted grows only, stays a beginning of the content
        /// at a multiple of 256 KiB, and the object that comes of it is the content.
        #[test]
        fn what_is_persisted_is_a_beginning_of_the_content(
            size in 1..1_200_000_usize,
            declared: bool,
            attempts in proptest::collection::vec(attempt(), 0..6),
        ) {
            let content: Vec<u8> = (0..size).map(|index| u8::try_from(index * 31 / 7 % 251).unwrap()).collect();
            let total = size as u64;
            let mut session = session(declared.then_some(total));
            for attempt in attempts {
                let before = session.persisted().unwrap();
                let first = before * u64::from(attempt.from) / 255;
                let end = (first + attempt.length as u64).min(total);
                if first == end || (end == total && attempt.cut.is_none()) {
                    continue;
                }
                let extent = if attempt.streamed {
                    Extent::Stream { first, total: Some(total) }
                } else {
                    Extent::Chunk { first, last: end - 1, total: Some(total) }
                };
                if let Ok(mut intake) = session.begin(extent, None, None) {
                    let sent = attempt.cut.map_or(end, |cut| (first + cut as u64).min(end - 1));
                    let range = usize::try_from(first).unwrap()..usize::try_from(sent).unwrap();
                    for piece in content[range].chunks(attempt.piece) {
                        session.push(&mut intake, piece).unwrap();
                    }
                    let ended = if attempt.cut.is_some() { Ended::Cut } else { Ended::Whole };
                    let finished = session.finish(&intake, ended);
                    prop_assert!(!matches!(finished, Ok(Progress::Ready)), "not everything was sent");
                }
                let after = session.persisted().unwrap();
                prop_assert!(after >= before && after.is_multiple_of(QUANTUM) && after < total);
            }
            let first = session.persisted().unwrap();
            let extent = Extent::Chunk { first, last: total - 1, total: Some(total) };
            let mut intake = session.begin(extent, Some(total - first), None).unwrap();
            session.push(&mut intake, &content[usize::try_from(first).unwrap()..]).unwrap();
            prop_assert_eq!(session.finish(&intake, Ended::Whole).unwrap(), Progress::Ready);
            let State::Open { content: persisted, .. } = session.state else { panic!("still open") };
            prop_assert!(persisted.seal().bytes.unwrap() == content);
        }
    }

    #[test]
    fn a_later_request_shuts_an_earlier_one_out() {
        let mut session = session(None);
        let stream = Extent::Stream { first: 0, total: None };
        let mut early = session.begin(stream, None, None).unwrap();
        session.push(&mut early, &[1; 10]).unwrap();
        let mut late = session.begin(stream, None, None).unwrap();
        assert!(matches!(session.push(&mut early, &[1; 10]), Err(Stop::Refused(Refusal::Superseded))));
        assert!(matches!(session.finish(&early, Ended::Whole), Err(Stop::Refused(Refusal::Superseded))));
        session.push(&mut late, &[2; 5]).unwrap();
        assert_eq!(session.finish(&late, Ended::Whole).unwrap(), Progress::Ready);
        assert_eq!(session.persisted(), Some(5));
    }
}
