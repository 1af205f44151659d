//! Tests of the arithmetic that need no server.

pub mod oracle;
pub mod properties;
