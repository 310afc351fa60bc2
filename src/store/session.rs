//! The short form of a session URI, before it is sealed.
//!
//! Storage repeats in the URI what the record says already: bucket, object, preconditions. Those become single bytes,
//! and an `upload_id` at the end, which is base64url, becomes the bytes that it stands for; so does the signature at the
//! end of a signed URL, which is hexadecimal. The URI is opaque all the same: whatever does not expand to exactly the
//! given text is kept as it is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::model::secret::SessionUri;
use crate::model::upload::Upload;

use super::words;

/// The first byte: the URI as given.
const PLAIN: u8 = 0;
/// The first byte: a packed text, to its end.
const PACKED: u8 = 1;
/// The first byte: two bytes with the length of a packed text, the text, and then decoded hexadecimal.
const SIGNED: u8 = 255;
/// From here to [`SIGNED`], the first byte less this is the length of a packed text, which decoded base64url follows.
const DECODED: u8 = 2;

const SECRET_NAME: &str = "upload_id=";
const SIGNATURE_NAME: &str = "&X-Goog-Signature=";

/// The shortest form of `session`.
pub(super) fn shorten(session: &SessionUri, upload: &Upload) -> Zeroizing<Vec<u8>> {
    let uri = session.expose();
    let words = OwnWords::of(upload);
    let expands = |short: &Zeroizing<Vec<u8>>| text(short, &words).is_some_and(|text| *text == uri);
    decoded(uri, &words)
        .or_else(|| signed(uri, &words))
        .filter(expands)
        .or_else(|| Some(packed(uri, &words)).filter(expands))
        .unwrap_or_else(|| plain(uri))
}

/// The session that was shortened, or `None` if none was.
pub(super) fn expand(short: &[u8], upload: &Upload) -> Option<SessionUri> {
    SessionUri::parse(&text(short, &OwnWords::of(upload))?).ok()
}

/// The text of the session that was shortened.
fn text(short: &[u8], words: &OwnWords<'_>) -> Option<Zeroizing<String>> {
    let (&form, rest) = short.split_first()?;
    let text = match form {
        PLAIN => String::from_utf8(rest.to_vec()).ok()?,
        PACKED => words.unpack(rest)?,
        SIGNED => {
            let (length, rest) = rest.split_first_chunk()?;
            let (head, signature) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let mut text = words.unpack(head)?;
            text.extend(signature.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(lower_case_digit));
            text
        }
        DECODED.. => {
            let (head, secret) = rest.split_at_checked(usize::from(form - DECODED))?;
            let mut text = words.unpack(head)?;
            URL_SAFE_NO_PAD.encode_string(secret, &mut text);
            text
        }
    };
    Some(Zeroizing::new(text))
}

fn plain(uri: &str) -> Zeroizing<Vec<u8>> {
    let mut short = Zeroizing::new(vec![PLAIN]);
    short.extend_from_slice(uri.as_bytes());
    short
}

fn packed(uri: &str, words: &OwnWords<'_>) -> Zeroizing<Vec<u8>> {
    let mut short = Zeroizing::new(vec![PACKED]);
    short.extend_from_slice(&words.pack(uri));
    short
}

fn decoded(uri: &str, words: &OwnWords<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let secret_at = uri.rfind(SECRET_NAME)? + SECRET_NAME.len();
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(&uri[secret_at..]).ok()?);
    let head = words.pack(&uri[..secret_at]);
    let form = u8::try_from(head.len()).ok()?.checked_add(DECODED).filter(|form| *form != SIGNED)?;
    let mut short = Zeroizing::new(vec![form]);
    short.extend_from_slice(&head);
    short.extend_from_slice(&secret);
    Some(short)
}

fn signed(uri: &str, words: &OwnWords<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let signature_at = uri.rfind(SIGNATURE_NAME)? + SIGNATURE_NAME.len();
    let (head, signature) = uri.split_at_checked(signature_at)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = signature.as_bytes().as_chunks::<2>();
    let decoded: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    let decoded = Zeroizing::new(decoded.filter(|_| rest.is_empty())?);
    let head = words.pack(head);
    let mut short = Zeroizing::new(vec![SIGNED]);
    short.extend_from_slice(&u16::try_from(head.len()).ok()?.to_be_bytes());
    short.extend_from_slice(&head);
    short.extend_from_slice(&decoded);
    Some(short)
}

fn lower_case_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

/// What of an upload occurs in URIs.
struct OwnWords<'a> {
    upload: &'a Upload,
    encoded_object: String,
    id: String,
}

impl<'a> OwnWords<'a> {
    fn of(upload: &'a Upload) -> Self {
        Self { upload, encoded_object: percent_encoded(upload.object.as_str()), id: upload.id.to_string() }
    }

    fn pack(&self, uri: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(words::pack(uri, &self.list()))
    }

    fn unpack(&self, packed: &[u8]) -> Option<String> {
        words::unpack(packed, &self.list())
    }

    /// Stored records name these by position: append, never change.
    fn list(&self) -> [&str; 4] {
        [&self.encoded_object, self.upload.object.as_str(), self.upload.bucket.as_str(), &self.id]
    }
}

/// As a query has it (RFC 3986, section 2.3): everything but unreserved characters as `%XX`.
fn percent_encoded(text: &str) -> String {
    let digit = |nibble| lower_case_digit(nibble).to_ascii_uppercase();
    text.bytes().fold(String::with_capacity(text.len() + 16), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::tests::upload;
    use super::*;

    #[test]
    fn a_session_of_storage_becomes_little_more_than_its_secret() {
        let upload = upload();
        let encoded = percent_encoded(upload.object.as_str());
        let secret = "AHmUCY3s".repeat(22) + "ABPn";
        let base = format!("https://storage.googleapis.com/upload/storage/v1/b/{}/o", upload.bucket);
        let object = &upload.object;
        for (name, uri, length) in [
            (
                "as storage writes it",
                format!("{base}?uploadType=resumable&name={encoded}&ifGenerationMatch=0&upload_id={secret}"),
                142,
            ),
            ("in another order", format!("{base}?name={encoded}&uploadType=resumable&upload_id={secret}"), 150),
            (
                "by the XML interface",
                format!("https://storage.googleapis.com/media-eu/{object}?upload_id={secret}"),
                141,
            ),
            ("with another end", format!("{base}?upload_id={secret}&x=1"), 200),
            ("not canonical", format!("{base}?upload_id=AAB"), 30),
            ("an odd length", format!("{base}?upload_id=AAAAA"), 30),
            ("empty", format!("{base}?upload_id="), 20),
            ("of another host", "http://127.0.0.1:9023/b/x?upload_id=0123".to_owned(), 40),
            ("of another form", format!("https://s.example/{}", "%C3%a9".repeat(700)), 4_300),
        ] {
            let session = SessionUri::parse(&uri).unwrap();
            let short = shorten(&session, &upload);
            assert!(short.len() <= length, "{name}: {} bytes", short.len());
            assert!(expand(&short, &upload) == Some(session), "{name}");
        }
    }

    #[test]
    fn a_signed_url_becomes_little_more_than_its_signature() {
        let upload = upload();
        let head = format!(
            "https://storage.googleapis.com/{}/{}?X-Goog-Algorithm=GOOG4-RSA-SHA256\
             &X-Goog-Credential=broker%40acme.iam.gserviceaccount.com%2F20261122%2Fauto%2Fstorage%2Fgoog4_request\
             &X-Goog-Date=20261122T100000Z&X-Goog-Expires=900&X-Goog-SignedHeaders=content-type%3Bhost%3B\
             x-goog-content-length-range%3Bx-goog-if-generation-match%3Bx-goog-meta-upload-broker-id&X-Goog-Signature=",
            upload.bucket, upload.object
        );
        for (name, signature, length) in [
            ("2048 bits", "0f".repeat(256), 330),
            ("upper case, which is not how storage has it", "0F".repeat(256), 600),
            ("an odd length", "0f0".to_owned(), 90),
            ("none", String::new(), 90),
        ] {
            let session = SessionUri::parse(&format!("{head}{signature}")).unwrap();
            let short = shorten(&session, &upload);
            assert!(short.len() <= length, "{name}: {} bytes", short.len());
            assert!(expand(&short, &upload) == Some(session), "{name}");
        }
    }

    /// Records outlive releases: these bytes must stay readable.
    #[test]
    fn what_was_shortened_stays_readable() {
        let upload = upload();
        let encoded = percent_encoded(upload.object.as_str());
        let base = "https://storage.googleapis.com/upload/storage/v1/b/media-eu/o?uploadType=resumable";
        let session = SessionUri::parse(&format!("{base}&name={encoded}&ifGenerationMatch=0&upload_id=AAEC")).unwrap();
        let short = [8, 0x80, 0xF7, 0x81, 0xF5, 0x82, 0x83, 0, 1, 2];
        assert_eq!(*shorten(&session, &upload), short);
        assert!(expand(&short, &upload) == Some(session));
    }

    proptest! {
        #[test]
        fn any_session_reads_back(tail in "[!-~]{0,400}") {
            let text = format!("https://storage.googleapis.com/upload?{}", tail.replace('#', ""));
            let session = SessionUri::parse(&text).unwrap();
            let short = shorten(&session, &upload());
            prop_assert!(expand(&short, &upload()) == Some(session));
        }

        #[test]
        fn any_bytes_expand_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = expand(&bytes, &upload());
        }
    }
}
