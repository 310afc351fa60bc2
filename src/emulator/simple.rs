//! Uploads in one request, which Google's clients use for small files: `uploadType=media` and `multipart` (storage
//! documentation, "Uploads and downloads").

use serde_json::Map;

use super::content::Content;
use super::http::{Call, Failure, Piece, selected};
use super::insertion::{Digests, Insertion};
use super::problem::{Answer, Problem};
use super::upload::{NO_BUCKET, insert};
use crate::model::size::ByteCount;

/// How much may stand before the bytes of a multipart upload: boundaries, headers and the resource.
const HEAD_BYTES: usize = 64 * 1024;

/// Makes an object of a single request. Nothing is kept of one that does not arrive whole.
pub(super) async fn upload(call: &mut Call<'_>, bucket: &str) -> Result<Answer, Failure> {
    call.authorize()?;
    call.permit(bucket, "storage.objects.create")?;
    if !call.is_delimited() {
        return Err(Problem::length_required().into());
    }
    if call.world.objects.bucket(bucket).is_none() {
        return Err(Problem::not_found(NO_BUCKET).into());
    }
    let claimed = Digests::of_headers(&call.head.headers)?;
    let mut content = Content::empty(&call.world.memory);
    let insertion = match call.query.get("uploadType") {
        Some("media") => {
            let media_type = call.header("content-type").map(str::to_owned);
            let insertion = Insertion::new(&call.query, &Map::new(), media_type.as_deref())?;
            while let Some(data) = next(call, content.size()).await? {
                content.append(&data);
            }
            insertion
        }
        Some("multipart") => {
            let boundary = call.header("content-type").and_then(boundary);
            let boundary = boundary.ok_or_else(|| Problem::invalid("The request has no multipart boundary."))?;
            let mut parts = Multipart::new(&boundary);
            while let Some(data) = next(call, content.size()).await? {
                parts.push(&data, &mut |media| content.append(media)).map_err(|Malformed| malformed())?;
            }
            let (resource, media_type) = parts.finish().ok_or_else(malformed)?;
            let resource = if resource.trim_ascii().is_empty() {
                Map::new()
            } else {
                serde_json::from_slice(&resource).map_err(|_| Problem::bad_json())?
            };
            Insertion::new(&call.query, &resource, media_type.as_deref())?
        }
        Some(_) => return Err(Problem::invalid("Invalid value for uploadType.").into()),
        None => return Err(Problem::required("Required parameter: uploadType").into()),
    };
    let sealed = content.seal();
    claimed.check(&sealed)?;
    insertion.digests.check(&sealed)?;
    let object = insert(call, bucket, &insertion, insertion.attributes.clone(), sealed)?;
    Ok(selected(call, object.resource(&call.base()))?)
}

async fn next(call: &mut Call<'_>, size: u64) -> Result<Option<hyper::body::Bytes>, Failure> {
    match call.next().await {
        Piece::Data(data) if size + data.len() as u64 > ByteCount::LARGEST_OBJECT.0 => {
            Err(Problem::too_large("An object has at most 5 TiB.").into())
        }
        Piece::Data(data) => Ok(Some(data)),
        Piece::End => Ok(None),
        Piece::Cut => Err(Failure::Cut),
    }
}

fn malformed() -> Problem {
    Problem::invalid("The body is not a multipart upload of a resource and the bytes.")
}

/// The `boundary` of a `multipart/related` media type (RFC 2046, section 5.1.1).
fn boundary(content_type: &str) -> Option<String> {
    let mut parameters = content_type.split(';');
    parameters.next().filter(|essence| essence.trim().eq_ignore_ascii_case("multipart/related"))?;
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then_some(value)
    })?;
    let value = value.trim_matches('"');
    (1..=70).contains(&value.len()).then(|| value.to_owned())
}

struct Malformed;

/// Takes a multipart body apart as it comes: only the resource is gathered, the bytes are passed on.
struct Multipart {
    delimiter: Vec<u8>,
    buffer: Vec<u8>,
    stage: Stage,
}

enum Stage {
    /// Up to the second part's headers.
    Head,
    Media {
        resource: Vec<u8>,
        media_type: Option<String>,
    },
    /// Behind the last boundary; what follows is ignored.
    Done {
        resource: Vec<u8>,
        media_type: Option<String>,
    },
}

impl Multipart {
    fn new(boundary: &str) -> Self {
        // With a line break put in front, the first boundary looks like all others.
        Self { delimiter: format!("\r\n--{boundary}").into_bytes(), buffer: b"\r\n".to_vec(), stage: Stage::Head }
    }

    fn push(&mut self, data: &[u8], media: &mut impl FnMut(&[u8])) -> Result<(), Malformed> {
        if matches!(self.stage, Stage::Done { .. }) {
            return Ok(());
        }
        self.buffer.extend_from_slice(data);
        if matches!(self.stage, Stage::Head) {
            match self.head() {
                Some((resource, media_type, begin)) => {
                    self.buffer.drain(..begin);
                    self.stage = Stage::Media { resource, media_type };
                }
                None if self.buffer.len() > HEAD_BYTES => return Err(Malformed),
                None => return Ok(()),
            }
        }
        if let Some(end) = find(&self.buffer, &self.delimiter) {
            media(&self.buffer[..end]);
            self.buffer.clear();
            let done = match std::mem::replace(&mut self.stage, Stage::Head) {
                Stage::Media { resource, media_type } | Stage::Done { resource, media_type } => (resource, media_type),
                Stage::Head => return Err(Malformed),
            };
            self.stage = Stage::Done { resource: done.0, media_type: done.1 };
        } else {
            // The last bytes may be the beginning of the boundary.
            let sure = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            media(&self.buffer[..sure]);
            self.buffer.drain(..sure);
        }
        Ok(())
    }

    /// The resource, the media type of the bytes, and where these begin, as soon as all of that is there.
    fn head(&self) -> Option<(Vec<u8>, Option<String>, usize)> {
        let part = |from: usize| {
            let boundary = from + find(&self.buffer[from..], &self.delimiter)?;
            let headers = boundary + self.delimiter.len();
            let end = headers + find(&self.buffer[headers..], b"\r\n\r\n")?;
            Some((boundary, headers, end))
        };
        let (_, _, headers_end) = part(0)?;
        // The blank line's second break may belong to the boundary that follows an empty resource.
        let (resource_end, headers, media) = part(headers_end + 2)?;
        let resource = self.buffer.get(headers_end + 4..resource_end).unwrap_or_default().to_vec();
        let headers = String::from_utf8_lossy(&self.buffer[headers..media]);
        let media_type = headers.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
        });
        // An empty object's boundary shares the line break that ends the headers.
        Some((resource, media_type, media + 4))
    }

    fn finish(self) -> Option<(Vec<u8>, Option<String>)> {
        match self.stage {
            Stage::Done { resource, media_type } => Some((resource, media_type)),
            Stage::Head | Stage::Media { .. } => None,
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_apart(body: &str, step: usize) -> Option<(String, Option<String>, String)> {
        let mut parts = Multipart::new("b");
        let mut media = Vec::new();
        for data in body.as_bytes().chunks(step) {
            parts.push(data, &mut |bytes| media.extend_from_slice(bytes)).ok()?;
        }
        let (resource, media_type) = parts.finish()?;
        Some((String::from_utf8(resource).unwrap(), media_type, String::from_utf8(media).unwrap()))
    }

    #[test]
    fn a_multipart_body_is_taken_apart_however_it_is_cut() {
        let typed = "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\ncontent-type: text/plain\r\n\r\n";
        for (name, body, expected) in [
            ("usual", format!("{typed}hello\r\n--b--\r\n"), Some(("{}", Some("text/plain"), "hello"))),
            ("nothing behind", format!("{typed}hello\r\n--b--"), Some(("{}", Some("text/plain"), "hello"))),
            ("empty", format!("{typed}\r\n--b--"), Some(("{}", Some("text/plain"), ""))),
            (
                "near boundary",
                format!("{typed}\r\n--\r\n--a\r\n--b--"),
                Some(("{}", Some("text/plain"), "\r\n--\r\n--a")),
            ),
            ("no types", "--b\r\n\r\n{}\r\n--b\r\n\r\nx\r\n--b--".to_owned(), Some(("{}", None, "x"))),
            ("cut short", format!("{typed}hello\r\n--"), None),
            ("no bytes", "--b\r\n\r\n{}\r\n--b--".to_owned(), None),
            ("other boundary", typed.replace("--b", "--c"), None),
        ] {
            for step in [1, 2, 3, 7, 1000] {
                let expected = expected
                    .map(|(resource, kind, media)| (resource.to_owned(), kind.map(str::to_owned), media.to_owned()));
                assert_eq!(take_apart(&body, step), expected, "{name}, {step} bytes at a time");
            }
        }
        assert!(take_apart(&format!("--b\r\n{}", "x".repeat(HEAD_BYTES)), 1000).is_none(), "an endless head");
    }

    #[test]
    fn a_boundary_is_found_in_the_media_type() {
        for (content_type, expected) in [
            ("multipart/related; boundary=abc", Some("abc")),
            ("Multipart/Related;Boundary=\"a b\"; type=x", Some("a b")),
            ("multipart/form-data; boundary=abc", None),
            ("multipart/related", None),
            ("multipart/related; boundary=", None),
        ] {
            assert_eq!(boundary(content_type).as_deref(), expected, "{content_type}");
        }
    }
}
