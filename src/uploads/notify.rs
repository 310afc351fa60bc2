//! What a storage notification sets off: a look at the upload whose object it names.

use tokio::time::Instant;

use super::complete::Looked;
use super::{Error, Uploads};
use crate::model::id::UploadId;
use crate::model::notice::ObjectNotice;
use crate::model::upload::Witness;
use crate::store::Tracked;

/// How many ids are looked up for one notice. A name has one, and a client's part of it can look like some more.
const MOST_CANDIDATES: usize = 8;

/// What a notice came to. None of this is changed by hearing it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// Storage was asked, and the upload is final now.
    Advanced(Tracked),
    /// The upload had ended before, and stays what it was.
    AlreadyFinal(Tracked),
    /// Storage was asked, and shows no object that ends the upload.
    StillOpen(Tracked),
    /// No upload is known for this object.
    Unknown,
    /// The object is in another bucket than this region's.
    Foreign,
}

impl Uploads {
    /// An object is said to have been made; storage is asked whether that ends an upload.
    ///
    /// The notice only says where to look. Its upload is the one whose record has this bucket and this object; the id in
    /// the name and the hint in the metadata find the record, and prove nothing. Safe to drop and to repeat, in any
    /// order with others.
    ///
    /// # Errors
    /// [`Error::Store`] and [`Error::Storage`] when these fail, [`Error::Contended`] when others were at the upload again
    /// and again: the notice is to be sent once more.
    pub async fn notified(&self, notice: &ObjectNotice, deadline: Instant) -> Result<Noticed, Error> {
        if notice.bucket != self.region.bucket {
            return Ok(Noticed::Foreign);
        }
        let Some(tracked) = self.named_by(notice).await? else { return Ok(Noticed::Unknown) };
        if tracked.upload.state.is_final() {
            return Ok(Noticed::AlreadyFinal(tracked));
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

    /// The upload that is to make this object.
    async fn named_by(&self, notice: &ObjectNotice) -> Result<Option<Tracked>, Error> {
        for id in candidates(notice) {
            let found = self.store.find(id).await?;
            let theirs =
                |tracked: &Tracked| tracked.upload.bucket == notice.bucket && tracked.upload.object == notice.object;
            if let Some(tracked) = found.filter(theirs) {
                return Ok(Some(tracked));
            }
        }
        Ok(None)
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
