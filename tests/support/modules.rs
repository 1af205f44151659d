//! Files: the repository, and the modules that servers load.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// The module under test. `make test` builds it; `RATELIMIT_MODULE` names another build.
pub fn module() -> PathBuf {
    let default = || root().join("target/release/libratelimit.so");
    let path = std::env::var_os("RATELIMIT_MODULE").map_or_else(default, PathBuf::from);
    assert!(path.exists(), "{} is missing, run: make build", path.display());
    path
}

/// Another module that a test needs, built by cargo where it is missing or old: by then `cargo test` itself builds nothing.
pub fn build(file: &str, args: &[&str]) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo sets for tests must not look like a change to it.
    cargo.current_dir(root()).env_remove("LD_LIBRARY_PATH").env("CARGO_TARGET_DIR", "target");
    let output = cargo.args(["build", "--quiet", "--locked"]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    root().join("target/debug").join(file)
}

/// redis-cell as a module, to compare with.
pub fn redis_cell() -> PathBuf {
    let path = root().join("target/peers/release/libredis_cell.so");
    assert!(path.exists(), "{} is missing, run: scripts/peers.sh", path.display());
    path
}

/// A program that is ended if it does not end. It finds what scripts/examples.sh has fetched.
pub fn bounded(program: &[&str]) -> Command {
    let fetched = root().join("target/examples");
    let mut command = Command::new("timeout");
    command.arg("120").args(program).env("PYTHONPATH", fetched.join("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    // Node looks for packages from the folder that it is started in.
    command.current_dir(if program[0] == "node" { fetched } else { root().to_owned() });
    command
}

/// The build with the feature `planted-panic`; `RATELIMIT_PANIC_MODULE` names another place.
pub fn panicking_module() -> PathBuf {
    let default = || build("libratelimit.so", &["--features", "planted-panic"]);
    std::env::var_os("RATELIMIT_PANIC_MODULE").map_or_else(default, PathBuf::from)
}

pub fn reactor() -> PathBuf {
    build("examples/libreactor.so", &["--example", "reactor"])
}
