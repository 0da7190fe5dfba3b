//! The crate as its users see it.

#[cfg(test)]
mod cost;
#[cfg(test)]
mod flood;
