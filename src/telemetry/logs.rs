//! Diagnostics on stderr: text on a terminal, JSON otherwise.
//!
//! Owns: the subscriber. Lets only this program's own events below `warn` through, whatever the level: HTTP
//! and TLS libraries write headers and keys at `debug` and `trace`.

use std::io::IsTerminal;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// Installs the subscriber for the whole process. A second call changes nothing.
pub fn init(level: Level, format: Format) {
    let own = Targets::new()
        .with_default(LevelFilter::from_level(level).min(LevelFilter::WARN))
        .with_target(env!("CARGO_PKG_NAME"), level);
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let layer = if json {
        tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed()
    } else {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        tracing_subscriber::fmt::layer()
            .with_ansi(colour)
            .with_target(false)
            .with_writer(std::io::stderr)
            .boxed()
    };
    // Only a second call can fail, and then the first one's subscriber is as good.
    let _ = tracing_subscriber::registry().with(layer.with_filter(own)).try_init();
}
