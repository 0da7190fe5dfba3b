//! Tests of the crate from outside, with tokens that others signed: the RFCs' own, those of the npm package `jose`
//! (`tests/vectors`), and those of the crate `jsonwebtoken`.

// `cfg(test)` tells clippy that helpers in these files are tests too.
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod cache;
#[cfg(test)]
mod issuer;
#[cfg(test)]
mod key_sets;
#[cfg(test)]
mod proofs;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod vectors;
