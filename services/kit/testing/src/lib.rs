//! What tests of several crates need. Only ever a development dependency: a test's helper may panic.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// Ports that the system gives to nobody by itself: below its range for outgoing connections, and above the well-known.
const FIRST: u16 = 10_000;
/// Ports of one process, more than its tests need, so that none comes around while another test is about to open it.
const PER_PROCESS: u16 = 1_000;
/// Processes whose ports differ.
const PROCESSES: u32 = 20;

/// A port of loopback that nobody listens on.
///
/// A port from the system's own range (bound to port 0 and let go) will not do: any outgoing connection may take it
/// before it is opened, and a connection to it while it is closed may meet itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % PROCESSES).unwrap_or_default();
    loop {
        let port = FIRST + process * PER_PROCESS + NEXT.fetch_add(1, Ordering::Relaxed) % PER_PROCESS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_can_be_opened() {
        let (one, two) = (free_port(), free_port());
        assert_ne!(one, two);
        assert!((FIRST..FIRST + 20 * PER_PROCESS).contains(&one));
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, one)).is_ok());
    }
}
