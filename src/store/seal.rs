//! Keeps session URIs secret at rest: AES-256-GCM, bound to the upload that they belong to.
//!
//! Sealed form: length of the key's id, the key's id, 12 bytes of nonce, ciphertext, 16 bytes of tag. Associated data:
//! the upload's id, so that a value copied to another record does not open there.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::clock::Randomness;
use crate::model::id::UploadId;

use super::EncryptionKeySettings;
use super::error::{Error, OpenError};

/// The keys that a deployment was given: the first seals, all open, so that keys can be changed without downtime.
pub struct Keyring {
    keys: Vec<Key>,
    randomness: Randomness,
}

struct Key {
    id: String,
    cipher: LessSafeKey,
}

impl Keyring {
    /// Reads the key files.
    ///
    /// # Errors
    /// When there is no key, or an id or a file is none that could be used; the error names it.
    pub async fn open(settings: &[EncryptionKeySettings], randomness: Randomness) -> Result<Self, OpenError> {
        if settings.is_empty() {
            return Err(OpenError::NoKeys);
        }
        let mut keys: Vec<Key> = Vec::with_capacity(settings.len());
        for EncryptionKeySettings { id, file } in settings {
            if !is_key_id(id.as_bytes()) || keys.iter().any(|key| key.id == *id) {
                return Err(OpenError::KeyId(id.clone()));
            }
            let text = tokio::fs::read(file)
                .await
                .map(Zeroizing::new)
                .map_err(|source| OpenError::KeyFile { path: file.clone(), source })?;
            let bytes = STANDARD.decode(text.trim_ascii()).map(Zeroizing::new).ok();
            let cipher = bytes
                .and_then(|bytes| UnboundKey::new(&AES_256_GCM, &bytes).ok())
                .ok_or_else(|| OpenError::KeyForm(file.clone()))?;
            keys.push(Key { id: id.clone(), cipher: LessSafeKey::new(cipher) });
        }
        Ok(Self { keys, randomness })
    }

    /// Seals `plain` with the first key.
    ///
    /// Nonces are random: NIST SP 800-38D, section 8.3, allows 2^32 of them for one key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is no key, or the cipher refuses.
    pub fn seal(&self, id: UploadId, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = Error::Corrupt { id, what: "its session cannot be sealed" };
        let Some(key) = self.keys.first() else { return Err(failed) };
        let nonce: [u8; NONCE_LEN] = self.randomness.bytes();
        let mut secret = Zeroizing::new(plain.to_vec());
        let tag = key
            .cipher
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), associated(id), secret.as_mut_slice())
            .map_err(|_| failed)?;
        let mut sealed = vec![u8::try_from(key.id.len()).unwrap_or(u8::MAX)];
        for part in [key.id.as_bytes(), &nonce, &secret, tag.as_ref()] {
            sealed.extend_from_slice(part);
        }
        Ok(sealed)
    }

    /// What was sealed for `id`, with whichever of the keys.
    ///
    /// # Errors
    /// [`Error::SealedByUnknownKey`] when none of the keys sealed it, [`Error::Corrupt`] when it was changed or sealed
    /// for another upload.
    pub fn open_sealed(&self, id: UploadId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let corrupt = |what| Error::Corrupt { id, what };
        let parts = sealed
            .split_first()
            .and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)))
            .and_then(|(key, rest)| Some((key, rest.split_first_chunk::<NONCE_LEN>()?)));
        let Some((key_id, (nonce, secret))) = parts.filter(|(key, _)| is_key_id(key)) else {
            return Err(corrupt("its session is not in the sealed form"));
        };
        let Some(key) = self.keys.iter().find(|key| key.id.as_bytes() == key_id) else {
            return Err(Error::SealedByUnknownKey { id, key: String::from_utf8_lossy(key_id).into_owned() });
        };
        let mut secret = Zeroizing::new(secret.to_vec());
        let length = key
            .cipher
            .open_in_place(Nonce::assume_unique_for_key(*nonce), associated(id), &mut secret)
            .map_err(|_| corrupt("its session was changed, or sealed for another upload or with another key"))?
            .len();
        secret.truncate(length);
        Ok(secret)
    }
}

/// Says nothing about the keys but their ids.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

fn associated(id: UploadId) -> Aad<[u8; 17]> {
    let mut data = [id.partition().0; 17];
    data[1..].copy_from_slice(&id.random());
    Aad::from(data)
}

fn is_key_id(id: &[u8]) -> bool {
    (1..=8).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use crate::model::id::Partition;

    use super::*;

    /// Writes a key file into `directory`, whose key `byte` decides.
    pub(in super::super) fn key_file(directory: &Path, id: &str, byte: u8) -> EncryptionKeySettings {
        let file = directory.join(format!("{id}.key"));
        std::fs::write(&file, format!("{}\n", STANDARD.encode([byte; 32]))).unwrap();
        EncryptionKeySettings { id: id.to_owned(), file }
    }

    async fn ring(settings: &[EncryptionKeySettings]) -> Result<Keyring, OpenError> {
        Keyring::open(settings, Randomness::seeded(7)).await
    }

    fn id(byte: u8) -> UploadId {
        UploadId::new(Partition(byte), [byte; 16])
    }

    #[tokio::test]
    async fn what_was_sealed_opens_for_its_upload_only() {
        let directory = tempfile::tempdir().unwrap();
        let ring = ring(&[key_file(directory.path(), "k1", 1)]).await.unwrap();
        let sealed = ring.seal(id(1), b"s3cret").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"s3cret"));
        assert_eq!(ring.open_sealed(id(1), &sealed).unwrap().as_slice(), b"s3cret");
        assert_ne!(ring.seal(id(1), b"s3cret").unwrap(), sealed, "each sealing has a nonce of its own");
        assert!(matches!(ring.open_sealed(id(2), &sealed), Err(Error::Corrupt { .. })));
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 0x80;
            assert!(ring.open_sealed(id(1), &changed).is_err(), "changed at {position}");
            assert!(ring.open_sealed(id(1), &sealed[..position]).is_err(), "cut at {position}");
        }
    }

    #[tokio::test]
    async fn keys_change_without_losing_what_older_ones_sealed() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (key_file(directory.path(), "old", 1), key_file(directory.path(), "new", 2));
        let before = ring(std::slice::from_ref(&old)).await.unwrap();
        let both = ring(&[new.clone(), old]).await.unwrap();
        let after = ring(&[new]).await.unwrap();
        let (by_old, by_new) = (before.seal(id(1), b"a").unwrap(), both.seal(id(1), b"b").unwrap());
        assert_eq!(both.open_sealed(id(1), &by_old).unwrap().as_slice(), b"a");
        assert_eq!(after.open_sealed(id(1), &by_new).unwrap().as_slice(), b"b");
        let missing = after.open_sealed(id(1), &by_old).unwrap_err();
        assert!(matches!(&missing, Error::SealedByUnknownKey { key, .. } if key == "old"), "{missing}");
        assert_eq!(format!("{both:?}"), r#"["new", "old"]"#);
    }

    #[tokio::test]
    async fn bad_keys_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let good = key_file(directory.path(), "k1", 1);
        let short = directory.path().join("short.key");
        std::fs::write(&short, "AAAA").unwrap();
        let with_id = |id: &str| EncryptionKeySettings { id: id.to_owned(), file: good.file.clone() };
        let with_file = |file: &Path| EncryptionKeySettings { id: "k2".to_owned(), file: file.to_owned() };
        for (name, settings, expected) in [
            ("none", vec![], "needs store.encryption_keys"),
            ("a long id", vec![with_id("123456789")], "is not the id of a key"),
            ("an id in upper case", vec![with_id("K1")], "is not the id of a key"),
            ("the same id twice", vec![good.clone(), good.clone()], "is not the id of a key"),
            ("a short key", vec![with_file(&short)], "32 bytes"),
            ("no file", vec![with_file(&directory.path().join("absent"))], "cannot be read"),
        ] {
            let error = ring(&settings).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{name}: {error}");
        }
    }
}
