//! The control plane's process: settings, logs, signals. Everything else is in the library.

use std::{error::Error, process::ExitCode};

use clap::Parser as _;
use control_plane::config::Settings;
use kit_process::{drain, error::chain, logging};

/// Gives memory back after a large list has been read.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match start(Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("control-plane: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn start(settings: Settings) -> Result<(), Box<dyn Error>> {
    // The client logs each failed request as an error; whoever asked says what it means, once. A later directive wins.
    logging::init(&format!("kube_client=off,{}", settings.log), settings.log_format.into())?;
    // An error means that a provider is installed already, which nothing before this line does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (trigger, drain) = drain::channel();
        let running = control_plane::run(settings, drain);
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => return Ok(ended?),
            signal = drain::termination() => signal?,
        }
        trigger.start();
        Ok(running.await?)
    })
}
