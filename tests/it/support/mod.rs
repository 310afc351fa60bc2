//! The harness: brokers, a storage emulator, an issuer and users, all of them real and on loopback.

pub mod ahead;
pub mod backend;
pub mod broker;
pub mod collector;
pub mod crossing;
pub mod door;
pub mod fleet;
pub mod front;
pub mod hooks;
pub mod listening;
pub mod mmdb;
pub mod pair;
pub mod process;
pub mod pusher;
pub mod redis;
pub mod rough;
pub mod stalls;
pub mod surroundings;
pub mod user;

pub use broker::{Broker, Settings};
pub use user::User;

use std::sync::OnceLock;

use upload_broker::identity::development::DevelopmentKey;

/// The issuer of every token in these tests.
pub const ISSUER: &str = "https://issuer.example";

/// Whom these tokens are meant for.
pub const AUDIENCE: &str = "upload-broker";

/// The bucket beside every broker in these tests.
pub const BUCKET: &str = "media-eu";

/// The issuer's key, made once.
pub fn issuer_key() -> &'static DevelopmentKey {
    static KEY: OnceLock<DevelopmentKey> = OnceLock::new();
    KEY.get_or_init(|| {
        // Whichever test comes first: reqwest and rustls need a provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        DevelopmentKey::generate().unwrap()
    })
}

/// The key of whoever pushes notifications, made once: another one than users' tokens have.
pub fn push_key() -> &'static DevelopmentKey {
    static KEY: OnceLock<DevelopmentKey> = OnceLock::new();
    KEY.get_or_init(|| DevelopmentKey::generate().unwrap())
}

/// Bytes that no compression or pattern makes equal by accident.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// Runs all of them at once, and gives what they gave, in order.
pub async fn join_all<F>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut outputs = Vec::with_capacity(tasks.len());
    for task in tasks {
        outputs.push(task.await.unwrap());
    }
    outputs
}
