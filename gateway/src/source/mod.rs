//! Where the configuration comes from: a folder of files, or a control plane.

pub mod discovery;
pub mod files;
