//! The command line: one file a command.

pub mod healthcheck;
pub mod upload;
