//! Tests of the arithmetic that need no server.

mod oracle;
mod properties;
