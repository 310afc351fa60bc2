//! Who may push notifications, and what a push is read as.
//!
//! Google signs a token for each subscription or trigger, in the name of a service account. Signature, issuer, audience
//! and time are not enough: anybody can have Google sign a token of their own account for this audience. So a push is
//! held to the rules of [`Identity`], and the one service account is its administrator; whoever else has a valid token
//! is refused. Nothing of the message is looked at before.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracing::{debug, warn};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::extract::{bearer, collect};
use super::problem::{Code, FieldError, Problem};
use crate::identity::{self, Algorithm, Identity, IssuerSettings};
use crate::model::Invalid;
use crate::model::address::UpstreamUrl;
use crate::model::notice::ObjectNotice;
use crate::model::section::SectionError;
use crate::model::time::Span;
use crate::model::upload::UploadState;
use crate::notifications::{self, MAX_BODY, Metrics, Outcome, Unreadable};
use crate::uploads::{self, Noticed};

/// What is pushed: one of the three forms that the receiver knows. In the interface it has a name, so that clients
/// that are generated make one type of it.
pub struct StorageNotification;

impl PartialSchema for StorageNotification {
    fn schema() -> RefOr<Schema> {
        let description = "A wrapped Pub/Sub message, an object resource, or a CloudEvent, as Google sends them.";
        ObjectBuilder::new().description(Some(description)).into()
    }
}

impl ToSchema for StorageNotification {}

/// The names that Google's tokens bear (OpenID Connect, "An ID token's payload").
const GOOGLE: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];

/// Where the keys of both are.
const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// How long a token lives: an hour, which clocks and caches may stretch a little.
const LIFETIME: Span = Span::seconds(3_600 + 300);

/// How far clocks may differ.
const LEEWAY: Span = Span::seconds(30);

/// The `[notifications]` section: whose pushes are accepted.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The `iss` claim of the tokens. Google's has two spellings, and either stands for both.
    #[serde(default = "google")]
    pub issuer: String,
    /// Where the key set is; left out, Google's for Google, and otherwise OpenID discovery at the issuer finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<UpstreamUrl>,
    /// A file that holds the key set, in place of an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// The signature algorithms accepted.
    #[serde(default = "rs256")]
    pub algorithms: Vec<Algorithm>,
    /// The audience that the subscription or trigger is configured with: without one, the address that it pushes to.
    pub audience: String,
    /// The service account in whose name it pushes.
    pub service_account: ServiceAccount,
    /// The Pub/Sub subscriptions whose pushes are accepted; left out, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Vec<SubscriptionName>>,
}

fn google() -> String {
    GOOGLE[0].to_owned()
}

fn rs256() -> Vec<Algorithm> {
    vec![Algorithm::RS256]
}

impl Settings {
    /// The issuers whose tokens are accepted. The service account is their administrator.
    fn issuers(&self) -> Vec<IssuerSettings> {
        let is_google = GOOGLE.contains(&&*self.issuer);
        let names = if is_google { &GOOGLE[..] } else { &[&*self.issuer][..] };
        let of_google = || (is_google && self.jwks_file.is_none()).then(|| GOOGLE_KEYS.parse().ok()).flatten();
        let jwks_url = self.jwks_url.clone().or_else(of_google);
        let section = |name: &&str| IssuerSettings {
            issuer: (*name).to_owned(),
            audiences: vec![self.audience.clone()],
            jwks_url: jwks_url.clone(),
            jwks_file: self.jwks_file.clone(),
            algorithms: self.algorithms.clone(),
            leeway: LEEWAY,
            max_lifetime: LIFETIME,
            tenant_claim: None,
            // The address cannot break out of the quotes: see `ServiceAccount`.
            admin_when: Some(format!(
                "claims.email == \"{}\" && claims.email_verified == true",
                self.service_account.0
            )),
        };
        names.iter().map(section).collect()
    }
}

/// Declares a checked text type of the configuration.
macro_rules! checked {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl std::str::FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                $check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

checked!(
    /// The e-mail address of a service account: letters, digits, `.`, `_`, `%`, `+` and `-`, and one `@`.
    ServiceAccount,
    check_service_account
);
checked!(
    /// The name of a Pub/Sub subscription: `projects/PROJECT/subscriptions/NAME`.
    SubscriptionName,
    check_subscription
);

fn check_service_account(text: &str) -> Result<(), Invalid> {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte))
    };
    match text.split_once('@') {
        Some((account, domain)) if text.len() <= 254 && plain(account) && plain(domain) => Ok(()),
        _ => Err(Invalid("must be the e-mail address of a service account".to_owned())),
    }
}

fn check_subscription(text: &str) -> Result<(), Invalid> {
    let parts: Vec<_> = text.split('/').collect();
    match parts[..] {
        ["projects", project, "subscriptions", name] if !project.is_empty() && !name.is_empty() => Ok(()),
        _ => Err(Invalid("must have the form \"projects/PROJECT/subscriptions/NAME\"".to_owned())),
    }
}

/// Takes pushes, and counts what becomes of them.
pub struct Receiver {
    identity: Identity,
    subscriptions: Option<Vec<SubscriptionName>>,
    metrics: Metrics,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("subscriptions", &self.subscriptions).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Prepares to take pushes. `users` lends its client and metrics, and keys that it has read of the same issuer;
    /// its tokens are worth nothing here, nor are those of pushes worth anything there.
    ///
    /// # Errors
    /// When a key of the section cannot be used.
    pub fn new(settings: &Settings, users: &Identity, metrics: Metrics) -> Result<Self, SectionError> {
        let identity = users.reconfigured(&settings.issuers()).map_err(|error| SectionError {
            key: if error.key == "audiences" { "audience" } else { error.key },
            ..error
        })?;
        Ok(Self { identity, subscriptions: settings.subscriptions.clone(), metrics })
    }

    /// The same under other settings. Keys that were read from an address that still holds are kept.
    ///
    /// # Errors
    /// When a key of the section cannot be used.
    pub fn reconfigured(&self, settings: &Settings) -> Result<Self, SectionError> {
        Self::new(settings, &self.identity, self.metrics.clone())
    }

    /// The issuers whose tokens are accepted.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.identity.issuers()
    }

    /// Shows in metrics what came of reading the issuer's keys.
    pub fn introduce_issuers(&self) {
        self.identity.introduce_issuers();
    }

    /// Reads the issuer's keys; failures are logged.
    pub async fn warm_up(&self) {
        self.identity.warm_up().await;
    }

    /// Asks the issuer for its keys. Where it has two names, they are answered for alike.
    pub async fn examine(&self) -> Option<identity::Examined> {
        self.identity.examine().await.into_iter().next()
    }

    /// Checks whose push it is, by its token alone.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = bearer(headers) else {
            self.metrics.observe(Outcome::Unauthenticated);
            return Err(Problem::unauthenticated(None));
        };
        match self.identity.verify(token).await {
            Ok(principal) if principal.admin => Ok(()),
            Ok(_) => {
                Err(self.forbid("the token is not that of the configured service account with a verified address"))
            }
            Err(error) => {
                self.metrics.observe(match error {
                    identity::Error::Unauthenticated(_) => Outcome::Unauthenticated,
                    identity::Error::KeysUnavailable { .. } => Outcome::Failed,
                });
                debug!(error = %error, "a notification is refused");
                Err(error.into())
            }
        }
    }

    fn forbid(&self, reason: &'static str) -> Problem {
        self.metrics.observe(Outcome::Unauthenticated);
        debug!(reason, "a notification is refused");
        Problem::new(Code::Forbidden).detail(reason)
    }

    /// Reads what was pushed. `None` is to be acknowledged as it is: it is about nothing, or can never be read.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Option<ObjectNotice>, Problem> {
        let read = match collect(body, MAX_BODY).await {
            Ok(body) => notifications::read(headers, &body),
            Err(problem) if problem.code() == Code::BodyTooLarge => {
                Err(Unreadable::Malformed("it is larger than 1 MiB"))
            }
            Err(problem) => {
                self.metrics.observe(Outcome::Failed);
                return Err(problem);
            }
        };
        let delivery = match read {
            Ok(delivery) => delivery,
            Err(unreadable) => {
                self.metrics.observe(Outcome::Malformed);
                warn!(reason = %unreadable, "a notification cannot be read");
                return match unreadable {
                    // To send it again would not mend it.
                    Unreadable::Malformed(_) => Ok(None),
                    // What is kept meanwhile can be read once the subscription is set up otherwise.
                    Unreadable::Unwrapped => {
                        let detail = unreadable.to_string();
                        Err(Problem::invalid_request(vec![FieldError { pointer: String::new(), detail }]))
                    }
                };
            }
        };
        if let Some(accepted) = &self.subscriptions
            && !accepted.iter().any(|one| Some(&one.0) == delivery.subscription.as_ref())
        {
            return Err(self.forbid("the subscription is not among those that are accepted"));
        }
        if delivery.notice.is_none() {
            self.metrics.observe(Outcome::Ignored);
        }
        Ok(delivery.notice)
    }

    /// Counts what became of a notice.
    pub(super) fn observe(&self, noticed: &Result<Noticed, uploads::Error>) {
        self.metrics.observe(match noticed {
            Ok(Noticed::Advanced(tracked)) => match tracked.upload.state {
                UploadState::Completed { .. } => Outcome::Completed,
                UploadState::Rejected { .. } => Outcome::Rejected,
                // Somebody else ended it at the same moment.
                _ => Outcome::Unchanged,
            },
            Ok(Noticed::AlreadyFinal(_) | Noticed::StillOpen(_)) => Outcome::Unchanged,
            Ok(Noticed::CleanedUp(_)) => Outcome::CleanedUp,
            Ok(Noticed::Unknown) => Outcome::Unknown,
            Ok(Noticed::Foreign) => Outcome::Foreign,
            Err(_) => Outcome::Failed,
        });
    }
}

/// Whoever may push, and has shown it.
pub struct Pusher(pub Arc<Receiver>);

impl<S> FromRequestParts<S> for Pusher
where
    S: Send + Sync,
    Option<Arc<Receiver>>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Some(receiver) = Option::<Arc<Receiver>>::from_ref(state) else {
            return Err(Problem::new(Code::NotFound).detail("notifications are not configured here"));
        };
        receiver.authenticate(&parts.headers).await?;
        Ok(Self(receiver))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &str) -> Result<Settings, toml::de::Error> {
        toml::from_str(&format!("audience = \"a\"\n{more}"))
    }

    const ACCOUNT: &str = "service_account = \"push@acme.iam.gserviceaccount.com\"\n";

    #[test]
    fn google_has_two_names_and_one_key_set_and_others_what_is_configured() {
        let keys = Some(GOOGLE_KEYS.to_owned());
        for (name, more, names, expected) in [
            ("by default", "", &GOOGLE[..], keys.clone()),
            ("by its other name", "issuer = \"accounts.google.com\"", &GOOGLE[..], keys),
            ("with keys in a file", "jwks_file = \"keys.json\"", &GOOGLE[..], None),
            (
                "with keys elsewhere",
                "jwks_url = \"https://a.example/keys\"",
                &GOOGLE[..],
                Some("https://a.example/keys".to_owned()),
            ),
            ("another issuer", "issuer = \"https://b.example\"", &["https://b.example"][..], None),
        ] {
            let issuers = settings(&format!("{ACCOUNT}{more}")).unwrap().issuers();
            let found: Vec<_> = issuers.iter().map(|section| section.issuer.as_str()).collect();
            assert_eq!(found, names, "{name}");
            for section in issuers {
                assert_eq!(section.jwks_url.map(|url| url.to_string()), expected, "{name}");
                assert_eq!(
                    (&section.algorithms[..], &section.audiences[..]),
                    (&[Algorithm::RS256][..], &["a".to_owned()][..])
                );
            }
        }
    }

    #[test]
    fn what_is_no_account_and_no_subscription_is_refused() {
        for (account, accepted) in [
            ("push@acme.iam.gserviceaccount.com", true),
            ("1234-compute@developer.gserviceaccount.com", true),
            ("", false),
            ("push", false),
            ("push@", false),
            ("@acme.example", false),
            ("a@b@c", false),
            ("a\" || true || \"@acme.example", false),
            ("a\\@acme.example", false),
            ("a\n@acme.example", false),
        ] {
            assert_eq!(account.parse::<ServiceAccount>().is_ok(), accepted, "{account:?}");
        }
        for (name, accepted) in [
            ("projects/acme/subscriptions/uploads-eu", true),
            ("uploads-eu", false),
            ("projects/acme/topics/uploads-eu", false),
            ("projects//subscriptions/uploads-eu", false),
            ("projects/acme/subscriptions/", false),
            ("projects/acme/subscriptions/a/b", false),
        ] {
            assert_eq!(name.parse::<SubscriptionName>().is_ok(), accepted, "{name:?}");
        }
        assert!(settings("").is_err(), "an account is needed");
        assert!(settings(&format!("{ACCOUNT}oidc = true")).is_err(), "a key that is not known");
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named_as_it_is_here() {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let users = Identity::new(&[], crate::clock::Clock::System, client).unwrap();
        for (more, expected) in [
            ("audience = \"\"", Some("audience")),
            ("audience = \"a\"\nissuer = \"\"", Some("issuer")),
            ("audience = \"a\"\nalgorithms = []", Some("algorithms")),
            ("audience = \"a\"\njwks_url = \"https://a.example\"\njwks_file = \"b\"", Some("jwks_file")),
            ("audience = \"a\"", None),
        ] {
            let settings = toml::from_str(&format!("{ACCOUNT}{more}")).unwrap();
            let refused = Receiver::new(&settings, &users, Metrics::default()).err();
            assert_eq!(refused.map(|error| error.key), expected, "{more}");
        }
    }
}
