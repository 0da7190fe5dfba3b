//! Tests of the discovery protocol from outside.

#[cfg(test)]
mod generated;
