//! Tests of the discovery protocol from outside.

#[cfg(test)]
mod authentication;
#[cfg(test)]
mod backend_policies;
#[cfg(test)]
mod client;
#[cfg(test)]
mod client_policies;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod invalid;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod roundtrip;
#[cfg(test)]
mod scope;
#[cfg(test)]
mod server;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod stream;
#[cfg(test)]
mod tls;
