//! Variadic functions of the module API can be written in C alone. And what the module says of itself is compared.

fn main() {
    println!("cargo::rerun-if-changed=variadic.c");
    cc::Build::new().file("variadic.c").warnings_into_errors(true).compile("variadic");
    // The version of the module, which is that of the whole.
    println!("cargo::rerun-if-changed=../../Cargo.toml");
    let manifest = std::fs::read_to_string("../../Cargo.toml").expect("the manifest of the module");
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    println!("cargo::rustc-env=CARGO_PKG_VERSION_OF_MODULE={}", version.expect("the version of the module"));
    // The module looks up `getrandom`, see chance.rs.
    println!("cargo::rustc-link-arg-bins=-rdynamic");
}
