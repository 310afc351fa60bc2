//! The buckets and the live objects in them. Unversioned: an object that is replaced or deleted is gone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use super::BucketSettings;
use super::attributes::Attributes;
use super::bucket_cors::CorsRule;
use super::content::Sealed;
use super::insertion::{Insertion, Preconditions, Unmet};
use crate::model::digest::{Crc32c, Md5};
use crate::model::time::Timestamp;

/// What is known of an object besides its bytes.
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub(super) bucket: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) generation: i64,
    pub(super) metageneration: i64,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) size: u64,
    pub(super) md5: Md5,
    pub(super) crc32c: Crc32c,
    pub(super) attributes: Attributes,
}

impl Description {
    /// The object resource (storage documentation, "Objects"), with links below `base`. Int64 values are text.
    pub(super) fn resource(&self, base: &str) -> Value {
        let (bucket, generation) = (&self.bucket, self.generation);
        let link = format!("b/{bucket}/o/{}", percent_encoded(&self.name));
        let (created, updated) = (self.created.to_string(), self.updated.to_string());
        let mut resource = Map::new();
        let mut put = |field: &str, value: Value| drop(resource.insert(field.to_owned(), value));
        put("kind", json!("storage#object"));
        put("id", json!(format!("{bucket}/{}/{generation}", self.name)));
        put("selfLink", json!(format!("{base}/storage/v1/{link}")));
        put("mediaLink", json!(format!("{base}/download/storage/v1/{link}?generation={generation}&alt=media")));
        put("name", json!(self.name));
        put("bucket", json!(bucket));
        put("generation", json!(generation.to_string()));
        put("metageneration", json!(self.metageneration.to_string()));
        put("size", json!(self.size.to_string()));
        put("md5Hash", json!(self.md5.to_string()));
        put("crc32c", json!(self.crc32c.to_string()));
        put("etag", json!(self.etag()));
        put("timeCreated", json!(created));
        put("timeFinalized", json!(created));
        put("timeStorageClassUpdated", json!(created));
        put("updated", json!(updated));
        self.attributes.describe(&mut resource);
        Value::Object(resource)
    }

    pub(super) fn etag(&self) -> String {
        let mut text = self.generation.to_be_bytes().to_vec();
        text.extend(self.metageneration.to_be_bytes());
        STANDARD.encode(text)
    }
}

/// Leaves only what RFC 3986 calls unreserved.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])));
        }
    }
    encoded
}

/// A live object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) description: Arc<Description>,
    /// `None` when it was too large to keep.
    pub(super) bytes: Option<Bytes>,
}

/// What is known of a bucket besides its objects.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) name: Arc<str>,
    pub(super) cors: Arc<[CorsRule]>,
    /// As they were at first; the location is in capitals, as storage writes it.
    settings: Arc<BucketSettings>,
    metageneration: i64,
    created: Timestamp,
    updated: Timestamp,
}

impl Bucket {
    /// The bucket resource (storage documentation, "Buckets").
    pub(super) fn resource(&self, base: &str) -> Value {
        let mut resource = json!({
            "kind": "storage#bucket",
            "id": self.name,
            "name": self.name,
            "selfLink": format!("{base}/storage/v1/b/{}", self.name),
            "projectNumber": "1",
            "storageClass": "STANDARD",
            "metageneration": self.metageneration.to_string(),
            "etag": STANDARD.encode(self.metageneration.to_be_bytes()),
            "timeCreated": self.created.to_string(),
            "updated": self.updated.to_string(),
            "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": false}},
        });
        self.put_place(&mut resource);
        if !self.cors.is_empty() {
            resource["cors"] = json!(self.cors);
        }
        // Int64 values are text.
        let seconds = |time: Duration| json!(time.as_secs().to_string());
        if let Some(time) = self.settings.soft_delete {
            resource["softDeletePolicy"] = json!({"retentionDurationSeconds": seconds(time)});
        }
        if let Some(time) = self.settings.retention {
            resource["retentionPolicy"] = json!({"retentionPeriod": seconds(time), "isLocked": false});
        }
        if self.settings.versioning {
            resource["versioning"] = json!({"enabled": true});
        }
        resource
    }

    /// The storage layout, which tells the place to whoever may not read the bucket resource (storage documentation,
    /// "Buckets: getStorageLayout").
    pub(super) fn layout(&self) -> Value {
        let mut layout = json!({"kind": "storage#storageLayout", "bucket": self.name});
        self.put_place(&mut layout);
        layout
    }

    fn put_place(&self, resource: &mut Value) {
        let BucketSettings { location, placement, .. } = &*self.settings;
        resource["location"] = json!(location);
        resource["locationType"] = json!(location_type(location, placement));
        if !placement.is_empty() {
            let capitals: Vec<_> = placement.iter().map(|place| place.to_ascii_uppercase()).collect();
            resource["customPlacementConfig"] = json!({"dataLocations": capitals});
        }
    }

    /// Whether callers have the permission.
    pub(super) fn grants(&self, permission: &str) -> bool {
        !self.settings.withheld.iter().any(|withheld| withheld == permission)
    }
}

fn location_type(location: &str, placement: &[String]) -> &'static str {
    match (location, placement) {
        (_, [_]) => "zone",
        ("ASIA1" | "EUR4" | "EUR5" | "EUR7" | "EUR8" | "NAM4", _) | (_, [_, _, ..]) => "dual-region",
        ("US" | "EU" | "ASIA", _) => "multi-region",
        _ => "region",
    }
}

/// Why an object was not made, found or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    Bucket,
    Object,
    Precondition(Unmet),
    /// There are as many objects as there may be.
    Full,
}

/// What an insertion has made and undone.
#[derive(Debug)]
pub(super) struct Inserted {
    pub(super) object: Arc<Description>,
    /// What was live under its name until then.
    pub(super) replaced: Option<Arc<Description>>,
}

/// Which object of a name is meant, and what must hold of it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Condition {
    pub(super) generation: Option<i64>,
    pub(super) preconditions: Preconditions,
}

/// A part of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) items: Vec<Arc<Description>>,
    /// Common beginnings up to the delimiter.
    pub(super) prefixes: Vec<String>,
    pub(super) next: Option<String>,
}

/// What a listing asks for.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: Option<&'a str>,
    /// The token of the page before.
    pub(super) token: Option<&'a str>,
    pub(super) at_most: usize,
}

/// Every bucket, behind one lock that is held for a few map operations at a time.
#[derive(Debug)]
pub(super) struct Objects {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    buckets: BTreeMap<String, (Bucket, BTreeMap<Arc<str>, Object>)>,
    count: usize,
    /// The latest generation given: they are microseconds, but strictly increasing.
    generation: i64,
}

impl Objects {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a bucket; `None` when there is one of that name.
    pub(super) fn create_bucket(&self, mut settings: BucketSettings, now: Timestamp) -> Option<Bucket> {
        let mut inner = self.lock();
        if inner.buckets.contains_key(&settings.name) {
            return None;
        }
        settings.location.make_ascii_uppercase();
        let name = settings.name.clone();
        let bucket = Bucket {
            name: name.as_str().into(),
            cors: std::mem::take(&mut settings.cors).into(),
            settings: Arc::new(settings),
            metageneration: 1,
            created: now,
            updated: now,
        };
        inner.buckets.insert(name, (bucket.clone(), BTreeMap::new()));
        Some(bucket)
    }

    /// Changes a bucket's rules for browsers, and leaves them where `cors` is `None`.
    pub(super) fn patch_bucket(&self, name: &str, cors: Option<Vec<CorsRule>>, now: Timestamp) -> Option<Bucket> {
        let mut inner = self.lock();
        let (bucket, _) = inner.buckets.get_mut(name)?;
        if let Some(cors) = cors {
            bucket.cors = cors.into();
        }
        bucket.metageneration += 1;
        bucket.updated = now;
        Some(bucket.clone())
    }

    pub(super) fn bucket_count(&self) -> usize {
        self.lock().buckets.len()
    }

    pub(super) fn bucket(&self, name: &str) -> Option<Bucket> {
        self.lock().buckets.get(name).map(|(bucket, _)| bucket.clone())
    }

    /// Makes the object live, if the preconditions hold at this moment.
    pub(super) fn insert(
        &self,
        bucket: &str,
        insertion: &Insertion,
        attributes: Attributes,
        content: Sealed,
        now: Timestamp,
    ) -> Result<Inserted, Miss> {
        let mut inner = self.lock();
        let Inner { buckets, count, generation } = &mut *inner;
        let (bucket, objects) = buckets.get_mut(bucket).ok_or(Miss::Bucket)?;
        let live = objects.get(insertion.name.as_str()).map(|object| &object.description);
        let is_new = live.is_none();
        let versions = live.map(|live| (live.generation, live.metageneration));
        insertion.preconditions.check(versions).map_err(Miss::Precondition)?;
        if is_new && *count >= self.limit {
            return Err(Miss::Full);
        }
        *generation = now.as_millis().saturating_mul(1000).max(*generation + 1);
        let description = Arc::new(Description {
            bucket: Arc::clone(&bucket.name),
            name: insertion.name.as_str().into(),
            generation: *generation,
            metageneration: 1,
            created: now,
            updated: now,
            size: content.size,
            md5: content.md5,
            crc32c: content.crc32c,
            attributes,
        });
        let object = Object { description: Arc::clone(&description), bytes: content.bytes };
        let replaced = objects.insert(Arc::clone(&description.name), object);
        *count += usize::from(is_new);
        Ok(Inserted { object: description, replaced: replaced.map(|replaced| replaced.description) })
    }

    /// The live object, if it is the one meant.
    pub(super) fn find(&self, bucket: &str, name: &str, condition: Condition) -> Result<Object, Miss> {
        find(&mut self.lock(), bucket, name, condition).map(|object| object.clone())
    }

    /// Changes what is said of the live object.
    pub(super) fn patch<E>(
        &self,
        bucket: &str,
        name: &str,
        condition: Condition,
        now: Timestamp,
        change: impl FnOnce(&mut Attributes) -> Result<(), E>,
    ) -> Result<Result<Arc<Description>, E>, Miss> {
        let mut inner = self.lock();
        let object = find(&mut inner, bucket, name, condition)?;
        let mut description = Description::clone(&object.description);
        if let Err(error) = change(&mut description.attributes) {
            return Ok(Err(error));
        }
        description.metageneration += 1;
        description.updated = now;
        object.description = Arc::new(description);
        Ok(Ok(Arc::clone(&object.description)))
    }

    /// Removes the live object, if it is the one meant, and gives what was said of it.
    pub(super) fn remove(&self, bucket: &str, name: &str, condition: Condition) -> Result<Arc<Description>, Miss> {
        let mut inner = self.lock();
        let description = Arc::clone(&find(&mut inner, bucket, name, condition)?.description);
        if let Some((_, objects)) = inner.buckets.get_mut(bucket)
            && objects.remove(name).is_some()
        {
            inner.count -= 1;
        }
        Ok(description)
    }

    /// A page of the bucket's objects in the order of their names; `Ok(None)` when the token is none of ours.
    pub(super) fn list(&self, bucket: &str, listing: &Listing<'_>) -> Result<Option<Page>, Miss> {
        let after = match listing.token.map(|token| URL_SAFE_NO_PAD.decode(token).map(String::from_utf8)) {
            None => None,
            Some(Ok(Ok(name))) => Some(name),
            Some(_) => return Ok(None),
        };
        let inner = self.lock();
        let (_, objects) = inner.buckets.get(bucket).ok_or(Miss::Bucket)?;
        let mut page = Page::default();
        let mut last: Option<String> = None;
        let start = after.as_deref().unwrap_or_default().max(listing.prefix);
        for (name, object) in objects
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(listing.prefix))
        {
            let rest = &name[listing.prefix.len()..];
            let end = listing.delimiter.and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len()));
            let shown = end.map_or(&**name, |end| &name[..listing.prefix.len() + end]);
            // What was shown last, on this page or the one before, is not shown again: neither the object nor the
            // common beginning.
            if [after.as_deref(), last.as_deref()].contains(&Some(shown)) {
                continue;
            }
            if page.items.len() + page.prefixes.len() == listing.at_most {
                page.next = last.map(|last| URL_SAFE_NO_PAD.encode(last));
                break;
            }
            match end {
                Some(_) => page.prefixes.push(shown.to_owned()),
                None => page.items.push(Arc::clone(&object.description)),
            }
            last = Some(shown.to_owned());
        }
        Ok(Some(page))
    }
}

fn find<'a>(inner: &'a mut Inner, bucket: &str, name: &str, condition: Condition) -> Result<&'a mut Object, Miss> {
    let (_, objects) = inner.buckets.get_mut(bucket).ok_or(Miss::Bucket)?;
    let object = objects.get_mut(name).ok_or(Miss::Object)?;
    let (generation, metageneration) = (object.description.generation, object.description.metageneration);
    if condition.generation.is_some_and(|wanted| wanted != generation) {
        return Err(Miss::Object);
    }
    condition.preconditions.check(Some((generation, metageneration))).map_err(Miss::Precondition)?;
    Ok(object)
}
