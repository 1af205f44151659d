//! The pure files of the module, and the model that the property tests have of it.

// Each file is here whole, and this is not all that calls it.
#![allow(dead_code, unused_imports, clippy::new_without_default)]

#[path = "../src/args.rs"]
pub mod args;
#[path = "../src/cursors.rs"]
pub mod cursors;
#[path = "../src/duration.rs"]
pub mod duration;
#[path = "../src/error.rs"]
pub mod error;
#[path = "../src/hash.rs"]
pub mod hash;
#[path = "../src/limiter.rs"]
pub mod limiter;
#[path = "../src/log.rs"]
pub mod log;
#[path = "../tests/model/mod.rs"]
pub mod model;
#[path = "../src/retention.rs"]
pub mod retention;
