//! What a bucket says of itself, and what the caller may do there: asked by whoever checks a set-up, never for an upload.
//!
//! Nothing here changes anything at storage.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::header::{DATE, HeaderMap};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Storage;
use super::endpoint::percent_encode;
use super::error::Error;
use super::json::{Answer, Authority, Body, Request, parse};
use super::metrics::Operation;
use super::token::TokenError;
use crate::model::name::BucketName;
use crate::model::time::Timestamp;

/// Where a bucket is (storage documentation, "Bucket locations").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `EUROPE-WEST1`, `EU`, `EUR4`.
    pub location: String,
    /// `region`, `dual-region`, `multi-region` or `zone`; stand-ins may leave it out.
    pub location_type: Option<String>,
    /// The regions of a configurable dual-region, or the zone.
    pub data_locations: Vec<String>,
}

/// What else a bucket says, as far as it concerns uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketDescription {
    /// Where it is.
    pub place: Place,
    /// Which pages may read what the XML interface answers.
    pub cors: Vec<CorsEntry>,
    /// How long deleted objects are kept, if they are.
    pub soft_delete: Option<Duration>,
    /// How long objects cannot be deleted, if that is so.
    pub retention: Option<Duration>,
    /// Whether what is replaced or deleted is kept as an older version.
    pub versioning: bool,
}

/// An entry of a bucket's `cors`. The first one that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsEntry {
    /// The origins that it is for; `*` is every one.
    pub origin: Vec<String>,
    /// The methods that it is for; `*` is every one.
    pub method: Vec<String>,
    /// The headers that pages may send and read.
    pub response_header: Vec<String>,
}

/// A notification config: which events of a bucket go to which topic.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NotificationConfig {
    /// `//pubsub.googleapis.com/projects/P/topics/T`.
    pub topic: String,
    /// Its types of events; none named means all.
    #[serde(default)]
    pub event_types: Vec<String>,
    /// What the names of its objects begin with.
    #[serde(default)]
    pub object_name_prefix: String,
    /// `JSON_API_V1` or `NONE`.
    #[serde(default)]
    pub payload_format: String,
}

/// Which of the permissions that were asked about the caller has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Those that it has.
    pub permissions: BTreeSet<String>,
    /// What storage's own clock said when it answered, to the second.
    pub at: Option<Timestamp>,
}

impl Storage {
    /// Waits for a token: until the first attempt to get one is over, and not beyond `deadline`.
    ///
    /// # Errors
    /// With the reason, when there is none.
    pub async fn token(&self, deadline: Instant) -> Result<(), TokenError> {
        self.caller.tokens.bearer(deadline).await.map(drop)
    }

    /// As whom storage is called, for people: "the service account … (…)".
    pub fn whose(&self) -> &str {
        &self.whose
    }

    /// Whether storage is called as the service account of this machine.
    pub fn is_of_machine(&self) -> bool {
        self.of_machine
    }

    /// Who signs URLs, for people; `None` where signing was not wanted.
    pub fn signed_by(&self) -> Option<String> {
        self.signer.as_ref().map(ToString::to_string)
    }

    /// What the bucket says of itself (storage JSON API, `buckets.get`).
    ///
    /// # Errors
    /// [`Error::Refused`] with 404 when there is no such bucket, with 403 without `storage.buckets.get`.
    pub async fn describe_bucket(&self, bucket: &BucketName, deadline: Instant) -> Result<BucketDescription, Error> {
        const FIELDS: &str =
            "?fields=location,locationType,customPlacementConfig,cors,softDeletePolicy,retentionPolicy,versioning";
        let request = question(&(self.endpoint.bucket(bucket) + FIELDS))?;
        self.caller.call(Operation::Describe, &request, deadline, read_bucket).await
    }

    /// Where the bucket is, for callers who may not read what else it says (storage JSON API,
    /// `buckets.getStorageLayout`).
    ///
    /// # Errors
    /// [`Error::Refused`] with 404 when there is no such bucket, with 403 without `storage.objects.list`.
    pub async fn locate_bucket(&self, bucket: &BucketName, deadline: Instant) -> Result<Place, Error> {
        let request = question(&(self.endpoint.bucket(bucket) + "/storageLayout"))?;
        let read = |answer: &_| read::<PlaceResource>(answer).map(Place::from);
        self.caller.call(Operation::Describe, &request, deadline, read).await
    }

    /// Which of `permissions` the caller has in the bucket (storage JSON API, `buckets.testIamPermissions`).
    ///
    /// # Errors
    /// [`Error::Refused`] with 404 when there is no such bucket. Needs no permission.
    pub async fn permissions(
        &self,
        bucket: &BucketName,
        permissions: &[&str],
        deadline: Instant,
    ) -> Result<Granted, Error> {
        let asked: Vec<_> = permissions.iter().map(|name| format!("permissions={}", percent_encode(name))).collect();
        let request = question(&format!("{}/iam/testPermissions?{}", self.endpoint.bucket(bucket), asked.join("&")))?;
        self.caller.call(Operation::Permissions, &request, deadline, read_granted).await
    }

    /// The notification configs of the bucket (storage JSON API, `notificationConfigs.list`).
    ///
    /// # Errors
    /// [`Error::Refused`] with 404 when there is no such bucket, with 403 without `storage.buckets.get`.
    pub async fn notification_configs(
        &self,
        bucket: &BucketName,
        deadline: Instant,
    ) -> Result<Vec<NotificationConfig>, Error> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            items: Vec<NotificationConfig>,
        }
        let request = question(&(self.endpoint.bucket(bucket) + "/notificationConfigs"))?;
        let read = |answer: &_| read::<List>(answer).map(|list| list.items);
        self.caller.call(Operation::NotificationConfigs, &request, deadline, read).await
    }
}

fn question(address: &str) -> Result<Request, Error> {
    let (method, url) = (Method::GET, parse(address)?);
    Ok(Request { method, url, headers: HeaderMap::new(), body: Vec::new(), authority: Authority::Token })
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    if answer.status != StatusCode::OK {
        return Err(answer.unexpected());
    }
    let Body::Whole(body) = &answer.body else { return Err(Error::Nonsense("a description without an end")) };
    serde_json::from_slice(body).map_err(|_| Error::Nonsense("a description in another form"))
}

/// Where a bucket is, as both resources say it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlaceResource {
    location: String,
    location_type: Option<String>,
    custom_placement_config: Option<Placement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Placement {
    #[serde(default)]
    data_locations: Vec<String>,
}

impl From<PlaceResource> for Place {
    fn from(resource: PlaceResource) -> Self {
        let data_locations = resource.custom_placement_config.map(|placement| placement.data_locations);
        Self {
            location: resource.location,
            location_type: resource.location_type,
            data_locations: data_locations.unwrap_or_default(),
        }
    }
}

fn read_bucket(answer: &Answer) -> Result<BucketDescription, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Resource {
        #[serde(flatten)]
        place: PlaceResource,
        #[serde(default)]
        cors: Vec<CorsEntry>,
        soft_delete_policy: Option<SoftDelete>,
        retention_policy: Option<Retention>,
        versioning: Option<Versioning>,
    }
    // 64-bit integers are text, and count seconds.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct SoftDelete {
        retention_duration_seconds: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Retention {
        retention_period: Option<String>,
    }
    #[derive(Deserialize)]
    struct Versioning {
        #[serde(default)]
        enabled: bool,
    }
    let resource: Resource = read(answer)?;
    let duration = |seconds: Option<String>| {
        // 0 says that it is switched off.
        seconds.and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0).map(Duration::from_secs)
    };
    Ok(BucketDescription {
        place: resource.place.into(),
        cors: resource.cors,
        soft_delete: resource.soft_delete_policy.and_then(|policy| duration(policy.retention_duration_seconds)),
        retention: resource.retention_policy.and_then(|policy| duration(policy.retention_period)),
        versioning: resource.versioning.is_some_and(|versioning| versioning.enabled),
    })
}

fn read_granted(answer: &Answer) -> Result<Granted, Error> {
    #[derive(Deserialize)]
    struct Resource {
        // Left out where there is none.
        #[serde(default)]
        permissions: BTreeSet<String>,
    }
    let Resource { permissions } = read(answer)?;
    Ok(Granted { permissions, at: date(&answer.headers) })
}

/// The `Date` of an answer (RFC 9110, section 6.6.1), whose usual form is that of mail, too.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp::from_millis(date.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, date: Option<&str>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.extend(date.map(|date| (DATE, date.parse().unwrap())));
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Body::Whole(body.into()) }
    }

    #[test]
    fn a_bucket_is_read_as_far_as_it_says_something() {
        let whole = r#"{"location":"EU","locationType":"dual-region",
            "customPlacementConfig":{"dataLocations":["EUROPE-WEST1","EUROPE-WEST4"]},
            "cors":[{"origin":["https://app.example.com"],"method":["PUT"],"responseHeader":["Range"],"maxAgeSeconds":60}],
            "softDeletePolicy":{"retentionDurationSeconds":"604800","effectiveTime":"2026-01-01T00:00:00Z"},
            "retentionPolicy":{"retentionPeriod":"3600","isLocked":true},"versioning":{"enabled":true}}"#;
        let read = read_bucket(&answer(200, None, whole)).unwrap();
        assert_eq!(read.place.data_locations, ["EUROPE-WEST1", "EUROPE-WEST4"]);
        assert_eq!((read.place.location.as_str(), read.place.location_type.as_deref()), ("EU", Some("dual-region")));
        assert_eq!(
            (&*read.cors[0].origin, &*read.cors[0].response_header),
            (&["https://app.example.com".into()][..], &["Range".into()][..])
        );
        assert_eq!(read.soft_delete, Some(Duration::from_secs(604_800)));
        assert_eq!((read.retention, read.versioning), (Some(Duration::from_secs(3600)), true));

        let off = r#"{"location":"EU","softDeletePolicy":{"retentionDurationSeconds":"0"},"versioning":{}}"#;
        let read = read_bucket(&answer(200, None, off)).unwrap();
        let place = Place { location: "EU".into(), location_type: None, data_locations: Vec::new() };
        let expected =
            BucketDescription { place, cors: Vec::new(), soft_delete: None, retention: None, versioning: false };
        assert_eq!(read, expected);

        for (name, status, body) in [("a page", 200, "<html>"), ("no location", 200, "{}"), ("a refusal", 403, "{}")] {
            assert!(read_bucket(&answer(status, None, body)).is_err(), "{name}");
        }
    }

    #[test]
    fn permissions_come_with_the_time_that_storage_has() {
        let at = Some(Timestamp::from_secs(784_111_777));
        for (name, date, body, permissions, at) in [
            ("two", Some("Sun, 06 Nov 1994 08:49:37 GMT"), r#"{"permissions":["a","b"]}"#, vec!["a", "b"], at),
            ("none", Some("yesterday"), "{}", vec![], None),
            ("no date", None, "{}", vec![], None),
        ] {
            let permissions = permissions.into_iter().map(str::to_owned).collect();
            assert_eq!(read_granted(&answer(200, date, body)).unwrap(), Granted { permissions, at }, "{name}");
        }
    }
}
