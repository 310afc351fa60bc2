//! The `upload-broker` command.

use std::process::ExitCode;

/// Much of what a create allocates is freed by another thread. With the C library's allocator that was a quarter of the
/// processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    upload_broker::cli::main()
}
