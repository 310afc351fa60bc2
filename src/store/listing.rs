//! A principal's uploads, in pages.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::Invalid;
use crate::model::id::UploadId;
use crate::model::time::Timestamp;
use crate::model::upload::{StateKind, Upload};

use super::Tracked;
use super::record::{LARGEST, millis};

/// Which part of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where it goes on; left out, it begins.
    pub after: Option<Cursor>,
    /// How many uploads at most; taken as 1 to [`Page::LARGEST`].
    pub limit: usize,
    /// Only uploads in this state.
    pub state: Option<StateKind>,
}

impl Page {
    /// No page has more uploads.
    pub const LARGEST: usize = 200;

    /// How many uploads are looked at for one page. A page may end early for it, and says where to go on.
    pub(super) const SCAN: usize = 1000;

    pub(super) fn limit(&self) -> usize {
        self.limit.clamp(1, Self::LARGEST)
    }

    pub(super) fn takes(&self, upload: &Upload) -> bool {
        self.state.is_none_or(|kind| kind == upload.state.kind())
    }
}

/// Part of a principal's uploads, newest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The uploads.
    pub uploads: Vec<Tracked>,
    /// Where the next part begins, if there may be one.
    pub next: Option<Cursor>,
}

/// A place in a listing: behind one upload. Opaque to clients, who bring it back as they got it.
///
/// It names an upload by what the listing shows of it anyway, so there is nothing to protect: within another principal's
/// listing it is merely a place in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub(super) created_at: u64,
    pub(super) random: [u8; 16],
}

impl Cursor {
    /// Behind the upload that was created at `created_at` and has this id.
    pub fn behind(created_at: Timestamp, id: UploadId) -> Self {
        Self { created_at: millis(created_at), random: id.random() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 22];
        bytes[..6].copy_from_slice(&self.created_at.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&self.random);
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl std::str::FromStr for Cursor {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bytes: [u8; 22] = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| Invalid::new("the cursor is none that this service gave out"))?;
        let (instant, random) = (bytes.first_chunk::<6>(), bytes.last_chunk::<16>());
        let created_at = instant.iter().flat_map(|bytes| bytes.iter()).fold(0, |at, byte| at << 8 | u64::from(*byte));
        Ok(Self { created_at: created_at.min(LARGEST), random: random.copied().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        let cursor = Cursor { created_at: 1_763_805_600_120, random: *b"0123456789abcdef" };
        let text = cursor.to_string();
        assert_eq!(text.parse(), Ok(cursor));
        for other in ["", "AAAA", &text[1..], &format!("{text}A"), &text.replace('M', "+"), &format!("{text}=")] {
            assert!(other.parse::<Cursor>().is_err(), "{other:?}");
        }
    }
}
