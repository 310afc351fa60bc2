//! What a user sees: a bar where standard error is a terminal, and lines.
//!
//! Lines about files go to standard output, errors to standard error. In a script progress is a line at each tenth of a
//! file, at most.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(test)]
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{Anew, Error, Event, FinalState, TransferKind, UploadReport};
use crate::model::time::Span;

use super::STANDARD_INPUT;

/// Where lines and bars go.
pub(super) enum Show {
    /// A person watches.
    Terminal,
    /// Lines only.
    Lines,
    /// Lines, kept for a test.
    #[cfg(test)]
    Kept(Mutex<Vec<u8>>),
}

impl Show {
    /// By what standard error is, since that is where the bar is drawn.
    pub(super) fn new() -> Self {
        if io::stderr().is_terminal() { Self::Terminal } else { Self::Lines }
    }

    /// Begins with the next file.
    pub(super) fn file(&self, path: &Path) -> Line<'_> {
        // A name may hold what steers terminals; it is the user's own file, but not always the user's own choice.
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let name = if path == Path::new(STANDARD_INPUT) { "stdin".into() } else { name };
        let name: String = name.chars().filter(|character| !character.is_control()).collect();
        let bar = match self {
            Self::Terminal => ProgressBar::new(0).with_style(style(MEASURED)).with_message(name.clone()),
            Self::Lines => ProgressBar::hidden(),
            #[cfg(test)]
            Self::Kept(_) => ProgressBar::hidden(),
        };
        Line { show: self, name, bar, told: AtomicU64::new(0) }
    }

    /// What was shown so far.
    #[cfg(test)]
    pub(super) fn kept(&self) -> String {
        match self {
            Self::Kept(kept) => String::from_utf8(kept.lock().unwrap().clone()).unwrap(),
            Self::Terminal | Self::Lines => String::new(),
        }
    }

    /// A line that cannot be written (a closed pipe) is no reason to stop an upload.
    fn write(&self, line: &str, bar: &ProgressBar) {
        match self {
            Self::Terminal => bar.suspend(|| drop(writeln!(io::stdout().lock(), "{line}"))),
            Self::Lines => drop(writeln!(io::stdout().lock(), "{line}")),
            #[cfg(test)]
            Self::Kept(kept) => drop(writeln!(kept.lock().unwrap_or_else(PoisonError::into_inner), "{line}")),
        }
    }

    fn write_error(&self, line: &str, bar: &ProgressBar) {
        match self {
            Self::Terminal => bar.suspend(|| drop(writeln!(io::stderr().lock(), "{line}"))),
            Self::Lines => drop(writeln!(io::stderr().lock(), "{line}")),
            #[cfg(test)]
            Self::Kept(_) => self.write(line, bar),
        }
    }
}

/// What is shown of a file, and of a pipe, which has no end to be measured by.
const MEASURED: &str = "{msg}  {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}";
const STREAMING: &str = "{msg}  {bytes}  {bytes_per_sec}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What is left of an upload that the user stopped.
#[derive(Clone, Copy)]
pub(super) enum Left {
    /// All that it takes to go on.
    ToResume,
    /// Nothing that anybody knows of: the broker had not answered yet.
    NotBegun,
    /// Nothing.
    Cancelled,
    /// An upload that nobody can go on with, and that the broker could not be told of.
    ToExpire,
}

/// One file's place on the screen.
pub(super) struct Line<'a> {
    show: &'a Show,
    name: String,
    bar: ProgressBar,
    /// The tenth of the file that was told last.
    told: AtomicU64,
}

impl Line<'_> {
    /// Shows one event.
    pub(super) fn event(&self, event: Event<'_>) {
        match event {
            Event::Hashing { done, total } => {
                self.bar.set_length(total);
                self.bar.set_position(done);
            }
            Event::Hashed { bytes } => {
                self.bar.reset();
                self.bar.set_length(bytes);
                self.say(format_args!("hashed {bytes} bytes"));
            }
            Event::Streaming => {
                self.bar.set_style(style(STREAMING));
                self.say(format_args!("reads a pipe; its size is known when it ends"));
            }
            Event::StartedAnew(anew) => self.say(format_args!("starts anew: {}", why(anew))),
            Event::Admitted { id } => self.say(format_args!("upload {id}")),
            Event::Resumed { offset } => {
                self.bar.set_position(offset);
                self.say(format_args!("resumed at {offset}"));
            }
            Event::Persisted { bytes, total } => {
                if let Some(total) = total {
                    self.bar.set_length(total);
                }
                self.bar.set_position(bytes);
                self.progress(bytes, total);
            }
            Event::Interrupted { trouble, pause } => {
                let pause = Span(Duration::from_millis(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)));
                self.say(format_args!("{}; trying again in {pause}", Chain(trouble)));
            }
            Event::Renewed { kind: TransferKind::Resumable } => {
                self.bar.set_position(0);
                self.say(format_args!("the storage session was lost; a new one begins at 0"));
            }
            Event::Renewed { kind: TransferKind::Simple | TransferKind::SignedResumable } => {
                self.bar.set_position(0);
                self.say(format_args!("the signed URL or its session has ended; there is a new one"));
            }
            // A pipe whose end has not shown has no length to be at the end of.
            Event::Verifying => self.bar.set_position(self.bar.length().unwrap_or(0).max(self.bar.position())),
        }
    }

    fn progress(&self, bytes: u64, total: Option<u64>) {
        // On a terminal the bar says it; the end is told by the report.
        if matches!(self.show, Show::Terminal) || total.is_some_and(|total| bytes >= total) {
            return;
        }
        let tenth = |total: u64| u64::try_from(u128::from(bytes) * 10 / u128::from(total.max(1))).unwrap_or(10);
        // Where there is no end to measure by, each doubling.
        let step = total.map_or(bytes.checked_ilog2().map_or(0, u64::from), tenth);
        if self.told.swap(step, Ordering::Relaxed) == step {
            return;
        }
        match total {
            Some(_) => self.say(format_args!("{} %", step * 10)),
            None => self.say(format_args!("{bytes} bytes so far")),
        }
    }

    /// Shows how it ended.
    pub(super) fn report(&self, report: &UploadReport) {
        self.bar.finish_and_clear();
        let UploadReport { bytes, chunks, resumes, renewals, crc32c, .. } = report;
        let renewed = match renewals {
            0 => String::new(),
            1 => ", 1 renewal".to_owned(),
            more => format!(", {more} renewals"),
        };
        match &report.state {
            FinalState::Completed => self.say(format_args!(
                "completed, {bytes} bytes, {chunks} {}, {resumes} {}{renewed}, crc32c {crc32c}",
                if *chunks == 1 { "chunk" } else { "chunks" },
                if *resumes == 1 { "resume" } else { "resumes" },
            )),
            FinalState::Rejected { code, detail } => self.complain(format_args!("rejected: {code}: {detail}")),
            FinalState::Cancelled => self.complain(format_args!("cancelled")),
            FinalState::Expired => self.complain(format_args!("expired")),
        }
    }

    /// Shows why there is no end to report.
    pub(super) fn failed(&self, error: &Error, resumable: bool) {
        self.bar.finish_and_clear();
        let hint = if resumable { "; run the same command again to resume" } else { "" };
        self.complain(format_args!("failed: {}{hint}", Chain(error)));
    }

    /// Shows that the user stopped it.
    pub(super) fn interrupted(&self, left: Left) {
        self.bar.finish_and_clear();
        self.complain(format_args!(
            "{}",
            match left {
                Left::ToResume => "stopped; run the same command again to resume",
                Left::NotBegun => "stopped before the broker had admitted it",
                Left::Cancelled => "stopped; the upload is cancelled, since a pipe cannot be read again",
                Left::ToExpire => "stopped; the upload could not be cancelled, and will expire",
            }
        ));
    }

    fn say(&self, text: fmt::Arguments<'_>) {
        self.show.write(&format!("{}: {text}", self.name), &self.bar);
    }

    fn complain(&self, text: fmt::Arguments<'_>) {
        self.show.write_error(&format!("{}: {text}", self.name), &self.bar);
    }
}

const fn why(anew: Anew) -> &'static str {
    match anew {
        Anew::FileChanged => "the file has changed since",
        Anew::OrderChanged => "name, policy, type, transfer or metadata are others now",
        Anew::OtherBroker => "the earlier run used another broker",
        Anew::Forgotten => "the broker does not know the earlier upload any more",
        Anew::Ended => "the earlier upload has ended",
        Anew::StateUnreadable => "the state file cannot be read",
    }
}

/// An error with all that it comes from, in one line.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
