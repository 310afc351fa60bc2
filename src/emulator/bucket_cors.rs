//! Which browser may read an answer of the XML API: the bucket decides (storage documentation, "Configuration examples for
//! CORS"). A session answers to the `Origin` of its initiation, unless the bucket lets every origin in.

use hyper::http::{HeaderMap, HeaderValue, Method, header};
use serde::{Deserialize, Serialize};

use super::problem::Answer;

/// How long browsers remember a preflight when the bucket does not say.
const MAX_AGE_SECONDS: u32 = 3600;

/// An entry of a bucket's `cors`. The first one that fits decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsRule {
    /// Scheme, host and port of the pages that it is for; `*` is every page.
    pub origin: Vec<String>,
    /// The methods that it is for; `*` is every one.
    pub method: Vec<String>,
    /// The headers that pages may send and read.
    pub response_header: Vec<String>,
    /// How long browsers remember a preflight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
}

impl CorsRule {
    fn is_for_all(&self) -> bool {
        self.origin.iter().any(|allowed| allowed == "*")
    }

    fn fits(&self, origin: Option<&HeaderValue>, method: &str) -> bool {
        let is_named = |origin: &HeaderValue| self.origin.iter().any(|allowed| origin == allowed);
        (self.is_for_all() || origin.is_some_and(is_named))
            && self.method.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(method))
    }
}

/// Who asks.
#[derive(Debug)]
pub(super) enum Asker {
    /// A session, which answers to the origin of its initiation, if it had one, whoever asks now.
    Session(Option<HeaderValue>),
    /// The request's own origin.
    Request(HeaderValue),
}

/// Lets the page that asks read the answer, if a rule of the bucket does.
pub(super) fn allow(answer: &mut Answer, rules: &[CorsRule], asker: &Asker, method: &Method, request: &HeaderMap) {
    let is_preflight = method == Method::OPTIONS;
    let origin = match asker {
        Asker::Session(origin) => origin.as_ref(),
        Asker::Request(origin) => Some(origin),
    };
    let announced = request.get(header::ACCESS_CONTROL_REQUEST_METHOD).and_then(|method| method.to_str().ok());
    let meant = if is_preflight { announced.unwrap_or_default() } else { method.as_str() };
    let Some(rule) = rules.iter().find(|rule| rule.fits(origin, meant)) else { return };
    let headers = answer.headers_mut();
    match origin {
        Some(origin) if !rule.is_for_all() => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        _ => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
    }
    let named = HeaderValue::try_from(rule.response_header.join(", ")).ok().filter(|list| !list.is_empty());
    if !is_preflight {
        headers.extend(named.map(|list| (header::ACCESS_CONTROL_EXPOSE_HEADERS, list)));
        return;
    }
    headers.extend(named.map(|list| (header::ACCESS_CONTROL_ALLOW_HEADERS, list)));
    let is_any = rule.method.iter().any(|allowed| allowed == "*");
    let methods = if is_any { meant.to_owned() } else { rule.method.join(", ") };
    headers.extend(HeaderValue::try_from(methods).ok().map(|list| (header::ACCESS_CONTROL_ALLOW_METHODS, list)));
    let age = rule.max_age_seconds.unwrap_or(MAX_AGE_SECONDS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age));
}
