//! Tests against a running engine, over loopback.

#[cfg(test)]
mod balancing;
#[cfg(test)]
mod breaker;
#[cfg(test)]
mod buffering;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod health;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod outliers;
#[cfg(test)]
mod panic;
#[cfg(test)]
mod protection;
#[cfg(test)]
mod proxying;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod robustness;
#[cfg(test)]
mod strictness;
#[cfg(test)]
mod tls;
