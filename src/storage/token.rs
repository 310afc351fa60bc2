//! The access token that storage is called with: always one at hand, got ahead of time.
//!
//! One task asks for tokens and nobody else does, so there is never more than one request for one under way. It leaves
//! its state in a watch channel: the token, ready as a header, and what the last attempt came to. A call reads that; it
//! waits only for the very first attempt, or after storage refused the token.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::metrics::{Metrics, RefreshResult};
use super::origin::{Granted, Origin};
use super::retry::Backoff;
use crate::clock::Randomness;

/// Why there is no token. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing has been heard yet.
    #[error("no storage token has been received yet")]
    NotYet,
    /// A call could not wait for the token that was to replace a refused one.
    #[error("no other storage token was received in time")]
    TimedOut,
    /// Somebody who was asked on the way to a token did not help.
    #[error("{whom} {failure}")]
    Failed {
        /// The credentials that were tried, and who was asked for them.
        whom: String,
        /// What happened.
        failure: Failure,
    },
    /// There is neither a credentials file nor a metadata server.
    #[error(
        "no credentials were found: GOOGLE_APPLICATION_CREDENTIALS is not set, {}the metadata server {host} cannot be reached: {reason}",
        looked_for.as_ref().map(|file| format!("{} does not exist, ", file.display())).unwrap_or_default()
    )]
    NoMetadata {
        /// The metadata server.
        host: String,
        /// The file that would have been taken.
        looked_for: Option<PathBuf>,
        /// What happened.
        reason: String,
    },
}

/// Why somebody who was asked on the way to a token did not help. Completes a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or a broken one.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("did not answer in time")]
    TimedOut,
    /// It says no, by this code.
    #[error("refused: {0}")]
    Refused(String),
    /// Its answer is none.
    #[error("gave an answer that makes no sense: {0}")]
    Nonsense(&'static str),
    /// It is a file, which cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    /// What it holds is of no use.
    #[error("{0}")]
    Unfit(&'static str),
}

impl Failure {
    /// What most of what is no token is told to be.
    pub(super) const NO_TOKEN: Self = Self::Nonsense("it holds no bearer token");

    /// A refusal with its code, if that is the plain word that it should be: anything else may repeat what was sent.
    pub(super) fn refused(code: Option<&str>) -> Option<Self> {
        let plain = |code: &&str| {
            (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        code.filter(plain).map(|code| Self::Refused(code.to_owned()))
    }
}

/// A token as it is used.
#[derive(Clone)]
pub(super) struct Token {
    /// `Bearer …`, marked as sensitive.
    pub(super) header: HeaderValue,
    /// Tells this token from the ones before it.
    serial: u64,
    usable_until: Instant,
}

/// What is known after an attempt.
#[derive(Clone, Default)]
struct State {
    token: Option<Token>,
    /// Why the last attempt failed, if it did.
    failure: Option<TokenError>,
    /// How many attempts are over.
    attempts: u64,
    /// When the last attempt was over that a refusal by storage had called for.
    forced_at: Option<Instant>,
}

impl State {
    fn usable(&self) -> Option<&Token> {
        self.token.as_ref().filter(|token| Instant::now() < token.usable_until)
    }

    /// Whether a refusal may call for an attempt now. A token server that gives out what storage refuses would
    /// otherwise be asked once for every call.
    fn may_force(&self) -> bool {
        self.forced_at.is_none_or(|at| at.elapsed() >= FORCE_INTERVAL)
    }
}

/// The least time between two attempts that refusals call for.
const FORCE_INTERVAL: Duration = Duration::from_secs(5);

/// How long one attempt may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long before its end a token is no more used: it must still be good when storage looks at it.
const MARGIN: Duration = Duration::from_secs(60);

/// No token is believed to live longer. Google's live an hour, and twelve hours at most.
const LONGEST_LIFE: Duration = Duration::from_secs(12 * 3600);

/// Keeps a token fresh until it is dropped.
pub(super) struct TokenSource {
    state: watch::Receiver<State>,
    /// The serial of a token that storage refused.
    refused: watch::Sender<u64>,
    _task: AbortOnDropHandle<()>,
}

impl TokenSource {
    /// Begins to ask `origin` at once, in a task of its own.
    pub(super) fn start(origin: Origin, randomness: Randomness, metrics: Metrics) -> Self {
        let (publish, state) = watch::channel(State::default());
        let (refused, refusals) = watch::channel(0);
        let task = tokio::spawn(keep_fresh(origin, publish, refusals, randomness, metrics));
        Self { state, refused, _task: AbortOnDropHandle::new(task) }
    }

    /// The token. Waits only while the first attempt is under way, and not beyond `deadline`.
    pub(super) async fn bearer(&self, deadline: Instant) -> Result<Token, TokenError> {
        if let Some(token) = self.state.borrow().usable() {
            return Ok(token.clone());
        }
        let mut state = self.state.clone();
        let known = state.wait_for(|state| state.usable().is_some() || state.failure.is_some());
        match timeout_at(deadline, known).await {
            Ok(Ok(state)) => state.usable().cloned().ok_or_else(|| state.failure.clone().unwrap_or(TokenError::NotYet)),
            Ok(Err(_)) | Err(_) => Err(TokenError::NotYet),
        }
    }

    /// What to use after storage refused `token`: the one that has replaced it, or one got now. `None` if there is no
    /// other to be had.
    pub(super) async fn after_refusal(&self, token: &Token, deadline: Instant) -> Result<Option<Token>, TokenError> {
        let newer = |state: &State| state.usable().filter(|newest| newest.serial != token.serial).cloned();
        let attempts = {
            let state = self.state.borrow();
            if let Some(newest) = newer(&state) {
                return Ok(Some(newest));
            }
            if !state.may_force() {
                return Ok(None);
            }
            state.attempts
        };
        self.refused.send_replace(token.serial);
        let mut state = self.state.clone();
        match timeout_at(deadline, state.wait_for(|state| state.attempts != attempts)).await {
            Ok(Ok(state)) => match (newer(&state), &state.failure) {
                (None, Some(failure)) => Err(failure.clone()),
                (token, _) => Ok(token),
            },
            Ok(Err(_)) | Err(_) => Err(TokenError::TimedOut),
        }
    }

    /// Whether a token is at hand.
    pub(super) fn ready(&self) -> Result<(), TokenError> {
        let state = self.state.borrow();
        match state.usable() {
            Some(_) => Ok(()),
            None => Err(state.failure.clone().unwrap_or(TokenError::NotYet)),
        }
    }
}

/// Asks for a token whenever the one at hand is getting old, again after failures, and when storage refused it.
async fn keep_fresh(
    origin: Origin,
    publish: watch::Sender<State>,
    mut refusals: watch::Receiver<u64>,
    randomness: Randomness,
    metrics: Metrics,
) {
    let mut failures = 0;
    let mut forced = false;
    loop {
        let fetched = origin.fetch(Instant::now() + FETCH_TIMEOUT).await;
        let now = Instant::now();
        let (pause, update) = match fetched {
            Ok(Granted { header, life }) => {
                let (usable, pause) = schedule(life, randomness.fraction());
                failures = 0;
                metrics.refreshed(RefreshResult::Ok);
                tracing::debug!(next_in_s = pause.as_secs(), "a storage token was received");
                (pause, Ok((header, now + usable)))
            }
            Err(error) => {
                let pause = Backoff::TOKENS.pause(failures, randomness.fraction());
                failures = failures.saturating_add(1);
                metrics.refreshed(RefreshResult::Failed);
                tracing::warn!(reason = %error, again_in_s = pause.as_secs(), "no storage token could be had");
                (pause, Err(error))
            }
        };
        publish.send_modify(|state| {
            state.attempts += 1;
            if forced {
                state.forced_at = Some(now);
            }
            match update {
                Ok((header, usable_until)) => {
                    let serial = state.token.as_ref().map_or(1, |token| token.serial + 1);
                    state.token = Some(Token { header, serial, usable_until });
                    state.failure = None;
                }
                // The token at hand goes on serving to its end.
                Err(error) => state.failure = Some(error),
            }
        });
        forced = refused_before(now + pause, &publish, &mut refusals).await;
    }
}

/// Waits for `due`, or until the token at hand is refused: then true.
async fn refused_before(due: Instant, state: &watch::Sender<State>, refusals: &mut watch::Receiver<u64>) -> bool {
    loop {
        tokio::select! {
            () = sleep_until(due) => return false,
            changed = refusals.changed() => {
                if changed.is_err() {
                    // The source is being dropped, and this task with it.
                    sleep_until(due).await;
                    return false;
                }
                let refused = *refusals.borrow_and_update();
                let state = state.borrow();
                if state.may_force() && state.token.as_ref().is_some_and(|token| token.serial == refused) {
                    return true;
                }
            }
        }
    }
}

/// How long a token of this life is used, and when the next is asked for: at 70 to 80 % of its life, so that brokers
/// that were started together do not ask together, and always before the use of this one is over. The metadata server
/// gives out the same token until 5 minutes before its end; then what is left of it is cut in the same way until a new
/// one comes.
fn schedule(life: Duration, chance: f64) -> (Duration, Duration) {
    let life = life.min(LONGEST_LIFE);
    let usable = life.saturating_sub(MARGIN.min(life / 2));
    let next = life.mul_f64(0.8 - 0.1 * chance.clamp(0.0, 1.0)).min(usable.mul_f64(0.8));
    (usable, next.max(Duration::from_secs(1)))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;
    use std::future::pending;
    use std::sync::{Arc, Mutex};

    use tokio::task::JoinSet;
    use tokio::time::{advance, sleep};

    use super::*;

    /// What a scripted token server does, in turn; the last step for ever.
    #[derive(Clone)]
    pub(crate) struct Script {
        steps: Arc<Mutex<VecDeque<Step>>>,
        fetches: Arc<Mutex<u32>>,
    }

    #[derive(Clone)]
    enum Step {
        Grant(u64),
        After(Duration, u64),
        Fail,
        Hang,
    }

    impl Script {
        fn new(steps: impl IntoIterator<Item = Step>) -> Self {
            Self { steps: Arc::new(Mutex::new(steps.into_iter().collect())), fetches: Arc::default() }
        }

        fn fetches(&self) -> u32 {
            *self.fetches.lock().unwrap()
        }

        pub(crate) async fn fetch(&self, deadline: Instant) -> Result<Granted, TokenError> {
            timeout_at(deadline, self.step()).await.unwrap_or(Err(failed(Failure::TimedOut)))
        }

        async fn step(&self) -> Result<Granted, TokenError> {
            let fetch = {
                let mut fetches = self.fetches.lock().unwrap();
                *fetches += 1;
                *fetches
            };
            let step = {
                let mut steps = self.steps.lock().unwrap();
                if steps.len() > 1 { steps.pop_front().unwrap() } else { steps[0].clone() }
            };
            let seconds = match step {
                Step::Grant(seconds) => seconds,
                Step::After(pause, seconds) => {
                    sleep(pause).await;
                    seconds
                }
                Step::Fail => return Err(away()),
                Step::Hang => pending().await,
            };
            Granted::new(&format!("t{fetch}"), Duration::from_secs(seconds)).map_err(failed)
        }
    }

    fn away() -> TokenError {
        failed(Failure::Unreachable("Connection refused".to_owned()))
    }

    fn failed(failure: Failure) -> TokenError {
        TokenError::Failed { whom: "the script".to_owned(), failure }
    }

    fn start(script: &Script) -> Arc<TokenSource> {
        let origin = Origin::Scripted(script.clone());
        Arc::new(TokenSource::start(origin, Randomness::seeded(1), Metrics::new()))
    }

    /// The token that a call gets without waiting, or why it gets none.
    async fn at_once(source: &TokenSource) -> Result<String, TokenError> {
        let token = source.bearer(Instant::now()).await?;
        Ok(token.header.to_str().unwrap().to_owned())
    }

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_replaced_ahead_of_its_end_without_anybody_waiting() {
        let script = Script::new([Step::Grant(3600)]);
        let source = start(&script);
        source.bearer(Instant::now() + minutes(1)).await.unwrap();
        let begun = Instant::now();
        for (minute, token) in
            [(0, "Bearer t1"), (41, "Bearer t1"), (49, "Bearer t2"), (83, "Bearer t2"), (97, "Bearer t3")]
        {
            tokio::time::sleep_until(begun + minutes(minute)).await;
            assert_eq!(at_once(&source).await.as_deref(), Ok(token), "after {minute} min");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_callers_on_a_cold_start_make_one_request() {
        let script = Script::new([Step::After(Duration::from_millis(300), 3600)]);
        let source = start(&script);
        assert_eq!(source.ready(), Err(TokenError::NotYet));
        let mut callers = JoinSet::new();
        for _ in 0..50 {
            let source = Arc::clone(&source);
            callers.spawn(async move { source.bearer(Instant::now() + Duration::from_secs(1)).await.is_ok() });
        }
        assert!(callers.join_all().await.into_iter().all(|served| served));
        assert_eq!(script.fetches(), 1);
        assert_eq!(source.ready(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cold_start_is_waited_for_only_until_the_deadline() {
        let source = start(&Script::new([Step::Hang]));
        let begun = Instant::now();
        let late = source.bearer(begun + Duration::from_secs(2)).await;
        assert_eq!(late.err(), Some(TokenError::NotYet));
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_token_at_hand_serves_through_an_outage_until_a_minute_before_its_end() {
        let mut steps = vec![Step::Grant(3600)];
        steps.extend(vec![Step::Fail; 60]);
        steps.push(Step::Grant(3600));
        let script = Script::new(steps);
        let source = start(&script);
        source.bearer(Instant::now() + minutes(1)).await.unwrap();
        sleep(minutes(58)).await;
        assert!(script.fetches() > 5, "it is tried again and again");
        assert_eq!(at_once(&source).await.as_deref(), Ok("Bearer t1"));
        sleep(minutes(1)).await;
        assert_eq!(at_once(&source).await, Err(away()), "and then nobody waits for nothing");
        assert_eq!(source.ready(), Err(away()));
        sleep(minutes(30)).await;
        assert_eq!(source.ready(), Ok(()), "it recovers by itself");
        assert!(script.fetches() < 70, "with pauses: {}", script.fetches());
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_failure_is_told_at_once_and_got_over() {
        let source = start(&Script::new([Step::Fail, Step::Hang, Step::Grant(3600)]));
        assert_eq!(source.bearer(Instant::now() + minutes(1)).await.err(), Some(away()));
        sleep(Duration::from_secs(12)).await;
        assert_eq!(source.ready(), Err(failed(Failure::TimedOut)), "a server that hangs is given up");
        sleep(Duration::from_secs(4)).await;
        assert_eq!(source.ready(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_storage_refuses_is_replaced_once_for_all_callers() {
        let script = Script::new([Step::Grant(3600), Step::After(Duration::from_millis(100), 3600)]);
        let source = start(&script);
        let soon = || Instant::now() + Duration::from_secs(1);
        let first = source.bearer(soon()).await.unwrap();
        let mut callers = JoinSet::new();
        for _ in 0..50 {
            let (source, first, deadline) = (Arc::clone(&source), first.clone(), soon());
            callers.spawn(async move { source.after_refusal(&first, deadline).await.unwrap().unwrap().header });
        }
        assert!(callers.join_all().await.into_iter().all(|header| header == "Bearer t2"));
        assert_eq!(script.fetches(), 2);

        let second = source.bearer(soon()).await.unwrap();
        assert!(source.after_refusal(&second, soon()).await.unwrap().is_none(), "not again so soon");
        assert_eq!(script.fetches(), 2);
        advance(FORCE_INTERVAL).await;
        assert_eq!(source.after_refusal(&second, soon()).await.unwrap().unwrap().header, "Bearer t3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_during_an_outage_of_the_token_server_says_so() {
        let source = start(&Script::new([Step::Grant(3600), Step::Fail]));
        let first = source.bearer(Instant::now() + minutes(1)).await.unwrap();
        assert_eq!(source.after_refusal(&first, Instant::now() + minutes(1)).await.err(), Some(away()));
        assert_eq!(at_once(&source).await.as_deref(), Ok("Bearer t1"), "others go on with it");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_for_after_the_source_is_dropped() {
        let script = Script::new([Step::Grant(3600)]);
        let source = start(&script);
        source.bearer(Instant::now() + minutes(1)).await.unwrap();
        drop(source);
        sleep(minutes(600)).await;
        assert_eq!(script.fetches(), 1);
    }

    #[test]
    fn the_next_token_is_due_before_the_use_of_this_one_is_over() {
        for (name, life, chance, usable, next) in [
            ("an hour", 3600, 0.0, 3540, 2832),
            ("an hour, sooner by chance", 3600, 1.0, 3540, 2520),
            ("the rest of a cached one", 720, 0.0, 660, 528),
            ("a short one", 90, 0.0, 45, 36),
            ("a second", 1, 0.0, 0, 1),
            ("for ever", 1 << 40, 0.0, 43_140, 34_512),
        ] {
            let (found_usable, found_next) = schedule(Duration::from_secs(life), chance);
            assert_eq!((found_usable.as_secs(), found_next.as_secs()), (usable, next), "{name}");
        }
    }

    #[test]
    fn a_token_that_cannot_be_used_is_no_token() {
        for (name, text, seconds) in [("no text", "", 3600), ("a line break", "a\nb", 3600), ("over already", "a", 0)] {
            assert!(Granted::new(text, Duration::from_secs(seconds)).is_err(), "{name}");
        }
        let granted = Granted::new("s3cret", Duration::from_secs(3600)).unwrap();
        assert_eq!(format!("{:?}", granted.header), "Sensitive");
    }
}
