//! What must survive a kill: a small file beside the one that is uploaded.
//!
//! It holds no secret. The session URI is left out on purpose: whoever owns the upload gets it again from the broker.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::wire::CreateUpload;

/// Raised when a field changes its meaning; other versions are not read.
const VERSION: u32 = 1;

/// A larger file is not one of ours. The metadata of an upload is at most 8 KiB.
const MAX_BYTES: u64 = 64 << 10;

/// What is known of one upload under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// The broker that it belongs to.
    pub(super) broker: String,
    /// That of the region that took the upload, where the broker had it created by another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) taker: Option<String>,
    /// Written before the first request is sent, so that a repeat after a kill is recognised as one.
    pub(super) idempotency_key: String,
    /// What is uploaded: name, size, digests, and what was asked for it.
    pub(super) request: CreateUpload,
    /// Whether the digests were declared to the broker, which some policies forbid.
    pub(super) declared: Declared,
    /// The upload, once the broker has named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upload_id: Option<String>,
}

/// Whether digests stand in the request to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Declared {
    Digests,
    Nothing,
}

impl State {
    pub(super) const fn new(broker: String, idempotency_key: String, request: CreateUpload) -> Self {
        Self {
            version: VERSION,
            broker,
            taker: None,
            idempotency_key,
            request,
            declared: Declared::Digests,
            upload_id: None,
        }
    }

    /// The body that is sent for this state, the same at every repeat.
    pub(super) fn body(&self) -> CreateUpload {
        match self.declared {
            Declared::Digests => self.request.clone(),
            Declared::Nothing => CreateUpload { md5: None, crc32c: None, ..self.request.clone() },
        }
    }
}

/// What an earlier run left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    Unreadable,
    State(Box<State>),
}

/// Where the state of one file's upload is kept.
#[derive(Clone, Debug)]
pub(super) enum StateFile {
    At(PathBuf),
    /// What is read from a pipe is gone with the process: there is nothing to go on with.
    Nowhere,
}

impl StateFile {
    /// `FILE.upload-broker.json` beside the file, or in `directory` under a name that also tells apart files of the
    /// same name: the first 64 bits of SHA-256 of the whole path.
    pub(super) async fn of(file: &Path, directory: Option<&Path>) -> Result<Self, Error> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let Some(directory) = directory else {
            return Ok(Self::At(file.with_file_name(format!("{name}.upload-broker.json"))));
        };
        let whole =
            tokio::fs::canonicalize(file).await.map_err(|source| Error::Source { path: file.to_owned(), source })?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, whole.as_os_str().as_encoded_bytes());
        // A name of 255 bytes would leave no room for more: the start of it is for people, the digest for us.
        let start: String = name.chars().take(40).collect();
        let mut mark = [0; 8];
        mark.copy_from_slice(&digest.as_ref()[..8]);
        let mark = u64::from_be_bytes(mark);
        Ok(Self::At(directory.join(format!("{start}.{mark:016x}.upload-broker.json"))))
    }

    pub(super) async fn load(&self) -> Result<Left, Error> {
        let Self::At(path) = self else { return Ok(Left::Nothing) };
        let metadata = match tokio::fs::metadata(path).await {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Left::Nothing),
            Err(source) => return Err(unusable(path, source)),
        };
        if !metadata.is_file() {
            return Err(unusable(path, io::Error::other("it is not a regular file")));
        }
        if metadata.len() > MAX_BYTES {
            return Ok(Left::Unreadable);
        }
        let text = tokio::fs::read(path).await.map_err(|source| unusable(path, source))?;
        match serde_json::from_slice::<State>(&text) {
            Ok(state) if state.version == VERSION => Ok(Left::State(Box::new(state))),
            Ok(_) | Err(_) => Ok(Left::Unreadable),
        }
    }

    /// Writes the whole file beside itself, then renames: a kill leaves the old state or the new one.
    pub(super) async fn save(&self, state: &State) -> Result<(), Error> {
        let Self::At(path) = self else { return Ok(()) };
        let text = serde_json::to_vec_pretty(state).map_err(|error| unusable(path, error.into()))?;
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        let written = async {
            let mut file = tokio::fs::File::create(&temporary).await?;
            tokio::io::AsyncWriteExt::write_all(&mut file, &text).await?;
            file.sync_all().await?;
            tokio::fs::rename(&temporary, path).await
        };
        written.await.map_err(|source| unusable(path, source))
    }

    pub(super) async fn remove(&self) -> Result<(), Error> {
        let Self::At(path) = self else { return Ok(()) };
        match tokio::fs::remove_file(path).await {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(unusable(path, source)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn unusable(path: &Path, source: io::Error) -> Error {
    Error::State { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::wire::TransferKind;
    use super::*;

    fn path(file: &StateFile) -> &Path {
        match file {
            StateFile::At(path) => path,
            StateFile::Nowhere => panic!("it is nowhere"),
        }
    }

    fn state() -> State {
        let request = CreateUpload {
            policy: None,
            filename: "a.mp4".into(),
            content_type: "video/mp4".into(),
            size_bytes: Some(7),
            md5: Some("m".into()),
            crc32c: Some("c".into()),
            metadata: [("album".to_owned(), "summer".to_owned())].into(),
            transfer_kind: TransferKind::Simple,
        };
        State::new("https://broker/".into(), "key".into(), request)
    }

    #[tokio::test]
    async fn a_state_reads_back_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::of(&directory.path().join("a.mp4"), None).await.unwrap();
        assert_eq!(file.load().await.unwrap(), Left::Nothing);
        let state = State { upload_id: Some("id".into()), declared: Declared::Nothing, ..state() };
        file.save(&state).await.unwrap();
        assert_eq!(file.load().await.unwrap(), Left::State(Box::new(state)));
        let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.mp4.upload-broker.json"], "nothing else is left lying about");
        file.remove().await.unwrap();
        file.remove().await.unwrap();
        assert_eq!(file.load().await.unwrap(), Left::Nothing);
    }

    #[tokio::test]
    async fn what_cannot_be_understood_is_told_from_what_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::of(&directory.path().join("a"), None).await.unwrap();
        let other_version = serde_json::to_string(&State { version: 2, ..state() }).unwrap();
        let huge = " ".repeat(65 << 10);
        for (name, text) in [("cut", "{\"version\": 1"), ("empty", ""), ("version", &other_version), ("huge", &huge)] {
            fs::write(path(&file), text).unwrap();
            assert_eq!(file.load().await.unwrap(), Left::Unreadable, "{name}");
        }
    }

    #[tokio::test]
    async fn files_of_one_name_have_different_states_in_one_directory() {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for folder in ["one", "two"] {
            fs::create_dir(directory.path().join(folder)).unwrap();
            let file = directory.path().join(folder).join("a.mp4");
            fs::write(&file, "").unwrap();
            paths.push(path(&StateFile::of(&file, Some(directory.path())).await.unwrap()).to_owned());
        }
        assert_ne!(paths[0], paths[1]);
        assert!(paths.iter().all(|path| path.parent() == Some(directory.path())));
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::of(&directory.path().join("missing").join("a"), None).await.unwrap();
        let error = file.save(&state()).await.unwrap_err();
        assert!(error.to_string().contains("a.upload-broker.json"), "{error}");
    }
}
