//! Logins from the outside: what a browser keeps and sends, and what an attacker may do with it.

// `cfg(test)` tells clippy that helpers in these files are tests too.
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod login;
#[cfg(test)]
mod properties;
