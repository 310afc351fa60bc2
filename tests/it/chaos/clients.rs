//! Clients of every kind: those that finish, those that change their mind, those that break a promise, those that vanish.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use upload_broker::clock::Randomness;
use upload_broker::model::digest::Crc32c;

use crate::support::user::Answer;
use crate::support::{User, noise};

/// What the clients' policies are: one for files that may take their time, one for those that may not, one for pipes.
pub const POLICIES: &str = r#"
[[policies]]
name = "films"
object = "films/{sub}/{id}"
max_active = 500
daily_bytes = "1TiB"

[[policies]]
name = "brief"
object = "brief/{id}"
session_lifetime = "1m"
max_active = 500

[[policies]]
name = "pipes"
object = "pipes/{sub}-{id}"
unknown_size = true
min_size = 100
max_size = "100KiB"
daily_bytes = "1TiB"
"#;

/// Storage persists what is not the last piece in multiples of this.
const CHUNK: usize = 256 * 1024;

/// What a client is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plan {
    /// Uploads, and says so.
    Completes,
    /// Uploads, and is never heard of again.
    Vanishes,
    /// The same from a pipe.
    Pipes,
    /// Has its session renewed on the way, and vanishes after the last byte.
    Renews,
    /// Does not want it any more.
    Cancels,
    /// The same, while the last byte is on its way.
    Races,
    /// Sends more than it may.
    TooLarge,
    /// Sends less than it must.
    TooSmall,
    /// Declares one digest and sends another one's bytes.
    WrongDigest,
    /// Sends a part.
    Stops,
    /// Sends nothing, and does not insist on an answer to begin with.
    Never,
}

/// Each with how many of a hundred clients have it.
const PLANS: [(Plan, u32); 11] = [
    (Plan::Completes, 32),
    (Plan::Vanishes, 20),
    (Plan::Pipes, 4),
    (Plan::Renews, 8),
    (Plan::Cancels, 10),
    (Plan::Races, 6),
    (Plan::TooLarge, 4),
    (Plan::TooSmall, 4),
    (Plan::WrongDigest, 3),
    (Plan::Stops, 5),
    (Plan::Never, 4),
];

impl Plan {
    fn of(chance: &Randomness) -> Self {
        let mut left = chance.fraction() * 100.0;
        for (plan, share) in PLANS {
            left -= f64::from(share);
            if left < 0.0 {
                return plan;
            }
        }
        Self::Completes
    }

    /// The plan of somebody who never says that it is done, or that it does not want it.
    fn silent(self) -> Self {
        match self {
            Self::Completes | Self::Cancels | Self::Races => Self::Vanishes,
            other => other,
        }
    }

    fn policy(self) -> &'static str {
        match self {
            Self::Completes | Self::Vanishes | Self::Renews | Self::Cancels | Self::Races => "films",
            Self::Pipes | Self::TooLarge | Self::TooSmall => "pipes",
            Self::WrongDigest | Self::Stops | Self::Never => "brief",
        }
    }

    /// How such an upload can end.
    pub fn ends(self) -> &'static [&'static str] {
        match self {
            Self::Completes | Self::Vanishes | Self::Pipes | Self::Renews => &["completed"],
            Self::Cancels => &["cancelled"],
            Self::Races => &["completed", "cancelled"],
            Self::TooLarge | Self::TooSmall => &["rejected"],
            Self::WrongDigest | Self::Stops | Self::Never => &["expired"],
        }
    }
}

/// Whether clients tell the broker anything once their bytes are on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    Talk,
    Silence,
}

/// An upload as its client knows it.
#[derive(Debug)]
pub struct Known {
    pub id: String,
    pub plan: Plan,
    /// Every session that it was ever given.
    pub uris: Vec<String>,
    /// The final state that it was told, if it was.
    pub said: Option<String>,
}

/// What did not go smoothly.
#[derive(Debug, Default)]
pub struct Troubles {
    /// Requests that ask for a session and had no answer, or one that says to come back. Each may have left a session
    /// behind that nobody was told of.
    pub openings: AtomicU64,
    /// All others of the kind.
    pub others: AtomicU64,
}

/// One upload, from beginning to end.
pub struct Client {
    pub user: User,
    pub number: u64,
    pub chance: Randomness,
    pub troubles: Arc<Troubles>,
}

impl Client {
    /// Does what chance decides. `None` if it was never told of an upload.
    pub async fn upload(&self, habit: Habit) -> Option<Known> {
        let plan = Plan::of(&self.chance);
        let plan = if habit == Habit::Silence { plan.silent() } else { plan };
        let size = match plan {
            Plan::TooSmall => 10,
            Plan::TooLarge => CHUNK,
            Plan::Renews | Plan::Stops => CHUNK + 1000,
            Plan::Pipes => 100 + self.below(5000),
            // One in ten takes two requests.
            _ if self.below(10) == 0 => CHUNK + 1 + self.below(50_000),
            _ => 1 + self.below(5000),
        };
        let bytes = noise(size, self.number + 1);
        let mut known = self.create(plan, &bytes).await?;
        self.pause().await;
        match plan {
            Plan::Never => {}
            Plan::Completes => {
                self.send(&mut known, &bytes).await;
                self.pause().await;
                self.complete(&mut known).await;
            }
            Plan::Vanishes => self.send(&mut known, &bytes).await,
            Plan::Renews => {
                if self.below(2) == 0 {
                    self.send_part(&known, &bytes).await;
                }
                let old = known.uris.last().cloned();
                assert!(self.renew(&mut known).await, "{known:?} was not renewed");
                let refused = self.user.put(&old.unwrap(), None, bytes.clone()).await;
                assert!(refused.is_client_error(), "{known:?} has two sessions: {refused}");
                self.send(&mut known, &bytes).await;
            }
            Plan::Cancels => {
                if size > CHUNK {
                    self.send_part(&known, &bytes).await;
                }
                self.cancel(&mut known).await;
                let refused = self.user.put(known.uris.last().unwrap(), None, bytes).await;
                assert!(refused.is_client_error(), "{known:?} is cancelled and takes bytes: {refused}");
            }
            Plan::Races => {
                let uri = known.uris.last().unwrap().clone();
                tokio::join!(self.user.put(&uri, None, bytes), self.cancel(&mut known));
            }
            Plan::Pipes | Plan::TooSmall => {
                let range = format!("bytes 0-{}/{size}", size - 1);
                let status = self.user.put(known.uris.last().unwrap(), Some(&range), bytes).await;
                assert_eq!(status, 200, "{known:?}");
                self.complete_perhaps(&mut known, habit).await;
            }
            Plan::TooLarge => {
                let range = format!("bytes 0-{}/*", size - 1);
                let status = self.user.put(known.uris.last().unwrap(), Some(&range), bytes).await;
                assert_eq!(status, 308, "{known:?}");
                self.complete_perhaps(&mut known, habit).await;
            }
            Plan::WrongDigest => {
                let status = self.user.put(known.uris.last().unwrap(), None, bytes).await;
                assert!(status.is_client_error(), "{known:?}: {status}");
            }
            Plan::Stops => self.send_part(&known, &bytes).await,
        }
        Some(known)
    }

    fn below(&self, bound: u32) -> usize {
        (u32::from_le_bytes(self.chance.bytes()) % bound) as usize
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(self.below(200) as u64)).await;
    }

    async fn create(&self, plan: Plan, bytes: &[u8]) -> Option<Known> {
        let mut body = json!({"policy": plan.policy(), "filename": "f", "content_type": "video/mp4"});
        if plan.policy() != "pipes" {
            body["size_bytes"] = json!(bytes.len());
        }
        if plan == Plan::WrongDigest {
            body["crc32c"] = json!(Crc32c(!crc32c::crc32c(bytes)).to_string());
        }
        let answer = if plan == Plan::Never {
            let answer = self.user.try_call(Method::POST, "/v1/uploads", Some(&body)).await;
            let answer = answer.ok().filter(|answer| answer.status == 201);
            if answer.is_none() {
                self.troubles.openings.fetch_add(1, Ordering::Relaxed);
            }
            answer?
        } else {
            let keyed = self.user.clone().with("idempotency-key", &self.number.to_string());
            self.insist(&keyed, Method::POST, "/v1/uploads", Some(&body)).await.is(201)
        };
        let uris = answer.body["transfer"]["uri"].as_str().map(str::to_owned).into_iter().collect();
        Some(Known { id: answer.id(), plan, uris, said: None })
    }

    /// Sends the same request until there is an answer to it.
    async fn insist(&self, user: &User, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let opens = method == Method::POST && !path.ends_with("/complete");
        let troubles = if opens { &self.troubles.openings } else { &self.troubles.others };
        let mut last = String::new();
        for _ in 0..400 {
            match user.try_call(method.clone(), path, body).await {
                Ok(answer) if matches!(answer.status, 408 | 429 | 502..=504) => last = answer.body.to_string(),
                Ok(answer) if answer.body["code"] == "idempotency-in-progress" => last = answer.body.to_string(),
                Ok(answer) => return answer,
                Err(error) => last = error.to_string(),
            }
            troubles.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100 + self.below(200) as u64)).await;
        }
        panic!("{method} {path} has no answer: {last}");
    }

    async fn ask(&self, known: &Known, method: Method, what: &str) -> Answer {
        self.insist(&self.user, method, &format!("/v1/uploads/{}{what}", known.id), None).await
    }

    /// Sends everything, and renews the session if it is lost.
    async fn send(&self, known: &mut Known, bytes: &[u8]) {
        let size = bytes.len();
        for _ in 0..5 {
            let uri = known.uris.last().unwrap();
            let status = if size > CHUNK {
                self.send_part(known, bytes).await;
                let range = format!("bytes {CHUNK}-{}/{size}", size - 1);
                self.user.put(uri, Some(&range), bytes[CHUNK..].to_vec()).await
            } else {
                self.user.put(uri, None, bytes.to_vec()).await
            };
            if status.is_success() {
                return;
            }
            assert!(status.is_client_error(), "{known:?}: {status}");
            assert!(self.renew(known).await, "{known:?} takes no bytes, and is not renewed");
        }
        panic!("{known:?} is renewed again and again");
    }

    async fn send_part(&self, known: &Known, bytes: &[u8]) {
        let range = format!("bytes 0-{}/{}", CHUNK - 1, bytes.len());
        // A session may be dead by now: whoever goes on finds out.
        let Some(uri) = known.uris.last() else { return };
        self.user.put(uri, Some(&range), bytes[..CHUNK].to_vec()).await;
    }

    async fn renew(&self, known: &mut Known) -> bool {
        let answer = self.ask(known, Method::POST, "/renew").await;
        let uri = answer.body["transfer"]["uri"].as_str().map(str::to_owned);
        let renewed = uri.is_some();
        known.uris.extend(uri);
        renewed
    }

    async fn complete(&self, known: &mut Known) {
        let state = self.ask(known, Method::POST, "/complete").await.is(200).text("/state");
        known.said = Some(state);
    }

    async fn complete_perhaps(&self, known: &mut Known, habit: Habit) {
        if habit == Habit::Talk && self.below(2) == 0 {
            self.complete(known).await;
        }
    }

    async fn cancel(&self, known: &mut Known) {
        let state = self.ask(known, Method::DELETE, "").await.is(200).text("/state");
        known.said = Some(state);
    }
}
