//! Logs of the process itself, on standard error. (The access log is the engine's and goes to standard output.)

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A log filter that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("log filter {filter:?} (want a level such as `info`, or `info,gateway_engine=debug`)")]
pub struct InvalidFilter {
    /// As given.
    pub filter: String,
    /// Why not.
    #[source]
    pub source: tracing_subscriber::filter::ParseError,
}

/// Installs the process's subscriber. Call it once, from `main`; a second call changes nothing.
///
/// # Errors: [`InvalidFilter`] where `filter` does not parse.
pub fn init(filter: &str, format: Format) -> Result<(), InvalidFilter> {
    let filter = EnvFilter::try_new(filter).map_err(|source| InvalidFilter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a subscriber is installed already.
    let _ = match format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
