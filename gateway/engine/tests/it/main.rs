//! Tests against a running engine, over loopback.

#[cfg(test)]
mod clients;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod panic;
#[cfg(test)]
mod proxying;
#[cfg(test)]
mod robustness;
#[cfg(test)]
mod strictness;
#[cfg(test)]
mod tls;
