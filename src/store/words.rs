//! Shortens texts whose words are known: types, regions, and the addresses that storage gives to sessions.
//!
//! A packed text is the text itself in which one byte stands for a known word. Bytes `80..=BF` cannot begin a UTF-8
//! character, so one of them where a character should begin is a word of [`WORDS`]; bytes `F5..=FF` occur nowhere in
//! UTF-8 and are the words that the caller brings along. Nothing needs escaping, and any text can be packed.

/// Known to all records. Stored records name these by position: append, never change. At most 64.
const WORDS: [&str; 57] = [
    "https://storage.googleapis.com/upload/storage/v1/b/",
    "/o?uploadType=resumable&name=",
    "&ifGenerationMatch=0",
    "&upload_id=",
    "?upload_id=",
    "https://storage.googleapis.com/",
    "https://storage.",
    ".rep.googleapis.com/upload/storage/v1/b/",
    "/upload/storage/v1/b/",
    "/o?uploadType=resumable",
    "&uploadType=resumable",
    "&name=",
    "&ifGenerationMatch=",
    "http://127.0.0.1:",
    "application/octet-stream",
    "application/json",
    "application/pdf",
    "application/zip",
    "application/gzip",
    "application/vnd.openxmlformats-officedocument.",
    "application/",
    "text/plain",
    "text/csv",
    "text/",
    "; charset=utf-8",
    "video/mp4",
    "video/quicktime",
    "video/webm",
    "video/",
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/heic",
    "image/",
    "audio/mpeg",
    "audio/mp4",
    "audio/",
    "europe-",
    "us-",
    "asia-",
    "west",
    "east",
    "north",
    "south",
    "central",
    "?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=",
    ".iam.gserviceaccount.com%2F",
    "%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=",
    "&X-Goog-Expires=",
    "&X-Goog-SignedHeaders=",
    "&X-Goog-Signature=",
    "cache-control%3B",
    "content-md5%3B",
    "content-type%3Bhost%3B",
    "x-goog-content-length-range%3Bx-goog-if-generation-match%3B",
    "x-goog-meta-upload-broker-id",
    "x-goog-meta-",
];

const FIRST_WORD: u8 = 0x80;
const LAST_WORD: u8 = 0xBF;
const FIRST_OWN: u8 = 0xF5;

/// Which of [`WORDS`] begin with a byte, one bit each. At most places in a text none does, and nothing is compared.
const BEGINNING_WITH: [u64; 256] = {
    let mut words = [0; 256];
    let mut position = 0;
    while position < WORDS.len() {
        words[WORDS[position].as_bytes()[0] as usize] |= 1 << position;
        position += 1;
    }
    words
};

/// The known words that begin with `byte`, with their codes.
fn beginning_with<'a>(byte: u8) -> impl Iterator<Item = (u8, &'a str)> {
    let mut left = BEGINNING_WITH[usize::from(byte)];
    std::iter::from_fn(move || {
        let position = left.checked_ilog2()?;
        left ^= 1 << position;
        let word: &'a str = WORDS.get(position as usize)?;
        Some((FIRST_WORD + u8::try_from(position).ok()?, word))
    })
}

/// Packs `text`. Of `own`, the first eleven are used; [`unpack`] wants the same ones. Empty words are never used.
pub(super) fn pack(text: &str, own: &[&str]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let word = (FIRST_OWN..=u8::MAX)
            .zip(own.iter().copied())
            .chain(beginning_with(rest.as_bytes()[0]))
            .filter(|(_, word)| !word.is_empty() && rest.starts_with(word))
            .max_by_key(|(_, word)| word.len());
        let taken = if let Some((code, word)) = word {
            packed.push(code);
            word.len()
        } else {
            packed.extend_from_slice(&rest.as_bytes()[..character.len_utf8()]);
            character.len_utf8()
        };
        rest = &rest[taken..];
    }
    packed
}

/// What was packed, or `None` if it was not packed by [`pack`].
pub(super) fn unpack(mut packed: &[u8], own: &[&str]) -> Option<String> {
    let mut text = Vec::with_capacity(packed.len() * 2);
    while let Some((&first, rest)) = packed.split_first() {
        let literal = match first {
            0..=0x7F => 1,
            FIRST_WORD..=LAST_WORD => {
                text.extend_from_slice(WORDS.get(usize::from(first - FIRST_WORD))?.as_bytes());
                packed = rest;
                continue;
            }
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            FIRST_OWN..=u8::MAX => {
                text.extend_from_slice(own.get(usize::from(first - FIRST_OWN))?.as_bytes());
                packed = rest;
                continue;
            }
        };
        text.extend_from_slice(packed.get(..literal)?);
        packed = &packed[literal..];
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_words_take_a_byte() {
        for (text, own, length) in [
            ("application/octet-stream", &[][..], 1),
            ("europe-west1", &[], 3),
            ("videos/u-17/abc.mp4", &["abc"], 17),
            ("https://storage.googleapis.com/upload/storage/v1/b/media/o?uploadType=resumable&name=x", &["media"], 4),
            ("Größe ☀ 𝄞", &["ö"], 15),
            ("", &["", "a"], 0),
        ] {
            let packed = pack(text, own);
            assert_eq!(packed.len(), length, "{text}");
            assert_eq!(unpack(&packed, own).as_deref(), Some(text));
        }
    }

    /// Records outlive releases: what is added to the table must leave the checksum of its beginning as it is.
    #[test]
    fn words_keep_their_places() {
        assert_eq!(crc32c::crc32c(WORDS[..45].join(" ").as_bytes()), 1_961_446_862);
    }

    #[test]
    fn what_was_never_packed_is_refused() {
        for (name, packed) in [
            ("a word that is not known", &[LAST_WORD][..]),
            ("an own word that is not given", &[FIRST_OWN + 1]),
            ("half a character", &[0xE2, 0x98]),
            ("no UTF-8", &[0xC2, 0x41]),
        ] {
            assert_eq!(unpack(packed, &["own"]), None, "{name}");
        }
        assert!(WORDS.len() <= usize::from(LAST_WORD - FIRST_WORD) + 1);
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in ".{0,80}", own in proptest::collection::vec(".{0,3}", 0..14)) {
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            prop_assert_eq!(unpack(&pack(&text, &own), &own), Some(text));
        }

        #[test]
        fn any_bytes_unpack_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = unpack(&bytes, &["own"]);
        }
    }
}
