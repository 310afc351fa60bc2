//! The service account of the machine, by its metadata server (Compute Engine documentation, "View and query VM
//! metadata").

use reqwest::Client;
use tokio::time::Instant;

use super::Granted;
use super::exchange::{Party, accepted, read_token, send};
use crate::storage::credentials::Machine;
use crate::storage::token::{Failure, TokenError};

/// The metadata server.
pub(in crate::storage) struct Metadata {
    machine: Machine,
    client: Client,
    party: Party,
}

impl Metadata {
    pub(super) fn new(mut machine: Machine, client: Client, scopes: &[&str]) -> Self {
        machine.token.set_query(Some(&format!("scopes={}", scopes.join(","))));
        let party = Party::metadata(&machine.host);
        Self { machine, client, party }
    }

    pub(super) async fn fetch(&self, deadline: Instant) -> Result<Granted, TokenError> {
        self.party.asked(deadline, self.ask()).await.map_err(|error| match error {
            // It is the last that is looked for: none of them was there.
            TokenError::Failed { failure: Failure::Unreachable(reason), .. } => TokenError::NoMetadata {
                host: self.machine.host.clone(),
                looked_for: self.machine.looked_for.clone(),
                reason,
            },
            error => error,
        })
    }

    /// The header `Metadata-Flavor` tells the server from whatever else answers to that name. 404 is what a machine
    /// without a service account says.
    async fn ask(&self) -> Result<Granted, Failure> {
        const FLAVOR: &str = "metadata-flavor";
        let answer = send(self.client.get(self.machine.token.clone()).header(FLAVOR, "Google")).await?;
        if answer.headers.get(FLAVOR).is_none_or(|flavor| flavor != "Google") {
            return Err(Failure::Nonsense("it is not from a metadata server of Google"));
        }
        read_token(&accepted(answer)?)
    }
}
