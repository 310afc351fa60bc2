//! The broker as its users meet it: through HTTP and the command line, with real servers beside it.

#![expect(unreachable_pub, reason = "a test binary is nobody's dependency")]

mod api;
mod command_line;
mod documents;
mod faults;
mod limits;
mod processes;
mod secrets;
mod support;
