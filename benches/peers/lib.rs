//! Empty. It exists so that cargo builds the dependency.
