//! Variadic functions of the module API can be written in C alone.

fn main() {
    println!("cargo::rerun-if-changed=variadic.c");
}
