//! Names that templates make, and above all those that they must not make.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::id::Partition;
use crate::model::principal::PrincipalId;

const ID: UploadId = UploadId::new(Partition(0x3f), *b"0123456789abcdef");
const ID_TEXT: &str = "3f30313233343536373839616263646566";
/// 2026-03-07, early in the UTC day.
const NOW: Timestamp = Timestamp::from_secs(1_772_841_600 + 60);

fn principal(sub: &str, tenant: Option<&str>, claims: Value) -> Principal {
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    Principal {
        id: PrincipalId::of("https://issuer.example", tenant, sub),
        issuer: "https://issuer.example".into(),
        tenant: tenant.map(Into::into),
        subject: sub.into(),
        claims,
        admin: false,
        expires_at: NOW,
    }
}

fn fill(template: &str, principal: &Principal, filename: &str) -> Result<String, Vec<Violation>> {
    let may_repeat = !template.contains("{id}");
    let template = Template::parse(template, may_repeat).unwrap_or_else(|error| panic!("{template}: {error}"));
    let filename: FileName = filename.parse().unwrap();
    template.fill(&Parts { principal, filename: &filename, id: ID, now: NOW }).map(|name| name.as_str().to_owned())
}

#[test]
fn a_template_is_filled_with_what_the_request_brings() {
    let claims = json!({"org": {"unit": "north", "level": 7}, "beta": true, "big": u64::MAX});
    let ada = principal("ada", Some("acme"), claims);
    for (template, filename, expected) in [
        ("videos/{sub}/{id}.{ext}", "holiday.mp4", format!("videos/ada/{ID_TEXT}.mp4")),
        ("videos/{sub}/{id}.{ext}", "holiday", format!("videos/ada/{ID_TEXT}")),
        ("videos/{sub}/{id}.{ext}", ".profile", format!("videos/ada/{ID_TEXT}")),
        ("{id}{ext}", "a.tar.gz", format!("{ID_TEXT}gz")),
        ("{id}.{ext}.bak", "a", format!("{ID_TEXT}.bak")),
        ("{date}/{year}/{month}/{day}/{id}", "a", format!("2026-03-07/2026/03/07/{ID_TEXT}")),
        ("{shard}/{id}", "a", format!("30/{ID_TEXT}")),
        ("{tenant}/{id}/{filename}", "Ferien ☀.mp4", format!("acme/{ID_TEXT}/Ferien ☀.mp4")),
        ("{claims.org.unit}/{claims.org.level}/{id}", "a", format!("north/7/{ID_TEXT}")),
        ("{claims.beta}/{claims.big}/{id}", "a", format!("true/18446744073709551615/{ID_TEXT}")),
        ("avatars/{sub}", "a", "avatars/ada".to_owned()),
        ("latest", "a", "latest".to_owned()),
        // Decomposed on the way in, composed in the name.
        ("{id}/{filename}", "Cafe\u{301}", format!("{ID_TEXT}/Caf\u{e9}")),
    ] {
        assert_eq!(fill(template, &ada, filename), Ok(expected), "{template} with {filename}");
    }
}

#[test]
fn what_a_token_claims_is_data_and_stays_in_its_segment() {
    let long = "s".repeat(300);
    for (name, sub, expected) in [
        ("a placeholder is not expanded again", "{id}", Some("{id}")),
        ("nor is another one", "{claims.sub}}{", Some("{claims.sub}}{")),
        ("a percent sign is a percent sign", "%2e%2e%2f", Some("%2e%2e%2f")),
        ("dots inside a name", "a..b", Some("a..b")),
        ("300 bytes", &long, Some(&long)),
        ("a subject of an issuer", "auth0|5f7c", Some("auth0|5f7c")),
        ("composed", "A\u{30a}", Some("\u{c5}")),
        ("a singleton becomes its plain letter", "\u{212a}", Some("K")),
        ("up and out", "../x", None),
        ("the parent", "..", None),
        ("the same place", ".", None),
        ("two segments", "a/b", None),
        ("a backslash", r"a\b", None),
        ("a line break", "a\nb", None),
        ("a carriage return", "a\rb", None),
        ("NUL", "a\0b", None),
        ("delete", "a\u{7f}b", None),
        ("a C1 control", "a\u{85}b", None),
        ("a line separator", "a\u{2028}b", None),
        ("a paragraph separator", "a\u{2029}b", None),
        ("right-to-left override", "a\u{202e}gpj.exe", None),
        ("an isolate", "a\u{2066}b", None),
        ("a zero-width space", "a\u{200b}b", None),
        ("a zero-width joiner", "a\u{200d}b", None),
        ("a soft hyphen", "a\u{ad}b", None),
        ("a byte order mark", "\u{feff}a", None),
        ("a tag character", "a\u{e0041}", None),
        ("a noncharacter", "a\u{ffff}", None),
        ("a noncharacter of another plane", "a\u{1fffe}", None),
        ("a hash", "a#b", None),
        ("brackets", "a[b]", None),
        ("a star", "a*b", None),
        ("a question mark", "a?b", None),
        ("a combining mark first", "\u{301}a", None),
        ("nothing", "", None),
        ("too much", &"s".repeat(1025), None),
    ] {
        let filled = fill("fixed/{sub}/{id}", &principal(sub, None, json!({})), "a");
        assert_eq!(filled.ok(), expected.map(|sub| format!("fixed/{sub}/{ID_TEXT}")), "{name}");
    }
}

#[test]
fn only_the_places_that_a_template_has_are_checked() {
    let nobody = principal("..", None, json!({}));
    assert!(fill("uploads/{id}", &nobody, "# odd \u{202e} name?.#").is_ok());
    assert!(fill("uploads/{id}.{ext}", &nobody, "# odd \u{202e} name?.mp4").is_ok());
    assert!(fill("uploads/{id}.{ext}", &nobody, "name.#").is_err());
    assert!(fill("uploads/{id}/{filename}", &nobody, "a#").is_err());
}

#[test]
fn all_that_is_wrong_is_said_at_once_and_safely() {
    let hostile = principal("a\u{202e}\n/b", None, json!({"list": [1], "share": 0.5, "nothing": null}));
    let template = "{sub}/{tenant}/{claims.absent}/{claims.list}/{claims.share}/{claims.nothing}/{filename}/{id}";
    let violations = fill(template, &hostile, &"*".repeat(200)).unwrap_err();
    let (allowed, given): (Vec<_>, Vec<_>) =
        violations.into_iter().map(|violation| (violation.allowed, violation.given)).unzip();
    for (place, allowed) in
        ["{sub}", "{tenant}", "{claims.absent}", "{claims.list}", "{claims.share}", "{claims.nothing}", "{filename}"]
            .iter()
            .zip(&allowed)
    {
        assert!(allowed.contains(place), "{place}: {allowed}");
    }
    let stars = format!("{}…", "*".repeat(64));
    assert_eq!(given, [r"a\u{202e}\n/b", "none", "none", "a list", "a fraction", "none", &stars]);
}

#[test]
fn names_that_their_parts_make_together_are_refused_as_a_whole() {
    let ada = principal("ada", Some("."), json!({"long": "é".repeat(500), "jamo": "\u{1161}"}));
    for (name, template, filename) in [
        ("longer than 1024 bytes, though each part is shorter", "{claims.long}/{id}", "a"),
        ("a segment of two dots made of two parts", "{tenant}{claims.dot}/{id}", "a"),
        ("an empty segment", "dir/.{ext}/{id}", "noextension"),
        ("a slash at the end", "{id}/.{ext}", "noextension"),
        ("jamo that join the syllable before them", "\u{1112}{claims.jamo}/{id}", "a"),
    ] {
        let mut ada = ada.clone();
        ada.claims.insert("dot".to_owned(), json!("."));
        let violations = fill(template, &ada, filename).expect_err(name);
        assert_eq!(violations.len(), 1, "{name}: {violations:?}");
    }
}

#[test]
fn extensions_are_short() {
    let ada = principal("ada", None, json!({}));
    assert!(fill("{id}.{ext}", &ada, &format!("a.{}", "e".repeat(32))).is_ok());
    assert!(fill("{id}.{ext}", &ada, &format!("a.{}", "e".repeat(33))).is_err());
}

#[test]
fn without_an_id_two_principals_never_come_to_one_name() {
    for (template, accepted) in [
        ("{sub}/{filename}", true),
        ("{tenant}/{sub}/{filename}", true),
        ("{year}-{month}-{sub}/{shard}{filename}", true),
        ("avatars/{sub}.png", true),
        ("{sub}-{filename}", false),
        ("{sub}.{ext}", false),
        ("{tenant}{sub}/a", false),
        ("a/{claims.a}-{date}-{claims.b}", false),
    ] {
        let parsed = Template::parse(template, true);
        assert_eq!(parsed.is_ok(), accepted, "{template}");
        // Under a unique id it is no matter.
        assert!(Template::parse(&format!("{template}/{{id}}"), false).is_ok(), "{template}");
    }
    let (composed, decomposed) = ("Zo\u{eb}", "Zoe\u{308}");
    assert!(fill("avatars/{sub}", &principal(composed, None, json!({})), "a").is_ok());
    assert!(fill("avatars/{sub}", &principal(decomposed, None, json!({})), "a").is_err());
    assert!(fill("avatars/{filename}", &principal("a", None, json!({})), decomposed).is_ok());
}

#[test]
fn templates_that_cannot_be_are_refused_with_the_reason() {
    let long = format!("{}/{{id}}", "a".repeat(1020));
    let wide = format!("{}/{{id}}", "a".repeat(1000));
    for (name, template, reason) in [
        ("empty", "", "{id}"),
        ("no id", "videos/{sub}", "must contain {id}"),
        ("an unknown placeholder", "{id}/{user}", "{user} is no placeholder"),
        ("an empty placeholder", "{id}/{}", "{} is no placeholder"),
        ("a placeholder in capitals", "{ID}", "{ID} is no placeholder"),
        ("a claim without a name", "{id}{claims.}", "{claims.} is no placeholder"),
        ("a claim with an empty level", "{id}{claims.a..b}", "{claims.a..b} is no placeholder"),
        ("claims as a whole", "{id}{claims}", "{claims} is no placeholder"),
        ("never closed", "{id}/{sub", "'{'"),
        ("never opened", "{id}/sub}", "'}'"),
        ("nested", "{id}/{claims.{sub}}", "'{'"),
        ("doubled braces", "{{id}}", "no way to write a brace"),
        ("doubled braces at the end", "{id}}}", "no way to write a brace"),
        ("a slash first", "/{id}", "is empty"),
        ("a slash last", "{id}/", "is empty"),
        ("two slashes", "a//{id}", "is empty"),
        ("the parent", "a/../{id}", "\"..\""),
        ("a backslash", r"a\{id}", "cannot stand"),
        ("a hash", "a#{id}", "cannot stand"),
        ("a line break", "a\n{id}", "cannot stand"),
        ("a zero-width space", "a\u{200b}{id}", "cannot stand"),
        ("a combining mark after a placeholder", "{id}\u{301}", "combining mark"),
        ("decomposed", "Cafe\u{301}/{id}", "normalization form C"),
        ("for ACME", ".well-known/acme-challenge/{id}", "acme-challenge"),
        ("too long a text", &long, "at most 1024 bytes"),
        ("too long with its id", &wide, "at most 1024 bytes"),
    ] {
        let refusal = Template::parse(template, false).expect_err(name).to_string();
        assert!(refusal.contains(reason), "{name}: {refusal}");
    }
    assert!(Template::parse("", true).is_err(), "a name has at least one byte");
}

/// Texts with a bias to what hurts.
fn hostile_text() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        2 => any::<char>().prop_map(String::from),
        30 => prop::char::range('a', 'e').prop_map(String::from),
        1 => prop::char::range('\u{300}', '\u{36f}').prop_map(String::from),
        1 => prop::char::range('\u{1100}', '\u{11ff}').prop_map(String::from),
        1 => prop::char::range('\u{2000}', '\u{206f}').prop_map(String::from),
        1 => prop::sample::select(vec![
            ".", "..", "/", "\\", "{id}", "{sub}", "{", "}", "\n", "#", "\u{9be}", "\u{fb1d}", "e\u{301}", "\u{2260}",
            "\u{1d15e}", "\u{0344}",
        ])
        .prop_map(str::to_owned),
    ];
    prop_oneof![
        20 => prop::collection::vec(pieces.clone(), 0..8).prop_map(|pieces| pieces.concat()),
        1 => prop::collection::vec(pieces, 300..400).prop_map(|pieces| pieces.concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_a_name_keeps_every_rule_or_is_refused(
        (template, prefix, slashes) in prop::sample::select(vec![
            ("fixed/{sub}/{id}/{filename}", "fixed/", 3),
            ("fixed/{claims.x}{tenant}-{id}.{ext}", "fixed/", 1),
            ("{filename}{sub}/{id}", "", 1),
            ("\u{1100}{claims.x}\u{1161}/{sub}e{id}", "\u{1100}", 1),
            ("fixed.{ext}/{id}", "fixed", 1),
        ]),
        sub in hostile_text(),
        tenant in hostile_text(),
        claim in hostile_text(),
        filename in hostile_text(),
    ) {
        // File names are checked when a request is parsed; what passes there is what comes here.
        let Ok(filename) = filename.parse::<FileName>() else { return Ok(()) };
        let principal = principal(&sub, Some(&tenant), json!({ "x": claim }));
        match fill(template, &principal, filename.as_str()) {
            Ok(name) => {
                prop_assert!(name.starts_with(prefix), "left its prefix: {name:?}");
                prop_assert_eq!(name.matches('/').count(), slashes, "changed its segments: {:?}", name);
                prop_assert!((1..=1024).contains(&name.len()));
                prop_assert!(name.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{name:?}");
                prop_assert!(name.nfc().eq(name.chars()), "not in form C: {name:?}");
                prop_assert!(!name.chars().any(is_refused_anywhere), "{name:?}");
                prop_assert!(name.contains(ID_TEXT));
            }
            Err(violations) => {
                prop_assert!(!violations.is_empty());
                for violation in violations {
                    prop_assert_eq!(violation.limit, ViolatedLimit::Object);
                    prop_assert!(violation.given.len() < 1024);
                    let unsafe_character = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
                    prop_assert!(!violation.given.contains(unsafe_character), "{:?}", violation.given);
                }
            }
        }
    }
}
