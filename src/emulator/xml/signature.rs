//! Whether a URL is one that an account has signed (storage documentation, "Signatures" and "Canonical requests"). Free
//! of HTTP types: what was sent stands in a [`Presented`].

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use hyper::http::StatusCode;

use super::super::accounts::{Accounts, Verdict, hex};
use super::super::objects::percent_encoded;
use super::super::problem::Problem;
use super::super::range::number;
use super::super::target::{Plus, decode, without_port};
use crate::model::time::Timestamp;

const ALGORITHM: &str = "GOOG4-RSA-SHA256";

/// How long a URL may be good for (storage documentation, "Signed URLs"): a week.
const LONGEST: u64 = 604_800;

/// How much earlier than its date a URL is good, since clocks differ.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// A request, as far as a signature covers it.
#[derive(Debug)]
pub(super) struct Presented<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// Every header as sent, repeated ones in their order; names in whatever case.
    pub(super) headers: &'a [(String, String)],
}

/// Whether a query is that of a signed URL, well made or not.
pub(super) fn is_signed(query: &str) -> bool {
    let names = query.split('&').map(|part| part.split('=').next().unwrap_or_default());
    names.into_iter().any(|name| matches!(name, "X-Goog-Algorithm" | "X-Goog-Credential" | "X-Goog-Signature"))
}

/// Checks the signature of a request whose URL is signed.
pub(super) fn check(presented: &Presented<'_>, accounts: &Accounts, now: Timestamp) -> Result<(), Problem> {
    let pairs = pairs(presented.query).ok_or_else(|| invalid("The query is not percent-encoded UTF-8."))?;
    let signed = Signed::of(&pairs)?;
    signed.check_time(now)?;
    let mut headers = gathered(presented);
    signed.check_headers(&headers)?;

    let mut verify = |method: &str, host: &str| {
        headers.insert("host".to_owned(), host.to_ascii_lowercase());
        let canonical = canonical(method, presented.path, &pairs, &headers, &signed)
            .ok_or_else(|| invalid("The path is not percent-encoded UTF-8."))?;
        let hashed = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("{ALGORITHM}\n{}\n{}\n{hashed}", signed.date, signed.scope);
        let verdict = accounts.verify(signed.account, to_sign.as_bytes(), &signed.signature);
        Ok::<_, Problem>((verdict, to_sign, canonical))
    };
    let shown = verify(presented.method, without_port(presented.host))?;
    // Who may read an object may read its headers ("UrlSigner.RequestTemplate" of Google's library for .NET).
    let also = if presented.method == "HEAD" { "GET" } else { presented.method };
    let (name, host) = (without_port(presented.host), presented.host);
    // Storage has no port. Where the address has one, Google's libraries disagree: Node leaves it out, Python signs it.
    for (method, host) in [(presented.method, host), (also, name), (also, host)] {
        if shown.0 == Verdict::Wrong && verify(method, host)?.0 == Verdict::Right {
            return Ok(());
        }
    }
    let (verdict, to_sign, canonical) = shown;
    match verdict {
        Verdict::Right => Ok(()),
        Verdict::Unknown => {
            let details = format!("{} is not known here.", signed.account);
            Err(Problem::xml(StatusCode::FORBIDDEN, "AccessDenied", "Access denied.", details))
        }
        Verdict::Wrong => {
            let message = "Access denied.";
            let details =
                format!("The signature does not fit. String to sign:\n{to_sign}\nCanonical request:\n{canonical}");
            Err(Problem::xml(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", message, details))
        }
    }
}

fn invalid(details: impl Into<String>) -> Problem {
    Problem::xml(StatusCode::BAD_REQUEST, "InvalidArgument", "Invalid argument.", details)
}

/// A query's names and values, decoded, in the order given. A plus is a plus: whoever signs a blank sends `%20`.
fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(name, Plus::Plus)?, decode(value, Plus::Plus)?))
        })
        .collect()
}

/// What the query says of its signature.
struct Signed<'a> {
    account: &'a str,
    /// `YYYYMMDD/region/storage/goog4_request`.
    scope: &'a str,
    date: &'a str,
    from: Timestamp,
    lifetime: Duration,
    /// In the order given. The canonical request has them sorted, whatever this order is.
    headers: Vec<&'a str>,
    signature: Vec<u8>,
}

impl<'a> Signed<'a> {
    fn of(pairs: &'a [(String, String)]) -> Result<Self, Problem> {
        let get = |name: &str| {
            let mut values = pairs.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str());
            match (values.next(), values.next()) {
                (Some(value), None) => Ok(value),
                (None, _) => Err(invalid(format!("The query lacks {name}."))),
                (Some(_), Some(_)) => Err(invalid(format!("The query has {name} twice."))),
            }
        };
        if get("X-Goog-Algorithm")? != ALGORITHM {
            return Err(invalid(format!("X-Goog-Algorithm is not {ALGORITHM}.")));
        }
        let date = get("X-Goog-Date")?;
        let from = instant(date).ok_or_else(|| invalid("X-Goog-Date is not of the form YYYYMMDDTHHMMSSZ."))?;
        let (account, scope) =
            get("X-Goog-Credential")?.split_once('/').filter(|(_, scope)| is_scope(scope, &date[..8])).ok_or_else(
                || invalid("X-Goog-Credential is not ACCOUNT/DAY/REGION/storage/goog4_request of that date."),
            )?;
        let seconds = number(get("X-Goog-Expires")?).filter(|seconds| (1..=LONGEST).contains(seconds));
        let seconds = seconds.ok_or_else(|| invalid(format!("X-Goog-Expires is not 1 to {LONGEST} seconds.")))?;
        let headers = get("X-Goog-SignedHeaders")?.split(';').collect();
        let signature = get("X-Goog-Signature")?;
        let signature = from_hex(signature).ok_or_else(|| invalid("X-Goog-Signature is not hexadecimal."))?;
        Ok(Self { account, scope, date, from, lifetime: Duration::from_secs(seconds), headers, signature })
    }

    fn check_time(&self, now: Timestamp) -> Result<(), Problem> {
        if now.plus(SKEW) < self.from {
            let message = "The difference between the request time and the server's time is too large.";
            let details = format!("The signature is good from {} on.", self.from);
            return Err(Problem::xml(StatusCode::FORBIDDEN, "RequestTimeTooSkewed", message, details));
        }
        let end = self.from.plus(self.lifetime);
        if now > end {
            let details = format!("The signature was good until {end}.");
            let message = "The provided token has expired.";
            return Err(Problem::xml(StatusCode::BAD_REQUEST, "ExpiredToken", message, details));
        }
        Ok(())
    }

    /// What is signed must be there, and what storage acts on must be signed.
    fn check_headers(&self, headers: &BTreeMap<String, String>) -> Result<(), Problem> {
        let malformed = |details: String| {
            let message = "Your request has a malformed header.";
            Err(Problem::xml(StatusCode::BAD_REQUEST, "MalformedSecurityHeader", message, details))
        };
        if !self.headers.contains(&"host") {
            return malformed("The header host was not signed.".to_owned());
        }
        if let Some(missing) = self.headers.iter().find(|name| !headers.contains_key(**name)) {
            return malformed(format!("The header {missing} was signed, but is not in the request."));
        }
        let is_unsigned = |name: &&String| name.starts_with("x-goog-") && !self.headers.contains(&name.as_str());
        if let Some(unsigned) = headers.keys().find(is_unsigned) {
            return malformed(format!("The header {unsigned} is in the request, but was not signed."));
        }
        Ok(())
    }
}

fn is_scope(scope: &str, day: &str) -> bool {
    let parts: Vec<&str> = scope.split('/').collect();
    matches!(parts[..], [given, region, "storage", "goog4_request"] if given == day && !region.is_empty())
}

/// Reads `YYYYMMDD'T'HHMMSS'Z'`.
fn instant(text: &str) -> Option<Timestamp> {
    let (day, time) = text.strip_suffix('Z')?.split_once('T')?;
    let are_digits = |part: &str, count| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(day, 8) || !are_digits(time, 6) {
        return None;
    }
    let written = format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &time[..2], &time[2..4], &time[4..]);
    Some(Timestamp::from_secs(written.parse::<jiff::Timestamp>().ok()?.as_second()))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()));
    let digits: Vec<u8> = digits.collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// The headers by their lower-case names: values without outer blanks, inner runs of blanks as one, repeated ones joined;
/// the host without its port.
fn gathered(presented: &Presented<'_>) -> BTreeMap<String, String> {
    let mut gathered: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in presented.headers {
        let words: Vec<&str> = value.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        let value = words.join(" ");
        gathered
            .entry(name.to_ascii_lowercase())
            .and_modify(|earlier| {
                earlier.push(',');
                earlier.push_str(&value);
            })
            .or_insert(value);
    }
    gathered.insert("host".to_owned(), without_port(presented.host).to_ascii_lowercase());
    gathered
}

fn canonical(
    method: &str,
    path: &str,
    pairs: &[(String, String)],
    headers: &BTreeMap<String, String>,
    signed: &Signed<'_>,
) -> Option<String> {
    // Decoded and encoded anew, so that it does not matter which characters the sender encoded without need. A slash of
    // the path is one however it was sent.
    let path = decode(path, Plus::Plus)?;
    let path: Vec<String> = path.split('/').map(percent_encoded).collect();
    let mut query: Vec<(String, String)> = pairs
        .iter()
        .filter(|(name, _)| name != "X-Goog-Signature")
        .map(|(name, value)| (percent_encoded(name), percent_encoded(value)))
        .collect();
    query.sort();
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut names = signed.headers.clone();
    names.sort_unstable();
    let value = |name: &str| headers.get(name).map_or("", String::as_str);
    let lines: Vec<String> = names.iter().map(|name| format!("{name}:{}", value(name))).collect();
    let payload = match headers.get("x-goog-content-sha256") {
        Some(hash) if names.contains(&"x-goog-content-sha256") => hash,
        _ => "UNSIGNED-PAYLOAD",
    };
    let (path, query, lines, names) = (path.join("/"), query.join("&"), lines.join("\n"), names.join(";"));
    // An empty line ends the headers.
    Some(format!("{method}\n{path}\n{query}\n{lines}\n\n{names}\n{payload}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde::Deserialize;

    use super::*;

    const SIGNER: &str = "test-iam-credentials@dummy-project-id.iam.gserviceaccount.com";

    #[derive(Deserialize)]
    struct Vectors {
        #[serde(rename = "signingV4Tests")]
        urls: Vec<Vector>,
    }

    #[derive(Clone, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Vector {
        description: String,
        method: String,
        expiration: u64,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        expected_url: String,
    }

    impl Vector {
        fn check(&self, accounts: &Accounts, later: i64) -> Result<(), Problem> {
            let (_, rest) = self.expected_url.split_once("://").unwrap();
            let (host, rest) = rest.split_once('/').unwrap();
            let (path, query) = rest.split_once('?').unwrap();
            let date = query.split('&').find_map(|part| part.strip_prefix("X-Goog-Date=")).unwrap();
            let now = Timestamp::from_secs(instant(date).unwrap().as_secs() + later);
            let path = format!("/{path}");
            let headers: Vec<_> = self.headers.clone().into_iter().collect();
            let presented = Presented { method: &self.method, host, path: &path, query, headers: &headers };
            super::check(&presented, accounts, now)
        }
    }

    fn code(problem: &Problem) -> String {
        let document = format!("{problem:?}");
        document.split_once("code: \"").unwrap().1.split_once('"').unwrap().0.to_owned()
    }

    /// The files of github.com/googleapis/conformance-tests, storage/v1, which are not part of this repository.
    #[test]
    fn the_published_signatures_fit() {
        let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors");
        #[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
        let folder = std::env::var("GCS_TEST_VECTORS").map_or(beside, PathBuf::from);
        let (Ok(text), Ok(key)) = (
            std::fs::read_to_string(folder.join("v4_signatures.json")),
            std::fs::read_to_string(folder.join("v4_signatures.public_key.pem")),
        ) else {
            #[expect(clippy::print_stderr, reason = "whoever runs the tests should see it")]
            {
                eprintln!("skipped: no published vectors in {} (GCS_TEST_VECTORS)", folder.display());
            }
            return;
        };
        let vectors: Vectors = serde_json::from_str(&text).unwrap();
        let accounts = Accounts::new(&BTreeMap::from([(SIGNER.to_owned(), key)])).unwrap();
        assert_eq!(vectors.urls.len(), 29);
        for vector in &vectors.urls {
            let name = &vector.description;
            vector.check(&accounts, 0).unwrap_or_else(|problem| panic!("{name}: {problem:?}"));
            let end = i64::try_from(vector.expiration).unwrap();
            vector.check(&accounts, end).unwrap_or_else(|problem| panic!("{name}: {problem:?}"));
            assert_eq!(code(&vector.check(&accounts, end + 1).unwrap_err()), "ExpiredToken", "{name}");
            assert_eq!(code(&vector.check(&Accounts::default(), 0).unwrap_err()), "AccessDenied", "{name}");
            let other = Vector { method: "DELETE".to_owned(), ..vector.clone() };
            assert_eq!(code(&other.check(&accounts, 0).unwrap_err()), "SignatureDoesNotMatch", "{name}");
        }
    }

    #[test]
    fn what_is_signed_is_put_in_order() {
        let headers = [
            ("X-Goog-Meta-B", " two \t words "),
            ("content-type", "text/plain"),
            ("x-goog-meta-b", "again"),
            ("X-Goog-Content-SHA256", "abc"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let query = "z=1&b%20c=%2f%7e&X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=a%40b%2F20190201%2Fauto%2Fstorage%2F\
                     goog4_request&X-Goog-Date=20190201T090000Z&X-Goog-Expires=10&X-Goog-SignedHeaders=\
                     host%3Bx-goog-content-sha256%3Bx-goog-meta-b&X-Goog-Signature=00ff";
        let presented = Presented {
            method: "PUT",
            host: "Storage.googleapis.com:443",
            path: "/b//a%2fb%7E+%C3%A9",
            query,
            headers: &headers,
        };
        let pairs = pairs(query).unwrap();
        let signed = Signed::of(&pairs).map_err(|problem| format!("{problem:?}")).unwrap();
        assert_eq!(signed.signature, [0, 255]);
        let expected = "PUT\n\
            /b//a/b~%2B%C3%A9\n\
            X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=a%40b%2F20190201%2Fauto%2Fstorage%2Fgoog4_request\
            &X-Goog-Date=20190201T090000Z&X-Goog-Expires=10\
            &X-Goog-SignedHeaders=host%3Bx-goog-content-sha256%3Bx-goog-meta-b&b%20c=%2F~&z=1\n\
            host:storage.googleapis.com\n\
            x-goog-content-sha256:abc\n\
            x-goog-meta-b:two words,again\n\
            \n\
            host;x-goog-content-sha256;x-goog-meta-b\n\
            abc";
        assert_eq!(canonical("PUT", presented.path, &pairs, &gathered(&presented), &signed).unwrap(), expected);
    }

    #[test]
    fn dates_are_read_strictly() {
        for (text, expected) in [
            ("19700101T000001Z", Some(1)),
            ("20251122T100000Z", Some(1_763_805_600)),
            ("20250230T100000Z", None),
            ("20251122T250000Z", None),
            ("2025-11-22T10:00:00Z", None),
            ("20251122T100000", None),
            ("20251122T1000é0Z", None),
        ] {
            assert_eq!(instant(text).map(Timestamp::as_secs), expected, "{text}");
        }
    }
}
