//! Whether the keys of issuers can be had: asked by whoever checks a set-up. Tokens are verified by what was read before.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Algorithm, Identity};

/// What came of asking one issuer for its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The issuer.
    pub issuer: String,
    /// How many keys it has that verify something, or why they cannot be had.
    pub keys: Result<usize, String>,
    /// The configured algorithms that none of them is for.
    pub without_key: Vec<Algorithm>,
}

impl Identity {
    /// Asks every issuer for its keys, in the order of the sections; some ten seconds at most. By discovery, the document
    /// has to be that of the issuer.
    pub async fn examine(&self) -> Vec<Examined> {
        let mut asked = JoinSet::new();
        for (position, issuer) in self.issuers.iter().enumerate() {
            let keys = Arc::clone(&issuer.keys);
            asked.spawn(async move {
                let answer = keys.ask().await;
                let (issuer, wanted) = keys.wanted();
                let without_key = match &answer {
                    Ok(fetched) => wanted.iter().copied().filter(|one| !fetched.keys.serves(*one)).collect(),
                    Err(_) => Vec::new(),
                };
                let keys = answer.map(|fetched| fetched.keys.len()).map_err(|error| crate::model::chain(&error));
                (position, Examined { issuer: issuer.to_owned(), keys, without_key })
            });
        }
        let mut examined = asked.join_all().await;
        examined.sort_unstable_by_key(|(position, _)| *position);
        examined.into_iter().map(|(_, one)| one).collect()
    }
}
