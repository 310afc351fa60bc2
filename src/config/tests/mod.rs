//! Configurations that load, and those that must not.

mod example;
mod mistakes;

use super::*;
use crate::storage::Credentials;

/// The smallest configuration. Tests append to it, or replace a line of it.
const SMALL: &str = r#"region = "eu"
[server]
public_url = "https://eu.example.com"
[store]
url = "memory"
[[issuers]]
issuer = "https://issuer.example"
audiences = ["broker"]
[[regions]]
name = "eu"
bucket = "media-eu"
url = "https://eu.example.com"
[[policies]]
name = "files"
object = "files/{id}"
"#;

fn file() -> &'static Path {
    Path::new("/etc/broker/broker.toml")
}

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, Errors> {
    load(text, file(), environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

#[test]
fn the_smallest_configuration_loads_with_all_defaults() {
    let config = load_text(SMALL, &[]).unwrap();
    assert_eq!(config.region.as_str(), "eu");
    assert_eq!(config.own_region().unwrap().bucket.as_str(), "media-eu");
    assert_eq!(config.server.listen.port(), 8443);
    assert_eq!(config.storage.credentials, Credentials::Auto);
}

#[test]
fn the_region_can_be_left_to_the_machine() {
    let config = load_text(&SMALL.replace("region = \"eu\"\n", "region = \"auto\"\n"), &[]).unwrap();
    assert_eq!((config.region.as_str(), config.own_region().is_none()), ("auto", true));
    assert!(config.region_named(&"eu".parse().unwrap()).is_some());
    let config = load_text(SMALL, &[("UPLOAD_BROKER_REGION", "auto")]).unwrap();
    assert_eq!(config.region, OwnRegion::OfMachine);
}

#[test]
fn all_mistakes_are_told_together() {
    let text = SMALL
        .replace("region = \"eu\"\n", "region = \"us\"\n")
        .replace("https://eu.example.com", "http://eu.example.com")
        .replace("audiences = [\"broker\"]", "audiences = 1")
        .replace("url = \"memory\"", "url = \"what\"");
    let errors = load_text(&text, &[]).unwrap_err();
    let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(
        keys,
        ["issuers[0].audiences", "server.public_url", "store.url", "store.encryption_keys", "regions[0].url", "region",]
    );
    assert_eq!(errors.to_string().lines().count(), 6);
    let nothing = load_text("", &[]).unwrap_err();
    assert_eq!(nothing.iter().count(), 6, "{nothing}");
}

#[test]
fn variables_replace_keys_and_add_what_is_not_there() {
    let config = load_text(
        SMALL,
        &[
            ("UPLOAD_BROKER_STORE__URL", "redis+unix:///run/redis.sock"),
            ("UPLOAD_BROKER_STORE__ENCRYPTION_KEYS", "[{ id = \"k1\", file = \"a.key\" }]"),
            ("UPLOAD_BROKER_STORE__ENCRYPTION_KEYS__0__FILE", "7"),
            ("UPLOAD_BROKER_SERVER__TLS__KEY", "tls.key"),
            ("UPLOAD_BROKER_SERVER__TLS__CERTIFICATE", "/run/tls.crt"),
            ("UPLOAD_BROKER_SERVER__ALLOWED_ORIGINS", "[\"https://a.example\", \"https://b.example\"]"),
            ("UPLOAD_BROKER_STORAGE__CREDENTIALS__FILE", "sa.json"),
            ("UPLOAD_BROKER_STORAGE__TIMEOUT", "5s"),
            ("UPLOAD_BROKER_ISSUERS__0__AUDIENCES__1", "another"),
            ("UPLOAD_BROKER_ISSUERS__1__ISSUER", "12345"),
            ("UPLOAD_BROKER_ISSUERS__1__AUDIENCES", "[\"b\"]"),
            ("UPLOAD_BROKER_POLICIES__0__UNKNOWN_SIZE", "true"),
            ("UPLOAD_BROKER_POLICIES__0__MAX_SIZE", "1500"),
            ("UPLOAD_BROKER_POLICIES__0__MAX_ACTIVE", "7"),
            ("UPLOAD_BROKER_POLICIES__0__WHEN", "true"),
            ("UPLOAD_BROKER_TRUSTED_CA", "ca.pem"),
            ("SOMETHING_ELSE", "x"),
        ],
    )
    .unwrap();
    assert_eq!(config.store.url, "redis+unix:///run/redis.sock");
    assert_eq!(config.store.encryption_keys[0].file, Path::new("/etc/broker/7"), "the inner one comes later");
    let tls = config.server.tls.as_ref().unwrap();
    assert_eq!(tls.key, Path::new("/etc/broker/tls.key"));
    assert_eq!(tls.certificate, Path::new("/run/tls.crt"));
    assert_eq!(config.server.allowed_origins.len(), 2);
    assert_eq!(config.storage.credentials, Credentials::File { file: "/etc/broker/sa.json".into() });
    assert_eq!(config.storage.timeout.to_string(), "5s");
    assert_eq!(config.issuers[0].audiences, ["broker", "another"]);
    assert_eq!(config.issuers[1].issuer, "12345", "a number where text is wanted is text");
    assert!(config.policies[0].unknown_size);
    assert_eq!(config.policies[0].max_size.0, 1500);
    assert_eq!(config.policies[0].max_active, Some(7));
    assert_eq!(config.policies[0].when.as_deref(), Some("true"), "the condition, not the truth value");
    assert_eq!(config.trusted_ca.as_deref(), Some(Path::new("/etc/broker/ca.pem")));
    assert_eq!(config.locate("issuers", Some(1), "issuer").to_string(), "UPLOAD_BROKER_ISSUERS__1__ISSUER");
}

#[test]
fn mistakes_in_variables_name_the_variable_and_never_its_secret() {
    for (name, variable, value, expected) in [
        (
            "an unknown key",
            "UPLOAD_BROKER_STORE__ULR",
            "s3cret",
            "UPLOAD_BROKER_STORE__ULR: store.ulr: unknown key `ulr`",
        ),
        (
            "an unknown key with a number",
            "UPLOAD_BROKER_STORE__ULR",
            "5",
            "UPLOAD_BROKER_STORE__ULR: store.ulr: unknown key `ulr`",
        ),
        ("an unknown section", "UPLOAD_BROKER_SHOP__URL", "s3cret", "UPLOAD_BROKER_SHOP__URL: shop: unknown key"),
        ("an unknown key at the top", "UPLOAD_BROKER_REGOIN", "eu", "UPLOAD_BROKER_REGOIN: regoin: unknown key"),
        ("no name", "UPLOAD_BROKER_", "s3cret", "UPLOAD_BROKER_: is not the name of a key"),
        ("an empty level", "UPLOAD_BROKER_STORE____URL", "s3cret", "UPLOAD_BROKER_STORE____URL: is not the name"),
        (
            "a gap in an array",
            "UPLOAD_BROKER_ISSUERS__2__ISSUER",
            "s3cret",
            "UPLOAD_BROKER_ISSUERS__2__ISSUER: issuers has 1 entries",
        ),
        (
            "a name in an array",
            "UPLOAD_BROKER_ISSUERS__FIRST__ISSUER",
            "s3cret",
            "UPLOAD_BROKER_ISSUERS__FIRST__ISSUER: issuers has 1 entries",
        ),
        (
            "text for a truth value",
            "UPLOAD_BROKER_POLICIES__0__OVERWRITE",
            "s3cret",
            "UPLOAD_BROKER_POLICIES__0__OVERWRITE: policies[0].overwrite: expected true or false, found text",
        ),
        (
            "numbers for texts",
            "UPLOAD_BROKER_ISSUERS__0__AUDIENCES",
            "[1]",
            "UPLOAD_BROKER_ISSUERS__0__AUDIENCES: issuers[0].audiences[0]: expected text, found an integer",
        ),
        (
            "a section of text",
            "UPLOAD_BROKER_STORE",
            "s3cret",
            "UPLOAD_BROKER_STORE: store: expected a table, found text",
        ),
        (
            "an unknown kind of store",
            "UPLOAD_BROKER_STORE__URL",
            "mysql://:s3cret@a",
            "UPLOAD_BROKER_STORE__URL: store.url: must be",
        ),
        ("quoted text", "UPLOAD_BROKER_REGION", "\"eu\"", "UPLOAD_BROKER_REGION: region: a name has"),
        (
            "an incomplete new section",
            "UPLOAD_BROKER_REGIONS__1__NAME",
            "us",
            "UPLOAD_BROKER_REGIONS__1__NAME: regions[1]: missing key `bucket`",
        ),
    ] {
        let errors = load_text(SMALL, &[(variable, value)]).expect_err(name).to_string();
        assert!(errors.contains(expected), "{name}:\n{errors}");
        assert!(!errors.contains("s3cret"), "{name} shows a secret:\n{errors}");
    }
    let long = "x".repeat(64 * 1024 + 1);
    assert!(load_text(SMALL, &[("UPLOAD_BROKER_REGION", &long)]).unwrap_err().to_string().contains("too long"));
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_of_our_name_are_passed_over() {
    let links = [
        ("UPLOAD_BROKER_SERVICE_HOST", "10.0.0.11"),
        ("UPLOAD_BROKER_SERVICE_PORT", "443"),
        ("UPLOAD_BROKER_SERVICE_PORT_HTTPS", "443"),
        ("UPLOAD_BROKER_PORT", "tcp://10.0.0.11:443"),
        ("UPLOAD_BROKER_PORT_443_TCP", "tcp://10.0.0.11:443"),
        ("UPLOAD_BROKER_PORT_443_TCP_PROTO", "tcp"),
        ("UPLOAD_BROKER_PORT_443_TCP_PORT", "443"),
        ("UPLOAD_BROKER_PORT_443_TCP_ADDR", "10.0.0.11"),
        ("UPLOAD_BROKER_REDIS_SERVICE_HOST", "10.0.0.12"),
        ("UPLOAD_BROKER_REDIS_SERVICE_PORT_REDIS", "6379"),
        ("UPLOAD_BROKER_REDIS_PORT", "tcp://10.0.0.12:6379"),
        ("UPLOAD_BROKER_REDIS_PORT_6379_TCP_ADDR", "10.0.0.12"),
    ];
    load_text(SMALL, &links).unwrap();
    for (name, value) in [("UPLOAD_BROKER_PORT", "8443"), ("UPLOAD_BROKER_PORTS", "1"), ("UPLOAD_BROKER_PORT_443", "x")]
    {
        assert!(load_text(SMALL, &[(name, value)]).is_err(), "{name}");
    }
}

#[test]
fn other_modules_find_the_place_of_a_key() {
    let config = load_text(SMALL, &[]).unwrap();
    for (section, index, key, expected) in [
        ("policies", Some(0), "object", "/etc/broker/broker.toml:15:1"),
        ("issuers", Some(0), "audiences[0]", "/etc/broker/broker.toml:8:14"),
        ("policies", Some(0), "rate", "/etc/broker/broker.toml:13:1"),
        ("server", None, "", "/etc/broker/broker.toml:2:2"),
        ("storage", None, "timeout", "/etc/broker/broker.toml"),
    ] {
        assert_eq!(config.locate(section, index, key).to_string(), expected, "{section} {index:?} {key}");
    }
    let error = config.error("policies", Some(0), "object", "is odd");
    assert_eq!(error.to_string(), "/etc/broker/broker.toml:15:1: policies[0].object: is odd");
}

#[test]
fn columns_count_characters_and_large_files_are_refused() {
    let errors = load_text("\"größe\" = 1; 2", &[]).unwrap_err().to_string();
    assert!(errors.contains("broker.toml:1:11: "), "{errors}");
    let large = format!("#{}\n{SMALL}", "x".repeat(MAX_BYTES));
    assert!(load_text(&large, &[]).unwrap_err().to_string().contains("larger than 1 MiB"));
}

#[test]
fn a_configuration_does_not_print_the_store_s_password() {
    let config = load_text(
        SMALL,
        &[
            ("UPLOAD_BROKER_STORE__URL", "rediss://user:s3cret@redis.example"),
            ("UPLOAD_BROKER_STORE__ENCRYPTION_KEYS", "[{ id = \"k1\", file = \"a.key\" }]"),
        ],
    )
    .unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn a_file_is_read_from_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.toml");
    std::fs::write(&path, SMALL.replace("[server]", "trusted_ca = \"ca.pem\"\n[server]")).unwrap();
    assert_eq!(load_file(&path).unwrap().trusted_ca, Some(directory.path().join("ca.pem")));
    let missing = load_file(&directory.path().join("none.toml")).unwrap_err().to_string();
    assert!(missing.contains("none.toml: cannot be read: "), "{missing}");
    std::fs::write(&path, [0xff]).unwrap();
    assert!(load_file(&path).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn what_may_not_be_meant_is_remarked_with_its_place() {
    let remarks = |from: &str, to: &str| -> Vec<String> {
        let text = SMALL.replace(from, to);
        assert_ne!(text, SMALL);
        let config = load(&text, file(), []).unwrap_or_else(|errors| panic!("{errors}"));
        config.remarks().iter().map(ToString::to_string).collect()
    };
    let second = "location = [50, 4]\n[[regions]]\nname = \"europe-west4\"";
    let twice = format!("{second}\nbucket = \"media-eu\"\nurl = \"https://eu.example.com\"\n[[policies]]");
    for (name, from, to, expected) in [
        (
            "two regions with one bucket and one url",
            "[[policies]]",
            &twice[..],
            vec!["regions[1].bucket", "regions[1].url"],
        ),
        (
            "a header of nobody",
            "[[policies]]",
            "[routing]\ngeo_header = \"x-geo\"\n[[policies]]",
            vec!["routing.geo_header"],
        ),
        (
            "a database that is missing",
            "[[policies]]",
            "[routing]\ngeoip_database = \"missing.mmdb\"\n[[policies]]",
            vec!["routing.geoip_database"],
        ),
        (
            "a collector at the port of another protocol",
            "[[policies]]",
            "[telemetry]\notlp_endpoint = \"http://collector:4317\"\n[[policies]]",
            vec!["telemetry.otlp_endpoint"],
        ),
        ("nothing", "[[policies]]", "[routing]\nmisdirected = \"reject\"\n[[policies]]", vec![]),
    ] {
        let found = remarks(from, to);
        assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
        for (found, key) in found.iter().zip(expected) {
            assert!(found.contains(key) && found.contains("broker.toml:"), "{name}: {found}");
        }
    }
}
