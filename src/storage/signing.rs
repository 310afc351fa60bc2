//! V4 signing: what a request looks like to the one who checks its signature, and the URL that bears one (storage
//! documentation, "V4 signing process with your own program" and "Canonical requests"). Nothing here sends or signs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use reqwest::Url;

use super::endpoint::percent_encode;
use super::error::Error;
use crate::model::secret::SessionUri;
use crate::model::time::Timestamp;

/// The only algorithm of RSA keys (storage documentation, "Signatures").
const ALGORITHM: &str = "GOOG4-RSA-SHA256";

/// Where a signature counts. The region of a bucket is not checked, and `auto` says as much.
const SCOPE: &str = "auto/storage/goog4_request";

/// The longest life of a signed URL (storage documentation, "Signed URLs").
const LONGEST_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The form of `X-Goog-Date`.
const DATE: &str = "%Y%m%dT%H%M%SZ";

/// A request that somebody else will make.
pub(super) struct Canonical<'a> {
    /// The HTTP method.
    pub(super) method: &'a str,
    /// Scheme, host and, if need be, port: the beginning of the URL.
    pub(super) origin: &'a str,
    /// The path as it stands in the URL, percent-encoded.
    pub(super) path: &'a str,
    /// Parameters beside those of the signature, not encoded yet.
    pub(super) query: &'a [(&'a str, &'a str)],
    /// The headers that are signed beside `host`; the names in lower case.
    pub(super) headers: &'a BTreeMap<String, String>,
}

/// A URL that lacks its signature, and what is to be signed for it.
pub(super) struct Unsigned {
    pub(super) string_to_sign: String,
    pub(super) url: String,
}

impl Canonical<'_> {
    /// What `signer` has to sign so that the request can be made from `now` on for `lifetime`, in whole seconds.
    ///
    /// # Errors
    /// When the life is shorter than a second or longer than seven days, or the origin is none.
    pub(super) fn unsigned(&self, signer: &str, now: Timestamp, lifetime: Duration) -> Result<Unsigned, Error> {
        if !(Duration::from_secs(1)..=LONGEST_LIFE).contains(&lifetime) {
            return Err(Error::Nonsense("a signed URL lives from a second to seven days"));
        }
        let date = jiff::Timestamp::from_second(now.as_secs())
            .map_err(|_| Error::Nonsense("a URL signed at a time without a date"))?
            .strftime(DATE)
            .to_string();
        let day = date.get(..8).unwrap_or_default();
        let credential = format!("{signer}/{day}/{SCOPE}");
        let expires = lifetime.as_secs().to_string();
        let names = self.signed_names();
        let mut query: Vec<(String, String)> = [
            ("X-Goog-Algorithm", ALGORITHM),
            ("X-Goog-Credential", &credential),
            ("X-Goog-Date", &date),
            ("X-Goog-Expires", &expires),
            ("X-Goog-SignedHeaders", &names),
        ]
        .iter()
        .chain(self.query)
        .map(|(name, value)| (percent_encode(name), percent_encode(value)))
        .collect();
        query.sort();
        let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let query = query.join("&");
        let canonical = self.request(&query)?;
        let hash = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        Ok(Unsigned {
            string_to_sign: format!("{ALGORITHM}\n{date}\n{day}/{SCOPE}\n{hash}"),
            url: format!("{}{}?{query}", self.origin, self.path),
        })
    }

    /// The canonical request; `query` is the one of the URL, sorted and without the signature.
    fn request(&self, query: &str) -> Result<String, Error> {
        let Self { method, path, headers, .. } = self;
        let nowhere = Error::Nonsense("a URL cannot be signed for an endpoint without a host");
        let Ok(origin) = Url::parse(self.origin) else { return Err(nowhere) };
        // Without the port, whatever it is: so the published test vectors have it.
        let Some(host) = origin.host_str() else { return Err(nowhere) };
        let mut lines: Vec<(&str, Cow<'_, str>)> =
            headers.iter().map(|(name, value)| (name.as_str(), Cow::Owned(canonical_value(value)))).collect();
        lines.push(("host", Cow::Borrowed(host)));
        lines.sort();
        let lines = lines.iter().fold(String::new(), |lines, (name, value)| lines + name + ":" + value + "\n");
        let payload = headers.get("x-goog-content-sha256").map_or("UNSIGNED-PAYLOAD", String::as_str);
        Ok(format!("{method}\n{path}\n{query}\n{lines}\n{}\n{payload}", self.signed_names()))
    }

    fn signed_names(&self) -> String {
        let mut names: Vec<&str> = self.headers.keys().map(String::as_str).collect();
        names.push("host");
        names.sort_unstable();
        names.join(";")
    }
}

/// A header's value as it is signed: blanks and tabs around it fall away, and a run of them within becomes one blank.
fn canonical_value(value: &str) -> String {
    value.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

impl Unsigned {
    /// The URL with its signature, which stands last.
    ///
    /// # Errors
    /// When it is longer than a session URI may be.
    pub(super) fn signed(self, signature: &[u8]) -> Result<SessionUri, Error> {
        SessionUri::parse(&format!("{}&X-Goog-Signature={}", self.url, hex(signature)))
            .map_err(|_| Error::Nonsense("the signed URL is too long to be handed out"))
    }
}

/// When a signed URL ends: `X-Goog-Expires` seconds after `X-Goog-Date`. Storage looks at it when a request begins.
///
/// `None` for the URI of a session, also of one that a signed URL opened and that may repeat its parameters.
pub fn signed_until(uri: &SessionUri) -> Option<Timestamp> {
    let url = Url::parse(uri.expose()).ok()?;
    let parameter = |name: &str| url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value);
    if parameter("upload_id").is_some() || parameter("X-Goog-Signature").is_none() {
        return None;
    }
    let date = jiff::civil::DateTime::strptime(DATE, parameter("X-Goog-Date")?.as_ref()).ok()?;
    let date = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    let life = Duration::from_secs(parameter("X-Goog-Expires")?.parse().ok()?);
    Some(Timestamp::from_secs(date.as_second()).plus(life))
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
