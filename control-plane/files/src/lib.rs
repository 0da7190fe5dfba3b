//! Custom resources from YAML files: strictly read, translated as the control plane translates them, and every error
//! with its file, line, column and field.
//!
//! Owns what a document may hold and which of two declarations counts. Invariants: only [`read`] does IO; a file that is
//! not in order changes nothing of what it declared before; no message holds a value of a document, as it may be a
//! Secret's. Not here: when to read again, and what is done with the configuration.

mod decode;
pub mod demo_backend;
mod folder;
mod inputs;
mod kinds;
mod locate;
mod node;
mod problem;
mod read;

pub use folder::{Files, Purpose};
pub use inputs::{CONTROLLER_NAME, Inputs};
pub use kinds::ObjectId;
pub use node::{Node, Position, SyntaxError, Value, parse};
pub use problem::Problem;
pub use read::{is_yaml, read, read_path};
