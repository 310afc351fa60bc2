//! Child processes that do not outlive the driver, and what the kernel knows of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A child process. Killed when dropped, and with it on every way out of the driver, a panic included.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` without input; what it prints goes to `{name}.log` in `directory`.
    pub(crate) fn start(name: &'static str, command: &mut Command, directory: &Path) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let errors = output.try_clone().context("the log file cannot be shared")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("{name} cannot be started ({})", command.get_program().display()))?;
        Ok(Self { name, child, log })
    }

    /// Asks `ready` every few milliseconds until it has an answer. Gives up when the child has left, or is silent too long.
    pub(crate) async fn wait_until<T>(
        &mut self,
        what: &str,
        mut ready: impl AsyncFnMut(&Path) -> Option<T>,
    ) -> anyhow::Result<T> {
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(answer) = ready(&self.log).await {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait().context("a child process cannot be watched")? {
                bail!("{} left with {status} before {what}{}", self.name, self.last_words());
            }
            if Instant::now() > give_up {
                bail!("{} took longer than 20 s until {what}{}", self.name, self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Says that something went wrong with this process, and quotes its log.
    pub(crate) fn failed(&self) -> String {
        format!("{} failed while it was measured{}", self.name, self.last_words())
    }

    /// The end of what the process printed, to be put behind a message.
    fn last_words(&self) -> String {
        // Not worth an error of its own: the message that it is put behind says what is wrong.
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        match &lines[lines.len().saturating_sub(10)..] {
            [] => ", without a word".to_owned(),
            last => format!("; its last words:\n{}", last.join("\n")),
        }
    }

    /// User and system time that the process has used so far, all its threads together (proc(5), `/proc/pid/stat`).
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let text = self.read("stat")?;
        // The second field is the command in parentheses, and may hold spaces and parentheses itself.
        let after_command = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = |field: usize| {
            let number = after_command.split_ascii_whitespace().nth(field - 3)?;
            number.parse::<u32>().ok()
        };
        let (Some(user), Some(system)) = (ticks(14), ticks(15)) else {
            bail!("/proc/{}/stat has another form than expected", self.child.id());
        };
        Ok(Duration::from_secs_f64(f64::from(user.saturating_add(system)) / ticks_per_second()?))
    }

    /// The memory that the process has in use, in MiB (proc(5), `VmRSS` in `/proc/pid/status`).
    pub(crate) fn resident_mebibytes(&self) -> anyhow::Result<f64> {
        let text = self.read("status")?;
        let kibibytes = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u32>().ok())
            .with_context(|| format!("/proc/{}/status does not tell VmRSS", self.child.id()))?;
        Ok(f64::from(kibibytes) / 1024.0)
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("{path} cannot be read, which {} is measured by", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the child is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The unit of the times in `/proc/pid/stat`, from the auxiliary vector that the kernel gives every program
/// (getauxval(3), `AT_CLKTCK`).
fn ticks_per_second() -> anyhow::Result<f64> {
    const AT_CLKTCK: usize = 17;
    const WORD: usize = size_of::<usize>();
    let vector = fs::read("/proc/self/auxv").context("/proc/self/auxv cannot be read")?;
    let word = |bytes: &[u8]| <[u8; WORD]>::try_from(bytes).map(usize::from_ne_bytes).ok();
    vector
        .chunks_exact(2 * WORD)
        .find(|entry| word(&entry[..WORD]) == Some(AT_CLKTCK))
        .and_then(|entry| u32::try_from(word(&entry[WORD..])?).ok())
        .filter(|ticks| *ticks > 0)
        .map(f64::from)
        .context("the kernel does not tell its clock ticks")
}
