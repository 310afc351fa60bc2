//! Object names: a template from the configuration, filled with what a request brings.
//!
//! A template is compiled once into pieces, fixed text and places. Filling it walks the pieces once and appends, so
//! nothing that a client or a token brings is ever read as a template. What it brings is data: brought into Unicode
//! normalization form C, checked character by character, and never able to leave the segment (the text between two
//! slashes) that its place stands in.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use super::characters::{is_refused, is_refused_anywhere};
use super::decide::{ViolatedLimit, Violation};
use crate::model::Invalid;
use crate::model::id::UploadId;
use crate::model::name::{FileName, ObjectName};
use crate::model::principal::Principal;
use crate::model::time::Timestamp;

/// No object name is longer, in bytes (storage documentation, "Object naming guidelines").
const MAX_NAME: usize = 1024;

/// File name extensions are a few letters; what is longer is something else behind a dot.
const MAX_EXTENSION: usize = 32;

/// A compiled template such as `videos/{sub}/{id}.{ext}`.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pieces: Vec<Piece>,
    /// Whether every name is another: `{id}` is in it.
    unique: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Fixed(String),
    Place(Place),
}

/// What can stand between braces.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Id,
    Date,
    Year,
    Month,
    Day,
    Shard,
    Subject,
    Tenant,
    FileName,
    /// A dot before it is kept here and not in the fixed text: without an extension there is no dot either.
    Extension {
        dot: bool,
    },
    /// The names of the claim and, outermost first, of the objects that hold it.
    Claim(Vec<String>),
}

impl Place {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "date" => Self::Date,
            "year" => Self::Year,
            "month" => Self::Month,
            "day" => Self::Day,
            "shard" => Self::Shard,
            "sub" => Self::Subject,
            "tenant" => Self::Tenant,
            "filename" => Self::FileName,
            "ext" => Self::Extension { dot: false },
            _ => {
                let path: Vec<_> = name.strip_prefix("claims.")?.split('.').map(str::to_owned).collect();
                let named = |part: &String| !part.is_empty() && !part.contains(char::is_whitespace);
                return path.iter().all(named).then_some(Self::Claim(path));
            }
        })
    }

    /// The place as it is written in a template.
    fn written(&self) -> Cow<'static, str> {
        match self {
            Self::Id => "{id}".into(),
            Self::Date => "{date}".into(),
            Self::Year => "{year}".into(),
            Self::Month => "{month}".into(),
            Self::Day => "{day}".into(),
            Self::Shard => "{shard}".into(),
            Self::Subject => "{sub}".into(),
            Self::Tenant => "{tenant}".into(),
            Self::FileName => "{filename}".into(),
            Self::Extension { .. } => "{ext}".into(),
            Self::Claim(path) => format!("{{claims.{}}}", path.join(".")).into(),
        }
    }

    /// How many bytes the broker's own values have; `None` for data, which is as long as it comes.
    const fn width(&self) -> Option<usize> {
        match self {
            Self::Id => Some(UploadId::TEXT_LEN),
            Self::Date => Some(10),
            Self::Year => Some(4),
            Self::Month | Self::Day | Self::Shard => Some(2),
            Self::Subject | Self::Tenant | Self::FileName | Self::Extension { .. } | Self::Claim(_) => None,
        }
    }

    /// Whether it comes from the token, and so says whose the object is.
    const fn is_claim(&self) -> bool {
        matches!(self, Self::Subject | Self::Tenant | Self::Claim(_))
    }
}

/// What a name is made of beside the template.
pub(super) struct Parts<'a> {
    pub(super) principal: &'a Principal,
    pub(super) filename: &'a FileName,
    pub(super) id: UploadId,
    pub(super) now: Timestamp,
}

impl Template {
    /// Reads a template; `may_repeat` says whether names need not be unique, because objects may be replaced.
    pub(super) fn parse(text: &str, may_repeat: bool) -> Result<Self, Invalid> {
        let pieces = split(text)?;
        let unique = pieces.contains(&Piece::Place(Place::Id));
        if !unique && !may_repeat {
            return Err(Invalid::new("the template must contain {id}, unless the policy says overwrite = true"));
        }
        let template = Self { pieces, unique };
        template.check_fixed_text()?;
        if !unique {
            template.check_unambiguous()?;
        }
        Ok(template)
    }

    /// Holds a stand-in for all names that the template can make to the rules of names.
    fn check_fixed_text(&self) -> Result<(), Invalid> {
        let mut stand_in = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(text) => {
                    if let Some(character) = text.chars().find(|character| is_refused_anywhere(*character)) {
                        return Err(Invalid::new(format!("the character {character:?} cannot stand in object names")));
                    }
                    if text.starts_with(is_combining_mark) {
                        return Err(Invalid::new("the fixed text of a template cannot begin with a combining mark"));
                    }
                    stand_in.push_str(text);
                }
                Piece::Place(place) => stand_in.extend(std::iter::repeat_n('x', place.width().unwrap_or(1))),
            }
        }
        check_name(&stand_in).map(drop)
    }

    /// Refuses templates by which two principals could reach one object: with two pieces of data in one segment,
    /// `{sub}-{filename}` is `a-b-c` both for `a` with `b-c` and for `a-b` with `c`.
    fn check_unambiguous(&self) -> Result<(), Invalid> {
        let mut in_segment: Option<&Place> = None;
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(text) if text.contains('/') => in_segment = None,
                Piece::Place(place) if place.width().is_none() => {
                    if let Some(other) = in_segment.replace(place) {
                        return Err(Invalid::new(format!(
                            "without {{id}}, {} and {} must stand in different segments: otherwise two callers could \
                             come to the same name",
                            other.written(),
                            place.written()
                        )));
                    }
                }
                Piece::Fixed(_) | Piece::Place(_) => {}
            }
        }
        Ok(())
    }

    /// Fills the template.
    ///
    /// # Errors
    /// One violation for each place whose data cannot stand in a name, or one for the name that they make together.
    pub(super) fn fill(&self, parts: &Parts<'_>) -> Result<ObjectName, Vec<Violation>> {
        let mut name = String::with_capacity(128);
        let mut violations = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(text) => name.push_str(text),
                Piece::Place(place) => {
                    if let Err(violation) = self.append(place, parts, &mut name) {
                        violations.push(violation);
                    }
                }
            }
        }
        if !violations.is_empty() {
            return Err(violations);
        }
        check_name(&name).map_err(|reason| vec![violation(reason.to_string(), &name)])
    }

    fn append(&self, place: &Place, parts: &Parts<'_>, name: &mut String) -> Result<(), Violation> {
        // Writing to a `String` cannot fail.
        let _ = match place {
            Place::Id => write!(name, "{}", parts.id),
            Place::Date => {
                let (year, month, day) = parts.now.utc_date();
                write!(name, "{year:04}-{month:02}-{day:02}")
            }
            Place::Year => write!(name, "{:04}", parts.now.utc_date().0),
            Place::Month => write!(name, "{:02}", parts.now.utc_date().1),
            Place::Day => write!(name, "{:02}", parts.now.utc_date().2),
            // Not the id's first byte, which is the caller's partition: all of one caller's uploads share it.
            Place::Shard => write!(name, "{:02x}", parts.id.random()[0]),
            Place::Subject | Place::Tenant | Place::FileName | Place::Extension { .. } | Place::Claim(_) => {
                let Some(data) = data(place, parts)? else { return Ok(()) };
                if matches!(place, Place::Extension { dot: true }) {
                    name.push('.');
                }
                name.push_str(&self.clean(place, &data)?);
                Ok(())
            }
        };
        Ok(())
    }

    /// The data in normalization form C, if it can stand in a name.
    fn clean<'a>(&self, place: &Place, data: &'a str) -> Result<Cow<'a, str>, Violation> {
        let refuse = |rule: &str| Err(violation(format!("{} {rule}", place.written()), data));
        let most = if matches!(place, Place::Extension { .. }) { MAX_EXTENSION } else { MAX_NAME };
        if data.len() > most {
            return refuse(&format!("of at most {most} bytes"));
        }
        let clean = if is_nfc(data) { Cow::Borrowed(data) } else { Cow::Owned(data.nfc().collect()) };
        // Two subjects can differ in form only. They are two principals, and must not come to the same name.
        if matches!(clean, Cow::Owned(_)) && place.is_claim() && !self.unique {
            return refuse("in Unicode normalization form C");
        }
        if clean.is_empty() {
            return refuse("that is not empty");
        }
        if clean.starts_with(is_combining_mark) {
            return refuse("that does not begin with a combining mark");
        }
        if clean.contains(is_refused) {
            return refuse("without slashes, control characters, invisible characters and # [ ] * ?");
        }
        Ok(clean)
    }
}

/// Takes a template apart.
fn split(text: &str) -> Result<Vec<Piece>, Invalid> {
    let unbalanced = |brace: char| {
        let rule = "braces enclose placeholders, and there is no way to write a brace itself, {{ and }} included";
        Err(Invalid::new(format!("the {brace:?} in {text:?} has no partner: {rule}")))
    };
    if text.len() > MAX_NAME {
        return Err(Invalid::new(format!("a template has at most {MAX_NAME} bytes")));
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(brace) = rest.find(['{', '}']) {
        let (fixed, opened) = rest.split_at(brace);
        let Some(opened) = opened.strip_prefix('{') else { return unbalanced('}') };
        let Some((name, after)) = opened.split_once('}') else { return unbalanced('{') };
        if name.contains('{') {
            return unbalanced('{');
        }
        let Some(mut place) = Place::parse(name) else {
            let known = "{id}, {sub}, {tenant}, {filename}, {ext}, {date}, {year}, {month}, {day}, {shard}, {claims.x}";
            return Err(Invalid::new(format!("{{{}}} is no placeholder; there are {known}", name.escape_debug())));
        };
        let fixed = match (&mut place, fixed.strip_suffix('.')) {
            (Place::Extension { dot }, Some(before)) => {
                *dot = true;
                before
            }
            _ => fixed,
        };
        if !fixed.is_empty() {
            pieces.push(Piece::Fixed(fixed.to_owned()));
        }
        pieces.push(Piece::Place(place));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Fixed(rest.to_owned()));
    }
    Ok(pieces)
}

/// The data for a place; `None` for the extension of a file that has none.
fn data<'a>(place: &Place, parts: &Parts<'a>) -> Result<Option<Cow<'a, str>>, Violation> {
    let absent = || Violation {
        limit: ViolatedLimit::Object,
        allowed: format!("callers whose token has {}", place.written()),
        given: "none".to_owned(),
    };
    match place {
        Place::Subject => Ok(Some(Cow::Borrowed(&parts.principal.subject))),
        Place::Tenant => parts.principal.tenant.as_deref().map(|tenant| Some(Cow::Borrowed(tenant))).ok_or_else(absent),
        Place::FileName => Ok(Some(Cow::Borrowed(parts.filename.as_str()))),
        Place::Extension { .. } => Ok(parts.filename.extension().map(Cow::Borrowed)),
        Place::Claim(path) => match look_up(&parts.principal.claims, path) {
            None | Some(Value::Null) => Err(absent()),
            Some(Value::String(text)) => Ok(Some(Cow::Borrowed(text))),
            Some(Value::Bool(value)) => Ok(Some(Cow::Borrowed(if *value { "true" } else { "false" }))),
            Some(Value::Number(number)) if !number.is_f64() => Ok(Some(Cow::Owned(number.to_string()))),
            Some(other) => {
                let rule = format!("{} that is a text, an integer or a boolean", place.written());
                let kind = match other {
                    Value::Number(_) => "a fraction",
                    Value::Array(_) => "a list",
                    _ => "an object",
                };
                Err(Violation { limit: ViolatedLimit::Object, allowed: rule, given: kind.to_owned() })
            }
        },
        Place::Id | Place::Date | Place::Year | Place::Month | Place::Day | Place::Shard => Ok(None),
    }
}

fn look_up<'a>(claims: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, deeper) = path.split_first()?;
    deeper.iter().try_fold(claims.get(first)?, |value, name| value.as_object()?.get(name))
}

/// What must hold of every name as a whole.
fn check_name(name: &str) -> Result<ObjectName, Invalid> {
    if name.len() > MAX_NAME {
        return Err(Invalid::new(format!("an object name has at most {MAX_NAME} bytes")));
    }
    if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(Invalid::new("in an object name, no part between slashes is empty, \".\" or \"..\""));
    }
    // Parts in form C can still run together at their seams, as the jamo of Korean syllables do.
    if !is_nfc(name) {
        return Err(Invalid::new("an object name is in Unicode normalization form C"));
    }
    name.parse()
}

/// `given` is shown to the caller whose data it is, short and with everything unprintable escaped.
fn violation(allowed: String, given: &str) -> Violation {
    const SHOWN: usize = 64;
    let mut shown: String = given.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if given.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    Violation { limit: ViolatedLimit::Object, allowed, given: shown }
}

#[cfg(test)]
mod tests;
