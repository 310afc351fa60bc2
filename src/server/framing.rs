//! Finds requests whose header says twice where the body ends.
//!
//! A request with both `Content-Length` and `Transfer-Encoding` is the classic of request smuggling, and RFC 9112,
//! section 6.1, lets a server refuse it. hyper reads it by the transfer coding and takes the length out of the header,
//! so what comes after hyper cannot tell. This scanner reads the same bytes before hyper does. It keeps no copy: only
//! where it stands and what the present head has said.
//!
//! It follows bodies by their length only. At the first head with a transfer coding it stops, which is enough, because
//! the connection is closed after such a request.

/// The first request of a connection that has a transfer coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coded {
    /// Which request of the connection, counted from 0.
    pub(super) request: u64,
    /// Whether it has a length as well.
    pub(super) with_length: bool,
}

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";

/// Where the scanner stands in the bytes of an HTTP/1 connection, and what the present head has said so far.
pub(super) struct Heads {
    place: Place,
    request: u64,
    length: Option<u64>,
    coded: bool,
}

/// Lines end with a line feed; a carriage return before it is optional, as in hyper's parser.
enum Place {
    /// Before a request line, where empty lines may stand.
    Before,
    /// In a request line, or in the value of a field that does not matter.
    Skipping,
    /// At the first character of a line after the request line.
    LineStart,
    /// In a field name that still agrees with one that matters.
    Name { read: usize, length: bool, coding: bool },
    /// In the value of `Content-Length`.
    Length,
    /// In a body, with so many bytes to go.
    Body(u64),
    /// Nothing more to find.
    Done,
}

impl Heads {
    /// A scanner at the start of a connection.
    pub(super) const fn new() -> Self {
        Self { place: Place::Before, request: 0, length: None, coded: false }
    }

    /// Reads on. Gives the first request with a transfer coding, once, when its head has ended.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Option<Coded> {
        loop {
            match &mut self.place {
                Place::Done => return None,
                Place::Body(left) => {
                    let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    *left -= here as u64;
                    if *left == 0 {
                        self.place = Place::Before;
                    }
                    bytes = &bytes[here..];
                    if bytes.is_empty() {
                        return None;
                    }
                }
                Place::Skipping => {
                    let end = bytes.iter().position(|byte| *byte == b'\n')?;
                    self.place = Place::LineStart;
                    bytes = &bytes[end + 1..];
                }
                Place::Before | Place::LineStart | Place::Name { .. } | Place::Length => {
                    let (first, rest) = bytes.split_first()?;
                    bytes = rest;
                    if let Some(coded) = self.read_byte(*first) {
                        return Some(coded);
                    }
                }
            }
        }
    }

    fn read_byte(&mut self, byte: u8) -> Option<Coded> {
        match &mut self.place {
            Place::Before => {
                if !matches!(byte, b'\r' | b'\n') {
                    self.place = Place::Skipping;
                }
            }
            Place::LineStart => match byte {
                b'\n' => return self.end_of_head(),
                b'\r' => {}
                _ => {
                    self.place = Place::Name { read: 0, length: true, coding: true };
                    return self.read_byte(byte);
                }
            },
            Place::Name { read, length, coding } => {
                if byte == b':' {
                    if *length && *read == CONTENT_LENGTH.len() {
                        self.length = Some(0);
                        self.place = Place::Length;
                    } else {
                        self.coded |= *coding && *read == TRANSFER_ENCODING.len();
                        self.place = Place::Skipping;
                    }
                } else {
                    let byte = byte.to_ascii_lowercase();
                    *length &= CONTENT_LENGTH.get(*read) == Some(&byte);
                    *coding &= TRANSFER_ENCODING.get(*read) == Some(&byte);
                    *read += 1;
                    if byte == b'\n' {
                        // No field at all: hyper refuses the head.
                        self.place = Place::Done;
                    } else if !*length && !*coding {
                        self.place = Place::Skipping;
                    }
                }
            }
            Place::Length => match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    self.length = self.length.map(|length| length.saturating_mul(10).saturating_add(digit));
                }
                b'\n' => self.place = Place::LineStart,
                b' ' | b'\t' | b'\r' => {}
                // No length: hyper refuses the head, unless there is a coding too.
                _ => self.place = Place::Skipping,
            },
            Place::Skipping | Place::Body(_) | Place::Done => {}
        }
        None
    }

    fn end_of_head(&mut self) -> Option<Coded> {
        let (length, coded, request) = (self.length.take(), self.coded, self.request);
        self.request += 1;
        self.place = match length {
            _ if coded => Place::Done,
            Some(length) if length > 0 => Place::Body(length),
            _ => Place::Before,
        };
        coded.then_some(Coded { request, with_length: length.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_with_a_coding_are_found_wherever_they_stand() {
        let coded = |request, with_length| Some(Coded { request, with_length });
        for (name, text, expected) in [
            ("no body", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("a length", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", None),
            ("a coding", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", coded(0, false)),
            (
                "length first",
                "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                coded(0, true),
            ),
            (
                "coding first",
                "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\ncontent-length:3\r\n\r\n",
                coded(0, true),
            ),
            ("bare line feeds", "POST / HTTP/1.1\nContent-Length: 3\nTransfer-Encoding: chunked\n\n", coded(0, true)),
            (
                "no length at all",
                "POST / HTTP/1.1\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n",
                coded(0, true),
            ),
            ("an unfinished head", "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", None),
            ("longer names", "GET / HTTP/1.1\r\nContent-Lengths: 3\r\nTransfer-Encoding-X: chunked\r\n\r\n", None),
            ("shorter names", "GET / HTTP/1.1\r\nContent: 3\r\nTransfer: chunked\r\n\r\n", None),
            ("in a value", "GET / HTTP/1.1\r\nX: Transfer-Encoding: chunked\r\n\r\n", None),
            ("in the target", "GET /Transfer-Encoding:chunked HTTP/1.1\r\n\r\n", None),
            (
                "in a body",
                "POST / HTTP/1.1\r\nContent-Length: 37\r\n\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n ",
                None,
            ),
            (
                "after a body and empty lines",
                "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                coded(1, false),
            ),
            (
                "the length of an earlier request does not count",
                "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                coded(1, false),
            ),
            (
                "a length beyond all numbers",
                "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
                None,
            ),
            ("another protocol", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0", None),
        ] {
            assert_eq!(Heads::new().read(text.as_bytes()), expected, "{name}, at once");
            let mut heads = Heads::new();
            let found = text.as_bytes().chunks(1).find_map(|byte| heads.read(byte));
            assert_eq!(found, expected, "{name}, byte by byte");
        }
    }

    #[test]
    fn nothing_is_found_after_the_first() {
        let text = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut heads = Heads::new();
        assert!(heads.read(text).is_some());
        assert!(heads.read(text).is_none());
    }
}
