//! The fuzz targets' model of a log.

#[path = "../tests/model/memory_log.rs"]
pub mod memory_log;
