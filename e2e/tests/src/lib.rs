//! What the cluster tests are written with: kubectl and helm, an HTTP client that shows every failure, and load.
//! Owns no knowledge of the product but the names of its objects. It asks through the same doors as a user does: the API
//! server and the addresses of Gateways.

pub mod clock;
pub mod gateway;
pub mod http;
pub mod kubernetes;
pub mod load;
pub mod prometheus;
pub mod readme;
