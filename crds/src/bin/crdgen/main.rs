//! Writes what is generated from this crate: `crds/generated/` and the chart `helm/nebula-crds` and, when asked, the Rust types
//! of the Gateway API. `crds/generate.sh` calls it with everything it needs.
//!
//! `crdgen [--gateway-api DIR [--kopium FILE]] [--out DIR]`: DIR is the release's source tree; FILE the installed kopium;
//! the output goes to this repository unless `--out` names another root.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

mod charts;
mod gateway_api;
mod names;

fn main() -> anyhow::Result<()> {
    let mut upstream = None;
    let mut kopium = PathBuf::from("kopium");
    let mut out = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = PathBuf::from(args.next().with_context(|| format!("{flag} needs a value"))?);
        match flag.as_str() {
            "--gateway-api" => upstream = Some(value),
            "--kopium" => kopium = value,
            "--out" => out = value,
            _ => bail!("unknown flag {flag}; there are --gateway-api DIR, --kopium FILE and --out DIR"),
        }
    }
    charts::write_own(&out)?;
    if let Some(upstream) = upstream {
        charts::copy_upstream(&out, &upstream)?;
        gateway_api::generate(&kopium, &upstream.join("config/crd/experimental"), &out.join("crds/src/gateway_api"))?;
    }
    Ok(())
}
