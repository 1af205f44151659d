//! A stream as the servers keep it: nodes of bounded entries and bytes.
