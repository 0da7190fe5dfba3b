//! What is checked in equals what is generated, and the types read what users and the API server write.

mod gateway_api;
mod gateway_config;
mod generated;
