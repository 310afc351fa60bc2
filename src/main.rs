//! The `upload-broker` command.

fn main() {}
