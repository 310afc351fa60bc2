//! Log lines: JSON on standard error, or text for people. Libraries that write URLs, headers or token answers into
//! their own debug lines are capped here, under whatever filter the user sets: a session URI must appear in no log.

use std::io::IsTerminal as _;

use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// For people.
    Text,
}

/// Libraries whose lines can hold URLs, headers or tokens, and the most that they may say.
const CAPPED: [(&str, LevelFilter); 13] = [
    ("h2", LevelFilter::WARN),
    ("hyper", LevelFilter::INFO),
    ("hyper_rustls", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("reqwest", LevelFilter::INFO),
    ("redis", LevelFilter::INFO),
    ("rustls", LevelFilter::INFO),
    ("tokio_util", LevelFilter::INFO),
    ("tower", LevelFilter::INFO),
    ("tower_http", LevelFilter::INFO),
    ("axum", LevelFilter::INFO),
    ("cel", LevelFilter::INFO),
    // Logs the signed assertion and the whole token answer at debug.
    ("yup_oauth2", LevelFilter::INFO),
];

/// Drops what a capped library says beyond its cap.
struct Caps;

impl<S: tracing::Subscriber> Layer<S> for Caps {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_allowed(metadata.target(), LevelFilter::from_level(*metadata.level()))
    }
}

fn is_allowed(target: &str, level: LevelFilter) -> bool {
    let library = target.split("::").next().unwrap_or(target);
    CAPPED.iter().all(|(capped, most)| *capped != library || level <= *most)
}

/// Where lines go that account for what was granted, cancelled and administered. They are written whatever the filter
/// says in general: only a directive that names this target changes that.
pub(crate) const AUDIT: &str = "upload_broker::audit";

/// The filter that `directives` describe. Who wants fewer lines does not mean those of [`AUDIT`], unless he says so.
fn filter(directives: &str) -> anyhow::Result<EnvFilter> {
    let told = |error: &dyn std::fmt::Display| anyhow::anyhow!("RUST_LOG: {error}");
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let filter = filter.parse(directives).map_err(|error| told(&error))?;
    if directives.contains(AUDIT) {
        return Ok(filter);
    }
    Ok(filter.add_directive(format!("{AUDIT}=info").parse().map_err(|error| told(&error))?))
}

/// Sends log lines to standard error, filtered by the directives in `directives` (`RUST_LOG`), `info` if there are none.
///
/// Lines that cannot be written are dropped rather than waited for.
///
/// # Errors
/// When a directive is malformed, or logging is set up already.
pub fn init(format: LogFormat, directives: Option<&str>) -> anyhow::Result<()> {
    let filter = filter(directives.unwrap_or_default())?;
    let registry = tracing_subscriber::registry().with(filter).with(Caps);
    match format {
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
            registry.with(lines.with_span_list(false)).try_init()?;
        }
        LogFormat::Text => {
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_is_written_unless_a_directive_names_it() {
        for (directives, audit, others) in [
            ("", true, true),
            ("warn", true, false),
            ("off", true, false),
            ("error,upload_broker=warn", true, false),
            ("upload_broker=debug", true, true),
            ("info,upload_broker::audit=off", false, true),
        ] {
            let subscriber = tracing_subscriber::registry().with(filter(directives).unwrap());
            tracing::subscriber::with_default(subscriber, || {
                assert_eq!(tracing::enabled!(target: AUDIT, tracing::Level::INFO), audit, "{directives:?}");
                let written = tracing::enabled!(target: "upload_broker::uploads", tracing::Level::INFO);
                assert_eq!(written, others, "{directives:?}");
            });
        }
    }

    #[test]
    fn libraries_that_print_secrets_are_capped_and_ours_is_not() {
        for (target, level, allowed) in [
            ("h2::codec::framed_read", LevelFilter::TRACE, false),
            ("h2::codec::framed_read", LevelFilter::WARN, true),
            ("yup_oauth2::types", LevelFilter::DEBUG, false),
            ("hyper_util::client::legacy::pool", LevelFilter::TRACE, false),
            ("upload_broker::storage", LevelFilter::TRACE, true),
            ("hyperion", LevelFilter::TRACE, true),
        ] {
            assert_eq!(is_allowed(target, level), allowed, "{target} at {level}");
        }
    }
}
