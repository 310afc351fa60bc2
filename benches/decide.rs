//! What one decision costs: it is made for every create, before anything is asked of the store or of storage.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing better to do than to stop")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use upload_broker::model::id::{Partition, UploadId};
use upload_broker::model::name::PolicyName;
use upload_broker::model::principal::{Principal, PrincipalId};
use upload_broker::model::size::ByteCount;
use upload_broker::model::time::Timestamp;
use upload_broker::model::upload::{NewUpload, TransferKind};
use upload_broker::policy::{Policies, PolicySettings};

const NOW: Timestamp = Timestamp::from_secs(1_772_841_600);

fn policies() -> Policies {
    #[derive(serde::Deserialize)]
    struct Document {
        policies: Vec<PolicySettings>,
    }
    let document: Document = toml::from_str(
        r#"
        [[policies]]
        name = "open"
        object = "open/{id}"
        [[policies]]
        name = "videos"
        when = '"creator" in claims.roles'
        object = "videos/{sub}/{date}/{id}.{ext}"
        content_types = ["video/*"]
        max_size = "20GiB"
        metadata = { source = "mobile" }
        "#,
    )
    .unwrap();
    Policies::new(&document.policies).unwrap()
}

fn principal() -> Principal {
    let claims = json!({
        "iss": "https://issuer.example", "aud": ["broker"], "sub": "ada", "exp": 1_772_845_200, "iat": 1_772_841_600,
        "email": "ada@example.com", "email_verified": true, "roles": ["viewer", "creator"], "org": {"unit": "north"},
    });
    Principal {
        id: PrincipalId::of("https://issuer.example", None, "ada"),
        issuer: "https://issuer.example".into(),
        tenant: None,
        subject: "ada".into(),
        claims: claims.as_object().unwrap().clone(),
        admin: false,
        expires_at: NOW,
    }
}

fn request(policy: &str) -> NewUpload {
    NewUpload {
        policy: Some(policy.parse::<PolicyName>().unwrap()),
        filename: "holiday.mp4".parse().unwrap(),
        content_type: "video/mp4".parse().unwrap(),
        size: Some(ByteCount(73_400_320)),
        md5: None,
        crc32c: None,
        metadata: BTreeMap::from([("album".to_owned(), "summer".to_owned())]),
        transfer: TransferKind::Resumable,
    }
}

fn decide(criterion: &mut Criterion) {
    let (policies, principal) = (policies(), principal());
    let id = UploadId::new(Partition(7), [0x5a; 16]);
    for (name, policy) in [("without a condition", "open"), ("with a condition", "videos")] {
        let request = request(policy);
        criterion.bench_function(&format!("decide, {name}"), |bencher| {
            bencher.iter(|| policies.decide(black_box(&principal), black_box(&request), id, NOW).unwrap());
        });
    }
}

criterion_group!(benches, decide);
criterion_main!(benches);
