//! Variadic functions of the module API can be written in C alone.

fn main() {
    println!("cargo::rerun-if-changed=variadic.c");
    cc::Build::new().file("variadic.c").warnings_into_errors(true).compile("variadic");
    // The module looks up `getrandom`, see seeds.rs.
    println!("cargo::rustc-link-arg-bins=-rdynamic");
}
