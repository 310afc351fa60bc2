//! A load balancer that honours readiness.
//!
//! What it was told counts for a moment only. On a machine that holds up the probes, too, no request is sent to an instance
//! that has said long ago that it was ready: whatever an instance then does to a request is its own doing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{INSTANCES, Life};

/// How often an instance is asked. Load balancers ask less often, and a `preStop` pause is there for that.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// For how long an instance counts as ready that was, from when it was asked: half of the notice that it gives.
const FRESH: Duration = Duration::from_secs(1);

/// How long it waits for somebody to be ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends each request to an instance that was ready when it was last asked, which was just before.
#[derive(Default)]
pub struct Proxy {
    instances: [Mutex<Instance>; INSTANCES],
    next: AtomicUsize,
    /// One probe for each instance: one that hangs must not keep the proxy from hearing that another drains.
    probes: Mutex<JoinSet<()>>,
    closed: AtomicBool,
}

#[derive(Clone, Default)]
struct Instance {
    address: String,
    operations: String,
    /// When it was asked last, if it answered that it was ready.
    ready_at: Option<Instant>,
}

impl Instance {
    fn is_ready(&self) -> bool {
        self.ready_at.is_some_and(|asked| asked.elapsed() < FRESH)
    }
}

impl Proxy {
    /// Puts an instance in the place of another one, and waits until it is ready.
    pub async fn lead_to(self: &Arc<Self>, number: usize, address: String, operations: String) -> Life {
        let begun = Instant::now();
        let is_new = self.instance(number).operations.is_empty();
        *self.instances[number].lock().unwrap() = Instance { address: address.clone(), operations, ready_at: None };
        if is_new {
            self.probes.lock().unwrap().spawn(Arc::clone(self).probe(number));
        }
        while !self.instance(number).is_ready() {
            assert!(begun.elapsed() < 3 * PATIENCE, "{address} does not become ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Life { address, ready: Instant::now(), told: None }
    }

    /// The address of an instance for one request; `None` once the proxy is closed.
    pub async fn pick(&self) -> Option<String> {
        let begun = Instant::now();
        while !self.closed.load(Ordering::Relaxed) {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let mut instances = (0..INSTANCES).map(|offset| self.instance((turn + offset) % INSTANCES));
            if let Some(instance) = instances.find(Instance::is_ready) {
                return Some(instance.address);
            }
            assert!(begun.elapsed() < PATIENCE, "nobody is ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// Takes no more requests, and asks nobody any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.probes.lock().unwrap().abort_all();
    }

    fn instance(&self, number: usize) -> Instance {
        self.instances[number].lock().unwrap().clone()
    }

    /// What an instance says that was replaced meanwhile, says nothing of the other one.
    fn note(&self, number: usize, operations: &str, ready_at: Option<Instant>) {
        let mut instance = self.instances[number].lock().unwrap();
        if instance.operations == operations {
            instance.ready_at = ready_at;
        }
    }

    async fn probe(self: Arc<Self>, number: usize) {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build().unwrap();
        loop {
            let operations = self.instance(number).operations;
            let asked = Instant::now();
            let answer = client.get(format!("http://{operations}/readyz")).send().await;
            let is_ready = answer.is_ok_and(|answer| answer.status() == 200);
            self.note(number, &operations, is_ready.then_some(asked));
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }
}
