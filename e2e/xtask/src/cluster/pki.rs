//! The cluster's certificates: one authority and what it signs, made with `openssl`, valid for 30 days.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::network::Addresses;
use crate::shell;

/// A leaf certificate: file name, subject and alternative names.
struct Leaf<'a> {
    name: &'a str,
    /// Kubernetes reads O as a group and CN as the user.
    organization: Option<&'a str>,
    common_name: &'a str,
    alternative_names: String,
}

/// Writes `ca`, `apiserver`, `admin` and `kubelet` (`.crt` and `.key`) and the key that signs ServiceAccount tokens.
pub fn create(directory: &Path, addresses: Addresses, node: &str) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let address = addresses.node();
    issue(directory, "ca", "CN = nebula-test-cluster", "basicConstraints = critical, CA:TRUE\n", None)?;
    for leaf in [
        Leaf {
            name: "apiserver",
            organization: None,
            common_name: "kube-apiserver",
            alternative_names: format!(
                "DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, DNS:localhost, IP:127.0.0.1, \
                 IP:{address}, IP:{}",
                addresses.kubernetes_service()
            ),
        },
        Leaf {
            name: "admin",
            organization: Some("system:masters"),
            common_name: "admin",
            alternative_names: "DNS:admin".to_owned(),
        },
        Leaf {
            name: "kubelet",
            organization: Some("system:nodes"),
            common_name: &format!("system:node:{node}"),
            alternative_names: format!("DNS:{node}, IP:{address}"),
        },
    ] {
        let mut subject = String::new();
        if let Some(organization) = leaf.organization {
            writeln!(subject, "O = {organization}")?;
        }
        write!(subject, "CN = {}", leaf.common_name)?;
        let extensions = format!(
            "basicConstraints = critical, CA:FALSE\nextendedKeyUsage = clientAuth, serverAuth\nsubjectAltName = {}\n",
            leaf.alternative_names
        );
        issue(directory, leaf.name, &subject, &extensions, Some("ca"))?;
    }
    shell::run(Command::new("openssl").current_dir(directory).args([
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        "service-accounts.key",
    ]))
}

fn issue(directory: &Path, name: &str, subject: &str, extensions: &str, issuer: Option<&str>) -> Result<()> {
    let config = directory.join(format!("{name}.cnf"));
    std::fs::write(
        &config,
        format!("[req]\nprompt = no\ndistinguished_name = subject\n[subject]\n{subject}\n[extensions]\n{extensions}"),
    )?;
    let mut command = Command::new("openssl");
    command.current_dir(directory).args(["req", "-x509", "-days", "30", "-nodes", "-extensions", "extensions"]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-config"]).arg(&config);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]);
    if let Some(issuer) = issuer {
        command.args(["-CA", &format!("{issuer}.crt"), "-CAkey", &format!("{issuer}.key")]);
    }
    shell::run(&mut command)
}
