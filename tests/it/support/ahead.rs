//! The time of day of processes, moved ahead while they run: what lasts minutes need not be waited for.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

/// A clock that is ahead of the system's, for any number of processes.
pub struct Ahead {
    folder: TempDir,
    file: File,
    seconds: AtomicI64,
}

impl Ahead {
    /// Builds what is preloaded; `None`, said aloud, where there is no C compiler. In CI that is a failure.
    pub fn build() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/ahead.c");
        let library = folder.path().join("ahead.so");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).args([source, "-ldl"]).output();
        let built = built.map_or_else(
            |error| Err(error.to_string()),
            |output| if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) },
        );
        if let Err(reason) = built {
            assert!(std::env::var_os("CI").is_none(), "a C compiler is needed: {reason}");
            #[expect(clippy::print_stderr, reason = "a test that does not run must say so")]
            {
                eprintln!("skipped: there is no C compiler that works: {reason}");
            }
            return None;
        }
        let file = File::create(folder.path().join("ahead")).unwrap();
        let ahead = Self { folder, file, seconds: AtomicI64::new(0) };
        ahead.pass(Duration::ZERO);
        Some(ahead)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has the process go by this clock.
    pub fn rule(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.path("ahead.so")).env("CLOCK_AHEAD", self.path("ahead"));
    }

    /// Moves the clock, in all processes at once; by whole seconds.
    pub fn pass(&self, time: Duration) {
        let by = i64::try_from(time.as_secs()).unwrap();
        let seconds = self.seconds.fetch_add(by, Ordering::SeqCst) + by;
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// How far it is ahead by now.
    pub fn so_far(&self) -> Duration {
        Duration::from_secs(self.seconds.load(Ordering::SeqCst).unsigned_abs())
    }
}
