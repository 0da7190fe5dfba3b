//! The control plane's process: settings, logs, signals. Everything else is in the library.

use anyhow::Context as _;
use clap::Parser as _;
use control_plane::config::Settings;
use kit_process::{drain, logging};

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    logging::init(&settings.log, settings.log_format.into())?;
    // An error means that a provider is installed already, which nothing before this line does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let (trigger, drain) = drain::channel();
        let running = control_plane::run(settings, drain);
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => return Ok(ended?),
            signal = drain::termination() => signal.context("listen for signals")?,
        }
        trigger.start();
        Ok(running.await?)
    })
}
