//! Debian packages that the cluster stands on. Only what is missing is installed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// A file that proves the package, and the package.
const NEEDED: &[(&str, &str)] = &[
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/bin/buildah", "buildah"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/bin/openssl", "openssl"),
];

/// Installs what is missing for the cluster; does nothing (and needs no network) when all is there.
///
/// # Errors: not root, or the packages cannot be installed.
pub fn install_missing() -> Result<()> {
    let ip = if shell::find_program("ip").is_none() { Some("iproute2") } else { None };
    install_packages(missing(NEEDED).chain(ip).collect())
}

/// Installs those of `needed` (a file that proves the package, and the package) that are missing.
///
/// # Errors: not root, or the packages cannot be installed.
pub fn install(needed: &[(&str, &'static str)]) -> Result<()> {
    install_packages(missing(needed).collect())
}

fn missing<'a>(needed: &'a [(&str, &'static str)]) -> impl Iterator<Item = &'static str> + use<'a> {
    needed.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package)
}

fn install_packages(missing: Vec<&str>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing Debian packages: {}", missing.join(" "));
    shell::run(Command::new("apt-get").args(["-q", "update"]))?;
    shell::run(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "install", "-y", "--no-install-recommends"])
            .args(&missing),
    )
    .with_context(|| format!("install {} (this machine needs Debian and root)", missing.join(" ")))
}
