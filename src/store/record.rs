//! The stored form of an upload: packed, versioned, and without what its key says already.
//!
//! A header of fixed layout, which scripts read, and a body, which only this module reads. Numbers in the header are
//! big-endian. Every version keeps the header.
//!
//! | bytes | header |
//! |---|---|
//! | 0 | the version, [`VERSION`] |
//! | 1 | the code of the state |
//! | 2..6 | the revision: one more at each change |
//! | 6..12 | when the upload expires, ms |
//! | 12..18 | when the lease ends, ms: only while the state is `admitted` |
//!
//! The body has whole numbers in seven-bit groups, the lowest first, and texts behind their length.

use std::collections::BTreeMap;

use crate::model::digest::{Crc32c, Md5};
use crate::model::id::UploadId;
use crate::model::name::PolicyName;
use crate::model::principal::PrincipalId;
use crate::model::size::ByteCount;
use crate::model::time::Timestamp;
use crate::model::upload::{
    Attributes, Breach, BreachCode, Overwrite, Promise, PromisedSize, StoredObject, TransferKind, Upload, UploadState,
    Witness,
};

use super::Revision;
use super::error::Error;
use super::words;

/// What this version writes. It reads this one and all before it.
const VERSION: u8 = 1;

/// The largest instant and size that fit a header or a ledger: 48 bits, which is the year 10889 and 256 TiB.
pub(super) const LARGEST: u64 = (1 << 48) - 1;

/// `at` as headers and ledgers have it. What lies before 1970 or after 10889 is cut off.
pub(super) fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0).min(LARGEST)
}

/// What a record says, the session still sealed.
pub(super) struct Record<'a> {
    pub(super) upload: Upload,
    pub(super) revision: Revision,
    pub(super) sealed: Option<&'a [u8]>,
}

const HAS_MD5: u8 = 1;
const HAS_CRC32C: u8 = 2;
const SIZE_DECLARED: u8 = 4;
const HAS_SESSION: u8 = 8;
const TRANSFER_SHIFT: u8 = 4;
const TRANSFER_MASK: u8 = 3;
const HAS_ATTRIBUTES: u8 = 0x40;
const OVERWRITES: u8 = 0x80;

/// The codes that scripts know: see `lua/*.lua`.
const fn state_code(state: &UploadState) -> u8 {
    match state {
        UploadState::Admitted { .. } => 0,
        UploadState::Pending => 1,
        UploadState::Uploading { .. } => 2,
        UploadState::Completed { .. } => 3,
        UploadState::Rejected { .. } => 4,
        UploadState::Cancelled { .. } => 5,
        UploadState::Expired { .. } => 6,
    }
}

/// Writes the record of `upload`.
pub(super) fn encode(upload: &Upload, revision: Revision, sealed: Option<&[u8]>) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(160 + sealed.map_or(0, <[u8]>::len)));
    out.0.extend([VERSION, state_code(&upload.state)]);
    out.0.extend(revision.0.to_be_bytes());
    out.instant(upload.expires_at);
    if let UploadState::Admitted { lease_until } = &upload.state {
        out.instant(*lease_until);
    }

    let Promise { content_type, size, md5, crc32c } = &upload.promise;
    let transfer = match upload.transfer {
        TransferKind::Resumable => 0,
        TransferKind::Simple => 1,
        TransferKind::SignedResumable => 2,
    };
    let Attributes { metadata, cache_control, overwrite } = &upload.attributes;
    let has_attributes = !metadata.is_empty() || cache_control.is_some();
    let flag = |set: bool, flag| if set { flag } else { 0 };
    out.0.push(
        flag(md5.is_some(), HAS_MD5)
            | flag(crc32c.is_some(), HAS_CRC32C)
            | flag(size.declared().is_some(), SIZE_DECLARED)
            | flag(sealed.is_some(), HAS_SESSION)
            | flag(has_attributes, HAS_ATTRIBUTES)
            | flag(*overwrite == Overwrite::Allowed, OVERWRITES)
            | transfer << TRANSFER_SHIFT,
    );
    out.0.extend(&upload.principal.0[1..]);
    let id = upload.id.to_string();
    out.text(upload.policy.as_str(), &[]);
    out.text(upload.region.as_str(), &[]);
    out.text(upload.bucket.as_str(), &[]);
    // Most templates begin with something like the policy's name.
    out.text(upload.object.as_str(), &[&id, upload.policy.as_str()]);
    out.text(content_type.as_str(), &[]);
    out.number(size.reserve().0);
    if let PromisedSize::Between { least, .. } = size {
        out.number(least.0);
    }
    out.lifetime(millis(upload.expires_at).saturating_sub(millis(upload.created_at)));
    if let Some(Md5(digest)) = md5 {
        out.0.extend(digest);
    }
    if let Some(Crc32c(checksum)) = crc32c {
        out.0.extend(checksum.to_be_bytes());
    }
    if has_attributes {
        // A header's value is never empty, so an empty one stands for none.
        out.text(cache_control.as_deref().unwrap_or_default(), &[]);
        out.number(metadata.len() as u64);
        for (key, value) in metadata {
            out.text(key, &[]);
            out.text(value, &[]);
        }
    }
    out.state(&upload.state);
    if let Some(sealed) = sealed {
        out.0.extend(sealed);
    }
    out.0
}

/// Reads the record of the upload `id`.
pub(super) fn decode(id: UploadId, bytes: &[u8]) -> Result<Record<'_>, Error> {
    let corrupt = |what| Error::Corrupt { id, what };
    match bytes.first() {
        Some(&VERSION) => decode_v1(id, bytes).ok_or(corrupt("its record is not in the form of its version")),
        Some(_) => Err(corrupt("its record is of a version that this one does not know")),
        None => Err(corrupt("its record is empty")),
    }
}

fn decode_v1(id: UploadId, bytes: &[u8]) -> Option<Record<'_>> {
    let mut input = Reader(bytes.get(1..)?);
    let code = input.byte()?;
    let revision = Revision(u32::from_be_bytes(input.array()?));
    let expires_at = input.instant()?;
    let lease_until = if code == 0 { Some(input.instant()?) } else { None };

    let flags = input.byte()?;
    let has = |flag| flags & flag != 0;
    let transfer = match flags >> TRANSFER_SHIFT & TRANSFER_MASK {
        0 => TransferKind::Resumable,
        1 => TransferKind::Simple,
        2 => TransferKind::SignedResumable,
        _ => return None,
    };
    let mut principal = [id.partition().0; 16];
    principal[1..].copy_from_slice(&input.array::<15>()?);
    let policy: PolicyName = input.text(&[])?.parse().ok()?;
    let region = input.text(&[])?.parse().ok()?;
    let bucket = input.text(&[])?.parse().ok()?;
    let object = input.text(&[&id.to_string(), policy.as_str()])?.parse().ok()?;
    let content_type = input.text(&[])?.parse().ok()?;
    let size = ByteCount(input.number()?);
    let size = if has(SIZE_DECLARED) {
        PromisedSize::Exactly(size)
    } else {
        PromisedSize::Between { least: ByteCount(input.number()?), most: size }
    };
    let lifetime = input.lifetime()?;
    let created_at = i64::try_from(millis(expires_at).checked_sub(lifetime)?).ok()?;
    let md5 = if has(HAS_MD5) { Some(Md5(input.array()?)) } else { None };
    let crc32c = if has(HAS_CRC32C) { Some(Crc32c(u32::from_be_bytes(input.array()?))) } else { None };
    let mut attributes = if has(HAS_ATTRIBUTES) { input.attributes()? } else { Attributes::default() };
    if has(OVERWRITES) {
        attributes.overwrite = Overwrite::Allowed;
    }
    let state = input.state(code, lease_until)?;
    let sealed = has(HAS_SESSION).then_some(input.0);
    if sealed.is_none() && !input.0.is_empty() {
        return None;
    }
    let upload = Upload {
        id,
        principal: PrincipalId(principal),
        policy,
        region,
        bucket,
        object,
        promise: Promise { content_type, size, md5, crc32c },
        attributes,
        transfer,
        created_at: Timestamp::from_millis(created_at),
        expires_at,
        state,
    };
    Some(Record { upload, revision, sealed })
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number > 0x7F {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    /// Milliseconds: mostly whole seconds, which an even number stands for.
    fn lifetime(&mut self, millis: u64) {
        self.number(if millis.is_multiple_of(1000) { millis / 1000 * 2 } else { millis * 2 + 1 });
    }

    fn instant(&mut self, at: Timestamp) {
        self.0.extend(&millis(at).to_be_bytes()[2..]);
    }

    fn text(&mut self, text: &str, own: &[&str]) {
        let packed = words::pack(text, own);
        self.number(packed.len() as u64);
        self.0.extend(packed);
    }

    fn state(&mut self, state: &UploadState) {
        match state {
            // The header has the lease.
            UploadState::Admitted { .. } | UploadState::Pending => {}
            UploadState::Uploading { received } => self.number(received.0),
            UploadState::Completed { object, at, witness } => {
                self.instant(*at);
                self.0.push(match witness {
                    Witness::Notification => 0,
                    Witness::Client => 1,
                    Witness::Sweep => 2,
                });
                self.0.extend(object.generation.to_be_bytes());
                self.number(object.size.0);
                // A media type is never empty, so an empty one stands for none.
                self.text(object.content_type.as_ref().map_or("", |content_type| content_type.as_str()), &[]);
                self.0.push(u8::from(object.md5.is_some()) | u8::from(object.crc32c.is_some()) << 1);
                self.0.extend(object.md5.iter().flat_map(|md5| md5.0));
                self.0.extend(object.crc32c.iter().flat_map(|crc32c| crc32c.0.to_be_bytes()));
            }
            UploadState::Rejected { breach, received, at } => {
                self.instant(*at);
                self.number(received.0);
                self.0.push(match breach.code {
                    BreachCode::SizeMismatch => 0,
                    BreachCode::SizeLimit => 1,
                    BreachCode::DigestMismatch => 2,
                    BreachCode::ContentTypeMismatch => 3,
                });
                self.text(&breach.detail, &[]);
            }
            UploadState::Cancelled { received, at } | UploadState::Expired { received, at } => {
                self.instant(*at);
                self.number(received.0);
            }
        }
    }
}

/// Reads from the front; `None` when there is not enough, or not what should be there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7F);
            if group << shift >> shift != group {
                return None;
            }
            number |= group << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn lifetime(&mut self) -> Option<u64> {
        let number = self.number()?;
        if number % 2 == 0 { (number / 2).checked_mul(1000) } else { Some(number / 2) }
    }

    fn instant(&mut self) -> Option<Timestamp> {
        let bytes = self.array::<6>()?;
        let millis = bytes.iter().fold(0_i64, |millis, byte| millis << 8 | i64::from(*byte));
        Some(Timestamp::from_millis(millis))
    }

    fn text(&mut self, own: &[&str]) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        words::unpack(self.take(length)?, own)
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let cache_control = Some(self.text(&[])?).filter(|text| !text.is_empty());
        let mut metadata = BTreeMap::new();
        for _ in 0..self.number()? {
            metadata.insert(self.text(&[])?, self.text(&[])?);
        }
        Some(Attributes { metadata, cache_control, overwrite: Overwrite::Forbidden })
    }

    fn state(&mut self, code: u8, lease_until: Option<Timestamp>) -> Option<UploadState> {
        match (code, lease_until) {
            (0, Some(lease_until)) => Some(UploadState::Admitted { lease_until }),
            (1, None) => Some(UploadState::Pending),
            (2, None) => Some(UploadState::Uploading { received: ByteCount(self.number()?) }),
            (3, None) => {
                let at = self.instant()?;
                let witness = match self.byte()? {
                    0 => Witness::Notification,
                    1 => Witness::Client,
                    2 => Witness::Sweep,
                    _ => return None,
                };
                Some(UploadState::Completed { object: self.object()?, at, witness })
            }
            (4, None) => {
                let (at, received) = (self.instant()?, ByteCount(self.number()?));
                let code = match self.byte()? {
                    0 => BreachCode::SizeMismatch,
                    1 => BreachCode::SizeLimit,
                    2 => BreachCode::DigestMismatch,
                    3 => BreachCode::ContentTypeMismatch,
                    _ => return None,
                };
                let breach = Breach { code, detail: self.text(&[])? };
                Some(UploadState::Rejected { breach, received, at })
            }
            (5, None) => Some(UploadState::Cancelled { at: self.instant()?, received: ByteCount(self.number()?) }),
            (6, None) => Some(UploadState::Expired { at: self.instant()?, received: ByteCount(self.number()?) }),
            _ => None,
        }
    }

    fn object(&mut self) -> Option<StoredObject> {
        let generation = i64::from_be_bytes(self.array()?);
        let size = ByteCount(self.number()?);
        let content_type = match self.text(&[])?.as_str() {
            "" => None,
            text => Some(text.parse().ok()?),
        };
        let digests = self.byte()?;
        if digests > 3 {
            return None;
        }
        let md5 = if digests & 1 == 1 { Some(Md5(self.array()?)) } else { None };
        let crc32c = if digests & 2 == 2 { Some(Crc32c(u32::from_be_bytes(self.array()?))) } else { None };
        Some(StoredObject { generation, size, content_type, md5, crc32c })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use crate::model::id::Partition;

    use super::*;

    /// An upload such as they mostly are.
    pub(in super::super) fn upload() -> Upload {
        let id = UploadId::new(Partition(0x3F), *b"0123456789abcdef");
        Upload {
            id,
            principal: PrincipalId([0x3F; 16]),
            policy: "videos".parse().unwrap(),
            region: "europe-west1".parse().unwrap(),
            bucket: "media-eu".parse().unwrap(),
            object: format!("videos/u-17/{id}.mp4").parse().unwrap(),
            promise: Promise {
                content_type: "video/mp4".parse().unwrap(),
                size: PromisedSize::Exactly(ByteCount(73_400_320)),
                md5: None,
                crc32c: Some(Crc32c(0xE306_9283)),
            },
            attributes: Attributes::default(),
            transfer: TransferKind::Resumable,
            created_at: Timestamp::from_millis(1_763_805_600_120),
            expires_at: Timestamp::from_millis(1_763_892_000_120),
            state: UploadState::Pending,
        }
    }

    fn states() -> Vec<UploadState> {
        let at = Timestamp::from_millis(1_763_805_700_001);
        let received = ByteCount(u64::MAX);
        let object = StoredObject {
            generation: 1_763_805_600_120_000,
            size: ByteCount(5 << 40),
            content_type: Some("video/mp4".parse().unwrap()),
            md5: Some(Md5([7; 16])),
            crc32c: Some(Crc32c(7)),
        };
        let bare = StoredObject { generation: -1, content_type: None, md5: None, crc32c: None, ..object.clone() };
        let breach = |code| Breach { code, detail: "4 bytes arrived, where 3 were declared ☀".to_owned() };
        let rejected = |code| UploadState::Rejected { breach: breach(code), received, at };
        vec![
            UploadState::Admitted { lease_until: at },
            UploadState::Pending,
            UploadState::Uploading { received },
            UploadState::Completed { object: object.clone(), at, witness: Witness::Notification },
            UploadState::Completed { object, at, witness: Witness::Client },
            UploadState::Completed { object: bare, at, witness: Witness::Sweep },
            rejected(BreachCode::SizeMismatch),
            rejected(BreachCode::SizeLimit),
            rejected(BreachCode::DigestMismatch),
            rejected(BreachCode::ContentTypeMismatch),
            UploadState::Cancelled { received: ByteCount(0), at },
            UploadState::Expired { received, at },
        ]
    }

    fn attributes() -> Attributes {
        let entry = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Attributes {
            metadata: [("album", "summer ☀"), ("source", ""), ("type", "video/mp4")].map(entry).into(),
            cache_control: Some("private, max-age=60".to_owned()),
            overwrite: Overwrite::Allowed,
        }
    }

    fn all() -> Vec<Upload> {
        const FRACTION: std::time::Duration = std::time::Duration::from_millis(1);
        let variants = [
            upload(),
            Upload { transfer: TransferKind::Simple, expires_at: upload().expires_at.plus(FRACTION), ..upload() },
            Upload { transfer: TransferKind::SignedResumable, object: "Größe/☀".parse().unwrap(), ..upload() },
            Upload {
                promise: Promise {
                    content_type: "text/plain; charset=utf-8".parse().unwrap(),
                    size: PromisedSize::Between { least: ByteCount(300), most: ByteCount(u64::MAX) },
                    md5: Some(Md5([9; 16])),
                    crc32c: None,
                },
                ..upload()
            },
            Upload { attributes: attributes(), ..upload() },
            Upload { attributes: Attributes { overwrite: Overwrite::Allowed, ..Attributes::default() }, ..upload() },
        ];
        variants
            .iter()
            .flat_map(|upload| states().into_iter().map(|state| Upload { state, ..upload.clone() }))
            .collect()
    }

    #[test]
    fn every_upload_reads_back() {
        for upload in all() {
            for sealed in [None, Some(&b"sealed"[..])] {
                let bytes = encode(&upload, Revision(70_000), sealed);
                let record = decode(upload.id, &bytes).unwrap();
                assert_eq!(record.upload, upload);
                assert_eq!((record.revision, record.sealed), (Revision(70_000), sealed));
            }
        }
    }

    #[test]
    fn the_header_is_where_scripts_look() {
        let lease_until = Timestamp::from_millis(0x0102_0304_0506);
        let admitted = Upload { state: UploadState::Admitted { lease_until }, ..upload() };
        let bytes = encode(&admitted, Revision(0x0A0B_0C0D), None);
        assert_eq!(bytes[..6], [1, 0, 0x0A, 0x0B, 0x0C, 0x0D]);
        assert_eq!(bytes[6..12], 1_763_892_000_120_u64.to_be_bytes()[2..]);
        assert_eq!(bytes[12..18], [1, 2, 3, 4, 5, 6]);
    }

    /// What this version wrote when it was new. Records outlive releases: this text must never change.
    #[test]
    fn records_of_version_1_stay_readable() {
        let declared = "010100000007019ab027f578063f3f3f3f3f3f3f3f3f3f3f3f3f3f3f06766964656f7303a5a83108\
                       6d656469612d65750cf62f752d31372ff52e6d703401998080802380c60ae3069283";
        // The same without the flag of a declared size, and with the least of it, 300, behind the most.
        let bounded = "010100000007019ab027f578023f3f3f3f3f3f3f3f3f3f3f3f3f3f3f06766964656f7303a5a83108\
                       6d656469612d65750cf62f752d31372ff52e6d7034019980808023ac0280c60ae3069283";
        let bounds = PromisedSize::Between { least: ByteCount(300), most: ByteCount(73_400_320) };
        let promise = Promise { size: bounds, ..upload().promise };
        for (written, upload) in [(declared, upload()), (bounded, Upload { promise, ..upload() })] {
            let written: Vec<u8> = written
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            let fresh = encode(&upload, Revision(7), None);
            assert_eq!(written, fresh, "{fresh:02x?}");
            assert_eq!(decode(upload.id, &written).unwrap().upload, upload);
        }
    }

    #[test]
    fn what_is_cut_off_or_of_another_version_is_corrupt() {
        for upload in all() {
            let bytes = encode(&upload, Revision(1), None);
            for length in 0..bytes.len() {
                assert!(decode(upload.id, &bytes[..length]).is_err(), "{:?} cut at {length}", upload.state);
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(decode(upload.id, &longer).is_err(), "{:?} with a byte more", upload.state);
        }
        let mut newer = encode(&upload(), Revision(1), None);
        newer[0] = 2;
        let Err(error) = decode(upload().id, &newer) else { panic!("read a version from the future") };
        assert!(error.to_string().contains("version"), "{error}");
    }

    proptest! {
        #[test]
        fn any_change_is_read_or_refused(
            which in 0_usize..72, position in any::<prop::sample::Index>(), value in any::<u8>(),
        ) {
            let upload = &all()[which];
            let mut bytes = encode(upload, Revision(1), Some(b"sealed"));
            let position = position.index(bytes.len());
            bytes[position] = value;
            let _ = decode(upload.id, &bytes);
        }
    }
}
