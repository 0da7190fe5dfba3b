//! What is checked in equals what is generated, and the types read what users and the API server write.

// `cfg(test)` tells clippy that helpers in these files are tests too.
#[cfg(test)]
mod gateway_api;
#[cfg(test)]
mod gateway_config;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod upstream;
