//! One case: claims and a request, what is to become of them, and what does.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::http::problem::Problem;
use crate::http::wire_create::CreateUpload;
use crate::identity::{self, IssuerSettings};
use crate::model::id::UploadId;
use crate::model::name::{PolicyName, RegionName};
use crate::model::section::SectionError;
use crate::model::time::Timestamp;
use crate::model::upload::NewUpload;
use crate::policy::{Admission, Denial, Policies, Violation};
use crate::uploads;

/// The random part of every upload's id in these tests.
const RANDOM: [u8; 16] = [0x5A; 16];

/// One `[[cases]]` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What must hold.
    pub(super) name: String,
    issuer: Option<String>,
    claims: Map<String, Value>,
    request: CreateUpload,
    #[serde(default, deserialize_with = "instant")]
    at: Option<Timestamp>,
    expect: Expected,
    policy: Option<PolicyName>,
    object: Option<String>,
    regions: Option<BTreeSet<RegionName>>,
    limits: Option<BTreeSet<String>>,
    admin: Option<bool>,
}

/// What is to become of a case: that it is admitted, or the code of the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Expected {
    Admitted,
    Unauthenticated,
    PolicyDenied,
    PolicyViolation,
    InvalidRequest,
}

impl Expected {
    const fn name(self) -> &'static str {
        match self {
            Self::Admitted => ADMITTED,
            Self::Unauthenticated => "unauthenticated",
            Self::PolicyDenied => "policy-denied",
            Self::PolicyViolation => "policy-violation",
            Self::InvalidRequest => "invalid-request",
        }
    }
}

const ADMITTED: &str = "admitted";

/// An instant as text, or as TOML writes one without quotes.
fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Toml(toml::value::Datetime),
    }
    let text = match Written::deserialize(deserializer) {
        Ok(Written::Text(text)) => text,
        Ok(Written::Toml(time)) => time.to_string(),
        // What is no text is no instant either.
        Err(_) => String::new(),
    };
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Why a case cannot be heard.
#[derive(Debug)]
pub(super) enum Mistake {
    /// A key of it is wrong.
    Case { key: &'static str, reason: String },
    /// The issuer's section of the configuration is.
    Issuer { position: usize, error: SectionError },
}

/// What became of a case.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) decision: Decision,
    /// What is not as it is to be.
    pub(super) differences: Vec<String>,
}

/// What is decided about a request.
#[derive(Debug)]
pub(super) enum Decision {
    Admitted(Box<Admission>),
    Refused {
        /// The code of the problem.
        code: &'static str,
        reasons: Vec<String>,
        limits: BTreeSet<String>,
    },
}

/// Decides about cases as the service would.
pub(super) struct Judge<'a> {
    pub(super) policies: &'a Policies,
    pub(super) issuers: &'a [IssuerSettings],
    /// Where a case does not say.
    pub(super) now: Timestamp,
}

impl Judge<'_> {
    /// Decides, and compares with what is expected.
    pub(super) fn hear(&self, case: &Case) -> Result<Verdict, Mistake> {
        case.check()?;
        let now = case.at.unwrap_or(self.now);
        let (position, issuer) = self.issuer(case)?;
        let supposed = issuer.suppose(case.claims.clone(), now);
        let supposed = supposed.map_err(|error| Mistake::Issuer { position, error })?;
        let mut differences = Vec::new();
        let principal = match supposed {
            Ok(principal) => principal,
            Err(reason) => {
                let problem = Problem::from(identity::Error::from(reason));
                let decision = Decision::of(&problem, vec![reason.to_string()]);
                case.compare(&decision, &mut differences);
                if case.admin == Some(true) {
                    differences.push("the caller is nobody, and was to be an administrator".to_owned());
                }
                return Ok(Verdict { decision, differences });
            }
        };
        let id = UploadId::new(principal.id.partition(), RANDOM);
        let decision = match NewUpload::try_from(case.request.clone()) {
            Err(problem) => {
                let reasons = problem.errors().iter().map(|error| format!("{} {}", error.pointer, error.detail));
                Decision::of(&problem, reasons.collect())
            }
            Ok(request) => match self.policies.decide(&principal, &request, id, now) {
                Ok(admission) => Decision::Admitted(Box::new(admission)),
                Err(denial) => Decision::from(denial),
            },
        };
        case.compare(&decision, &mut differences);
        if let Decision::Admitted(admission) = &decision {
            case.compare_admission(admission, id, &mut differences);
        }
        if let Some(expected) = case.admin.filter(|expected| *expected != principal.admin) {
            let [is, was_to_be] = [principal.admin, expected].map(|admin| if admin { "an" } else { "no" });
            differences.push(format!("the caller is {is} administrator, and was to be {was_to_be} administrator"));
        }
        Ok(Verdict { decision, differences })
    }

    fn issuer(&self, case: &Case) -> Result<(usize, &IssuerSettings), Mistake> {
        let named = case.issuer.as_deref().map(|name| ("issuer", name));
        let claimed = || Some(("claims.iss", case.claims.get("iss")?.as_str()?));
        let Some((key, name)) = named.or_else(claimed) else {
            let first =
                self.issuers.first().ok_or_else(|| Mistake::new("issuer", "there is no [[issuers]] section"))?;
            return Ok((0, first));
        };
        let mut issuers = self.issuers.iter().enumerate();
        issuers.find(|(_, issuer)| issuer.issuer == name).ok_or_else(|| Mistake::new(key, "is not among [[issuers]]"))
    }
}

impl Mistake {
    fn new(key: &'static str, reason: &str) -> Self {
        Self::Case { key, reason: reason.to_owned() }
    }
}

impl Case {
    /// Refuses what could never be looked at, and would pass for tested.
    fn check(&self) -> Result<(), Mistake> {
        let admitted = self.expect == Expected::Admitted;
        for (key, is_there) in
            [("policy", self.policy.is_some()), ("object", self.object.is_some()), ("regions", self.regions.is_some())]
        {
            if is_there && !admitted {
                return Err(Mistake::new(key, "is for cases that are to be admitted"));
            }
        }
        if self.limits.is_some() && !admitted && self.expect != Expected::PolicyViolation {
            return Err(Mistake::new(
                "limits",
                "is for cases that break a policy, or are admitted by one that reports",
            ));
        }
        Ok(())
    }

    fn compare(&self, decision: &Decision, differences: &mut Vec<String>) {
        let code = decision.code();
        if code != self.expect.name() {
            differences.push(format!("expected {}, and it is {code}", self.expect.name()));
        } else if let Some(expected) = self.limits.as_ref().filter(|expected| **expected != decision.limits()) {
            let [expected, limits] = [expected.clone(), decision.limits()].map(listed);
            differences.push(format!("expected the limits {expected}, and they are {limits}"));
        }
    }

    fn compare_admission(&self, admission: &Admission, id: UploadId, differences: &mut Vec<String>) {
        if let Some(policy) = self.policy.as_ref().filter(|policy| **policy != admission.policy) {
            differences.push(format!("expected the policy {policy}, and it is {}", admission.policy));
        }
        let shard = format!("{:02x}", RANDOM[0]);
        let object = self.object.as_ref().map(|name| name.replace("{id}", &id.to_string()).replace("{shard}", &shard));
        if let Some(object) = object.filter(|object| object != admission.object.as_str()) {
            differences.push(format!("expected the object {object}, and it is {}", admission.object));
        }
        let regions: BTreeSet<_> = admission.regions.iter().flat_map(|regions| regions.iter().cloned()).collect();
        if let Some(expected) = self.regions.as_ref().filter(|expected| **expected != regions) {
            let expected = listed(expected.iter().map(ToString::to_string));
            let regions = listed(regions.iter().map(ToString::to_string));
            differences.push(format!("expected the regions {expected}, and they are {regions}"));
        }
    }
}

fn listed(names: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", names.into_iter().collect::<Vec<_>>().join(", "))
}

impl Decision {
    /// What the service says with this problem.
    fn of(problem: &Problem, reasons: Vec<String>) -> Self {
        Self::Refused { code: problem.code().as_str(), reasons, limits: BTreeSet::new() }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Admitted(_) => ADMITTED,
            Self::Refused { code, .. } => code,
        }
    }

    /// The limits that are broken, or would be.
    fn limits(&self) -> BTreeSet<String> {
        match self {
            Self::Admitted(admission) => limits(&admission.would_refuse),
            Self::Refused { limits, .. } => limits.clone(),
        }
    }
}

fn limits(violations: &[Violation]) -> BTreeSet<String> {
    violations.iter().map(|violation| violation.limit.as_str().to_owned()).collect()
}

impl From<Denial> for Decision {
    fn from(denial: Denial) -> Self {
        let (reasons, limits) = match &denial {
            Denial::NotAdmitted => (Vec::new(), BTreeSet::new()),
            Denial::Ambiguous { candidates } => {
                let names = candidates.iter().map(PolicyName::as_str).collect::<Vec<_>>().join(", ");
                (vec![format!("several policies admit the caller: {names}")], BTreeSet::new())
            }
            Denial::Violations(violations) => (violations.iter().map(explained).collect(), limits(violations)),
        };
        let problem = Problem::from(uploads::Error::from(denial));
        Self::Refused { code: problem.code().as_str(), reasons, limits }
    }
}

fn explained(violation: &Violation) -> String {
    let Violation { limit, allowed, given } = violation;
    format!("{} {given}, where {allowed} is allowed", limit.as_str())
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admitted(admission) => {
                write!(f, "admitted by {} as {}", admission.policy, admission.object)?;
                let reported: Vec<_> = admission.would_refuse.iter().map(explained).collect();
                if reported.is_empty() { Ok(()) } else { write!(f, ", which it reports: {}", reported.join("; ")) }
            }
            Self::Refused { code, reasons, .. } if reasons.is_empty() => f.write_str(code),
            Self::Refused { code, reasons, .. } => write!(f, "{code} ({})", reasons.join("; ")),
        }
    }
}

impl Verdict {
    pub(super) fn passed(&self) -> bool {
        self.differences.is_empty()
    }

    pub(super) fn to_json(&self, name: &str) -> Value {
        let mut document = json!({
            "name": name,
            "passed": self.passed(),
            "decision": self.decision.code(),
            "limits": self.decision.limits(),
        });
        match &self.decision {
            Decision::Admitted(admission) => {
                document["policy"] = json!(admission.policy);
                document["object"] = json!(admission.object);
            }
            Decision::Refused { reasons, .. } => document["reasons"] = json!(reasons),
        }
        if !self.passed() {
            document["differences"] = json!(self.differences);
        }
        document
    }
}
