//! Patterns that media types are matched against.

use crate::model::Invalid;
use crate::model::name::ContentType;

/// A pattern such as `video/mp4`, `video/*` or `*/*`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    /// Every subtype; the slash is part of the text, so `video/` does not fit `videos/mp4`.
    Kind(String),
    Exactly(String),
}

/// The media types that a policy accepts.
#[derive(Clone, Debug)]
pub(super) struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Reads the patterns of a policy.
    pub(super) fn parse(texts: &[String]) -> Result<Self, Invalid> {
        if texts.is_empty() {
            return Err(Invalid::new(
                "the list is empty, so nothing would ever be admitted; leave it out for all types",
            ));
        }
        texts.iter().map(|text| parse(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether any pattern fits the type. Its parameters, such as a character set, do not count.
    pub(super) fn accept(&self, content_type: &ContentType) -> bool {
        let essence = content_type.essence();
        self.0.iter().any(|pattern| match pattern {
            Pattern::Any => true,
            Pattern::Kind(kind) => essence.starts_with(kind.as_str()),
            Pattern::Exactly(exactly) => essence == *exactly,
        })
    }
}

fn parse(text: &str) -> Result<Pattern, Invalid> {
    let invalid = || Invalid::new(format!("{text:?} is not of the form \"type/subtype\", \"type/*\" or \"*/*\""));
    // A star is a legal character of a media type (RFC 9110, section 5.6.2), so what is no pattern must not pass as one.
    let plain = |part: &str| !part.is_empty() && !part.contains('*');
    let pattern = match text.split_once('/').ok_or_else(invalid)? {
        ("*", "*") => return Ok(Pattern::Any),
        (kind, "*") if plain(kind) => format!("{kind}/"),
        (kind, subtype) if plain(kind) && plain(subtype) => format!("{kind}/{subtype}"),
        _ => return Err(invalid()),
    };
    // Held to the rules of media types, so that a pattern with a parameter or a space, which nothing fits, is refused.
    let whole = if pattern.ends_with('/') { format!("{pattern}x") } else { pattern.clone() };
    let media_type: ContentType = whole.parse().map_err(|_| invalid())?;
    let pattern = pattern.to_ascii_lowercase();
    match media_type.essence() == whole.to_ascii_lowercase() {
        true if pattern.ends_with('/') => Ok(Pattern::Kind(pattern)),
        true => Ok(Pattern::Exactly(pattern)),
        false => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_accepted_where_a_pattern_fits() {
        for (name, pattern, content_type, accepted) in [
            ("any", "*/*", "video/mp4", true),
            ("a kind", "video/*", "video/mp4", true),
            ("a kind in capitals", "Video/*", "video/MP4", true),
            ("another kind", "video/*", "audio/mp4", false),
            ("a kind that begins alike", "video/*", "videos/mp4", false),
            ("exactly", "video/mp4", "video/mp4", true),
            ("exactly, with parameters", "text/plain", "Text/Plain; charset=utf-8", true),
            ("a subtype that begins alike", "video/mp4", "video/mp4v", false),
            ("another subtype", "video/mp4", "video/webm", false),
            ("a type hidden in a parameter", "video/*", "text/html; x=video/mp4", false),
            ("a literal star", "video/mp4", "video/*", false),
        ] {
            let patterns = Patterns::parse(&["image/png".to_owned(), pattern.to_owned()]).unwrap();
            assert_eq!(patterns.accept(&content_type.parse().unwrap()), accepted, "{name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_name() {
        for text in
            ["", "*", "video", "video/", "/mp4", "*/mp4", "vid*/mp4", "video/mp*", "video/ *", "text/plain; a=b"]
        {
            let refusal = Patterns::parse(&[text.to_owned()]).expect_err(text);
            assert!(refusal.to_string().contains(&format!("{text:?}")), "{text}");
        }
        assert!(Patterns::parse(&[]).is_err());
    }
}
