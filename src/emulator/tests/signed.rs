//! URLs that carry a signature, made here by another hand than the one that checks them.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use super::super::{OWN_ACCOUNT, accounts};
use super::*;

const AT: &str = "20251122T100000Z";

/// What is signed. The clock of the stand is at [`AT`].
#[derive(Clone)]
struct Wanted<'a> {
    method: &'a str,
    /// As in the URL, already encoded.
    path: &'a str,
    /// Sorted, lower-case, without the host.
    headers: &'a [(&'a str, &'a str)],
    account: &'a str,
    host: &'a str,
    date: &'a str,
    expires: &'a str,
    scope: &'a str,
    /// Encoded, and sorting behind the others.
    query: &'a str,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self {
            method: "PUT",
            path: "/media/a/b.txt",
            headers: &[],
            account: OWN_ACCOUNT,
            host: "127.0.0.1",
            date: AT,
            expires: "900",
            scope: "20251122/auto/storage/goog4_request",
            query: "",
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

impl Wanted<'_> {
    /// The path and query of the signed URL.
    fn sign(&self) -> String {
        let Self { method, path, headers, account, host, date, expires, scope, query } = self;
        let mut names: Vec<&str> = headers.iter().map(|(name, _)| *name).chain(["host"]).collect();
        names.sort_unstable();
        let value = |name: &str| headers.iter().find(|(given, _)| *given == name).map_or(*host, |(_, value)| value);
        let lines: Vec<String> = names.iter().map(|name| format!("{name}:{}", value(name))).collect();
        let lines = lines.join("\n");
        let credential = format!("{account}/{scope}").replace('@', "%40").replace('/', "%2F");
        let signed_headers = names.join("%3B");
        let query = format!(
            "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential={credential}&X-Goog-Date={date}&X-Goog-Expires={expires}\
             &X-Goog-SignedHeaders={signed_headers}{query}"
        );
        let request = format!("{method}\n{path}\n{query}\n{lines}\n\n{}\nUNSIGNED-PAYLOAD", names.join(";"));
        let hash = hex(digest(&SHA256, request.as_bytes()).as_ref());
        let signature =
            accounts::sign(format!("GOOG4-RSA-SHA256\n{date}\n{scope}\n{hash}").as_bytes()).unwrap().signature;
        format!("{path}?{query}&X-Goog-Signature={}", hex(&signature))
    }
}

impl Stand {
    /// A request without a token, of that target and with those headers.
    async fn bare(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Seen {
        let url = format!("{}{target}", self.emulator.url());
        let mut request = self.client.request(method.parse().unwrap(), url);
        if method != "GET" {
            request = request.header("content-length", body.len()).body(body.to_owned());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    }
}

#[tokio::test]
async fn a_signed_put_makes_what_was_signed() {
    let stand = stand().await;
    let headers = [
        ("content-md5", "XrY7u+Ae7tCTyyK7j1rNww=="),
        ("content-type", "text/plain"),
        ("x-goog-content-length-range", "11,11"),
        ("x-goog-if-generation-match", "0"),
        ("x-goog-meta-owner", "someone"),
    ];
    let target = Wanted { headers: &headers, ..Wanted::default() }.sign();
    let seen = stand.bare("PUT", &target, &headers, "hello world").await;
    assert_eq!((seen.status, seen.body.as_str()), (200, ""), "{seen:?}");
    assert_eq!(seen.header("x-goog-hash"), Some("crc32c=yZRlqg==,md5=XrY7u+Ae7tCTyyK7j1rNww=="));
    assert_eq!(seen.header("etag"), Some("\"5eb63bbbe01eeed093cb22bb8f5acdc3\""));
    assert_eq!(seen.header("x-goog-stored-content-length"), Some("11"));
    let object = stand.emulator.object("media", "a/b.txt").unwrap();
    assert_eq!(seen.header("x-goog-generation"), Some(object.generation.to_string().as_str()));
    assert_eq!((object.content_type.as_str(), object.metadata["owner"].as_str()), ("text/plain", "someone"));
    let again = stand.bare("PUT", &target, &headers, "hello world").await;
    assert_eq!((again.status, again.code()), (412, "PreconditionFailed"));
    let entries = stand.emulator.journal().entries();
    assert!(!serde_json::to_string(&entries).unwrap().contains("Signature="), "a signature is a secret");
}

#[tokio::test]
async fn a_signed_start_opens_a_session_that_needs_no_signature() {
    let stand = stand().await;
    let headers = [("content-type", "text/plain"), ("x-goog-resumable", "start")];
    let target = Wanted { method: "POST", headers: &headers, ..Wanted::default() }.sign();
    let started = stand.bare("POST", &target, &headers, "").await;
    assert_eq!((started.status, started.body.as_str()), (201, ""), "{started:?}");
    let uri = started.header("location").unwrap();
    let id = started.header("x-guploader-uploadid").unwrap();
    assert_eq!(uri, format!("{}{target}&upload_id={id}", stand.emulator.url()), "the signed query is repeated");
    stand.emulator.advance(Duration::from_secs(3600));
    let seen = stand.put(uri, None, "hello").await;
    assert_eq!((seen.status, seen.body.as_str()), (200, ""), "good after the end of the URL: {seen:?}");
    assert_eq!(stand.bytes("a/b.txt").unwrap(), b"hello");
}

/// A name, what was signed, what of the URL is replaced by what, the headers, how many seconds later it is sent, and
/// the refusal.
type Row<'a> = (&'a str, Wanted<'a>, (&'a str, &'a str), &'a [(&'a str, &'a str)], u64, Option<(u16, &'a str)>);

const SAME: (&str, &str) = ("", "");
const TYPED: &[(&str, &str)] = &[("content-type", "text/plain")];
const MISMATCH: Option<(u16, &str)> = Some((403, "SignatureDoesNotMatch"));
const INVALID: Option<(u16, &str)> = Some((400, "InvalidArgument"));
const MALFORMED: Option<(u16, &str)> = Some((400, "MalformedSecurityHeader"));

async fn expect(rows: &[Row<'_>]) {
    for (name, wanted, (from, to), headers, later, expected) in rows {
        let stand = stand().await;
        stand.emulator.advance(Duration::from_secs(*later));
        let seen = stand.bare("PUT", &wanted.sign().replacen(from, to, 1), headers, "x").await;
        match expected {
            None => assert_eq!(seen.status, 200, "{name}: {seen:?}"),
            Some((status, code)) => assert_eq!((seen.status, seen.code()), (*status, *code), "{name}: {seen:?}"),
        }
        assert_eq!(stand.emulator.object("media", "a/b.txt").is_some(), expected.is_none(), "{name}");
        if *expected == MISMATCH {
            assert!(seen.body.contains("\nUNSIGNED-PAYLOAD"), "{name}: the canonical request is shown");
        }
    }
}

#[tokio::test]
async fn the_port_of_the_host_may_be_signed_but_need_not() {
    let stand = stand().await;
    let address = stand.emulator.address().to_string();
    for (host, status) in [("127.0.0.1", 200), (address.as_str(), 200), ("127.0.0.1:1", 403), ("localhost", 403)] {
        let target = Wanted { host, ..Wanted::default() }.sign();
        assert_eq!(stand.bare("PUT", &target, &[], "x").await.status, status, "{host}");
    }
}

#[tokio::test]
async fn who_may_get_may_ask_for_the_head_and_nothing_more() {
    let stand = stand().await;
    let address = stand.emulator.address().to_string();
    let put = Wanted::default().sign();
    assert_eq!(stand.bare("PUT", &put, &[], "hello").await.status, 200);
    for host in ["127.0.0.1", address.as_str()] {
        for (signed, sent, status) in [
            ("GET", "GET", 200),
            ("GET", "HEAD", 200),
            ("HEAD", "HEAD", 200),
            ("HEAD", "GET", 403),
            ("GET", "PUT", 403),
            ("GET", "POST", 403),
            ("GET", "DELETE", 403),
            ("PUT", "HEAD", 403),
        ] {
            let target = Wanted { method: signed, host, ..Wanted::default() }.sign();
            let seen = stand.bare(sent, &target, &[], "").await;
            assert_eq!(seen.status, status, "{signed} as {sent}, {host}: {seen:?}");
        }
    }
    assert_eq!(stand.bytes("a/b.txt").unwrap(), b"hello");
}

#[tokio::test]
async fn a_signed_length_is_the_length() {
    let stand = stand().await;
    let target = Wanted { headers: &[("content-length", "5")], ..Wanted::default() }.sign();
    let host = stand.emulator.address();
    for (name, headers, body, status) in [
        ("longer", "Content-Length: 6", "hello!", 403),
        ("another spelling", "Content-Length: 05", "hello", 403),
        ("in chunks", "Transfer-Encoding: chunked", "6\r\nhello!\r\n0\r\n\r\n", 400),
        ("both", "Content-Length: 5\r\nTransfer-Encoding: chunked", "6\r\nhello!\r\n0\r\n\r\n", 400),
        ("as signed", "Content-Length: 5", "hello", 200),
    ] {
        let request = format!("PUT {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n\r\n{body}");
        let answer = stand.raw(request.as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status.to_string().as_str()), "{name}: {answer}");
        assert_eq!(stand.bytes("a/b.txt").is_some(), status == 200, "{name}");
    }
}

#[tokio::test]
async fn a_signature_covers_what_it_says_and_no_more() {
    let good = Wanted { headers: TYPED, ..Wanted::default() };
    let spaced = &[("content-type", "  text/plain  ")];
    let plain = &[("content-type", "text/plain"), ("accept", "x"), ("if-match", "y")];
    let other = &[("content-type", "text/html")];
    let meta = &[("content-type", "text/plain"), ("x-goog-meta-a", "b")];
    let further = Wanted { query: "&versionId=1", ..good.clone() };
    let get = Wanted { method: "GET", ..good.clone() };
    let append = ("&X-Goog-Signature", "&z=1&X-Goog-Signature");
    expect(&[
        ("good", good.clone(), SAME, TYPED, 0, None),
        ("outer blanks do not matter", good.clone(), SAME, spaced, 0, None),
        ("other headers do not matter", good.clone(), SAME, plain, 0, None),
        ("needless encoding does not matter", good.clone(), ("/a/b.txt", "/a/%62%2Etxt"), TYPED, 0, None),
        ("further parameters", further, SAME, TYPED, 0, None),
        ("another type", good.clone(), SAME, other, 0, MISMATCH),
        ("no type", good.clone(), SAME, &[], 0, MALFORMED),
        ("more metadata", good.clone(), SAME, meta, 0, MALFORMED),
        ("another object", good.clone(), ("b.txt", "c.txt"), TYPED, 0, MISMATCH),
        ("another method", get, SAME, TYPED, 0, MISMATCH),
        ("a longer life", good.clone(), ("Expires=900", "Expires=901"), TYPED, 0, MISMATCH),
        ("one more parameter", good.clone(), append, TYPED, 0, MISMATCH),
        ("an encoded slash", good.clone(), ("/a/b.txt", "/a%2Fb.txt"), TYPED, 0, None),
        ("a slash encoded twice", good.clone(), ("/a/b.txt", "/a%252Fb.txt"), TYPED, 0, MISMATCH),
        ("a slash too many", good.clone(), ("/a/b.txt", "/a//b.txt"), TYPED, 0, MISMATCH),
        ("a signed header twice", good.clone(), SAME, &[TYPED[0], TYPED[0]], 0, MISMATCH),
        ("a signed header empty", good.clone(), SAME, &[("content-type", "")], 0, MISMATCH),
        ("an empty signature", good.clone(), ("&X-Goog-Signature=", "&X-Goog-Signature=&_="), TYPED, 0, MISMATCH),
        (
            "two signatures",
            good.clone(),
            ("&X-Goog-Signature", "&X-Goog-Signature=00&X-Goog-Signature"),
            TYPED,
            0,
            INVALID,
        ),
        (
            "small letters",
            good.clone(),
            ("&X-Goog-Signature", "&x-goog-signature=0&X-Goog-Signature"),
            TYPED,
            0,
            MISMATCH,
        ),
        ("another signature", good.clone(), ("X-Goog-Signature=", "X-Goog-Signature=00"), TYPED, 0, MISMATCH),
        ("the host left out", good, ("%3Bhost", ""), TYPED, 0, MALFORMED),
    ])
    .await;
}

#[tokio::test]
async fn a_signed_url_is_good_for_its_time_and_well_made() {
    let good = Wanted { headers: TYPED, ..Wanted::default() };
    let week = Wanted { expires: "604800", ..good.clone() };
    let dated = |date| Wanted { date, ..good.clone() };
    let lasting = |expires| Wanted { expires, ..good.clone() };
    let scoped = |scope| Wanted { scope, ..good.clone() };
    let stranger = Wanted { account: "nobody@emulator.example", ..good.clone() };
    let skewed = Some((403, "RequestTimeTooSkewed"));
    let expired = Some((400, "ExpiredToken"));
    expect(&[
        ("until its end", good.clone(), SAME, TYPED, 900, None),
        ("a week", week, SAME, TYPED, 604_800, None),
        ("after its end", good.clone(), SAME, TYPED, 901, expired),
        ("a little early", dated("20251122T101500Z"), SAME, TYPED, 0, None),
        ("too early", dated("20251122T101501Z"), SAME, TYPED, 0, skewed),
        ("no date", dated("20251122"), SAME, TYPED, 0, INVALID),
        ("too long", lasting("604801"), SAME, TYPED, 0, INVALID),
        ("no life", lasting("0"), SAME, TYPED, 0, INVALID),
        ("no number", lasting("1e3"), SAME, TYPED, 0, INVALID),
        ("another day", scoped("20251121/auto/storage/goog4_request"), SAME, TYPED, 0, INVALID),
        ("another service", scoped("20251122/auto/compute/goog4_request"), SAME, TYPED, 0, INVALID),
        ("no region", scoped("20251122//storage/goog4_request"), SAME, TYPED, 0, INVALID),
        ("another algorithm", good.clone(), ("RSA-SHA256", "HMAC-SHA256"), TYPED, 0, INVALID),
        ("a stranger", stranger, SAME, TYPED, 0, Some((403, "AccessDenied"))),
        ("no signature", good.clone(), ("X-Goog-Signature", "signature"), TYPED, 0, INVALID),
        ("no hexadecimal", good.clone(), ("X-Goog-Signature=", "X-Goog-Signature=x"), TYPED, 0, INVALID),
        ("twice", good, ("&X-Goog-Signature", "&X-Goog-Expires=1&X-Goog-Signature"), TYPED, 0, INVALID),
    ])
    .await;
}
