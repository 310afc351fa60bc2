//! How spans are named across programs: W3C Trace Context, level 1.

use std::fmt;

use reqwest::header::{HeaderMap, HeaderValue};

/// The header that carries a [`Traceparent`].
const TRACEPARENT: &str = "traceparent";

/// Names a trace. Not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceId(pub(super) u128);

/// Names a span in its trace. Not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpanId(pub(super) u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a caller says of the span that its request belongs to. `tracestate` beside it is not passed on, as the
/// specification leaves one free to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) sampled: bool,
}

impl Traceparent {
    /// The header of a request, if it is one and makes sense; what does not is as good as none (section 3.2.2.3).
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        Self::parse(value.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let hex = |part: &str, length: usize| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            (part.len() == length && digits).then(|| u128::from_str_radix(part, 16).ok())?
        };
        let mut parts = text.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace = hex(parts.next()?, 32).filter(|id| *id != 0)?;
        let span = hex(parts.next()?, 16).and_then(|id| u64::try_from(id).ok()).filter(|id| *id != 0)?;
        let flags = hex(parts.next()?, 2)?;
        // Later versions may say more behind these four.
        if version == 0xFF || (version == 0 && parts.next().is_some()) {
            return None;
        }
        Some(Self { trace: TraceId(trace), span: SpanId(span), sampled: flags & 1 == 1 })
    }

    /// The value of the header. `None` never happens: it is all ASCII.
    pub(super) fn header(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_sense_is_read() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let (long, zeros) = (format!("{trace}0"), "0".repeat(32));
        for (name, text, sampled) in [
            ("sampled", format!("00-{trace}-{span}-01"), Some(true)),
            ("not sampled", format!("00-{trace}-{span}-00"), Some(false)),
            ("unknown flags", format!("00-{trace}-{span}-fe"), Some(false)),
            ("a later version", format!("01-{trace}-{span}-01-and-more"), Some(true)),
            ("more than version 00 has", format!("00-{trace}-{span}-01-and-more"), None),
            ("version ff", format!("ff-{trace}-{span}-01"), None),
            ("capitals", format!("00-{}-{span}-01", trace.to_uppercase()), None),
            ("a long id", format!("00-{long}-{span}-01"), None),
            ("a sign", format!("00-+{}-{span}-01", &trace[1..]), None),
            ("no trace", format!("00-{zeros}-{span}-01"), None),
            ("no span", format!("00-{trace}-{}-01", &zeros[..16]), None),
            ("no flags", format!("00-{trace}-{span}"), None),
            ("nothing", String::new(), None),
        ] {
            let read = Traceparent::parse(&text);
            assert_eq!(read.map(|read| read.sampled), sampled, "{name}");
            if name == "sampled" {
                assert_eq!(read.unwrap().to_string(), text);
            }
        }
    }

    #[test]
    fn two_headers_are_as_good_as_none() {
        let value = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, value.clone());
        assert!(Traceparent::of(&headers).is_some());
        headers.append(TRACEPARENT, value);
        assert_eq!(Traceparent::of(&headers), None);
    }
}
