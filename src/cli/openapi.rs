//! `openapi`: prints the OpenAPI document.

use std::process::ExitCode;

use crate::http::openapi;

/// Prints the same bytes as `openapi/upload-broker.json` has.
pub(super) fn run() -> anyhow::Result<ExitCode> {
    super::print(&openapi::document()?)?;
    Ok(ExitCode::SUCCESS)
}
