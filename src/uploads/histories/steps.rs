//! What can happen in a history, and how chance decides it.

use super::world::POLICY_NAMES;
use super::*;
use crate::emulator::faults::{Action, Fault, Reply, Which};
use crate::emulator::journal::Operation;
use crate::model::digest::{Crc32c, Md5};
use crate::model::time::Span;
use crate::model::upload::{NewUpload, TransferKind};

/// Chance that a seed decides.
pub(in crate::uploads) struct Chance(Randomness);

impl Chance {
    pub(in crate::uploads) fn new(seed: u64) -> Self {
        Self(Randomness::seeded(seed))
    }

    /// A number below `end`.
    pub(in crate::uploads) fn below(&self, end: usize) -> usize {
        let word = u64::from_le_bytes(self.0.bytes());
        usize::try_from(word % end as u64).unwrap()
    }

    fn in_a_hundred(&self, times: usize) -> bool {
        self.below(100) < times
    }

    fn one_of<T: Clone>(&self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// One of `weighted`, each as likely as its weight says.
    fn weighted<T: Clone>(&self, weighted: &[(usize, T)]) -> T {
        let mut left = self.below(weighted.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in weighted {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return choice.clone(),
            }
        }
        unreachable!("the weights have a sum")
    }
}

/// One step: something that happens, perhaps something beside it, and what goes wrong meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) does: Does,
    pub(super) beside: Option<Does>,
    /// How often what happens beside it lets others go first.
    pub(super) yields: usize,
    pub(super) faults: Vec<Fault>,
    /// After how many polls whoever asked goes away.
    pub(super) polls: Option<u32>,
}

impl Step {
    /// Whether nothing stands in the way of what is to happen, so that it can be foretold.
    pub(super) fn is_clean(&self) -> bool {
        self.beside.is_none() && self.faults.is_empty() && self.polls.is_none()
    }
}

/// Something that happens. `upload` counts back from the latest that a client knows.
#[derive(Clone, Debug)]
pub(super) enum Does {
    Create(Wish),
    Send {
        upload: usize,
        what: Sending,
        session: usize,
    },
    Act {
        upload: usize,
        act: Act,
        broker: usize,
    },
    /// Somebody else asks for it.
    Intrude {
        upload: usize,
        act: Act,
    },
    Sweep {
        broker: usize,
    },
    Deliver {
        fate: Fate,
        limit: u32,
    },
    Replay,
    Wait(Duration),
    /// Records are forgotten whose time is over, and connections to the store cut.
    Forget,
    Cut,
}

/// What somebody wants to upload.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) user: usize,
    pub(super) policy: usize,
    pub(super) kind: TransferKind,
    pub(super) is_declared: bool,
    pub(super) has_digests: bool,
    pub(super) payload: Vec<u8>,
    /// An idempotency key, and whether what it was used for before is asked for again.
    pub(super) key: Option<(u8, bool)>,
    pub(super) broker: usize,
    /// Whether the broker does not outlive whoever asks it.
    pub(super) is_mortal: bool,
}

/// What a client sends to storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// All of it.
    All,
    /// What storage does not have yet, behind these bytes that it has.
    Rest,
    /// The first bytes, one in so many, which storage keeps; then the connection breaks.
    Part(u64),
    /// As many other bytes.
    Other,
    /// More than there may be.
    TooMany,
    /// More than there may be of a size that was not declared, and no end yet.
    TooManySoFar,
    /// Fewer than was meant.
    TooFew,
}

/// What is asked of a broker about one upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Find,
    Refresh,
    Complete,
    Cancel,
    CancelAny,
    Renew,
    Notify(Notice),
}

/// What a notification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Right,
    /// Without the hint, and of a generation that never was.
    Vague,
    /// With the id of another upload.
    Misleading,
    OtherBucket,
    OtherObject,
}

/// What becomes of attempts to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Taken,
    Refused,
    GivenUp,
    /// Whoever took them dies.
    Lost,
}

/// How likely it is that something goes wrong.
#[derive(Clone, Copy)]
pub(super) struct Odds {
    pub(super) faults: usize,
    pub(super) goes_away: usize,
    pub(super) beside: usize,
    /// Whether connections to the store can be cut.
    pub(super) cuts: bool,
}

pub(super) fn step(chance: &Chance, odds: Odds) -> Step {
    let (does, beside) = if chance.in_a_hundred(10) {
        duel(chance)
    } else {
        let does = does(chance, odds);
        let beside = chance.in_a_hundred(odds.beside).then(|| beside(chance, &does, odds));
        (does, beside)
    };
    // The runtime asks the system for what has come once in 61 turns while somebody is busy.
    let yields = chance.below(800);
    let many = if chance.in_a_hundred(odds.faults) { 1 + chance.below(2) } else { 0 };
    let goes_away = matches!(does, Does::Create(_) | Does::Act { .. } | Does::Sweep { .. });
    // What a creation leaves that was interrupted is what most can go wrong with.
    let more_often = if matches!(does, Does::Create(_)) { 2 * odds.goes_away } else { odds.goes_away };
    let polls = (goes_away && chance.in_a_hundred(more_often)).then(|| 1 + u32::try_from(chance.below(12)).unwrap());
    Step { does, beside, yields, faults: (0..many).map(|_| fault(chance)).collect(), polls }
}

/// The last bytes against something else that is about the same upload: where most can go wrong, and chance alone seldom
/// brings it about.
fn duel(chance: &Chance) -> (Does, Option<Does>) {
    let upload = chance.below(2);
    let what = chance.weighted(&[(3, Sending::All), (1, Sending::Rest), (1, Sending::TooMany)]);
    let notify = Act::Notify(Notice::Right);
    let act = chance.weighted(&[(4, Act::Cancel), (3, Act::Renew), (1, Act::Complete), (1, Act::Refresh), (1, notify)]);
    let (send, act) = (Does::Send { upload, what, session: 0 }, Does::Act { upload, act, broker: chance.below(2) });
    if chance.in_a_hundred(70) { (act, Some(send)) } else { (send, Some(act)) }
}

fn does(chance: &Chance, odds: Odds) -> Does {
    let upload = if chance.in_a_hundred(70) { chance.below(3) } else { chance.below(40) };
    let broker = chance.below(2);
    match chance.below(100) {
        0..25 => Does::Create(wish(chance)),
        25..45 => Does::Send { upload, what: sending(chance), session: chance.weighted(&[(9, 0), (1, 1), (1, 2)]) },
        45..75 => Does::Act { upload, act: act(chance), broker },
        75..78 => Does::Intrude { upload, act: act(chance) },
        78..84 => Does::Sweep { broker },
        84..89 => {
            let fate = chance.weighted(&[(6, Fate::Taken), (2, Fate::Refused), (2, Fate::GivenUp), (1, Fate::Lost)]);
            Does::Deliver { fate, limit: 1 + u32::try_from(chance.below(4)).unwrap() }
        }
        89 => Does::Replay,
        90 if odds.cuts => Does::Cut,
        91 => Does::Forget,
        _ => Does::Wait(wait(chance)),
    }
}

/// What happens at the same time: mostly to the same upload.
fn beside(chance: &Chance, does: &Does, odds: Odds) -> Does {
    let (Does::Act { upload, .. } | Does::Send { upload, .. } | Does::Intrude { upload, .. }) = *does else {
        return self::does(chance, odds);
    };
    let broker = chance.below(2);
    match chance.below(10) {
        0..3 => Does::Send { upload, what: sending(chance), session: 0 },
        3..8 => Does::Act { upload, act: act(chance), broker },
        8 => Does::Sweep { broker },
        _ => self::does(chance, odds),
    }
}

fn wish(chance: &Chance) -> Wish {
    let policy = chance.weighted(&[(6, 0), (2, 1), (3, 2)]);
    let kinds = [(6, TransferKind::Resumable), (2, TransferKind::Simple), (1, TransferKind::SignedResumable)];
    let size = chance.one_of(&[1, 10, 200, 999, 1000]);
    Wish {
        user: chance.weighted(&[(3, 0), (2, 1), (1, 2)]),
        policy,
        kind: if policy == 0 { chance.weighted(&kinds) } else { TransferKind::Resumable },
        is_declared: policy == 1 || chance.in_a_hundred(60),
        has_digests: chance.in_a_hundred(40),
        payload: (0..size).map(|_| u8::try_from(chance.below(256)).unwrap()).collect(),
        key: chance.in_a_hundred(50).then(|| (u8::try_from(chance.below(2)).unwrap(), chance.in_a_hundred(85))),
        broker: chance.below(2),
        is_mortal: chance.in_a_hundred(50),
    }
}

impl Wish {
    pub(super) fn request(&self) -> NewUpload {
        use md5::Digest as _;
        let md5 = || Md5(md5::Md5::digest(&self.payload).into());
        // A simple upload has a declared size, which its URL is signed for.
        let is_declared = self.is_declared || self.kind == TransferKind::Simple;
        NewUpload {
            policy: Some(POLICY_NAMES[self.policy].parse().unwrap()),
            filename: "f".parse().unwrap(),
            content_type: "video/mp4".parse().unwrap(),
            size: is_declared.then_some(ByteCount(self.payload.len() as u64)),
            md5: self.has_digests.then(md5),
            crc32c: self.has_digests.then(|| Crc32c(crc32c::crc32c(&self.payload))),
            metadata: [("album".to_owned(), "summer".to_owned())].into(),
            transfer: self.kind,
        }
    }
}

fn sending(chance: &Chance) -> Sending {
    let part = Sending::Part(2 + chance.below(4) as u64);
    chance.weighted(&[
        (8, Sending::All),
        (6, part),
        (3, Sending::Rest),
        (2, Sending::Other),
        (2, Sending::TooMany),
        (2, Sending::TooManySoFar),
        (2, Sending::TooFew),
    ])
}

fn act(chance: &Chance) -> Act {
    let notice = chance.weighted(&[
        (6, Notice::Right),
        (2, Notice::Vague),
        (1, Notice::Misleading),
        (1, Notice::OtherBucket),
        (1, Notice::OtherObject),
    ]);
    chance.weighted(&[
        (2, Act::Find),
        (4, Act::Refresh),
        (6, Act::Complete),
        (4, Act::Cancel),
        (1, Act::CancelAny),
        (5, Act::Renew),
        (6, Act::Notify(notice)),
    ])
}

fn wait(chance: &Chance) -> Duration {
    let seconds = [(20, 1), (20, 9), (10, 61), (8, 130), (6, 950), (3, 3_600), (2, 7_300), (2, 86_400), (1, 260_000)];
    let seconds = chance.weighted(&seconds);
    // Rarely longer than anything is remembered.
    Duration::from_secs(if chance.in_a_hundred(2) { 9 * 86_400 } else { seconds })
}

/// What storage, or the way to it, does wrong once or a few times.
fn fault(chance: &Chance) -> Fault {
    use Operation::{Cancel, Chunk, Delete, Get, Initiate, Simple, Status};
    let unavailable = Action::Respond(Reply::status(503));
    let delay = Action::Delay { by: Span(Duration::from_millis(1 + chance.below(60) as u64)) };
    let (operation, action) = chance.weighted(&[
        (3, (chance.one_of(&[Initiate, Status, Cancel, Get, Delete, Chunk]), unavailable)),
        (3, (chance.one_of(&[Initiate, Status, Cancel, Get, Delete]), Action::Reset)),
        (5, (chance.one_of(&[Initiate, Chunk, Cancel, Delete, Simple, Status]), Action::ActThenReset)),
        (3, (chance.one_of(&[Initiate, Chunk, Cancel, Delete, Simple]), Action::ActThenRespond(Reply::status(503)))),
        (4, (chance.one_of(&[Initiate, Status, Cancel, Get, Delete, Chunk]), delay)),
        (1, (Status, Action::OmitRange)),
        (1, (chance.one_of(&[Status, Chunk]), Action::ForgetSession)),
        (1, (chance.one_of(&[Status, Chunk]), Action::KillSession)),
        (1, (Initiate, Action::OmitLocation)),
    ]);
    // Once is mended by a repeat, often is not.
    let count = chance.weighted(&[(6, Some(1)), (1, Some(2)), (1, None)]);
    Fault { operation: Which::Only(operation), object: None, skip: chance.weighted(&[(4, 0), (1, 1)]), count, action }
}
