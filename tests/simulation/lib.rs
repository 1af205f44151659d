//! A server in this process that loads the module as it is built, and drives it by seeds.

pub mod stream;
