//! What scripts answer, read with suspicion: a server may be anything that speaks the protocol.

use redis::Value;

use crate::model::limits::Limits;
use crate::model::time::Timestamp;

use super::LimitHit;
use super::error::{Cause, Error};
use super::keys::ACTIVE_CEILING;

/// What a script returns: a code, and what belongs to it.
pub(super) struct Reply(pub(super) Value);

impl Reply {
    fn part(&self, position: usize) -> Result<&Value, Error> {
        match &self.0 {
            Value::Array(parts) => parts.get(position).ok_or_else(unexpected),
            _ => Err(unexpected()),
        }
    }

    fn number(&self, position: usize) -> Result<u64, Error> {
        match self.part(position)? {
            Value::Int(number) => u64::try_from(*number).map_err(|_| unexpected()),
            _ => Err(unexpected()),
        }
    }

    pub(super) fn bytes(&self, position: usize) -> Result<&[u8], Error> {
        match self.part(position)? {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Err(unexpected()),
        }
    }

    /// The answer of a script that says 1 or 0.
    pub(super) fn truth(&self) -> Result<bool, Error> {
        match self.0 {
            Value::Int(number) => Ok(number != 0),
            _ => Err(unexpected()),
        }
    }

    pub(super) fn code(&self) -> Result<u64, Error> {
        self.number(0)
    }
}

/// The second and third part of a reply: what stood in the way, and the number that goes with it.
pub(super) fn hit(reply: &Reply, limits: &Limits, now: Timestamp) -> Result<Option<LimitHit>, Error> {
    let number = reply.number(2)?;
    match reply.number(1)? {
        0 => return Ok(None),
        1 => limits.rate.map(|limit| LimitHit::rate(limit, number)),
        2 => limits.max_active.map(|limit| LimitHit::active(limit, number, now)),
        3 => limits.daily_bytes.map(|limit| LimitHit::daily(limit, number, now)),
        4 => Some(LimitHit::active(ACTIVE_CEILING, number, now)),
        _ => None,
    }
    .map(Some)
    .ok_or_else(unexpected)
}

/// The answer to an answer that no script of ours gives.
pub(super) fn unexpected() -> Error {
    Error::Unavailable(Cause::new(Cause::UNEXPECTED_ANSWER))
}
