//! The bucket beside the broker.

use tokio::join;

use super::place::{Lies, words};
use super::report::Row;
use super::{Subject, deadline};
use crate::model::chain;
use crate::model::name::BucketName;
use crate::model::time::Timestamp;
use crate::model::upload::{TransferKind, UPLOAD_HINT};
use crate::storage::{Api, BucketDescription, CorsEntry, Error, NotificationConfig, Place, Storage};
use crate::uploads::Region;

/// What the broker does in a bucket, and what fails without it.
const NEEDED: [(&str, &str); 3] = [
    ("storage.objects.create", "no upload can begin"),
    ("storage.objects.get", "no upload can end"),
    ("storage.objects.delete", "rejected objects stay, and none can be replaced"),
];

const READER: &str = "grant storage.buckets.get, as roles/storage.legacyBucketReader has it, to see more";

/// Everything about the bucket of `region`.
pub(super) async fn rows(subject: &Subject, region: &Region) -> Vec<Row> {
    let (storage, bucket) = (&subject.storage, &region.bucket);
    let asks = subject.receiver.is_some();
    let configs = async { if asks { Some(storage.notification_configs(bucket, deadline()).await) } else { None } };
    let (described, (permissions, at), configs) =
        join!(describe(storage, bucket), permissions(storage, bucket), configs);
    let mut rows = vec![super::account::clock(at, subject.clock.now())];
    rows.extend(locations(&described, region, &subject.regions));
    rows.push(permissions);
    let description = match &described {
        Ok(Described::Wholly(description)) => Some(description),
        Ok(Described::Place(_)) | Err(_) => None,
    };
    rows.push(browsers(subject, bucket, description));
    rows.push(kept(bucket, description));
    rows.push(notifications(bucket, configs));
    rows
}

/// Only where it is.
pub(super) async fn location_alone(storage: &Storage, region: &Region) -> Vec<Row> {
    let described = describe(storage, &region.bucket).await;
    locations(&described, region, std::slice::from_ref(region))
}

/// What a bucket lets the caller know.
enum Described {
    Wholly(BucketDescription),
    Place(Place),
}

impl Described {
    fn place(&self) -> &Place {
        match self {
            Self::Wholly(description) => &description.place,
            Self::Place(place) => place,
        }
    }
}

/// What the bucket says of itself, or at least where it is: the role that suffices for uploads does not let read more.
async fn describe(storage: &Storage, bucket: &BucketName) -> Result<Described, Error> {
    let deadline = deadline();
    match storage.describe_bucket(bucket, deadline).await {
        Err(Error::Refused { status: 403, .. }) => storage.locate_bucket(bucket, deadline).await.map(Described::Place),
        described => described.map(Described::Wholly),
    }
}

/// Whether the bucket is in its region; of one that several share, in each of them.
fn locations(described: &Result<Described, Error>, own: &Region, regions: &[Region]) -> Vec<Row> {
    let sharing = regions.iter().filter(|region| region.bucket == own.bucket && region.name != own.name);
    let place = match described {
        Ok(described) => described.place(),
        Err(error) => return vec![unseen("location", own.bucket.as_str(), error)],
    };
    [own].into_iter().chain(sharing).map(|region| location(place, region)).collect()
}

fn location(place: &Place, region: &Region) -> Row {
    const NAME: &str = "location";
    let (subject, name) = (region.bucket.as_str(), &region.name);
    let found = format!("it is in {}", words(place));
    match Lies::of(place, name) {
        Lies::Within => Row::ok(NAME, subject, format!("{found}, which is right for {name}")),
        Lies::InZone => {
            let found = format!("{found}: there are no resumable sessions in a zone");
            Row::failed(NAME, subject, found, "take a bucket in a region, a dual-region or a multi-region")
        }
        Lies::Elsewhere => {
            let found = format!("{found}, and {name} is not in there: every byte makes a detour");
            Row::failed(NAME, subject, found, format!("take a bucket in {name}, or one that spans it"))
        }
        Lies::Unknown => {
            let found = format!("{found}; whether that is {name} cannot be said");
            Row::warning(NAME, subject, found, "call regions by Google's names where their buckets are there")
        }
    }
}

/// What the caller may do there, and what time it is at storage.
pub(super) async fn permissions(storage: &Storage, bucket: &BucketName) -> (Row, Option<Timestamp>) {
    const NAME: &str = "permissions";
    let asked = NEEDED.map(|(permission, _)| permission);
    let granted = match storage.permissions(bucket, &asked, deadline()).await {
        Ok(granted) => granted,
        Err(error) => return (unseen(NAME, bucket.as_str(), &error), None),
    };
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(permission, _)| !granted.permissions.contains(*permission))
        .map(|(permission, without)| format!("{permission} is missing: {without}"))
        .collect();
    let row = if missing.is_empty() {
        Row::ok(NAME, bucket.as_str(), format!("{} are granted", asked.join(", ")))
    } else {
        let remedy = "grant roles/storage.objectUser on the bucket to the account that credentials names";
        Row::failed(NAME, bucket.as_str(), missing.join("; "), remedy)
    };
    (row, granted.at)
}

/// What could not be asked about a bucket.
fn unseen(name: &'static str, subject: &str, error: &Error) -> Row {
    let found = chain(error);
    match error {
        Error::Refused { status: 404, .. } => {
            Row::failed(name, subject, "there is no such bucket", "create it, or correct its name in [[regions]]")
        }
        Error::Refused { status: 403, .. } => Row::warning(name, subject, format!("cannot be seen: {found}"), READER),
        Error::Unauthenticated { .. } => {
            Row::failed(name, subject, found, "see that credentials names an account that storage knows")
        }
        Error::NoToken(_) => Row::skipped(name, subject, "storage was not asked: there is no token"),
        _ => Row::failed(name, subject, found, "see that storage.endpoint can be reached from here"),
    }
}

/// Whether web pages may read what storage answers them.
fn browsers(subject: &Subject, bucket: &BucketName, description: Option<&BucketDescription>) -> Row {
    const NAME: &str = "cors";
    let needs = Need::of(subject.api, &subject.transfers);
    if subject.allowed_origins.is_empty() {
        return Row::ok(NAME, bucket.as_str(), "not needed: server.allowed_origins is empty");
    }
    if needs.is_empty() {
        let found = "not needed: sessions of the JSON interface answer the origin that they were opened for";
        return Row::ok(NAME, bucket.as_str(), found);
    }
    let Some(description) = description else {
        return Row::warning(NAME, bucket.as_str(), "needed, and cannot be seen", READER);
    };
    let missing = missing_rules(&description.cors, &subject.allowed_origins, &needs);
    if missing.is_empty() {
        Row::ok(NAME, bucket.as_str(), "every allowed origin may do what it needs")
    } else {
        let remedy = format!("gcloud storage buckets update gs://{bucket} --cors-file=cors.json, with what is missing");
        Row::failed(NAME, bucket.as_str(), missing.join("; "), remedy)
    }
}

/// What a page must be let do.
struct Need {
    method: &'static str,
    headers: Vec<String>,
}

impl Need {
    /// What the clients of these transfers send, and what they read (storage documentation, "Configuration examples for
    /// CORS"). Declared digests and metadata of clients need further headers.
    fn of(api: Api, transfers: &[TransferKind]) -> Vec<Self> {
        let need =
            |method, headers: &[&str]| Self { method, headers: headers.iter().map(ToString::to_string).collect() };
        let mut needs = Vec::new();
        let has = |kind| transfers.contains(&kind);
        if has(TransferKind::SignedResumable) || (api == Api::Xml && has(TransferKind::Resumable)) {
            needs.push(need("PUT", &["content-type", "content-range", "range"]));
        }
        let hint = format!("x-goog-meta-{UPLOAD_HINT}");
        let signed = ["content-type", "x-goog-content-length-range", "x-goog-if-generation-match", &hint];
        if has(TransferKind::SignedResumable) {
            needs.push(need("POST", &[&signed[..], &["x-goog-resumable", "location"]].concat()));
        }
        if has(TransferKind::Simple) {
            needs.push(need("PUT", &signed));
        }
        needs
    }
}

/// What the rules do not let pages of these origins do. The first entry that fits origin and method decides.
fn missing_rules(rules: &[CorsEntry], origins: &[String], needs: &[Need]) -> Vec<String> {
    let mut missing = Vec::new();
    for (origin, need) in origins.iter().flat_map(|origin| needs.iter().map(move |need| (origin, need))) {
        let fits = |rule: &&CorsEntry| {
            rule.origin.iter().any(|allowed| allowed == "*" || allowed == origin)
                && rule.method.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(need.method))
        };
        let text = match rules.iter().find(fits) {
            None => format!("{origin} has no rule for {}", need.method),
            Some(rule) => {
                let absent: Vec<_> =
                    need.headers.iter().filter(|name| !names(rule, name)).map(String::as_str).collect();
                if absent.is_empty() {
                    continue;
                }
                format!("the rule of {origin} for {} lacks the headers {}", need.method, absent.join(", "))
            }
        };
        if !missing.contains(&text) {
            missing.push(text);
        }
    }
    missing
}

/// Whether the rule is for the header; an entry may end with `*`.
fn names(rule: &CorsEntry, header: &str) -> bool {
    rule.response_header.iter().any(|entry| {
        let entry = entry.to_ascii_lowercase();
        entry.strip_suffix('*').map_or(entry == header, |beginning| header.starts_with(beginning))
    })
}

/// What becomes of objects that are deleted.
fn kept(bucket: &BucketName, description: Option<&BucketDescription>) -> Row {
    const NAME: &str = "retention";
    let Some(BucketDescription { soft_delete, retention, versioning, .. }) = description else {
        return Row::skipped(NAME, bucket.as_str(), "cannot be seen");
    };
    let span = |time: &std::time::Duration| humantime::format_duration(*time);
    let mut notes = Vec::new();
    if let Some(time) = soft_delete {
        notes.push(format!("soft delete keeps, and bills, deleted objects for {}", span(time)));
    }
    if *versioning {
        notes.push("versioning keeps what is replaced; rejected objects go for good".to_owned());
    }
    if let Some(time) = retention {
        notes.insert(0, format!("a retention policy keeps every object for {}: rejected ones stay", span(time)));
        return Row::warning(NAME, bucket.as_str(), notes.join("; "), "take a bucket without one, if they must not");
    }
    let found = if notes.is_empty() { "deleted objects are gone".to_owned() } else { notes.join("; ") };
    Row::ok(NAME, bucket.as_str(), found)
}

/// Whether storage tells anybody of new objects.
fn notifications(bucket: &BucketName, configs: Option<Result<Vec<NotificationConfig>, Error>>) -> Row {
    const NAME: &str = "notifications";
    let configs = match configs {
        None => {
            let found = "not configured: uploads end when clients say so, or when they are looked after";
            return Row::ok(NAME, bucket.as_str(), found);
        }
        Some(Ok(configs)) => configs,
        Some(Err(error)) => return unseen(NAME, bucket.as_str(), &error),
    };
    let tells = |config: &&NotificationConfig| {
        (config.event_types.is_empty() || config.event_types.iter().any(|kind| kind == "OBJECT_FINALIZE"))
            && matches!(config.payload_format.as_str(), "" | "JSON_API_V1" | "NONE")
    };
    let mut telling: Vec<_> = configs.iter().filter(tells).collect();
    // One for all objects says most.
    telling.sort_by_key(|config| config.object_name_prefix.len());
    let Some(config) = telling.first() else {
        let found = "[notifications] is set, and no config of the bucket tells of OBJECT_FINALIZE";
        let remedy = format!(
            "gcloud storage buckets notifications create gs://{bucket} --topic=TOPIC --event-types=OBJECT_FINALIZE \
             --payload-format=json"
        );
        return Row::failed(NAME, bucket.as_str(), found, remedy);
    };
    let topic = config.topic.trim_start_matches("//pubsub.googleapis.com/");
    if config.object_name_prefix.is_empty() {
        // The account may not ask about topics and subscriptions, and a token for them would be able to do more.
        let found =
            format!("new objects are told to {topic}; what it pushes here, upload_broker_notifications_total counts");
        return Row::ok(NAME, bucket.as_str(), found);
    }
    let found = format!("only new objects in {:?} are told, to {topic}", config.object_name_prefix);
    Row::warning(NAME, bucket.as_str(), found, "see that the object names of all policies begin so")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_for_browsers_are_those_that_the_clients_need() {
        use TransferKind::{Resumable, SignedResumable, Simple};
        const APP: &str = "https://app.example.com";
        let full = ["content-type", "Content-Range", "Range", "Location", "x-goog-*"];
        let rule = |origin: &str, methods: &[&str], headers: &[&str]| CorsEntry {
            origin: texts(&[origin]),
            method: texts(methods),
            response_header: texts(headers),
        };
        let poor = || rule("*", &["put"], &["content-type", "content-range"]);
        for (name, api, transfers, rules, expected) in [
            ("nothing is needed", Api::Json, vec![Resumable], vec![], ""),
            ("no rule", Api::Xml, vec![Resumable], vec![], "https://app.example.com has no rule for PUT"),
            ("all", Api::Xml, vec![Resumable, Simple, SignedResumable], vec![rule(APP, &["*"], &full)], ""),
            (
                "another origin",
                Api::Json,
                vec![Simple],
                vec![rule("https://b.example", &["*"], &full)],
                "no rule for PUT",
            ),
            ("another method", Api::Json, vec![SignedResumable], vec![rule(APP, &["PUT"], &full)], "no rule for POST"),
            ("a header", Api::Xml, vec![Resumable], vec![poor()], "for PUT lacks the headers range"),
            (
                "the first decides",
                Api::Xml,
                vec![Resumable],
                vec![poor(), rule(APP, &["*"], &full)],
                "lacks the headers range",
            ),
        ] {
            let missing = missing_rules(&rules, &texts(&[APP]), &Need::of(api, &transfers)).join("; ");
            assert_eq!(missing.is_empty(), expected.is_empty(), "{name}: {missing}");
            assert!(missing.contains(expected), "{name}: {missing}");
        }
    }
}
