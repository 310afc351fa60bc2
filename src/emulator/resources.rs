//! Objects and buckets as resources: read, download, list, change, remove.

use hyper::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::BucketSettings;
use super::bucket_cors::CorsRule;
use super::http::{Call, Failure, selected};
use super::insertion::{Preconditions, Unmet};
use super::journal::Operation;
use super::objects::{Condition, Description, Listing, Miss, Object};
use super::problem::{self, Answer, Problem};
use super::target::Route;
use super::upload::NO_BUCKET;
use crate::model::name::BucketName;

/// The most objects that a page lists (storage documentation, "Objects: list").
const PAGE: usize = 1000;

/// How many buckets there may be.
const BUCKETS: usize = 10_000;

pub(super) async fn serve(call: &mut Call<'_>, operation: Operation, route: &Route) -> Result<Answer, Failure> {
    call.authorize()?;
    if let (Some(bucket), Some(permission)) = (route.names().0, needed(operation)) {
        call.permit(bucket, permission)?;
    }
    match (operation, route) {
        (Operation::Get, Route::Object { bucket, object }) => {
            or_unmodified(get(call, bucket, object, |object| selected(call, object.description.resource(&call.base()))))
        }
        (Operation::Download, Route::Object { bucket, object } | Route::Media { bucket, object }) => {
            or_unmodified(get(call, bucket, object, |object| download(call, object)))
        }
        (Operation::Patch, Route::Object { bucket, object }) => patch(call, bucket, object).await,
        (Operation::Delete, Route::Object { bucket, object }) => {
            let removed = call.world.remove(bucket, object, condition(call)?);
            removed.map_err(|miss| missed(miss, bucket, object))?;
            Ok(problem::empty(StatusCode::NO_CONTENT))
        }
        (Operation::List, Route::Objects { bucket }) => list(call, bucket),
        (Operation::Bucket, Route::Bucket { bucket }) => {
            let bucket = call.world.objects.bucket(bucket).ok_or_else(|| Problem::not_found(NO_BUCKET))?;
            Ok(selected(call, bucket.resource(&call.base()))?)
        }
        (Operation::PatchBucket, Route::Bucket { bucket }) => {
            let cors = cors_of(&call.resource().await?)?;
            let patched = call.world.objects.patch_bucket(bucket, cors, call.world.now());
            let bucket = patched.ok_or_else(|| Problem::not_found(NO_BUCKET))?;
            Ok(selected(call, bucket.resource(&call.base()))?)
        }
        (Operation::CreateBucket, _) => create_bucket(call).await,
        (Operation::TestPermissions, Route::Permissions { bucket }) => {
            let bucket = call.world.objects.bucket(bucket).ok_or_else(|| Problem::not_found(NO_BUCKET))?;
            let asked = call.query.all("permissions");
            let granted: Vec<&str> = asked.filter(|permission| bucket.grants(permission)).collect();
            let answer = json!({"kind": "storage#testIamPermissionsResponse", "permissions": granted});
            Ok(selected(call, answer)?)
        }
        (Operation::Layout, Route::Layout { bucket }) => {
            let bucket = call.world.objects.bucket(bucket).ok_or_else(|| Problem::not_found(NO_BUCKET))?;
            Ok(selected(call, bucket.layout())?)
        }
        (_, Route::Unknown) => Err(Problem::not_found("Not Found").into()),
        _ => Err(Problem::method_not_allowed().into()),
    }
}

/// The permission that a call needs (storage documentation, "IAM permissions for JSON methods").
fn needed(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::Get | Operation::Download => Some("storage.objects.get"),
        Operation::List | Operation::Layout => Some("storage.objects.list"),
        Operation::Patch => Some("storage.objects.update"),
        Operation::Delete => Some("storage.objects.delete"),
        Operation::Bucket => Some("storage.buckets.get"),
        Operation::PatchBucket => Some("storage.buckets.update"),
        _ => None,
    }
}

fn condition(call: &Call<'_>) -> Result<Condition, Problem> {
    let generation = match call.query.get("generation") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| Problem::invalid("Invalid value for generation."))?),
    };
    Ok(Condition { generation, preconditions: Preconditions::of(&call.query)? })
}

fn missed(miss: Miss, bucket: &str, object: &str) -> Problem {
    match miss {
        Miss::Bucket => Problem::not_found(NO_BUCKET),
        Miss::Object => Problem::not_found(format!("No such object: {bucket}/{object}")),
        Miss::Precondition(Unmet::Match | Unmet::NotMatch) => Problem::precondition(),
        Miss::Full => Problem::full("objects"),
    }
}

enum Read {
    Unmodified,
    Failed(Failure),
}

impl From<Problem> for Read {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem.into())
    }
}

/// Reads whose `…NotMatch` does not hold have nothing new to say (storage documentation, "Request preconditions").
fn or_unmodified(read: Result<Answer, Read>) -> Result<Answer, Failure> {
    match read {
        Ok(answer) => Ok(answer),
        Err(Read::Unmodified) => Ok(problem::empty(StatusCode::NOT_MODIFIED)),
        Err(Read::Failed(failure)) => Err(failure),
    }
}

fn get(
    call: &Call<'_>,
    bucket: &str,
    object: &str,
    show: impl FnOnce(&Object) -> Result<Answer, Problem>,
) -> Result<Answer, Read> {
    match call.world.objects.find(bucket, object, condition(call)?) {
        Ok(found) => Ok(show(&found)?),
        Err(Miss::Precondition(Unmet::NotMatch)) => Err(Read::Unmodified),
        Err(miss) => Err(missed(miss, bucket, object).into()),
    }
}

fn download(call: &Call<'_>, object: &Object) -> Result<Answer, Problem> {
    let mut answer = content(call, object)?;
    let description = &object.description;
    put_facts(description, &description.etag(), answer.headers_mut());
    for (name, value) in description.attributes.headers() {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            answer.headers_mut().insert(name, value);
        }
    }
    Ok(answer)
}

/// The bytes that the request wants.
pub(super) fn content(call: &Call<'_>, object: &Object) -> Result<Answer, Problem> {
    let bytes = object.bytes.clone().ok_or_else(Problem::not_kept)?;
    let size = bytes.len();
    let wanted = call.header("range").map_or(Wanted::Everything, |range| Wanted::of(range, size));
    Ok(match wanted {
        Wanted::Everything => {
            let mut answer = problem::empty(StatusCode::OK);
            *answer.body_mut() = bytes.into();
            answer
        }
        Wanted::Nothing => return Err(Problem::unsatisfiable()),
        Wanted::Part(first, last) => {
            let mut answer = problem::empty(StatusCode::PARTIAL_CONTENT);
            *answer.body_mut() = bytes.slice(first..=last).into();
            let range = HeaderValue::try_from(format!("bytes {first}-{last}/{size}"));
            answer.headers_mut().extend(range.ok().map(|range| (header::CONTENT_RANGE, range)));
            answer
        }
    })
}

/// What a `Range` header wants (RFC 9110, section 14.2).
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// It is malformed or names several ranges, and is ignored.
    Everything,
    /// It lies outside.
    Nothing,
    /// From the first to the last byte, both inclusive.
    Part(usize, usize),
}

impl Wanted {
    fn of(range: &str, size: usize) -> Self {
        let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Self::Everything;
        };
        let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) if first <= last => (first, last),
            (Ok(first), Err(_)) if last.is_empty() => (first, usize::MAX),
            (Err(_), Ok(0)) if first.is_empty() => return Self::Nothing,
            (Err(_), Ok(count)) if first.is_empty() => (size.saturating_sub(count), usize::MAX),
            _ => return Self::Everything,
        };
        if first < size { Self::Part(first, last.min(size - 1)) } else { Self::Nothing }
    }
}

/// What headers say of an object, with the tag that the interface has for it.
pub(super) fn put_facts(object: &Description, tag: &str, headers: &mut HeaderMap) {
    let facts = [
        ("etag", tag.to_owned()),
        ("x-goog-generation", object.generation.to_string()),
        ("x-goog-metageneration", object.metageneration.to_string()),
        ("x-goog-hash", format!("crc32c={},md5={}", object.crc32c, object.md5)),
        ("x-goog-stored-content-length", object.size.to_string()),
        ("x-goog-stored-content-encoding", object.attributes.encoding().to_owned()),
    ];
    for (name, value) in facts {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(name, value);
        }
    }
}

async fn patch(call: &mut Call<'_>, bucket: &str, object: &str) -> Result<Answer, Failure> {
    let resource = call.resource().await?;
    let patched = call.world.patch(bucket, object, condition(call)?, |attributes| attributes.apply(&resource));
    let description = patched.map_err(|miss| missed(miss, bucket, object))??;
    Ok(selected(call, description.resource(&call.base()))?)
}

fn list(call: &Call<'_>, bucket: &str) -> Result<Answer, Failure> {
    let at_most = match call.query.get("maxResults") {
        None => PAGE,
        Some(text) => {
            let invalid = || Problem::invalid("Invalid value for maxResults.");
            text.parse::<usize>().ok().filter(|count| *count > 0).ok_or_else(invalid)?.min(PAGE)
        }
    };
    let listing = Listing {
        prefix: call.query.get("prefix").unwrap_or_default(),
        delimiter: call.query.get("delimiter").filter(|delimiter| !delimiter.is_empty()),
        token: call.query.get("pageToken"),
        at_most,
    };
    let page = call.world.objects.list(bucket, &listing).map_err(|_| Problem::not_found(NO_BUCKET))?;
    let page = page.ok_or_else(|| Problem::invalid("Invalid value for pageToken."))?;
    let base = call.base();
    let mut answer = json!({"kind": "storage#objects"});
    if !page.items.is_empty() {
        answer["items"] = page.items.iter().map(|object| object.resource(&base)).collect();
    }
    if !page.prefixes.is_empty() {
        answer["prefixes"] = json!(page.prefixes);
    }
    if let Some(next) = page.next {
        answer["nextPageToken"] = json!(next);
    }
    Ok(selected(call, answer)?)
}

/// The rules for browsers in a bucket resource: `null` takes them away, and where they are left out they stay.
fn cors_of(resource: &Map<String, Value>) -> Result<Option<Vec<CorsRule>>, Problem> {
    match resource.get("cors") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(Vec::new())),
        Some(rules) => {
            let rules = Vec::<CorsRule>::deserialize(rules);
            rules.map(Some).map_err(|error| Problem::invalid(format!("Invalid value for cors: {error}.")))
        }
    }
}

/// The regions of a configurable dual-region, or the zone of a bucket in one.
fn placement_of(resource: &Map<String, Value>) -> Result<Vec<String>, Problem> {
    let Some(config) = resource.get("customPlacementConfig") else { return Ok(Vec::new()) };
    let places = Vec::<String>::deserialize(&config["dataLocations"]).unwrap_or_default();
    if (1..=2).contains(&places.len()) {
        Ok(places)
    } else {
        Err(Problem::invalid("Invalid value for customPlacementConfig."))
    }
}

async fn create_bucket(call: &mut Call<'_>) -> Result<Answer, Failure> {
    let resource = call.resource().await?;
    let name = resource.get("name").and_then(Value::as_str).ok_or_else(|| Problem::required("Required: name"))?;
    let invalid = |invalid| Problem::invalid(format!("Invalid bucket name: {invalid}."));
    let name: BucketName = name.parse().map_err(invalid)?;
    let location = match resource.get("location") {
        None => "US",
        Some(Value::String(location)) if !location.is_empty() => location,
        Some(_) => return Err(Problem::invalid("Invalid value for location.").into()),
    };
    let world = call.world;
    if world.objects.bucket_count() >= BUCKETS {
        return Err(Problem::full("buckets").into());
    }
    let cors = cors_of(&resource)?.unwrap_or_default();
    let placement = placement_of(&resource)?;
    let location = location.to_owned();
    let settings = BucketSettings { name: name.to_string(), location, cors, placement, ..BucketSettings::default() };
    let created = world.objects.create_bucket(settings, world.now());
    let bucket = created.ok_or_else(|| {
        Problem::conflict("Your previous request to create the named bucket succeeded and you already own it.")
    })?;
    Ok(selected(call, bucket.resource(&call.base()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        for (range, size, expected) in [
            ("bytes=0-4", 10, Wanted::Part(0, 4)),
            ("bytes=5-", 10, Wanted::Part(5, 9)),
            ("bytes=5-100", 10, Wanted::Part(5, 9)),
            ("bytes=-3", 10, Wanted::Part(7, 9)),
            ("bytes=-30", 10, Wanted::Part(0, 9)),
            ("bytes=-0", 10, Wanted::Nothing),
            ("bytes=10-", 10, Wanted::Nothing),
            ("bytes=0-", 0, Wanted::Nothing),
            ("bytes=-5", 0, Wanted::Nothing),
            ("bytes=4-2", 10, Wanted::Everything),
            ("bytes=-", 10, Wanted::Everything),
            ("bytes=0-1,3-4", 10, Wanted::Everything),
            ("lines=0-1", 10, Wanted::Everything),
        ] {
            assert_eq!(Wanted::of(range, size), expected, "{range} of {size}");
        }
    }
}
