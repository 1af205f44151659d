//! Nothing: it exists so that cargo builds the dependency.
