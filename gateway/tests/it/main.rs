//! Drives the real gateway binary: files in, bytes on sockets out.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod authentication;
#[cfg(test)]
mod backend_policies;
#[cfg(test)]
mod client_policies;
#[cfg(test)]
mod discovery;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod json_schema_suite;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod process;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod quickstart;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod validation;
