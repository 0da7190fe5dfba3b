//! The edge gateway: serves what Gateway API resources say, from a folder of files or from a control plane.
//!
//! Owns how the process starts, where its configuration comes from, what it says to people (log, admin port, telemetry
//! port) and how it ends; traffic is the engine's. Invariant: no globals, so that another process can embed it. What is
//! global (allocator, crypto provider, log subscriber, signals) belongs to `main`.

pub mod admin;
pub mod config;
pub mod demo;
pub mod engine;
pub mod problems;
pub mod run;
pub mod source;
