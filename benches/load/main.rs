//! What one create costs, beside a bare program that does only what must be done.
//!
//! `cargo bench --bench load` boots the broker, a real Redis and a stand-in for storage as processes of their own,
//! drives `POST /v1/uploads`, does the same with the bare program in alternating rounds, and prints both and their
//! ratio. Rounds alternate because a machine is never equally fast for long: what disturbs one round of the broker
//! disturbs the next round of the bare program as well, and the median of the ratios is far steadier than a number of
//! either. Nothing is asserted about time; any answer but `201` fails the run.
//!
//! This one program is the driver, and, started by itself with a first argument, the bare program or storage.

mod bare;
mod broker;
mod client;
mod machine;
mod process;
mod report;
mod storage;
mod users;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::broker::{Storage, System};
use crate::client::Until;
use crate::report::{Measured, Round, Table};
use crate::users::Users;

/// Measures the broker beside a bare program.
#[derive(Parser)]
#[command(name = "load")]
struct Arguments {
    /// Connections that send creates, one at a time each.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// How long each round asks for as much as it can get.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many creates each round has, in place of a time.
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    creates: Option<u64>,
    /// Rounds of each system.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Creates a second while latency is measured.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long latency is measured in each round.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    paced_seconds: u64,
    /// Connections that are open while memory is read.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=50_000))]
    idle_connections: u16,
    /// Users, each with a token of their own.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    users: u32,
    /// What stands in for storage.
    #[arg(long, value_enum, default_value_t = StorageKind::StandIn)]
    storage: StorageKind,
    /// Measure one system alone.
    #[arg(long, value_enum)]
    only: Option<SystemKind>,
    /// Runs when "load" contains it, as other benchmarks do.
    #[arg(hide = true)]
    filter: Option<String>,
    /// What `cargo bench` says.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StorageKind {
    /// Opens sessions and nothing else, as fast as can be.
    StandIn,
    /// `upload-broker emulator`: faithful, and slower.
    Emulator,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SystemKind {
    Broker,
    Bare,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = if arguments.iter().any(|argument| argument == "--bench") {
        drive(&Arguments::parse())
    } else {
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["storage"] => threads().and_then(|threads| threads.block_on(storage::serve())),
            ["bare", redis, endpoint, key_set] => {
                threads().and_then(|threads| threads.block_on(bare::serve(redis, endpoint, key_set.as_ref())))
            }
            // Started by `cargo test`, which is not to measure time.
            _ => Ok(()),
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for cause in error.chain() {
                // Nothing is left to be done where even standard error cannot be written.
                let _ = say(&format!("load: {cause}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn threads() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Runtime::new()?)
}

/// Tells the driver where this process listens.
fn announce(address: SocketAddr) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{address}")?;
    output.flush()
}

fn drive(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.filter.as_ref().is_some_and(|filter| !"load".contains(filter.as_str())) {
        return Ok(());
    }
    // Sockets of the phase with most of them, and room for all else that a process opens.
    machine::allow_open_files(usize::from(arguments.connections.max(arguments.idle_connections)) + 512)?;
    // One thread: enough for this load, and what it leaves is for those who are measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // The handlers make these signals an ordinary return, on which every child is killed.
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        let mut hung_up = signal(SignalKind::hangup())?;
        tokio::select! {
            result = measure(arguments) => result,
            _ = interrupted.recv() => bail!("interrupted"),
            _ = terminated.recv() => bail!("terminated"),
            _ = hung_up.recv() => bail!("the terminal went away"),
        }
    })
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let busy = machine::busy_share().await?;
    if busy > 0.1 {
        say(&format!(
            "warning: {:.0} % of the machine is busy with other work; do not believe these numbers",
            busy * 100.0
        ))?;
    }
    let directory = tempfile::tempdir()?;
    let directory = directory.path();
    let users = Users::new(arguments.users)?;
    broker::write_keys(directory, &users)?;

    let storage = match arguments.storage {
        StorageKind::StandIn => Storage::stand_in(directory).await?,
        StorageKind::Emulator => Storage::emulator(directory).await?,
    };
    let connections = usize::from(arguments.connections);
    let alone = client::closed_loop(&storage.initiations, connections, Until::Elapsed(Duration::from_secs(2))).await?;
    let storage_throughput = f64::from(alone.answers) / alone.elapsed.as_secs_f64();
    say(&format!(
        "{connections} connections, {} users, {} rounds; storage alone opens {storage_throughput:.0} sessions/s",
        arguments.users, arguments.rounds
    ))?;

    let mut systems = Vec::new();
    if arguments.only != Some(SystemKind::Bare) {
        systems.push(System::broker(directory, &storage, &users).await?);
    }
    if arguments.only != Some(SystemKind::Broker) {
        systems.push(System::bare(directory, &storage, &users).await?);
    }
    let mut measured = Vec::new();
    for system in &systems {
        measured.push(warm_up(system, arguments).await.with_context(|| system.process.failed())?);
    }
    for number in 1..=arguments.rounds {
        for (system, measured) in systems.iter().zip(&mut measured) {
            let round = round(system, arguments).await.with_context(|| system.process.failed())?;
            say(&format!(
                "round {number}: {:<8}{:>8.0} creates/s{:>10.1} CPU ms per 1000 creates",
                system.name, round.throughput, round.cpu
            ))?;
            measured.rounds.push(round);
            measured.loaded = system.process.resident_mebibytes()?;
        }
    }
    if measured.iter().flat_map(|system| &system.rounds).any(|round| round.throughput * 2.0 > storage_throughput) {
        say("warning: storage is not twice as fast as what is measured")?;
    }

    let mut output = io::stdout().lock();
    let connections = usize::from(arguments.idle_connections);
    write!(output, "\n{}", Table { systems: &measured, rate: arguments.rate, connections })?;
    Ok(output.flush()?)
}

/// Reads the memory of a fresh process, then with many connections, and lets every user be seen once, so that the
/// rounds verify no token.
async fn warm_up(system: &System, arguments: &Arguments) -> anyhow::Result<Measured> {
    let idle = system.process.resident_mebibytes()?;
    let held = client::hold(&system.creates, arguments.idle_connections.into()).await?;
    let connected = system.process.resident_mebibytes()?;
    drop(held);
    let everyone = Until::Answers(2 * u64::from(arguments.users));
    client::closed_loop(&system.creates, arguments.connections.into(), everyone).await?;
    Ok(Measured { name: system.name, idle, connected, loaded: connected, rounds: Vec::new() })
}

async fn round(system: &System, arguments: &Arguments) -> anyhow::Result<Round> {
    let connections = arguments.connections.into();
    let until = arguments.creates.map_or(Until::Elapsed(Duration::from_secs(arguments.seconds)), Until::Answers);

    system.redis.empty()?;
    let (cpu, redis_cpu) = (system.process.cpu_time()?, system.redis.process.cpu_time()?);
    let outcome = client::closed_loop(&system.creates, connections, until).await?;
    let cpu = system.process.cpu_time()?.saturating_sub(cpu);
    let redis_cpu = system.redis.process.cpu_time()?.saturating_sub(redis_cpu);

    system.redis.empty()?;
    let time = Duration::from_secs(arguments.paced_seconds);
    let latencies = client::paced(&system.creates, connections, arguments.rate, time).await?;

    let answers = f64::from(outcome.answers);
    Ok(Round {
        throughput: answers / outcome.elapsed.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / answers,
        redis_cpu: redis_cpu.as_secs_f64() * 1e6 / answers,
        latencies,
    })
}

/// Progress and warnings go to standard error, so that standard output is the table.
fn say(line: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{line}")
}
