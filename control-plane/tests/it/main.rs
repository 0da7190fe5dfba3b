//! The control plane's parts against a fake API server that has the properties they rely on: versions, conflicts,
//! refusals, and silence.

#[cfg(test)]
mod authentication;
#[cfg(test)]
mod authority;
#[cfg(test)]
mod chart;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod lease;
#[cfg(test)]
mod process;
#[cfg(test)]
mod provisioner;
#[cfg(test)]
mod status;
#[cfg(test)]
mod watch;
