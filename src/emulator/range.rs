//! The `Content-Range` of a session request: the six things that it can say (storage documentation, "Resumable uploads").

/// What a request on a session URI is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentRange {
    /// `bytes */N` or `bytes */*`: how much is persisted? With `N` it can also end an upload.
    Status { total: Option<u64> },
    /// Anything else: the body is a part of the object.
    Data(Extent),
}

/// Which part of the object a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// No header: the body is the whole object.
    Whole,
    /// `bytes A-B/N` or `bytes A-B/*`, both ends inclusive.
    Chunk { first: u64, last: u64, total: Option<u64> },
    /// `bytes A-*/N` or `bytes A-*/*`: everything from `A` to the end of the body.
    Stream { first: u64, total: Option<u64> },
}

impl ContentRange {
    /// Reads the header's value; `None` when it is none of these forms, or contradicts itself.
    pub(super) fn parse(value: Option<&str>) -> Option<Self> {
        let Some(value) = value else { return Some(Self::Data(Extent::Whole)) };
        let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
        let total = if total == "*" { None } else { Some(number(total)?) };
        if range == "*" {
            return Some(Self::Status { total });
        }
        let (first, last) = range.split_once('-')?;
        let first = number(first)?;
        if last == "*" {
            return (total.is_none_or(|total| first <= total)).then_some(Self::Data(Extent::Stream { first, total }));
        }
        let last = number(last)?;
        let fits = first <= last && last < u64::MAX && total.is_none_or(|total| last < total);
        fits.then_some(Self::Data(Extent::Chunk { first, last, total }))
    }
}

/// Digits only: `u64::from_str` would take a plus sign as well.
pub(super) fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_nothing_else() {
        use ContentRange::{Data, Status};
        use Extent::{Chunk, Stream};
        for (value, expected) in [
            ("bytes 0-524287/2000000", Some(Data(Chunk { first: 0, last: 524_287, total: Some(2_000_000) }))),
            ("bytes 0-0/1", Some(Data(Chunk { first: 0, last: 0, total: Some(1) }))),
            ("bytes 5-9/*", Some(Data(Chunk { first: 5, last: 9, total: None }))),
            ("bytes */100", Some(Status { total: Some(100) })),
            ("bytes */*", Some(Status { total: None })),
            ("bytes 0-*/100", Some(Data(Stream { first: 0, total: Some(100) }))),
            ("bytes 7-*/*", Some(Data(Stream { first: 7, total: None }))),
            ("bytes 0-0/0", None),
            ("bytes 9-5/100", None),
            ("bytes 0-100/100", None),
            ("bytes 101-*/100", None),
            ("bytes *-5/100", None),
            ("bytes 0-/100", None),
            ("bytes +0-5/100", None),
            ("bytes -5/100", None),
            ("bytes 0-5", None),
            ("bytes", None),
            ("items 0-5/10", None),
            ("0-5/10", None),
            ("bytes=0-5/10", None),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes 0-99999999999999999999/*", None),
            ("", None),
        ] {
            assert_eq!(ContentRange::parse(Some(value)), expected, "{value}");
        }
        assert_eq!(ContentRange::parse(None), Some(Data(Extent::Whole)));
    }
}
