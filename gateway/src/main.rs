//! The gateway's process: what is global in it, and its exit code.

use std::process::ExitCode;

use gateway::{
    config::{LogFormat, Settings, Source},
    run, source,
};
use kit_process::{error::chain, logging};
use prometheus_client::registry::Registry;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Threads of the control runtime, which serves no traffic.
const CONTROL_THREADS: usize = 2;

fn main() -> ExitCode {
    let settings = match Settings::from_process() {
        Ok(settings) => settings,
        Err(error) => {
            // A closed standard output is no reason to fail.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let format = match settings.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    if let Err(error) = logging::init(&settings.log, format) {
        return fail(&error);
    }
    match (settings.check, &settings.source) {
        (true, Source::Files(root)) => check(root),
        _ => serve(settings),
    }
}

fn check(root: &std::path::Path) -> ExitCode {
    match source::files::check(root) {
        Ok(problems) => {
            for problem in &problems {
                println!("{problem}");
            }
            if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error),
    }
}

fn serve(settings: Settings) -> ExitCode {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("gateway: another crypto provider is installed already");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let registry = Registry::with_prefix("gateway");
    match runtime.block_on(run::run(settings, registry, run::terminated)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One line, as the user reads it.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("gateway: {}", chain(error));
    ExitCode::FAILURE
}
