//! The model that the fuzz targets have of a log.

#[path = "../tests/model/memory_log.rs"]
pub mod memory_log;
