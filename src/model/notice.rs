//! Word that an object has been made, which is a reason to look and never evidence.

use super::id::UploadId;
use super::name::{BucketName, ObjectName};

/// What a storage notification says of a new object. Nothing in it is believed: storage is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectNotice {
    /// Where the object is.
    pub bucket: BucketName,
    /// What it is called.
    pub object: ObjectName,
    /// Which content of that name it was. Another may have taken its place since.
    pub generation: Option<i64>,
    /// The upload that the object's metadata names: a hint, since whoever held the session can have written it.
    pub hint: Option<UploadId>,
}
