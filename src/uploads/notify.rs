//! What a storage notification sets off: a look at the upload whose object it names.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::complete::Looked;
use super::sweep::Settled;
use super::{Error, Uploads};
use crate::model::id::UploadId;
use crate::model::notice::ObjectNotice;
use crate::model::upload::{UploadState, Witness};
use crate::store::{FINAL_RETENTION, Tracked};

/// How many ids are looked up for one notice. A name has one, and a client's part of it can look like some more.
const MOST_CANDIDATES: usize = 8;

/// How long after its creation an upload that is not known can only have been lost: it is remembered for longer.
const RESTORABLE: Duration = FINAL_RETENTION.saturating_sub(Duration::from_secs(86_400));

/// What a notice came to. None of this is changed by hearing it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// Storage was asked, and the upload is final now.
    Advanced(Tracked),
    /// The upload had ended before, and stays what it was.
    AlreadyFinal(Tracked),
    /// The upload had ended before otherwise than completed, and what came all the same was deleted.
    CleanedUp(Tracked),
    /// Storage was asked, and shows no object that ends the upload.
    StillOpen(Tracked),
    /// No upload is known for this object.
    Unknown,
    /// No upload is known for this object, and it is in another bucket than this region's.
    Foreign,
}

impl Uploads {
    /// An object is said to have been made; storage is asked whether that ends an upload.
    ///
    /// The notice only says where to look. Its upload is the one whose record has this bucket and this object; the id in
    /// the name and the hint in the metadata find the record, and prove nothing. A record that the store has lost is written
    /// anew from the note that the object bears. An object that came after its upload's end is deleted. Safe to drop and to
    /// repeat, in any order with others.
    ///
    /// # Errors
    /// [`Error::Store`] and [`Error::Storage`] when these fail, [`Error::Contended`] when others were at the upload again
    /// and again: the notice is to be sent once more.
    pub async fn notified(&self, notice: &ObjectNotice, deadline: Instant) -> Result<Noticed, Error> {
        let tracked = match self.named_by(notice).await? {
            Some(tracked) => tracked,
            None if notice.bucket != self.region.bucket => return Ok(Noticed::Foreign),
            None => match self.restored(notice, deadline).await? {
                Some(restored) => restored,
                None => return Ok(Noticed::Unknown),
            },
        };
        match tracked.upload.state {
            UploadState::Completed { .. } => return Ok(Noticed::AlreadyFinal(tracked)),
            UploadState::Rejected { .. } | UploadState::Cancelled { .. } | UploadState::Expired { .. } => {
                return Ok(match self.clean_up(&tracked, deadline).await? {
                    Settled::Cleaned => Noticed::CleanedUp(tracked),
                    _ => Noticed::AlreadyFinal(tracked),
                });
            }
            UploadState::Admitted { .. } | UploadState::Pending | UploadState::Uploading { .. } => {}
        }
        match self.look(tracked, Witness::Notification, deadline).await {
            Ok(Looked::Progressed(tracked)) if tracked.upload.state.is_final() => Ok(Noticed::Advanced(tracked)),
            // Storage shows at once what was made: the object is gone again, or the notice was wrong.
            Ok(Looked::Progressed(tracked) | Looked::Lost(tracked)) => Ok(Noticed::StillOpen(tracked)),
            // The store has forgotten it meanwhile.
            Err(Error::NotFound) => Ok(Noticed::Unknown),
            Err(error) => Err(error),
        }
    }

    /// The upload that is to make this object. It may be in the bucket that was this region's before, and it is not another
    /// region's.
    async fn named_by(&self, notice: &ObjectNotice) -> Result<Option<Tracked>, Error> {
        for id in candidates(notice) {
            let found = self.store.find_whole(id).await?;
            let is_named = |Tracked { upload, .. }: &Tracked| {
                let is_ours = upload.region == self.region.name || upload.bucket == self.region.bucket;
                is_ours && upload.bucket == notice.bucket && upload.object == notice.object
            };
            if let Some(tracked) = found.filter(is_named) {
                return Ok(Some(tracked));
            }
        }
        Ok(None)
    }
}

impl Uploads {
    /// The upload that was to make this object, written anew: the store has lost it, and the object bears its note.
    async fn restored(&self, notice: &ObjectNotice, deadline: Instant) -> Result<Option<Tracked>, Error> {
        let candidates = candidates(notice);
        if candidates.is_empty() || !self.store.makes_notes() {
            return Ok(None);
        }
        let found = self.storage.read_back(&notice.bucket, &notice.object, deadline).await?;
        let Some(note) = found.and_then(|found| found.note) else { return Ok(None) };
        let now = self.clock.now();
        let noted = candidates.into_iter().find_map(|id| self.store.read_note(id, &note)).filter(|upload| {
            let is_this = upload.bucket == notice.bucket && upload.object == notice.object;
            // What is older may have ended, and been forgotten as it should be.
            is_this && upload.region == self.region.name && now.since(upload.created_at) < RESTORABLE
        });
        let Some(upload) = noted else { return Ok(None) };
        let restored = self.store.restore(&upload, now).await?;
        warn!(upload.id = %upload.id, "the store had lost an upload, which is written anew from what its object bears");
        self.metrics.observe_restored(&upload);
        Ok(Some(restored))
    }
}

/// The ids that the notice can mean, likely ones first: the hint, and whatever in the name can be read as one.
fn candidates(notice: &ObjectNotice) -> Vec<UploadId> {
    let is_digit = |character: char| matches!(character, '0'..='9' | 'a'..='f');
    let name = notice.object.as_str();
    let runs: Vec<&str> = name.split(|c| !is_digit(c)).filter(|run| run.len() >= UploadId::TEXT_LEN).collect();
    // An id mostly stands by itself. Where a policy puts it right beside other digits, it is at one end of them.
    let whole = runs.iter().copied().filter(|run| run.len() == UploadId::TEXT_LEN);
    let ends = runs.iter().flat_map(|run| [&run[..UploadId::TEXT_LEN], &run[run.len() - UploadId::TEXT_LEN..]]);
    let inner = runs
        .iter()
        .flat_map(|run| (0..=run.len() - UploadId::TEXT_LEN).map(|start| &run[start..start + UploadId::TEXT_LEN]));
    let mut candidates: Vec<UploadId> = Vec::with_capacity(MOST_CANDIDATES);
    let in_name = whole.chain(ends).chain(inner).filter_map(|text| text.parse().ok());
    for id in notice.hint.into_iter().chain(in_name) {
        if !candidates.contains(&id) {
            candidates.push(id);
        }
        if candidates.len() == MOST_CANDIDATES {
            break;
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f00112233445566778899aabbccddeeff";
    const OTHER: &str = "a100000000000000000000000000000001";

    fn found(object: &str, hint: Option<&str>) -> Vec<String> {
        let notice = ObjectNotice {
            bucket: "media-eu".parse().unwrap(),
            object: object.parse().unwrap(),
            generation: None,
            hint: hint.map(|hint| hint.parse().unwrap()),
        };
        candidates(&notice).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_upload_is_found_by_its_name_wherever_its_id_stands() {
        for (name, object) in [
            ("alone", ID.to_owned()),
            ("between others", format!("videos/ada/{ID}.mp4")),
            ("behind a digest", format!("{}-{ID}", "0".repeat(64))),
            ("before a digest", format!("{ID}/{}", "0123456789abcdef".repeat(4))),
            ("right behind digits", format!("{}{ID}.mp4", "0123456789abcdef".repeat(4))),
            ("right before digits", format!("{ID}{}", "0123456789abcdef".repeat(4))),
            ("between two digits", format!("a{ID}b")),
            ("in other scripts", format!("ä{ID}ö")),
        ] {
            assert!(found(&object, None).contains(&ID.to_owned()), "{name}");
            assert!(found(&object, Some(OTHER)).contains(&ID.to_owned()), "{name}, under another hint");
        }
        assert_eq!(found("latest/ada", Some(ID)), [ID]);
        assert_eq!(found(&format!("videos/{ID}.mp4"), Some(ID)), [ID], "once");
        for object in ["latest/ada".to_owned(), ID[1..].to_owned(), ID.to_uppercase(), "f".repeat(33)] {
            assert!(found(&object, None).is_empty(), "{object}");
        }
    }

    #[test]
    fn no_name_costs_more_than_a_handful_of_lookups() {
        let digits: String = (0..1024_u32).map(|n| char::from_digit(n * n % 31 % 16, 16).unwrap()).collect();
        let many = (0..29).map(|n| format!("{n:034x}")).collect::<Vec<_>>().join("/");
        for object in [digits, many] {
            assert_eq!(found(&object, None).len(), MOST_CANDIDATES);
        }
    }
}
