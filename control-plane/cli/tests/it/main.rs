//! Drives the real binary: files and standard input in, text and exit code out.

#[cfg(test)]
mod arguments;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod onboard;
#[cfg(test)]
mod status;
#[cfg(test)]
mod validate;
#[cfg(test)]
mod why;
