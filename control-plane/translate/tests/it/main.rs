//! Tests of the translator through its public API.

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod incremental;
#[cfg(test)]
mod support;
