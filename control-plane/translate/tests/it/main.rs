//! Tests of the translator through its public API.

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod incremental;
#[cfg(test)]
mod ownership;
#[cfg(test)]
mod revisions;
#[cfg(test)]
mod scope;
#[cfg(test)]
mod support;
