//! Debian packages that the commands stand on. Only what is missing is installed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// What proves that a package (or another that does the same) is there: the name of a program on PATH, or the absolute
/// path of a file; and the package.
pub type Need<'a> = (&'a str, &'static str);

const CLUSTER: &[Need<'_>] = &[
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("buildah", "buildah"),
    ("unshare", "util-linux"),
    ("openssl", "openssl"),
    ("strip", "binutils"),
];

/// What the cluster tests start beside the cluster.
pub const CLUSTER_TESTS: &[Need<'_>] = &[("prometheus", "prometheus")];
/// What building images stands on.
pub const IMAGES: &[Need<'_>] = &[("buildah", "buildah"), ("strip", "binutils")];

/// Installs what is missing for the cluster; does nothing (and needs no network) when all is there.
///
/// # Errors: not root, or the packages cannot be installed.
pub fn install_missing() -> Result<()> {
    install(CLUSTER)
}

/// Installs those of `needed` that are missing.
///
/// # Errors: not root, or the packages cannot be installed.
pub fn install(needed: &[Need<'_>]) -> Result<()> {
    let missing = needed.iter().filter(|(proof, _)| !is_there(proof)).map(|(_, package)| *package);
    let missing: Vec<&str> = missing.collect::<BTreeSet<_>>().into_iter().collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing Debian packages: {}", missing.join(" "));
    shell::run(Command::new("apt-get").args(["-q", "update"]))?;
    shell::run(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Another installation may be under way, as on a machine that has just started.
            .args(["-q", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"])
            .args(&missing),
    )
    .with_context(|| format!("install {} (this machine needs Debian and root)", missing.join(" ")))
}

fn is_there(proof: &str) -> bool {
    if proof.starts_with('/') { Path::new(proof).exists() } else { shell::find_program(proof).is_some() }
}
