//! Rust types of every custom resource that Nebula reads or writes: the Gateway API's (generated) and our own, one kind a file.
//! Invariant: types and schemas only. No client, no IO, no decision: `kube-core` and `kube-derive` are all that is used of kube.

pub mod gateway_api;
