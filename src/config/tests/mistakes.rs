//! Files with one mistake each.

use super::*;

/// A name, the line of [`SMALL`] to replace, what to replace it with, and what the error says.
const MISTAKES: &[(&str, usize, &str, &str)] = &[
    ("not TOML", 1, "region", "broker.toml:1:7: "),
    ("a key twice", 4, "public_url = \"https://a.example\"\n[store]", "broker.toml:4:1: duplicate key"),
    ("an open string", 5, "url = \"memory", "broker.toml:5:"),
    ("an unknown key at the top", 1, "region = \"eu\"\nregoin = 1", "broker.toml:2:1: regoin: unknown key"),
    ("an unknown section", 4, "[sweepers]\n[store]", "broker.toml:4:2: sweepers: unknown key"),
    ("an unknown key", 5, "url = \"memory\"\nulr = 1", "broker.toml:6:1: store.ulr: unknown key `ulr`"),
    (
        "an unknown key inside",
        3,
        "public_url = \"https://a.example\"\ntls = { certificat = \"a\" }",
        "broker.toml:4:9: server.tls.certificat: unknown key `certificat`",
    ),
    (
        "an unknown key in an array",
        8,
        "audiences = []\naudience = 1",
        "broker.toml:9:1: issuers[0].audience: unknown key",
    ),
    ("a missing key", 3, "", "broker.toml:2:2: server: missing key `public_url`"),
    ("a missing key in an array", 11, "", "broker.toml:9:1: regions[0]: missing key `bucket`"),
    ("a missing region", 1, "", "broker.toml: region: missing"),
    ("a region that is not listed", 1, "region = \"us\"", "broker.toml:1:1: region: \"us\" is not the name"),
    ("a region that is no name", 1, "region = \"E U\"", "broker.toml:1:1: region: a name has"),
    (
        "a region of which nobody knows where it is",
        9,
        "[[regions]]\nname = \"europe-west1\"\nbucket = \"other\"\nurl = \"https://b.example\"\n[[regions]]",
        "broker.toml:13:1: regions[1].location: missing: \"eu\" is no region of Cloud Storage",
    ),
    (
        "a country of two regions",
        12,
        "url = \"https://b.example\"\ncountries = [\"BE\", \"NL\", \"BE\"]",
        "broker.toml:13:26: regions[0].countries[2]: \"BE\" is claimed already",
    ),
    ("a country that is none", 12, "url = \"https://b.example\"\ncountries = [\"UK\"]", "regions[0].countries"),
    ("a place off the earth", 12, "url = \"https://b.example\"\nlocation = [91.0, 0.0]", "regions[0].location"),
    ("a key of routing", 13, "[routing]\ngeoip = \"a\"\n[[policies]]", "broker.toml:14:1: routing.geoip: unknown key"),
    (
        "a number for text",
        8,
        "audiences = [\"a\", 5]",
        "broker.toml:8:19: issuers[0].audiences[1]: expected text, found an integer",
    ),
    (
        "text for an array",
        8,
        "audiences = \"a\"",
        "broker.toml:8:1: issuers[0].audiences: expected an array, found text",
    ),
    ("a section that is none", 4, "[store2]\n[server.store]", "broker.toml: store: missing: a [store] section"),
    ("one section for many", 6, "[issuers]", "broker.toml:6:2: issuers: must be sections, each headed [[issuers]]"),
    (
        "a number beyond all",
        13,
        "[[policies]]\nmin_size = 99999999999999999999",
        "broker.toml:14:12: policies[0].min_size: this number is too large",
    ),
    (
        "a negative size",
        13,
        "[[policies]]\nmin_size = -1",
        "broker.toml:14:1: policies[0].min_size: a size cannot be negative",
    ),
    (
        "a size that is none",
        13,
        "[[policies]]\nmax_size = \"big\"",
        "broker.toml:14:1: policies[0].max_size: \"big\" is not a size",
    ),
    (
        "a rate that is none",
        13,
        "[[policies]]\nrate = \"fast\"",
        "broker.toml:14:1: policies[0].rate: \"fast\" is not a rate",
    ),
    (
        "a digest rule that is none",
        13,
        "[[policies]]\ndigest = \"sometimes\"",
        "broker.toml:14:1: policies[0].digest: unknown variant `sometimes`",
    ),
    (
        "an algorithm with a shared key",
        8,
        "audiences = [\"a\"]\nalgorithms = [\"HS256\"]",
        "broker.toml:9:15: issuers[0].algorithms[0]: unknown variant `HS256`",
    ),
    (
        "a key set over plain http",
        8,
        "audiences = [\"a\"]\njwks_url = \"http://a.example\"",
        "broker.toml:9:1: issuers[0].jwks_url: \"http://a.example\" must be https",
    ),
    (
        "a listener that is no address",
        2,
        "[server]\nlisten = \"8443\"",
        "broker.toml:3:1: server.listen: invalid socket address",
    ),
    (
        "one address for both listeners",
        2,
        "[server]\nlisten = \"127.0.0.1:9090\"",
        "broker.toml:2:2: server.admin_listen: must differ",
    ),
    (
        "a public address without TLS",
        3,
        "public_url = \"http://eu.example.com\"",
        "broker.toml:3:1: server.public_url: must be https",
    ),
    (
        "a public address with a path",
        3,
        "public_url = \"https://eu.example.com/broker\"",
        "broker.toml:3:1: server.public_url: must be scheme, host and port only",
    ),
    (
        "a public address with a password",
        3,
        "public_url = \"https://a:s3cret@eu.example.com\"",
        "broker.toml:3:1: server.public_url: must not hold",
    ),
    (
        "any origin",
        2,
        "[server]\nallowed_origins = [\"*\"]",
        "broker.toml:3:20: server.allowed_origins[0]: must be an origin",
    ),
    (
        "the null origin",
        2,
        "[server]\nallowed_origins = [\"null\"]",
        "broker.toml:3:20: server.allowed_origins[0]: must be an origin",
    ),
    (
        "a wildcard origin",
        2,
        "[server]\nallowed_origins = [\"https://*.example.com\"]",
        "broker.toml:3:20: server.allowed_origins[0]: must be an origin",
    ),
    (
        "an origin with a slash",
        2,
        "[server]\nallowed_origins = [\"https://a.example/\"]",
        "server.allowed_origins[0]: must be written as browsers send it: \"https://a.example\"",
    ),
    (
        "an origin in upper case",
        2,
        "[server]\nallowed_origins = [\"https://A.example\"]",
        "server.allowed_origins[0]: must be written as browsers send it: \"https://a.example\"",
    ),
    (
        "an origin with the default port",
        2,
        "[server]\nallowed_origins = [\"https://a.example:443\"]",
        "server.allowed_origins[0]: must be written as browsers",
    ),
    (
        "an origin without TLS",
        2,
        "[server]\nallowed_origins = [\"http://a.example\"]",
        "server.allowed_origins[0]: must be https",
    ),
    (
        "a proxy that is no network",
        2,
        "[server]\ntrusted_proxies = [\"10.0.0.0/33\"]",
        "broker.toml:3:20: server.trusted_proxies[0]: ",
    ),
    (
        "a store of an unknown kind",
        5,
        "url = \"postgres://:s3cret@a\"",
        "broker.toml:5:1: store.url: must be \"memory\", or begin with",
    ),
    (
        "a store that is no address",
        5,
        "url = \"s3cret\"",
        "broker.toml:5:1: store.url: must be \"memory\", or an address",
    ),
    (
        "Sentinels without the name of a master",
        5,
        "url = \"redis+sentinel://:s3cret@a,b\"",
        "broker.toml:5:1: store.url: must be redis+sentinel://host:port,host:port/NAME",
    ),
    (
        "a store's certificate without its key",
        5,
        "url = \"rediss://a\"\ntls = { certificate = \"a.crt\" }\nencryption_keys = [{ id = \"k\", file = \"f\" }]",
        "broker.toml:6:1: store.tls: certificate and key go together",
    ),
    (
        "a cluster with a hole",
        5,
        "url = \"rediss+cluster://:s3cret@a,,b\"",
        "broker.toml:5:1: store.url: must be redis+cluster://host:port,host:port",
    ),
    (
        "a cluster without keys",
        5,
        "url = \"redis+cluster://:s3cret@a,b\"",
        "broker.toml:4:2: store.encryption_keys: missing: at least one key",
    ),
    (
        "a store without keys",
        5,
        "url = \"redis://:s3cret@a\"",
        "broker.toml:4:2: store.encryption_keys: missing: at least one key",
    ),
    (
        "a store without a host",
        5,
        "url = \"redis:\"\nencryption_keys = [{ id = \"k\", file = \"f\" }]",
        "broker.toml:5:1: store.url: names no host",
    ),
    (
        "a prefix with braces",
        5,
        "url = \"memory\"\nkey_prefix = \"{a}\"",
        "broker.toml:6:1: store.key_prefix: must be 1 to 64",
    ),
    ("an empty prefix", 5, "url = \"memory\"\nkey_prefix = \"\"", "broker.toml:6:1: store.key_prefix: must be 1 to 64"),
    (
        "a key id in upper case",
        5,
        "url = \"memory\"\nencryption_keys = [{ id = \"K\", file = \"f\" }]",
        "broker.toml:6:22: store.encryption_keys[0].id: must be 1 to 8",
    ),
    (
        "a key id twice",
        5,
        "url = \"memory\"\nencryption_keys = [{ id = \"k\", file = \"f\" }, { id = \"k\", file = \"g\" }]",
        "store.encryption_keys[1].id: \"k\" is the id of an earlier key",
    ),
    (
        "a key itself",
        5,
        "url = \"memory\"\nencryption_keys = [\"s3cret\"]",
        "broker.toml:6:20: store.encryption_keys[0]: expected a table, found text",
    ),
    (
        "no time for storage",
        4,
        "[storage]\ntimeout = \"0s\"\n[store]",
        "broker.toml:5:1: storage.timeout: must be more than 0s",
    ),
    (
        "too much time for storage",
        4,
        "[storage]\ntimeout = \"16s\"\n[store]",
        "storage.timeout: must be more than 0s, and at most 15s: a request has",
    ),
    (
        "storage with a query",
        4,
        "[storage]\nendpoint = \"https://a.example?b\"\n[store]",
        "storage.endpoint: must not have a query",
    ),
    (
        "credentials that are none",
        4,
        "[storage]\ncredentials = \"sa.json\"\n[store]",
        "broker.toml:5:1: storage.credentials: ",
    ),
    (
        "an issuer twice",
        6,
        "[[issuers]]\nissuer = \"https://issuer.example\"\naudiences = [\"a\"]\n[[issuers]]",
        "broker.toml:10:1: issuers[1].issuer: \"https://issuer.example\" stands in an earlier",
    ),
    (
        "a region twice",
        9,
        "[[regions]]\nname = \"eu\"\nbucket = \"other\"\nurl = \"https://a.example\"\n[[regions]]",
        "broker.toml:14:1: regions[1].name: \"eu\" stands",
    ),
    (
        "a policy twice",
        13,
        "[[policies]]\nname = \"files\"\nobject = \"{id}\"\n[[policies]]",
        "broker.toml:17:1: policies[1].name: \"files\" stands",
    ),
    (
        "a policy for an unknown region",
        13,
        "[[policies]]\nregions = [\"eu\", \"us\"]",
        "broker.toml:14:18: policies[0].regions[1]: \"us\" is not the name",
    ),
    (
        "a policy for no region",
        13,
        "[[policies]]\nregions = []",
        "broker.toml:14:1: policies[0].regions: an empty list",
    ),
    (
        "a region's address without TLS",
        12,
        "url = \"http://eu.example.com\"",
        "broker.toml:12:1: regions[0].url: must be https",
    ),
    (
        "pushes of nobody",
        15,
        "object = \"files/{id}\"\n[notifications]\naudience = \"a\"",
        "broker.toml:16:2: notifications: missing key `service_account`",
    ),
    (
        "pushes of an account that is none",
        15,
        "object = \"files/{id}\"\n[notifications]\naudience = \"a\"\nservice_account = \"\\\" || true\"",
        "broker.toml:18:1: notifications.service_account: must be the e-mail address",
    ),
    (
        "pushes of no subscription",
        15,
        "object = \"files/{id}\"\n[notifications]\naudience = \"a\"\nservice_account = \"a@b\"\nsubscriptions = []",
        "broker.toml:19:1: notifications.subscriptions: an empty list",
    ),
    ("a bucket that is none", 11, "bucket = \"Media\"", "broker.toml:11:1: regions[0].bucket: a bucket name has only"),
];

#[test]
fn every_mistake_is_told_with_its_place() {
    for &(name, line, replacement, expected) in MISTAKES {
        let mut lines: Vec<_> = SMALL.lines().collect();
        lines[line - 1] = replacement;
        let text = lines.join("\n");
        let errors = load_text(&text, &[]).expect_err(name).to_string();
        assert!(errors.contains(expected), "{name}:\n{errors}");
        assert!(!errors.contains("s3cret"), "{name} shows a secret:\n{errors}");
        assert!(errors.lines().all(|line| line.contains("broker.toml")), "{name}:\n{errors}");
    }
}
