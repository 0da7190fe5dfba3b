//! Tests through the public interface: one binary.

mod suite;
