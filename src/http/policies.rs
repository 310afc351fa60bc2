//! `/v1/policies`: what the caller may do, and what is left of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::extract::Caller;
use super::problem::Problem;
use super::wire_policies::{Policy, PolicyList};
use crate::uploads::Uploads;

/// List policies
///
/// Those that admit the caller, with their limits and what is left of each.
#[utoipa::path(
    get, path = "/v1/policies", operation_id = "listPolicies", tag = "policies",
    responses(
        (status = 200, description = "The policies that admit the caller", body = PolicyList),
    ),
)]
pub(super) async fn list(
    State(uploads): State<Arc<Uploads>>,
    Caller(principal): Caller,
) -> Result<Json<PolicyList>, Problem> {
    let allowances = uploads.allowances(&principal).await?;
    Ok(Json(PolicyList { policies: allowances.iter().map(Policy::from).collect() }))
}
