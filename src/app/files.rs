//! What files hold, as digests: how a change is noticed without the help of the file system.
//!
//! Kubernetes replaces what it mounts by swapping links, which file events miss; editors replace files, and some leave
//! their time as it was. So the content itself is read and compared. The files are few and small.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use zeroize::Zeroizing;

/// No more is read of a file: whoever takes it refuses one that is larger.
const MOST_BYTES: u64 = 2 * 1024 * 1024;

/// The content of some files, each under the key of the configuration that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents(BTreeMap<(&'static str, PathBuf), Content>);

/// A digest of what a file holds, or that it cannot be read: all files that cannot be read are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Unreadable,
    Digest([u8; digest::SHA256_OUTPUT_LEN]),
}

impl Contents {
    /// Looks at the files. Blocks for a small read of each.
    pub(super) fn of(files: impl IntoIterator<Item = (&'static str, PathBuf)>) -> Self {
        let look = |(key, file): (&'static str, PathBuf)| {
            let content = Content::of(&file);
            ((key, file), content)
        };
        Self(files.into_iter().map(look).collect())
    }

    /// Looks at the same files once more. Blocks likewise.
    pub(super) fn again(&self) -> Self {
        Self::of(self.0.keys().cloned())
    }

    /// Adds the files of `other`.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The keys of those files that hold something else in `other`. Files that only one of them has do not count: the
    /// configuration that names them is another one.
    pub(super) fn changed(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        let changed = |name, content| other.0.get(name).is_some_and(|now| now != content);
        self.0.iter().filter(move |(name, content)| changed(*name, *content)).map(|((key, _), _)| *key)
    }
}

impl Content {
    fn of(file: &Path) -> Self {
        let mut bytes = Zeroizing::new(Vec::new());
        let read = std::fs::File::open(file).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
        if read.is_err() {
            return Self::Unreadable;
        }
        let mut sum = [0; digest::SHA256_OUTPUT_LEN];
        sum.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
        Self::Digest(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed_through_links_and_without_a_new_length_or_time() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("one", "aa"), ("two", "bb")] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("file"), text).unwrap();
        }
        let link = |target: &str| {
            std::os::unix::fs::symlink(at(target), at("swap")).unwrap();
            std::fs::rename(at("swap"), at("data")).unwrap();
        };
        link("one");
        let (linked, absent) = (at("data").join("file"), at("absent"));
        let before = Contents::of([("policies", linked), ("webhooks", absent.clone())]);
        assert_eq!(before.again(), before, "nothing has changed");
        link("two");
        let after = before.again();
        assert_eq!(before.changed(&after).collect::<Vec<_>>(), ["policies"]);
        std::fs::write(&absent, "").unwrap();
        assert_eq!(after.changed(&after.again()).collect::<Vec<_>>(), ["webhooks"], "it is there now, though empty");
    }
}
