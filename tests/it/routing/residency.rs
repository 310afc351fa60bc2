//! A residency policy is never broken: whoever asks, whichever broker, in whatever mode, and whatever the brokers take to
//! be up.

use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;

/// How often the regions' health changes, for each set of modes.
const STATES: usize = 8;

/// How many creates there are in between.
const CREATES: usize = 25;

/// For each set of regions, as the bits of a number, the policy that binds uploads to it; 0 for the one that does not.
fn policies() -> String {
    let policy = |set: usize| {
        let regions = if set == 0 { String::new() } else { format!("regions = {:?}\n", regions_of(set)) };
        format!("[[policies]]\nname = \"set-{set}\"\nobject = \"{{id}}\"\n{regions}\n")
    };
    (0..1 << REGIONS.len()).map(policy).collect()
}

fn regions_of(set: usize) -> Vec<&'static str> {
    REGIONS.iter().enumerate().filter(|(number, _)| set & 1 << number != 0).map(|(_, (name, _))| *name).collect()
}

/// What is up, and who has noticed.
#[derive(Clone, Debug)]
struct State {
    /// The regions that nobody reaches from another one.
    lost: Vec<&'static str>,
    /// The regions whose brokers have probed the others since.
    aware: Vec<&'static str>,
}

/// Somebody who creates an upload.
#[derive(Clone, Debug)]
struct Asked {
    entry: &'static str,
    set: usize,
    /// Headers that tell where the client is, or do not, and that claim over which broker it came.
    headers: Vec<(&'static str, &'static str)>,
}

fn some_regions() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(vec![EU, US, ASIA], 0..=3)
}

fn states() -> impl Strategy<Value = State> {
    (some_regions(), some_regions()).prop_map(|(lost, aware)| State { lost, aware })
}

fn asked() -> impl Strategy<Value = Asked> {
    let header = |name, values: &[&'static str]| {
        prop::option::of(prop::sample::select(values.to_vec()).prop_map(move |value| (name, value)))
    };
    let headers = [
        header("x-client-geo", &["DE", "JP", "BR", "NZ", "1.3,103.8", "DE,40.7,-74.0", "ZZ", "nonsense"]),
        // One that the database knows, and one that nobody does.
        header("x-forwarded-for", &["192.0.2.7", "203.0.113.7"]),
        header("x-upload-broker-forwarded", &[EU, US, ASIA, "moon", "Not a region"]),
    ];
    let entry = prop::sample::select(vec![EU, US, ASIA]);
    let headers = headers.prop_map(|headers| headers.into_iter().flatten().collect());
    (entry, 0..1_usize << REGIONS.len(), headers).prop_map(|(entry, set, headers)| Asked { entry, set, headers })
}

impl Deployment {
    async fn enter(&self, state: &State) {
        for (name, _) in REGIONS {
            let there = Side::Server(self.broker(name).address);
            self.way(name).lead_to(if state.lost.contains(&name) { Side::Nothing } else { there });
        }
        for region in &state.aware {
            // So that what comes back is believed, too.
            self.probe(region, 5).await;
        }
    }

    /// Creates an upload, and says what became of it: the status, and the region that took it or is to be asked.
    async fn check(&self, asked: &Asked, case: &str) -> (u16, String) {
        let mut user = self.broker(asked.entry).user("ada");
        for (name, value) in &asked.headers {
            user = user.with(name, value);
        }
        let before = self.sessions();
        let answer = create(&user, &format!("set-{}", asked.set)).await;
        let opened: Vec<_> = self.sessions().iter().zip(&before).map(|(after, before)| after - before).collect();
        let allowed = |region: &str| asked.set == 0 || regions_of(asked.set).contains(&region);
        let region = answer.text("/region");
        assert!(allowed(&region), "{case}: {}", answer.body);
        let mut expected = vec![0; REGIONS.len()];
        if answer.status == 201 {
            expected[index(&region)] = 1;
            assert_eq!(answer.text("/bucket"), REGIONS[index(&region)].1, "{case}");
            assert_eq!(answer.text("/routing/served_by"), region, "{case}");
            let nearest = answer.body["routing"]["nearest"].as_str();
            assert!(nearest.is_none_or(allowed), "{case}: {}", answer.body);
        } else {
            assert_eq!((answer.status, answer.text("/code")), (421, "misdirected".to_owned()), "{case}");
            assert_eq!(answer.text("/url"), self.way(&region).url(), "{case}");
            assert_ne!(region, asked.entry, "{case}: it is sent to where it is");
        }
        assert_eq!(opened, expected, "{case}: sessions in {REGIONS:?}");
        (answer.status, region)
    }
}

async fn try_out(modes: [&str; 3], database: &Path) {
    let routing = |region: &str| {
        format!("misdirected = \"{}\"\ngeoip_database = \"{}\"", modes[index(region)], database.display())
    };
    let deployment = Deployment::start_each("trusted_proxies = [\"127.0.0.0/8\"]", &policies(), routing).await;
    let mut runner = TestRunner::default();
    let (mut here, mut sent_on, mut refused) = (0, 0, 0);
    for _ in 0..STATES {
        let state = states().new_tree(&mut runner).unwrap().current();
        deployment.enter(&state).await;
        for _ in 0..CREATES {
            let asked = asked().new_tree(&mut runner).unwrap().current();
            match deployment.check(&asked, &format!("{modes:?}, {state:?}, {asked:?}")).await {
                (201, region) if region == asked.entry => here += 1,
                (201, _) => sent_on += 1,
                _ => refused += 1,
            }
        }
    }
    let forwards = modes.contains(&"forward");
    assert!(here > 0 && refused > 0 && (sent_on > 0) == forwards, "{modes:?}: {here}, {sent_on}, {refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_residency_policy_is_never_broken() {
    let files = tempfile::TempDir::new().unwrap();
    let database = files.path().join("places.mmdb");
    std::fs::write(&database, Mmdb::cities(&[("192.0.2.0/24", place(Some("JP"), None))]).bytes()).unwrap();
    for modes in [
        ["serve", "serve", "serve"],
        ["forward", "forward", "forward"],
        ["reject", "reject", "reject"],
        ["serve", "forward", "reject"],
    ] {
        try_out(modes, &database).await;
    }
}
