//! The machine that everything runs on: what may falsify a measurement, and what a measurement needs.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

/// The share of all processors that is in use for one second from now, 0 to 1 (proc(5), `/proc/stat`).
pub(crate) async fn busy_share() -> anyhow::Result<f64> {
    let (idle_before, all_before) = processor_ticks()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (idle_after, all_after) = processor_ticks()?;
    let idle = (idle_after - idle_before) / (all_after - all_before).max(1.0);
    Ok((1.0 - idle).clamp(0.0, 1.0))
}

/// Clock ticks since the start of the machine: idle ones (waiting for a disk included), and all.
fn processor_ticks() -> anyhow::Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat cannot be read")?;
    let first = text.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; what follows is contained in user and nice.
    let ticks: Vec<f64> = first.split_ascii_whitespace().skip(1).take(8).filter_map(|tick| tick.parse().ok()).collect();
    let [_, _, _, idle, waiting, ..] = ticks[..] else {
        anyhow::bail!("/proc/stat has another form than expected");
    };
    Ok((idle + waiting, ticks.iter().sum()))
}

/// Runs the driver anew under a higher limit of open files where `needed` is above the present one, since desks
/// commonly begin with 1024. The children inherit it.
pub(crate) fn allow_open_files(needed: usize) -> anyhow::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits").context("/proc/self/limits cannot be read")?;
    let allowed = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_ascii_whitespace().next()?.parse::<usize>().ok());
    if allowed.is_none_or(|allowed| allowed >= needed) {
        return Ok(());
    }
    // The shell, because raising the limit from here would take unsafe code or one more crate.
    let failed = Command::new("sh")
        .args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh", &needed.to_string()])
        .arg(std::env::current_exe().context("the driver does not find itself")?)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(failed).context("the limit of open files cannot be raised")
}
