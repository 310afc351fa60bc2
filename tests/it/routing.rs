//! Several regions: where clients are, which broker serves them, and what becomes of those who came to another one.

mod residency;

use std::time::Duration;

use serde_json::{Value, json};
use upload_broker::clock::Clock;
use upload_broker::emulator::journal::Operation;
use upload_broker::model::time::Timestamp;

use crate::support::broker::{configuration, emulator_of};
use crate::support::crossing::{Crossing, Side};
use crate::support::mmdb::{Mmdb, place};
use crate::support::process::{Process, command};
use crate::support::user::{Answer, request, token};
use crate::support::{Broker, Settings, User, noise};

const EU: &str = "europe-west1";
const US: &str = "us-central1";
const ASIA: &str = "asia-southeast1";

/// The regions, with the buckets beside them.
const REGIONS: [(&str, &str); 3] = [(EU, "media-eu"), (US, "media-us"), (ASIA, "media-asia")];

const POLICIES: &str = "
[[policies]]
name = \"anywhere\"
object = \"{id}\"

[[policies]]
name = \"europe-only\"
object = \"{id}\"
regions = [\"europe-west1\"]

[[policies]]
name = \"not-europe\"
object = \"{id}\"
regions = [\"us-central1\", \"asia-southeast1\"]
";

/// A broker in each region, and the addresses that they know each other by.
struct Deployment {
    brokers: Vec<Broker>,
    ways: Vec<Crossing>,
}

impl Deployment {
    /// Brokers that believe this machine, and do this with clients of other regions.
    async fn start(misdirected: &str) -> Self {
        Self::start_with("trusted_proxies = [\"127.0.0.0/8\"]", &format!("misdirected = \"{misdirected}\"")).await
    }

    async fn start_with(server: &str, routing: &str) -> Self {
        Self::start_each(server, POLICIES, |_| routing.to_owned()).await
    }

    /// Brokers that have these policies, and each what `routing` says of its own region.
    async fn start_each(server: &str, policies: &str, routing: impl Fn(&str) -> String) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let mut ways = Vec::new();
        for _ in REGIONS {
            ways.push(Crossing::new().await);
        }
        let mut brokers = Vec::new();
        for (own, (name, bucket)) in REGIONS.into_iter().enumerate() {
            let others = REGIONS.iter().zip(&ways).filter(|((other, _), _)| *other != name);
            let section = |((name, bucket), way): (&(&str, &str), &Crossing)| {
                let countries = if *name == US { "countries = [\"NZ\"]" } else { "" };
                format!("[[regions]]\nname = \"{name}\"\nbucket = \"{bucket}\"\nurl = \"{}\"\n{countries}\n", way.url())
            };
            let settings = Settings {
                region: name,
                bucket,
                url: ways[own].url(),
                more_regions: others.map(section).collect(),
                server: server.to_owned(),
                policies: policies.to_owned(),
                more: format!("[routing]\ngeo_header = \"x-client-geo\"\n{}\n", routing(name)),
                ..Settings::default()
            };
            let storage = emulator_of(bucket, name, clock.clone()).await;
            brokers.push(Broker::start_beside(storage, clock.clone(), settings).await);
            ways[own].lead_to(Side::Server(brokers[own].address));
        }
        Self { brokers, ways }
    }

    fn broker(&self, region: &str) -> &Broker {
        &self.brokers[index(region)]
    }

    fn way(&self, region: &str) -> &Crossing {
        &self.ways[index(region)]
    }

    /// Somebody in a country, who comes to the broker of a region.
    fn user(&self, region: &str, country: &str) -> User {
        self.broker(region).user("ada").with("x-client-geo", country)
    }

    /// The broker of a region probes the others so many times, three seconds apart.
    async fn probe(&self, region: &str, times: usize) {
        for _ in 0..times {
            self.broker(region).pass(Duration::from_secs(3));
            self.broker(region).probe().await;
        }
    }

    /// How many sessions each region's storage has opened.
    fn sessions(&self) -> Vec<usize> {
        self.brokers.iter().map(|broker| broker.storage.journal().count(Operation::Initiate)).collect()
    }
}

fn index(region: &str) -> usize {
    REGIONS.iter().position(|(name, _)| *name == region).unwrap()
}

fn order(answer: &Answer) -> Vec<&str> {
    answer.body["regions"].as_array().unwrap().iter().map(|region| region["name"].as_str().unwrap()).collect()
}

fn under(policy: &str) -> Value {
    let mut body = request(5);
    body["policy"] = json!(policy);
    body
}

async fn create(user: &User, policy: &str) -> Answer {
    user.create_from(under(policy)).await
}

#[tokio::test]
async fn anyone_is_told_the_regions_nearest_first() {
    let deployment = Deployment::start("serve").await;
    for (told, expected, country) in [
        ("DE", [EU, US, ASIA], Some("DE")),
        ("BR", [US, EU, ASIA], Some("BR")),
        ("JP", [ASIA, EU, US], Some("JP")),
        ("NZ", [US, ASIA, EU], Some("NZ")),
        ("1.3,103.8", [ASIA, EU, US], None),
        ("DE,40.7,-74.0", [US, EU, ASIA], Some("DE")),
    ] {
        let mut user = deployment.user(EU, told);
        // No token is needed, and none that is wrong is looked at.
        user.token = "nonsense".to_owned();
        let answer = user.get("/v1/route").await.is(200);
        assert_eq!(order(&answer), expected, "{told}: {}", answer.body);
        assert_eq!(answer.body["located_by"], "header", "{told}");
        assert_eq!(answer.body["region"], EU, "{told}");
        assert_eq!(answer.body["country"].as_str(), country, "{told}");
        assert_eq!(answer.headers["cache-control"], "no-store", "the next client is elsewhere");
    }
    let answer = deployment.user(EU, "DE").get("/v1/route").await;
    assert_eq!(answer.text("/regions/0/url"), deployment.way(EU).url());
    let distances: Vec<_> = (0..3).map(|at| answer.body["regions"][at]["distance_km"].as_u64().unwrap()).collect();
    assert!(distances[0] < 700 && distances.is_sorted() && distances[2] > 9000, "{distances:?}");
    assert!(answer.body["regions"].as_array().unwrap().iter().all(|region| region["healthy"] == true));
}

#[tokio::test]
async fn a_place_is_believed_of_trusted_proxies_alone() {
    let files = tempfile::TempDir::new().unwrap();
    let file = files.path().join("places.mmdb");
    let database = Mmdb::cities(&[("192.0.2.0/24", place(Some("JP"), None)), ("127.0.0.0/8", place(Some("BR"), None))]);
    std::fs::write(&file, database.bytes()).unwrap();
    let routing = format!("geoip_database = \"{}\"", file.display());
    let trusting = Deployment::start_with("trusted_proxies = [\"127.0.0.0/8\"]", &routing).await;
    let strict = Deployment::start_with("", &routing).await;
    let (geo, forwarded) = ("x-client-geo", "x-forwarded-for");
    for (name, deployment, headers, expected) in [
        ("a header of a proxy", &trusting, vec![(geo, "DE")], ("header", Some("DE"))),
        ("a header and an address", &trusting, vec![(geo, "DE"), (forwarded, "192.0.2.7")], ("header", Some("DE"))),
        ("an address told by a proxy", &trusting, vec![(forwarded, "192.0.2.7")], ("database", Some("JP"))),
        ("one forged before it", &trusting, vec![(forwarded, "127.0.0.9, 192.0.2.7")], ("database", Some("JP"))),
        ("an address that nobody knows", &trusting, vec![(forwarded, "203.0.113.7")], ("none", None)),
        (
            "a header that says nothing",
            &trusting,
            vec![(geo, "ZZ"), (forwarded, "192.0.2.7")],
            ("database", Some("JP")),
        ),
        (
            "a header twice",
            &trusting,
            vec![(geo, "DE"), (geo, "FR"), (forwarded, "192.0.2.7")],
            ("database", Some("JP")),
        ),
        ("a header of anybody", &strict, vec![(geo, "DE")], ("database", Some("BR"))),
        ("an address told by anybody", &strict, vec![(forwarded, "192.0.2.7")], ("database", Some("BR"))),
    ] {
        let mut user = deployment.broker(EU).user("ada");
        for (header, value) in headers {
            user = user.with(header, value);
        }
        let route = user.get("/v1/route").await.is(200);
        assert_eq!(
            (route.body["located_by"].as_str(), route.body["country"].as_str()),
            (Some(expected.0), expected.1),
            "{name}"
        );
        let created = create(&user, "anywhere").await.is(201);
        assert_eq!(created.body["routing"]["located_by"], expected.0, "{name}");
        assert_eq!(created.body["routing"]["nearest"].is_string(), expected.1.is_some(), "{name}: {}", created.body);
    }
}

#[tokio::test]
async fn a_database_that_is_missing_or_broken_is_done_without_until_it_is_mended() {
    let files = tempfile::TempDir::new().unwrap();
    let file = files.path().join("places.mmdb");
    let settings = Settings {
        server: "trusted_proxies = [\"127.0.0.0/8\"]".to_owned(),
        more: format!("[routing]\ngeoip_database = \"{}\"\n", file.display()),
        ..Settings::default()
    };
    let broker = Broker::start_with(settings).await;
    let user = broker.user("ada").with("x-forwarded-for", "192.0.2.7");
    let located_by = async || user.get("/v1/route").await.is(200).text("/located_by");
    let built = async || {
        let (_, text) = broker.operator_get("/metrics").await;
        let built =
            text.lines().find_map(|line| line.strip_prefix("upload_broker_geoip_database_build_timestamp_seconds{} "));
        built.map(|seconds| seconds.parse::<i64>().unwrap())
    };
    assert_eq!(located_by().await, "none", "it is missing");
    assert_eq!(built().await, Some(0), "which alerts can tell from one that is not wanted");
    std::fs::write(&file, b"nonsense").unwrap();
    broker.look_at_database().await;
    assert_eq!(located_by().await, "none", "it is broken");
    std::fs::write(&file, Mmdb::cities(&[("192.0.2.0/24", place(Some("JP"), None))]).bytes()).unwrap();
    broker.look_at_database().await;
    assert_eq!(located_by().await, "database", "it is there");
    assert!(built().await.is_some_and(|built| built > 0));
    std::fs::write(&file, b"nonsense once more").unwrap();
    broker.look_at_database().await;
    assert_eq!(located_by().await, "database", "what was read before is used on");
    user.create(5).await.is(201);
}

#[tokio::test]
async fn an_upload_says_who_serves_it_and_who_is_nearer() {
    let deployment = Deployment::start("serve").await;
    let user = deployment.user(EU, "JP");
    let created = create(&user, "anywhere").await.is(201);
    let expected = json!({"served_by": EU, "nearest": ASIA, "located_by": "header"});
    assert_eq!(created.body["routing"], expected);
    assert_eq!(created.header("location"), Some(&format!("/v1/uploads/{}", created.id())[..]));
    let found = user.get(&format!("/v1/uploads/{}", created.id())).await.is(200);
    assert_eq!(found.body["routing"], json!({"served_by": EU}), "what is stored is where it is");
    let bound = create(&user, "europe-only").await.is(201);
    assert_eq!(bound.body["routing"], json!({"served_by": EU, "nearest": EU, "located_by": "header"}));
    let stranger = create(&deployment.broker(EU).user("bea"), "anywhere").await.is(201);
    assert_eq!(stranger.body["routing"], json!({"served_by": EU, "located_by": "none"}));
    let (_, metrics) = deployment.broker(EU).operator_get("/metrics").await;
    for (nearest, how, count) in [(ASIA, "header", 1), (EU, "header", 1), ("unknown", "none", 1)] {
        let line =
            format!("upload_broker_routed_total{{served_by=\"{EU}\",nearest=\"{nearest}\",how=\"{how}\"}} {count}");
        assert!(metrics.contains(&line), "no {line}");
    }
}

#[tokio::test]
async fn a_misdirected_create_is_forwarded_with_all_that_belongs_to_it() {
    let deployment = Deployment::start("forward").await;
    let origin = "https://app.example.com";
    let user = deployment.user(EU, "JP").with("idempotency-key", "k1").with("origin", origin);
    let created = create(&user, "anywhere").await.is_upload(201, "pending");
    assert_eq!(created.body["region"], ASIA);
    assert_eq!(created.body["bucket"], "media-asia");
    assert_eq!(created.body["routing"], json!({"served_by": ASIA, "nearest": ASIA, "located_by": "header"}));
    assert_eq!(deployment.sessions(), [0, 0, 1]);
    assert_eq!(created.header("access-control-allow-origin"), Some(origin), "the page may read the answer");

    // The token: it is the user's there, and of nobody else. The location leads there.
    let mut at_home = deployment.user(ASIA, "JP");
    at_home.broker = deployment.way(ASIA).url();
    let location = format!("{}/v1/uploads/{}", deployment.way(ASIA).url(), created.id());
    assert_eq!(created.header("location"), Some(&location[..]));
    at_home.get(&format!("/v1/uploads/{}", created.id())).await.is_upload(200, "pending");
    // The origin: storage answers this page, and no other.
    let stored = user.client.put(created.uri()).header("origin", origin).body("12345").send().await.unwrap();
    assert_eq!(stored.status(), 200);
    assert_eq!(stored.headers()["access-control-allow-origin"], origin);
    // The key: a repeat is the same upload, at either broker.
    for again in [&user, &deployment.user(ASIA, "JP").with("idempotency-key", "k1")] {
        let repeated = create(again, "anywhere").await.is(201);
        assert_eq!(repeated.id(), created.id());
        assert_eq!(repeated.header("idempotent-replayed"), Some("true"));
    }
    let mut other = under("anywhere");
    other["size_bytes"] = json!(6);
    user.create_from(other).await.is_problem(422, "idempotency-mismatch");
    at_home.complete(&created.id()).await.is_upload(200, "completed");
    assert_eq!(deployment.sessions(), [0, 0, 1]);
    let (_, metrics) = deployment.broker(EU).operator_get("/metrics").await;
    for (result, count) in [("created", 2), ("refused", 1)] {
        let line = format!("upload_broker_forwards_total{{peer=\"{ASIA}\",result=\"{result}\"}} {count}");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
}

#[tokio::test]
async fn the_refusals_of_the_nearest_region_are_the_answer() {
    let deployment = Deployment::start("forward").await;
    let full = "429 Too Many Requests\ncontent-type: application/problem+json\nretry-after: 7\nx-request-id: id-of-asia\n\
                set-cookie: a=b\nratelimit: \"x\";r=0;t=7\n\n\
                {\"type\":\"urn:x\",\"title\":\"t\",\"status\":429,\"detail\":\"d\",\"code\":\"quota-exceeded\",\"request_id\":\"id-of-asia\"}";
    deployment.way(ASIA).lead_to(Side::Says(full.to_owned()));
    let refused = create(&deployment.user(EU, "JP"), "anywhere").await.is_problem(429, "quota-exceeded");
    assert_eq!((refused.header("retry-after"), refused.header("x-request-id")), (Some("7"), Some("id-of-asia")));
    assert!(refused.header("ratelimit").is_some() && refused.header("set-cookie").is_none());
    assert_eq!(deployment.sessions(), [0, 0, 0]);
}

#[tokio::test]
async fn a_forward_that_fails_is_served_here_and_says_so() {
    let deployment = Deployment::start("forward").await;
    let problem = |status: &str, code: &str| {
        format!("{status}\ncontent-type: application/problem+json\n\n{{\"code\": \"{code}\", \"status\": 503}}")
    };
    let way = deployment.way(ASIA);
    let sides = [
        ("no connection", Side::Nothing),
        ("no answer", Side::Silence),
        ("an overload", Side::Says(problem("503 Service Unavailable", "overloaded"))),
        ("storage that is slow there", Side::Says(problem("504 Gateway Timeout", "storage-timeout"))),
        ("brokers that meet without HTTPS", Side::Says(problem("403 Forbidden", "https-required"))),
        ("a broker without the policy yet", Side::Says(problem("403 Forbidden", "policy-denied"))),
        ("a broker without the issuer yet", Side::Says(problem("401 Unauthorized", "unauthenticated"))),
        ("the page of a gateway", Side::Says("200 OK\ncontent-type: text/html\n\n<html>".to_owned())),
        ("a gateway that refuses", Side::Says("403 Forbidden\ncontent-type: text/html\n\n<html>".to_owned())),
        ("a redirect", Side::Says("307 Temporary Redirect\nlocation: https://evil.example/\n\n".to_owned())),
        (
            "too long an answer",
            Side::Says(format!("201 Created\ncontent-type: application/json\n\n\"{}\"", "x".repeat(70_000))),
        ),
    ];
    let count = sides.len();
    for (number, (name, side)) in sides.into_iter().enumerate() {
        way.lead_to(side);
        let user = deployment.user(EU, "JP").with("idempotency-key", &format!("k{number}"));
        let created = create(&user, "anywhere").await.is(201);
        let expected = json!({"served_by": EU, "nearest": ASIA, "located_by": "header", "forward_failed": true});
        assert_eq!(created.body["routing"], expected, "{name}");
        // Whatever became of it there: a repeat is the upload that the client was given.
        way.lead_to(Side::Server(deployment.broker(ASIA).address));
        let repeated = create(&user, "anywhere").await.is(201);
        assert_eq!(repeated.id(), created.id(), "{name}");
        // And a policy that keeps its uploads elsewhere is not served here, whatever failed: the client is told of the
        // region that was not asked.
        way.lead_to(Side::Nothing);
        let refused = create(&user, "not-europe").await.is_problem(421, "misdirected");
        assert_eq!(refused.text("/region"), US, "{name}");
    }
    assert_eq!(deployment.sessions(), [count, 0, 0]);
    let (_, metrics) = deployment.broker(EU).operator_get("/metrics").await;
    let line = format!("upload_broker_forwards_total{{peer=\"{ASIA}\",result=\"disagreed\"}} 2");
    assert!(metrics.contains(&line), "no {line} in {metrics}");
}

#[tokio::test]
async fn a_region_that_lets_nobody_in_is_believed_where_the_upload_may_not_be_here() {
    let deployment = Deployment::start("forward").await;
    for (number, status, code) in
        [(403, "403 Forbidden", "policy-denied"), (401, "401 Unauthorized", "unauthenticated")]
    {
        let document =
            json!({"type": "urn:x", "title": "t", "detail": "d", "status": number, "code": code, "request_id": "r"});
        let said = format!("{status}\ncontent-type: application/problem+json\nx-request-id: r\n\n{document}");
        deployment.way(ASIA).lead_to(Side::Says(said));
        create(&deployment.user(EU, "JP"), "not-europe").await.is_problem(number, code);
    }
    assert_eq!(deployment.sessions(), [0, 0, 0]);
}

#[tokio::test]
async fn a_request_is_forwarded_once() {
    let deployment = Deployment::start("forward").await;
    // Another broker has sent it here, believing that this one is the nearest. Who claims that falsely gains no more. A
    // region that is not known here may have been added there.
    for (number, region) in [US, "moon"].into_iter().enumerate() {
        let sent_on = deployment.user(EU, "JP").with("x-upload-broker-forwarded", region);
        let served = create(&sent_on, "anywhere").await.is(201);
        assert_eq!(served.body["routing"], json!({"served_by": EU, "located_by": "none"}), "{region}");
        create(&sent_on, "not-europe").await.is_problem(421, "misdirected");
        assert_eq!(deployment.sessions(), [number + 1, 0, 0], "{region}");
    }
    let (_, metrics) = deployment.broker(EU).operator_get("/metrics").await;
    let line = format!("upload_broker_routed_total{{served_by=\"{EU}\",nearest=\"unknown\",how=\"forwarded\"}} 2");
    assert!(metrics.contains(&line), "no {line} in {metrics}");
    // What is the name of no region, no broker sends.
    let forged = deployment.user(EU, "JP").with("x-upload-broker-forwarded", "Not a region");
    assert_eq!(create(&forged, "anywhere").await.is(201).body["region"], ASIA);
}

/// A proxy that tells where its clients are lets all other headers through, so that no peer vouches for these.
#[tokio::test]
async fn what_claims_to_be_a_broker_is_not_believed_where_its_client_is() {
    let trusting = Deployment::start("forward").await;
    let strict = Deployment::start_with("", "misdirected = \"forward\"").await;
    for deployment in [&trusting, &strict] {
        let forged = deployment
            .broker(EU)
            .user("ada")
            .with("x-upload-broker-forwarded", US)
            .with("x-upload-broker-client-location", "JP,35.7,139.7")
            .with("x-upload-broker-located-by", "header");
        let route = forged.get("/v1/route").await.is(200);
        assert_eq!((route.text("/located_by"), order(&route)[0].to_owned()), ("none".to_owned(), EU.to_owned()));
        assert!(route.body.get("country").is_none(), "{}", route.body);
        let served = create(&forged, "anywhere").await.is(201);
        assert_eq!(served.body["routing"], json!({"served_by": EU, "located_by": "none"}));
    }
    // Nor does such a header hide from `/v1/route` where a client is.
    let located = trusting.user(EU, "JP").with("x-upload-broker-forwarded", US).get("/v1/route").await.is(200);
    assert_eq!((located.text("/located_by"), order(&located)[0].to_owned()), ("header".to_owned(), ASIA.to_owned()));
}

#[tokio::test]
async fn a_misdirected_create_is_rejected_where_that_is_wanted() {
    let deployment = Deployment::start("reject").await;
    let refused = create(&deployment.user(EU, "JP"), "anywhere").await.is_problem(421, "misdirected");
    assert_eq!(refused.text("/region"), ASIA);
    assert_eq!(refused.text("/url"), deployment.way(ASIA).url());
    create(&deployment.user(EU, "DE"), "anywhere").await.is(201);
    create(&deployment.broker(EU).user("ada"), "anywhere").await.is(201);
    assert_eq!(deployment.sessions(), [2, 0, 0]);
}

#[tokio::test]
async fn a_repeat_is_the_same_upload_also_when_the_nearer_region_is_up_again() {
    let deployment = Deployment::start("reject").await;
    let way = deployment.way(ASIA);
    let user = |key| deployment.user(EU, "JP").with("idempotency-key", key);
    let (first, second) = (user("k1"), user("k2"));
    way.lead_to(Side::Nothing);
    deployment.probe(EU, 2).await;
    let created = create(&first, "anywhere").await.is(201);
    assert_eq!(created.body["region"], EU);
    way.lead_to(Side::Server(deployment.broker(ASIA).address));
    deployment.probe(EU, 5).await;
    create(&second, "anywhere").await.is_problem(421, "misdirected");
    let repeated = create(&first, "anywhere").await.is(201);
    assert_eq!((repeated.id(), repeated.header("idempotent-replayed")), (created.id(), Some("true")));
    // The same key for something that must not be here: it leads where that may be.
    create(&first, "not-europe").await.is_problem(421, "misdirected");
    assert_eq!(deployment.sessions(), [1, 0, 0]);
}

#[tokio::test]
async fn a_region_that_is_lost_is_passed_over_and_comes_back_once() {
    let deployment = Deployment::start("forward").await;
    let (user, way) = (deployment.user(EU, "JP"), deployment.way(ASIA));
    let healthy = || async {
        let answer = user.get("/v1/route").await.is(200);
        let regions = answer.body["regions"].as_array().unwrap();
        regions.iter().find(|region| region["name"] == ASIA).unwrap()["healthy"].as_bool().unwrap()
    };
    let there = Side::Server(deployment.broker(ASIA).address);
    deployment.probe(EU, 2).await;
    assert!(healthy().await);
    way.lead_to(Side::Nothing);
    deployment.probe(EU, 1).await;
    assert!(healthy().await, "one probe can be lost");
    deployment.probe(EU, 1).await;
    assert!(!healthy().await);
    let answer = user.get("/v1/route").await;
    assert_eq!(order(&answer), [EU, US, ASIA], "what is down comes last");
    let served = create(&user, "anywhere").await.is(201);
    assert_eq!(served.body["routing"], json!({"served_by": EU, "nearest": EU, "located_by": "header"}));
    // The residency holds: the other region that is allowed is asked, and none that is not.
    assert_eq!(create(&user, "not-europe").await.is(201).body["region"], US);
    let (_, metrics) = deployment.broker(EU).operator_get("/metrics").await;
    assert!(metrics.contains(&format!("upload_broker_region_healthy{{peer=\"{ASIA}\"}} 0")), "{metrics}");
    assert!(metrics.contains(&format!("upload_broker_region_healthy{{peer=\"{US}\"}} 1")));

    // It comes and goes, and stays passed over.
    let mut switches = 0;
    for round in 0..6 {
        way.lead_to(if round % 3 == 2 { Side::Nothing } else { there.clone() });
        deployment.probe(EU, 1).await;
        switches += usize::from(healthy().await);
    }
    assert_eq!(switches, 0);
    way.lead_to(there);
    deployment.probe(EU, 3).await;
    assert!(!healthy().await, "it has to pass for ten seconds");
    deployment.probe(EU, 2).await;
    assert!(healthy().await);
    assert_eq!(create(&user, "anywhere").await.is(201).body["region"], ASIA);
}

#[tokio::test]
async fn a_region_that_drains_or_is_another_one_is_passed_over() {
    let mut deployment = Deployment::start("forward").await;
    let healthy = async |deployment: &Deployment, region: &str| {
        deployment.probe(EU, 2).await;
        let answer = deployment.user(EU, "DE").get("/v1/route").await.is(200);
        let regions = answer.body["regions"].as_array().unwrap().clone();
        regions.iter().find(|known| known["name"] == region).unwrap()["healthy"].as_bool().unwrap()
    };
    assert!(healthy(&deployment, ASIA).await);
    // An address that leads to another region's broker would have uploads there that believe to be here.
    deployment.way(US).lead_to(Side::Server(deployment.broker(ASIA).address));
    assert!(!healthy(&deployment, US).await);
    let drained = deployment.brokers.pop().unwrap();
    drained.stop().await;
    assert!(!healthy(&deployment, ASIA).await);
    // With no region left that may have it, the client is told which one to wait for.
    let refused = create(&deployment.user(EU, "JP"), "not-europe").await.is_problem(421, "misdirected");
    assert_eq!(refused.text("/region"), ASIA);
}

#[tokio::test]
async fn the_command_line_follows_its_upload_to_the_region_that_took_it() {
    let files = tempfile::TempDir::new().unwrap();
    let database = files.path().join("places.mmdb");
    std::fs::write(&database, Mmdb::cities(&[("127.0.0.0/8", place(Some("JP"), None))]).bytes()).unwrap();
    let routing = format!("geoip_database = \"{}\"\nmisdirected = \"forward\"", database.display());
    let deployment = Deployment::start_with("", &routing).await;
    let (file, token_file) = (files.path().join("film.mp4"), files.path().join("token"));
    std::fs::write(&file, noise(600 * 1024, 7)).unwrap();
    std::fs::write(&token_file, token("ada", deployment.broker(EU).clock.now(), &[])).unwrap();
    let mut upload = command();
    upload.arg("upload").arg(&file).args(["--policy", "anywhere", "--chunk-size", "256KiB", "--token-file"]);
    upload.arg(&token_file).args(["--broker", &deployment.way(EU).url()]);
    // The servers that it talks to run on this thread.
    let output = tokio::task::spawn_blocking(move || upload.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(deployment.sessions(), [0, 0, 1]);
    let listed = deployment.user(ASIA, "JP").get("/v1/uploads?state=completed").await.is(200);
    assert_eq!(listed.body["uploads"].as_array().unwrap().len(), 1);
}

/// A broker that runs by itself finds out by itself.
#[tokio::test]
async fn a_running_broker_notices_that_a_region_is_lost() {
    let (_emulator, storage) = Process::emulator();
    let files = tempfile::TempDir::new().unwrap();
    let lost = Crossing::new().await;
    let section = format!("[[regions]]\nname = \"{US}\"\nbucket = \"media-us\"\nurl = \"{}\"\n", lost.url());
    let settings = Settings { more_regions: section, ..Settings::default() };
    let file = files.path().join("broker.toml");
    std::fs::write(&file, configuration(files.path(), &storage, &settings)).unwrap();
    let (broker, address, _) = Process::serve(&file, "info");
    let user = User::new(format!("http://{address}"), "ada", Clock::System.now());
    for _ in 0..400 {
        let answer = user.get("/v1/route").await;
        if answer.body["regions"][1] == json!({"name": US, "url": lost.url(), "healthy": false}) {
            assert!(broker.printed().contains("a region is passed over"), "{}", broker.printed());
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not notice: {}", user.get("/v1/route").await.body);
}
