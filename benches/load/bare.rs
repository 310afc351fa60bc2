//! The bare program: the least that opens an upload session for a user and remembers it.
//!
//! It is the yardstick that the broker is measured with, so it is written as anybody would write it, with the same
//! libraries and their defaults: a token is verified once and then remembered, one script in Redis counts and records,
//! one call opens the session, one write adds its URI, one answer says so. It has no policies, no deadlines, no
//! encryption, no metrics, no logs and no defence against anything.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use redis::aio::ConnectionManager;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

use crate::storage::BUCKET;
use crate::users::{AUDIENCE, ISSUER};

/// How many uploads of one user may be under way; as the broker's configuration says.
const MAX_ACTIVE: u32 = 100_000;
const DAY_SECONDS: i64 = 24 * 3600;

/// Counts the user's uploads, and records one more unless there are too many.
const ADMIT: &str = r"
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4], 'EX', ARGV[5])
return 1
";

struct Bare {
    key: DecodingKey,
    subjects: RwLock<HashMap<String, Arc<str>>>,
    redis: ConnectionManager,
    admit: redis::Script,
    storage: reqwest::Client,
    endpoint: String,
}

#[derive(Deserialize)]
struct Create {
    policy: String,
    filename: String,
    content_type: String,
    size_bytes: u64,
}

#[derive(Deserialize)]
struct Claims {
    sub: Arc<str>,
}

/// What is kept in Redis.
#[derive(Serialize)]
struct Record<'a> {
    id: &'a str,
    subject: &'a str,
    policy: &'a str,
    bucket: &'a str,
    object: &'a str,
    content_type: &'a str,
    size_bytes: u64,
    created_at: &'a str,
    expires_at: &'a str,
    session: Option<&'a str>,
}

/// Serves on a free port until the process is killed.
pub(crate) async fn serve(redis: &str, endpoint: &str, key_set: &Path) -> anyhow::Result<()> {
    let key_set: JwkSet = serde_json::from_slice(&std::fs::read(key_set)?)?;
    let bare = Bare {
        key: DecodingKey::from_jwk(key_set.keys.first().context("the key set is empty")?)?,
        subjects: RwLock::default(),
        redis: ConnectionManager::new(redis::Client::open(redis)?).await?,
        admit: redis::Script::new(ADMIT),
        storage: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?,
        endpoint: endpoint.to_owned(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::announce(listener.local_addr()?)?;
    let router = Router::new().route("/v1/uploads", post(create)).with_state(Arc::new(bare));
    Ok(axum::serve(listener, router).await?)
}

async fn create(
    State(bare): State<Arc<Bare>>,
    headers: HeaderMap,
    Json(request): Json<Create>,
) -> Result<impl IntoResponse, Failure> {
    let subject = bare.subject(&headers)?;
    let id = id()?;
    let extension = request.filename.rsplit_once('.').map_or("", |(_, extension)| extension);
    let object = format!("{}/{subject}/{id}.{extension}", request.policy);
    let now = jiff::Timestamp::now();
    let created_at = format!("{now:.3}");
    let expires_at = format!("{:.3}", now + jiff::SignedDuration::from_secs(DAY_SECONDS));
    let record_key = format!("bare:upload:{id}");
    let mut record = Record {
        id: &id,
        subject: &subject,
        policy: &request.policy,
        bucket: BUCKET,
        object: &object,
        content_type: &request.content_type,
        size_bytes: request.size_bytes,
        created_at: &created_at,
        expires_at: &expires_at,
        session: None,
    };

    let mut redis = bare.redis.clone();
    let admitted: bool = bare
        .admit
        .key(format!("bare:active:{subject}"))
        .key(&record_key)
        .arg(&id)
        .arg(MAX_ACTIVE)
        .arg(now.as_second())
        .arg(serde_json::to_string(&record)?)
        .arg(DAY_SECONDS)
        .invoke_async(&mut redis)
        .await?;
    if !admitted {
        return Err(Failure(StatusCode::TOO_MANY_REQUESTS, "too many uploads".to_owned()));
    }

    let session = bare.initiate(&request, &id, &object).await?;
    record.session = Some(&session);
    let _: () = redis::cmd("SET")
        .arg(&record_key)
        .arg(serde_json::to_string(&record)?)
        .arg("EX")
        .arg(DAY_SECONDS)
        .query_async(&mut redis)
        .await?;

    let answer = json!({
        "id": id, "state": "pending", "policy": request.policy, "region": "europe-west1",
        "bucket": BUCKET, "object": object, "content_type": request.content_type,
        "size_bytes": request.size_bytes, "received_bytes": 0, "created_at": created_at, "expires_at": expires_at,
        "transfer": {
            "kind": "resumable", "uri": session, "method": "PUT",
            "headers": {"content-type": request.content_type},
            "chunk_multiple_bytes": 262_144, "chunk_bytes": 8_388_608, "expires_at": expires_at,
        },
        "routing": {"served_by": "europe-west1", "nearest": "europe-west1"},
    });
    let headers = [(LOCATION, format!("/v1/uploads/{id}")), (CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, Json(answer)))
}

impl Bare {
    /// Whose token it is: verified when it is seen for the first time.
    fn subject(&self, headers: &HeaderMap) -> Result<Arc<str>, Failure> {
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| Failure(StatusCode::UNAUTHORIZED, "a token is needed".to_owned()))?;
        if let Some(subject) = self.subjects.read().unwrap_or_else(PoisonError::into_inner).get(token) {
            return Ok(Arc::clone(subject));
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        let subject = jsonwebtoken::decode::<Claims>(token, &self.key, &validation)?.claims.sub;
        let mut subjects = self.subjects.write().unwrap_or_else(PoisonError::into_inner);
        subjects.insert(token.to_owned(), Arc::clone(&subject));
        Ok(subject)
    }

    /// Opens a resumable session, in the JSON form, and returns its URI.
    async fn initiate(&self, request: &Create, id: &str, object: &str) -> Result<String, Failure> {
        let answer = self
            .storage
            .post(format!("{}/upload/storage/v1/b/{BUCKET}/o", self.endpoint))
            .query(&[("uploadType", "resumable"), ("name", object), ("ifGenerationMatch", "0")])
            .bearer_auth("load")
            .header("x-upload-content-type", &request.content_type)
            .header("x-upload-content-length", request.size_bytes)
            .json(&json!({"contentType": request.content_type, "metadata": {"upload-broker-id": id}}))
            .send()
            .await?
            .error_for_status()?;
        let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location =
            location.ok_or_else(|| Failure(StatusCode::BAD_GATEWAY, "storage gave no session".to_owned()))?;
        Ok(location.to_owned())
    }
}

/// 128 random bits in hexadecimal.
fn id() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Any failure, told as it is: it ends the run, and the driver prints it.
struct Failure(StatusCode, String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> axum::response::Response {
        (self.0, self.1).into_response()
    }
}
