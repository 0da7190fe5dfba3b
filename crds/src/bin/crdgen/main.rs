//! Writes what is generated in this crate: `crds/generated/` from the Rust types of our own kinds and, when asked, the
//! Rust types of the Gateway API from upstream's CRDs. `crds/generate.sh` calls it with everything it needs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

mod gateway_api;
mod names;

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut crds = None;
    let mut kopium = PathBuf::from("kopium");
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = PathBuf::from(args.next().with_context(|| format!("{flag} needs a value"))?);
        match flag.as_str() {
            "--gateway-api" => crds = Some(value),
            "--kopium" => kopium = value,
            _ => bail!("unknown flag {flag}; there are --gateway-api DIR and --kopium FILE"),
        }
    }
    if let Some(crds) = crds {
        gateway_api::generate(&kopium, &crds, &root.join("src/gateway_api"))?;
    }
    Ok(())
}
