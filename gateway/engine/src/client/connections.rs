//! How many connections clients may have open at once: at a socket, and from one address.
//!
//! Invariants: what is counted is uncounted when its [`Admission`] goes; there is an entry for as many addresses as have a
//! connection, no more. Addresses are counted only while there is a limit for them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

/// The connections of one socket, of all workers.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: AtomicUsize,
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection, counted while this lives.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: Arc<Connections>,
    client: Option<IpAddr>,
}

impl Connections {
    /// Counts one more, where there are fewer than `most`.
    pub(crate) fn admit(self: &Arc<Self>, most: usize) -> Option<Admission> {
        let more = |open: usize| (open < most).then_some(open.saturating_add(1));
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Admission { connections: self.clone(), client: None })
    }
}

impl Admission {
    /// Counts it for `address` as well, where that has fewer than `most`; whether it has.
    pub(crate) fn of_client(&mut self, address: IpAddr, most: usize) -> bool {
        if most == usize::MAX {
            return true;
        }
        let client = client(address);
        let mut by_client = self.connections.by_client.lock();
        let open = by_client.get(&client).copied().unwrap_or(0);
        if open >= most {
            return false;
        }
        by_client.insert(client, open + 1);
        self.client = Some(client);
        true
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut by_client = self.connections.by_client.lock();
        match by_client.get_mut(&client) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(by_client.remove(&client)),
        }
    }
}

/// What counts as one client: an IPv4 address, or the network that one subscriber of IPv6 has at least.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_no_more_connections_than_it_may_and_one_that_ends_makes_room() {
        let connections = Arc::<Connections>::default();
        let first = connections.admit(2).unwrap();
        let _second = connections.admit(2).unwrap();
        assert!(connections.admit(2).is_none());
        drop(first);
        assert!(connections.admit(2).is_some());
    }

    #[test]
    fn clients_are_counted_apart_and_forgotten_when_they_have_gone() {
        let connections = Arc::<Connections>::default();
        let admit = |address: &str| {
            let mut admission = connections.admit(usize::MAX).unwrap();
            admission.of_client(address.parse().unwrap(), 1).then_some(admission)
        };
        let one = admit("192.0.2.1").unwrap();
        assert!(admit("::ffff:192.0.2.1").is_none(), "the same address");
        let other = admit("192.0.2.2").unwrap();
        let six = admit("2001:db8::1").unwrap();
        assert!(admit("2001:db8::ffff:2").is_none(), "the same 64 bits");
        assert!(admit("2001:db8:0:1::1").is_some());
        drop(one);
        assert!(admit("192.0.2.1").is_some());
        drop((other, six));
        assert!(connections.by_client.lock().is_empty());
        assert_eq!(connections.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn without_a_limit_addresses_are_not_counted() {
        let connections = Arc::<Connections>::default();
        let mut admission = connections.admit(usize::MAX).unwrap();
        assert!(admission.of_client("192.0.2.1".parse().unwrap(), usize::MAX));
        assert!(connections.by_client.lock().is_empty());
    }
}
