//! Tests through the public interface: one binary.

// `cfg(test)` tells clippy that helpers in these files are tests too.
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod suite;
