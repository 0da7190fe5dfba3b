//! Where things are: read once from flags and environment, then passed on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

/// Flags that every command takes.
#[derive(Args)]
pub struct Places {
    /// What is slow to build is kept here, keyed by its sources [default: ~/.cache/nebula].
    #[arg(long, global = true, env = "NEBULA_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
    #[arg(long, global = true, hide = true, env = "HOME")]
    home: Option<PathBuf>,
    #[arg(long, global = true, hide = true, env = "CARGO_TARGET_DIR")]
    target_dir: Option<PathBuf>,
}

/// Absolute paths of the checkout, the cache and Cargo's output.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The root of the checkout this program was built from.
    pub repository: PathBuf,
    /// Survives between runs; everything in it can be made again.
    pub cache: PathBuf,
    /// Cargo's output directory.
    pub target: PathBuf,
}

impl Settings {
    /// # Errors: neither a cache directory nor a home is known, or the cache cannot be created.
    pub fn new(arguments: Places) -> Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("find the root of the checkout")?
            .to_owned();
        let cache = match (arguments.cache, arguments.home) {
            (Some(cache), _) => std::path::absolute(cache)?,
            (None, Some(home)) => home.join(".cache/nebula"),
            (None, None) => anyhow::bail!("neither NEBULA_CACHE nor HOME is set"),
        };
        std::fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        let target = match arguments.target_dir {
            Some(target) => std::path::absolute(target)?,
            None => repository.join("target"),
        };
        Ok(Self { repository, cache, target })
    }

    /// A file below the root of the checkout.
    pub fn file(&self, path: &str) -> PathBuf {
        self.repository.join(path)
    }
}
