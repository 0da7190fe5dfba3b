//! The cluster's addresses, and the one wire that joins its network namespace to the machine.
//! Invariant: two clusters of one machine share no address. There is no way out of the namespace but that wire, and no
//! masquerading: what runs inside cannot leave the machine. The wire and its routes vanish with the namespace.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// How many clusters one machine can hold.
pub const CLUSTERS: u8 = 16;

/// The addresses of the cluster with this index (below [`CLUSTERS`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    index: u8,
}

impl Addresses {
    /// `None` for an index that has no addresses.
    pub fn new(index: u8) -> Option<Self> {
        (index < CLUSTERS).then_some(Self { index })
    }

    /// The index, which names the interface on the machine as well.
    pub fn index(self) -> u8 {
        self.index
    }

    /// The machine's end of the wire.
    pub fn machine(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 29, self.index, 1)
    }

    /// The node's end of the wire; the API server listens here.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 29, self.index, 2)
    }

    /// The pods' range, 4,094 addresses.
    pub fn pods(self) -> String {
        format!("10.{}.0.0/20", 128 + self.index)
    }

    /// The range of cluster IPs.
    pub fn services(self) -> String {
        format!("10.{}.0.0/16", 96 + self.index)
    }

    /// The cluster IP of the API server: the first of the range.
    pub fn kubernetes_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96 + self.index, 0, 1)
    }

    /// The cluster IP of the name server.
    pub fn dns(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96 + self.index, 0, 10)
    }

    /// The range for Services of type LoadBalancer, 4,094 addresses; the upper half is only given to who asks by address.
    pub fn load_balancers(self) -> String {
        format!("172.30.{}.0/20", u16::from(self.index) * 16)
    }

    /// An address for Services of type LoadBalancer that nobody gets without asking for it.
    pub fn static_load_balancer(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.index * 16 + 15, 200)
    }

    /// The interface on the machine.
    pub fn interface(self) -> String {
        format!("nebula{}", self.index)
    }
}

/// Whether the machine has the interface of that cluster.
pub fn interface_exists(addresses: Addresses) -> bool {
    Path::new("/sys/class/net").join(addresses.interface()).exists()
}

/// Lays the wire between the machine and the network namespace of process `init`.
///
/// # Errors: an `ip` command fails, for one because the machine uses one of the ranges itself.
pub fn lay(addresses: Addresses, init: i32) -> Result<()> {
    let interface = addresses.interface();
    let (machine, node) = (addresses.machine(), addresses.node());
    let (balancers, pods, services) = (addresses.load_balancers(), addresses.pods(), addresses.services());
    let mut inside = String::new();
    // A bridge without ports stands for the ranges that only exist in kube-proxy's rules: packets to them need a route.
    writeln!(inside, "link set lo up\naddr add {node}/24 dev eth0\nlink set eth0 up")?;
    writeln!(inside, "link add services type bridge\nlink set services up")?;
    writeln!(inside, "route add {services} dev services\nroute add {balancers} dev services")?;
    let outside = format!(
        "link add {interface} type veth peer name eth0 netns {init}\naddr add {machine}/24 dev {interface}\n\
         link set {interface} up\n"
    );
    let routes = format!("route add {balancers} via {node}\nroute add {pods} via {node}\n");
    batch(Command::new("ip"), &outside)?;
    let mut enter = Command::new("nsenter");
    enter.arg(format!("--net=/proc/{init}/ns/net")).arg("ip");
    batch(enter, &inside)?;
    batch(Command::new("ip"), &routes)
}

/// Takes the machine's end of a wire away, if it is there.
pub fn remove(addresses: Addresses) -> Result<()> {
    if interface_exists(addresses) {
        let removed = shell::run(Command::new("ip").args(["link", "delete", &addresses.interface()]));
        if interface_exists(addresses) {
            return removed;
        }
    }
    Ok(())
}

fn batch(mut command: Command, lines: &str) -> Result<()> {
    shell::output_with_input(command.args(["-batch", "-"]), lines).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_clusters_share_an_address() {
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..CLUSTERS {
            let addresses = Addresses::new(index).expect("in range");
            for range in [
                addresses.pods(),
                addresses.services(),
                addresses.load_balancers(),
                format!("{}/24", addresses.node()),
                addresses.interface(),
            ] {
                assert!(seen.insert(range.clone()), "{range} is given twice");
            }
        }
        assert_eq!(Addresses::new(CLUSTERS), None);
    }

    #[test]
    fn the_static_address_lies_in_the_upper_half_of_its_range() {
        let last = Addresses::new(CLUSTERS - 1).expect("in range");
        assert_eq!(last.load_balancers(), "172.30.240.0/20");
        assert_eq!(last.static_load_balancer(), Ipv4Addr::new(172, 30, 255, 200));
    }
}
