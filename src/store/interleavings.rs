//! Any order of operations, on both stores: they answer alike, and no limit is ever passed.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::ledger::reservation_end;
use super::testing::*;
use super::*;
use crate::model::upload::Evidence;

/// One step of a history; small numbers name users, uploads and keys, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Admit { user: u8, number: u32, key: Option<u8>, fingerprint: u8, size: u64, report: bool },
    Attach { number: usize, session: u32 },
    Abandon { number: usize },
    Advance { number: usize, evidence: Evidence, stale: bool },
    Renew { number: usize, session: u32, stale: bool },
    List { user: u8, limit: usize },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let evidence = prop_oneof![
        (0_u64..50).prop_map(|received| Evidence::Persisted(ByteCount(received))),
        (0_u64..50).prop_map(verified),
        Just(Evidence::CancelRequested),
        Just(Evidence::TimeRanOut),
    ];
    let key = proptest::option::of(0_u8..3);
    prop_oneof![
        6 => (1_u8..3, 0_u32..12, key, 0_u8..2, 1_u64..60, proptest::bool::weighted(0.1)).prop_map(
            |(user, number, key, fingerprint, size, report)| {
                Step::Admit { user, number, key, fingerprint, size, report }
            }
        ),
        5 => (0_usize..40, 0_u32..2).prop_map(|(number, session)| Step::Attach { number, session }),
        1 => (0_usize..40).prop_map(|number| Step::Abandon { number }),
        4 => (0_usize..40, evidence, proptest::bool::weighted(0.2)).prop_map(|(number, evidence, stale)| {
            Step::Advance { number, evidence, stale }
        }),
        2 => (0_usize..40, 2_u32..5, proptest::bool::weighted(0.2)).prop_map(|(number, session, stale)| {
            Step::Renew { number, session, stale }
        }),
        1 => (1_u8..3, 1_usize..5).prop_map(|(user, limit)| Step::List { user, limit }),
        2 => prop_oneof![1_u64..40, Just(3_000), Just(43_200), Just(86_400)].prop_map(|seconds| Step::Wait { seconds }),
    ]
}

const LIMITS: fn() -> Limits = || limits(Some(3), Some("4/1m"), Some(150));

/// What a history has come to.
struct History {
    now: Timestamp,
    /// What was granted or taken over, in order.
    leases: Vec<(Lease, Upload)>,
    /// What was seen of uploads, in order, so that some of it is out of date.
    seen: HashMap<UploadId, Vec<Tracked>>,
    /// Whether a limit was only reported for a user.
    reported: bool,
    /// Every object that was found complete.
    stored: HashMap<UploadId, Stored>,
}

/// What is known of an object when it is first found complete.
struct Stored {
    user: PrincipalId,
    day: i64,
    size: u64,
    /// Its reservation had ended, so that its bytes come on top of what was made room for.
    late: bool,
}

/// Plays `steps`, comparing what both stores say to each.
async fn play(steps: &[Step], redis: &Store, memory: &Store) {
    let mut history =
        History { now: NOW, leases: Vec::new(), seen: HashMap::new(), reported: false, stored: HashMap::new() };
    for step in steps {
        history.take(step, redis, memory).await;
        let both = [redis, memory];
        for user in [user(1), user(2)] {
            let [one, other] = both.map(|store| store.used(user, LIMITS(), history.now));
            let (one, other) = tokio::join!(one, other);
            assert_eq!(one, other, "usage after {step:?}");
            if !history.reported {
                assert!(one.active <= 3, "{} active after {step:?}", one.active);
                let late = history.stored_today(user, |stored| stored.late);
                assert!(one.bytes_today.0 <= 150 + late, "{} bytes after {step:?}", one.bytes_today);
            }
            let stored = history.stored_today(user, |_| true);
            assert!(one.bytes_today.0 >= stored, "{} of {stored} bytes after {step:?}", one.bytes_today);
            assert!(one.active > 0 || one.bytes_today.0 == stored, "{} for {stored} after {step:?}", one.bytes_today);
        }
        for (_, upload) in &history.leases {
            let (one, other) = tokio::join!(redis.find(upload.id), memory.find(upload.id));
            assert_eq!(one.unwrap(), other.unwrap(), "after {step:?}");
            assert_eq!(redis.due(upload.id).await, memory.due(upload.id).await, "due after {step:?}");
        }
    }
}

impl History {
    async fn take(&mut self, step: &Step, redis: &Store, memory: &Store) {
        match step {
            // Records live a week of the server's own time, which does not pass here.
            Step::Wait { seconds } => self.now = self.now.plus(SECONDS(*seconds)).min(NOW.plus(SECONDS(6 * 86_400))),
            Step::Admit { user: number_of_user, number, key, fingerprint, size, report } => {
                let upload = Upload {
                    expires_at: self.now.plus(SECONDS(3_600)),
                    ..with_size(&intent_of(user(*number_of_user), *number, self.now), *size)
                };
                let intent = Intent {
                    enforcement: if *report { Enforcement::Report } else { Enforcement::Enforce },
                    idempotency: key.map(|key| (IdempotencyKey([key; 16]), Fingerprint([*fingerprint; 16]))),
                    ..plain(&upload, LIMITS())
                };
                self.reported |= *report;
                let (one, other) = tokio::join!(redis.admit(&intent), memory.admit(&intent));
                let (one, other) = (one.unwrap(), other.unwrap());
                assert_eq!(one, other, "{step:?}");
                match one {
                    Admitted::Granted { lease, .. } => self.leases.push((lease, upload)),
                    Admitted::Resumed { lease, upload } => self.leases.push((lease, upload)),
                    Admitted::Replayed(tracked) => self.see(tracked),
                    Admitted::InProgress { .. } | Admitted::Mismatch | Admitted::Refused(_) => {}
                }
            }
            Step::Attach { number, session } => {
                let Some((lease, upload)) = pick(&self.leases, *number) else { return };
                let (session, due) = (session_of(upload, *session), self.now.plus(SECONDS(900)));
                let (one, other) = tokio::join!(
                    redis.attach(lease, upload, &session, due),
                    memory.attach(lease, upload, &session, due)
                );
                let (one, other) = (one.unwrap(), other.unwrap());
                assert_eq!(one, other, "{step:?}");
                match one {
                    Attached::Tracked(tracked) | Attached::LeaseLost(Some(tracked)) => self.see(tracked),
                    Attached::LeaseLost(None) => {}
                }
            }
            Step::Abandon { number } => {
                let Some((lease, upload)) = pick(&self.leases, *number) else { return };
                let (one, other) = tokio::join!(redis.abandon(lease, upload), memory.abandon(lease, upload));
                one.unwrap();
                other.unwrap();
            }
            Step::Advance { number, evidence, stale } => {
                let Some((_, upload)) = pick(&self.leases, *number) else { return };
                let Some(seen) = self.seen.get(&upload.id) else { return };
                let Some(tracked) = (if *stale { seen.first() } else { seen.last() }) else { return };
                let mut evidence = evidence.clone();
                if let Evidence::Verified(object, _) = &mut evidence {
                    // What is larger than promised is never verified.
                    object.size = object.size.min(upload.promise.size.reserve());
                }
                let Ok(next) = tracked.upload.state.after(evidence, self.now) else { return };
                let due = (!next.is_final()).then(|| self.now.plus(SECONDS(900)));
                let (one, other) = tokio::join!(
                    redis.advance(tracked, next.clone(), due, &[], self.now),
                    memory.advance(tracked, next.clone(), due, &[], self.now)
                );
                let (one, other) = (one.unwrap(), other.unwrap());
                assert_eq!(one, other, "{step:?}");
                match one {
                    Advanced::Done(found) | Advanced::Conflict(found) => {
                        if let UploadState::Completed { object, .. } = &found.upload.state {
                            let ends = match tracked.upload.state {
                                UploadState::Admitted { lease_until } => lease_until,
                                _ => Timestamp::from_millis(i64::try_from(reservation_end(&tracked.upload)).unwrap()),
                            };
                            self.stored.entry(found.upload.id).or_insert(Stored {
                                user: found.upload.principal,
                                day: self.now.utc_day(),
                                size: object.size.0,
                                late: ends <= self.now,
                            });
                        }
                        let was_final = tracked.upload.state.is_final();
                        assert!(!was_final || found == *tracked, "a final state was left");
                        self.see(found);
                    }
                    Advanced::Vanished => {}
                }
            }
            Step::Renew { number, session, stale } => self.renew(*number, *session, *stale, redis, memory).await,
            Step::List { user: number, limit } => {
                let mut page = Page { limit: *limit, ..Page::default() };
                for _ in 0..20 {
                    let (one, other) = tokio::join!(
                        redis.list(user(*number), &page, self.now),
                        memory.list(user(*number), &page, self.now)
                    );
                    let (one, other) = (one.unwrap(), other.unwrap());
                    assert_eq!(one, other, "{step:?}");
                    page.after = one.next;
                    if page.after.is_none() {
                        return;
                    }
                }
                panic!("a listing does not end");
            }
        }
    }

    async fn renew(&mut self, number: usize, session: u32, stale: bool, redis: &Store, memory: &Store) {
        let Some((_, upload)) = pick(&self.leases, number) else { return };
        let Some(seen) = self.seen.get(&upload.id) else { return };
        let Some(tracked) = (if stale { seen.first() } else { seen.last() }) else { return };
        let Ok(next) = tracked.upload.state.after(Evidence::SessionRenewed, self.now) else { return };
        let (fresh, due) = (session_of(upload, session), Some(self.now.plus(SECONDS(900))));
        let (one, other) = tokio::join!(
            redis.renew(tracked, next.clone(), &fresh, due, self.now),
            memory.renew(tracked, next.clone(), &fresh, due, self.now)
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one, other, "renewal of {}", upload.id);
        match one {
            Advanced::Done(found) => {
                assert_eq!((&found.session, found.upload.state.received()), (&Some(fresh), ByteCount::ZERO));
                self.see(found);
            }
            Advanced::Conflict(found) => self.see(found),
            Advanced::Vanished => {}
        }
    }

    fn stored_today(&self, user: PrincipalId, which: fn(&Stored) -> bool) -> u64 {
        let today = self.now.utc_day();
        let stored = self.stored.values().filter(|stored| stored.user == user && stored.day == today && which(stored));
        stored.map(|stored| stored.size).sum()
    }

    fn see(&mut self, tracked: Tracked) {
        self.seen.entry(tracked.upload.id).or_default().push(tracked);
    }
}

/// One of the latest, so that most steps mean something.
fn pick(leases: &[(Lease, Upload)], number: usize) -> Option<&(Lease, Upload)> {
    leases.len().checked_sub(1).map(|last| &leases[last - number % leases.len().min(4)])
}

#[test]
fn any_history_is_the_same_on_both_stores() {
    let Some(server) = Server::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&proptest::collection::vec(step(), 1..60), |steps| {
            let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                runtime.block_on(async { play(&steps, &server.store().await, &memory()).await });
            }));
            played.map_err(|panic| {
                let message = panic.downcast_ref::<String>().map_or("it panicked", String::as_str);
                TestCaseError::fail(message.to_owned())
            })
        })
        .unwrap();
}
