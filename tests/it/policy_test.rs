//! `policy test`: cases against the policies of a configuration.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::broker::configuration;
use crate::support::process::command;
use crate::support::{ISSUER, Settings};

/// A folder with a configuration.
struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let policies = r#"
[[policies]]
name = "films"
when = '"creator" in claims.roles'
object = "films/{tenant}/{date}/{shard}/{id}.{ext}"
content_types = ["video/*"]
max_size = 1000
regions = ["europe-west1"]

[[policies]]
name = "tried"
when = '"tester" in claims.roles'
object = "tried/{id}"
max_size = 10
report_only = true
"#;
        let issuer = "tenant_claim = \"org.name\"\nadmin_when = 'claims.role == \"admin\"'".to_owned();
        let settings = Settings { policies: policies.to_owned(), issuer, ..Settings::default() };
        let text = configuration(folder.path(), "http://127.0.0.1:1", &settings);
        // Keys are no part of it.
        std::fs::remove_file(folder.path().join("jwks.json")).unwrap();
        std::fs::write(folder.path().join("broker.toml"), text).unwrap();
        Self(folder)
    }

    /// Runs these cases, with the arguments `more`.
    fn test(&self, cases: &str, more: &[&str]) -> Output {
        std::fs::write(self.0.path().join("cases.toml"), cases).unwrap();
        let arguments = ["policy", "test", "cases.toml", "--config", "broker.toml"];
        command().args(arguments).args(more).current_dir(self.0.path()).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

#[test]
fn the_documented_cases_hold_for_the_example_configuration() {
    let arguments = ["docs/policies.test.toml", "--config", "upload-broker.example.toml"];
    let output = command().args(["policy", "test"]).args(arguments).current_dir(repository("")).output().unwrap();
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    assert!(printed.ends_with("6 passed, 0 failed\n"), "{printed}");
    let line = "ok      a film goes into its owner's folder: admitted by videos as videos/ada/";
    assert!(printed.contains(line), "{printed}");
}

#[test]
fn the_help_explains_every_key_of_a_case() {
    let output = command().args(["policy", "test", "--help"]).output().unwrap();
    let help = text(&output.stdout);
    for key in ["name", "claims", "request", "expect", "issuer", "at", "policy", "object", "regions", "limits", "admin"]
    {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{key} "))), "{key}: {help}");
    }
}

/// Cases that hold, each with what it is about.
const HOLDING: &str = r#"
[[cases]]
name = "what the policy says stands in the object's name"
at = 2026-11-30T12:00:00Z
claims = { sub = "ada", roles = ["creator"], org = { name = "acme" }, role = "admin" }
request = { filename = "holiday.mp4", content_type = "video/mp4", size_bytes = 1000 }
expect = "admitted"
policy = "films"
object = "films/acme/2026-11-30/{shard}/{id}.mp4"
regions = ["europe-west1"]
limits = []
admin = true

[[cases]]
name = "all that is wrong is told at once"
claims = { sub = "ada", roles = ["creator"], org = { name = "acme" } }
request = { filename = "holiday.txt", content_type = "text/plain", size_bytes = 1001 }
expect = "policy-violation"
limits = ["max_size", "content_types"]
admin = false

[[cases]]
name = "a policy that reports admits, and says what it would refuse"
claims = { sub = "ada", roles = ["tester"] }
request = { filename = "a", size_bytes = 11 }
expect = "admitted"
limits = ["max_size"]
regions = []

[[cases]]
name = "whom two policies admit has to choose"
claims = { sub = "ada", roles = ["creator", "tester"], org = { name = "acme" } }
request = { filename = "a", content_type = "video/mp4", size_bytes = 1 }
expect = "invalid-request"

[[cases]]
name = "a stranger is let in nowhere"
claims = { sub = "eve" }
request = { policy = "films", filename = "a", size_bytes = 1 }
expect = "policy-denied"

[[cases]]
name = "a token that has ended"
at = "2026-11-30T12:00:00+01:00"
claims = { sub = "ada", iat = 1, exp = 2 }
request = { filename = "a", size_bytes = 1 }
expect = "unauthenticated"
"#;

#[test]
fn cases_that_hold_pass_for_people_and_machines() {
    let scene = Scene::new();
    let output = scene.test(HOLDING, &[]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}{}", text(&output.stderr));
    assert!(printed.ends_with("6 passed, 0 failed\n"), "{printed}");
    assert!(printed.contains("tried/") && printed.contains("which it reports: max_size 11"), "{printed}");

    let output = scene.test(HOLDING, &["--format", "json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["passed"], &document["failed"]), (&json!(6), &json!(0)));
    assert_eq!(document["cases"][0]["policy"], "films");
    assert_eq!(document["cases"][1]["limits"], json!(["content_types", "max_size"]));
    assert_eq!(document["cases"][4]["decision"], "policy-denied");
}

#[test]
fn a_case_that_does_not_hold_is_told_with_its_line_and_exit_1() {
    let scene = Scene::new();
    let admitted = r#"claims = { sub = "ada", roles = ["creator"], org = { name = "acme" } }
request = { filename = "a.mp4", content_type = "video/mp4", size_bytes = 1 }
expect = "admitted"
"#;
    for (name, case, expected) in [
        (
            "another decision",
            admitted.replace("\"admitted\"", "\"policy-denied\""),
            "expected policy-denied, and it is admitted",
        ),
        ("another policy", format!("{admitted}policy = \"tried\""), "expected the policy tried, and it is films"),
        ("another object", format!("{admitted}object = \"films/{{id}}\""), "expected the object films/"),
        ("other regions", format!("{admitted}regions = []"), "expected the regions [], and they are [europe-west1]"),
        ("no limit", format!("{admitted}limits = [\"max_size\"]"), "expected the limits [max_size], and they are []"),
        ("no administrator", format!("{admitted}admin = true"), "the caller is no administrator"),
    ] {
        let cases = format!("[[cases]]\nname = \"{name}\"\n{case}\n[[cases]]\nname = \"this holds\"\n{admitted}");
        let output = scene.test(&cases, &[]);
        let printed = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{name}: {printed}{}", text(&output.stderr));
        assert!(printed.contains(&format!("cases.toml:2:1: {expected}")), "{name}: {printed}");
        assert!(printed.ends_with("1 passed, 1 failed\n"), "{name}: {printed}");
        let output = scene.test(&cases, &["--format", "json"]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(document["cases"][0]["differences"][0].as_str().unwrap().starts_with(expected), "{name}: {document}");
        assert_eq!((&document["cases"][1]["passed"], &document["failed"]), (&json!(true), &json!(1)), "{name}");
    }
}

#[test]
fn cases_that_cannot_be_used_are_all_told_with_line_and_key_and_exit_2() {
    let scene = Scene::new();
    let case = format!(
        "[[cases]]\nname = \"a\"\nclaims = {{ sub = \"ada\", iss = \"{ISSUER}\" }}\nrequest = {{ filename = \"a\" }}\nexpect = \"policy-denied\"\n"
    );
    for (name, cases, expected) in [
        ("nothing", String::new(), "cases.toml: cases: missing: at least one [[cases]] section is needed"),
        ("no TOML", "[[cases]\n".to_owned(), "cases.toml:1:"),
        ("another section", format!("{case}[[case]]\nname = \"b\"\n"), "cases.toml:6:3: case: unknown key"),
        ("an unknown key", format!("{case}polcy = \"a\"\n"), "cases.toml:6:1: cases[0].polcy: unknown key"),
        ("an unknown field", case.replace("filename", "file_name"), "cases.toml:4:13: cases[0].request.file_name:"),
        ("no expectation", case.replace("expect", "# expect"), "cases[0]: missing key `expect`"),
        ("an unknown expectation", case.replace("policy-denied", "refused"), "cases.toml:5:1: cases[0].expect:"),
        ("no instant", format!("{case}at = \"noon\"\n"), "cases.toml:6:1: cases[0].at: must be an instant"),
        (
            "an unknown issuer",
            format!("{case}issuer = \"https://a.example\"\n"),
            "cases.toml:6:1: cases[0].issuer: is not",
        ),
        ("an issuer that is claimed", case.replace(ISSUER, "https://b.example"), "cases[0].claims.iss: is not among"),
        ("what is never looked at", format!("{case}object = \"a\"\n"), "cases.toml:6:1: cases[0].object: is for cases"),
    ] {
        let output = scene.test(&cases, &[]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {told}");
        assert!(told.contains(expected), "{name}: {told}");
    }
    let two = format!("{case}polcy = \"a\"\n{case}admn = true\n");
    let told = text(&scene.test(&two, &[]).stderr);
    assert!(told.contains("polcy") && told.contains("admn"), "both are told: {told}");
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_as_check_does() {
    let scene = Scene::new();
    let file = scene.0.path().join("broker.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    for (name, wrong, expected) in [
        ("a policy", good.replace("\"creator\" in", "\"creator\" inn"), "policies[0].when"),
        ("an issuer", good.replace("claims.role ==", "claims.role = ="), "issuers[0].admin_when"),
        ("an unknown key", good.replace("max_size", "max_sise"), "policies[0].max_sise"),
    ] {
        std::fs::write(&file, wrong).unwrap();
        let output = scene.test(HOLDING, &[]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {told}");
        assert!(told.contains("broker.toml:") && told.contains(expected), "{name}: {told}");
    }
}
