//! Names of what is made for a Gateway. One function each, so that every part of the control plane finds the same object.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Longest Service name and label value (RFC 1123 label).
const LIMIT: usize = 63;
const SUFFIX: &str = "-nebula";
/// Hexadecimal digits of the hash in a name that had to be changed.
const HASH: usize = 10;

/// Name of the Deployment, Service and ServiceAccount of the Gateway called `gateway`: `<gateway>-nebula`.
///
/// A Service's name is a DNS label of at most 63 characters that begins with a letter; a Gateway's name may have 253
/// characters, dots, and a digit at its beginning. A name that does not fit is made to fit and ends with a hash of the
/// whole name: `<stem>-nebula-<hash>`. No name that fits ends so (`nebula` is not hexadecimal), so that two Gateways
/// never share one, whatever their users call them.
pub fn resource_name(gateway: &str) -> String {
    let begins_well = gateway.starts_with(|first: char| first.is_ascii_lowercase());
    if begins_well && !gateway.contains('.') && gateway.len() + SUFFIX.len() <= LIMIT {
        return format!("{gateway}{SUFFIX}");
    }
    let prefix = if begins_well { "" } else { "g" };
    let room = LIMIT - SUFFIX.len() - HASH - 1 - prefix.len();
    let stem: String = gateway.chars().take(room).map(|c| if c == '.' { '-' } else { c }).collect();
    format!("{prefix}{}{SUFFIX}-{}", stem.trim_end_matches('-'), hash(gateway))
}

/// The value of the label that names the Gateway called `gateway`; at most 63 characters. A value that had to be cut
/// holds an underscore, which no Gateway's name does, so that it is no other Gateway's.
pub fn label_value(gateway: &str) -> String {
    if gateway.len() <= LIMIT {
        return gateway.to_owned();
    }
    let stem: String = gateway.chars().take(LIMIT - HASH - 1).collect();
    format!("{}_{}", stem.trim_end_matches(['-', '.']), hash(gateway))
}

/// The value of the label that tells which control plane made an object: one for each `spec.controllerName`.
pub fn controller_label(controller_name: &str) -> String {
    hash(controller_name)
}

/// Name of the ConfigMap with what the proxies of a namespace trust. Proxies of two control planes may share a namespace.
pub fn bundle_name(controller_label: &str) -> String {
    format!("nebula-ca-{controller_label}")
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(HASH / 2).fold(String::with_capacity(HASH), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_service_name(name: &str) -> bool {
        name.len() <= 63
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    }

    #[test]
    fn a_short_name_stays_readable() {
        assert_eq!(resource_name("edge"), "edge-nebula");
        assert_eq!(label_value("edge"), "edge");
    }

    #[test]
    fn every_gateway_name_gives_a_service_name_and_a_label_value() {
        let longest = format!("{}.{}", "a".repeat(63), "b".repeat(189));
        assert_eq!(longest.len(), 253);
        let at_limit = "c".repeat(56);
        let dash_at_the_cut = format!("{}-{}", "d".repeat(44), "e".repeat(100));
        for name in [longest.as_str(), &at_limit, &"c".repeat(57), "7up", "a.b", "1.2.3", &dash_at_the_cut] {
            assert!(is_service_name(&resource_name(name)), "{name} -> {}", resource_name(name));
            let label = label_value(name);
            assert!(label.len() <= 63 && !label.ends_with(['-', '.']), "{name} -> {label}");
        }
        assert_eq!(resource_name(&at_limit), format!("{at_limit}-nebula"));
    }

    #[test]
    fn names_that_differ_only_where_they_are_cut_stay_different() {
        let (one, two) = (format!("{}1", "x".repeat(252)), format!("{}2", "x".repeat(252)));
        assert_ne!(resource_name(&one), resource_name(&two));
        assert_ne!(label_value(&one), label_value(&two));
        assert_ne!(resource_name("a.b"), resource_name("a-b"));
    }

    #[test]
    fn no_gateway_can_be_called_so_that_it_gets_the_objects_of_another_one() {
        for hashed in ["a.b", "7up", &"x".repeat(100)] {
            let name = resource_name(hashed);
            assert!(!name.ends_with(SUFFIX), "{name} could be made of a name that fits");
        }
        let label = label_value(&"x".repeat(100));
        assert!(label.contains('_'), "{label} is a valid name of a Gateway");
    }
}
