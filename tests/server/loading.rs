//! A load that cannot work is refused, says why in the log, and leaves nothing behind.

use std::process::{Command, Stdio};

use redis::{Connection, Value};
use support::client::listed;
use support::modules::module;
use support::{Ask, Setup, wait_for};

/// A typing error in the configuration must not pass for a setting that works.
#[test]
fn arguments_at_load_are_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let log = dir.path().join("log");
    let program = std::env::var("RATELIMIT_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let mut child = Command::new(program)
        .current_dir(dir.path())
        .args(["--port", "0", "--unixsocket", "server.sock", "--save", "", "--logfile", "log"])
        .arg("--loadmodule")
        .args([module().as_os_str(), "extra".as_ref()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut status = None;
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("the server refuses to start", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
    }));
    let _ = child.kill();
    let _ = child.wait();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(ended.is_ok(), "it started:\n{log}");
    assert!(!status.unwrap().success(), "{log}");
    assert!(log.contains("<ratelimit> ratelimit takes no arguments at load"), "{log}");
}

/// Replicas and append-only files get the server's own commands by their own names.
#[test]
fn renamed_commands() {
    for name in ["XADD", "PEXPIREAT", "UNLINK"] {
        let setup = Setup::new().args(["--rename-command", name, "hidden"]);
        let log = setup.does_not_start(tempfile::TempDir::new().unwrap());
        assert!(log.contains("<ratelimit> ratelimit replicates by XADD"), "{log}");
    }
    let setup = Setup::new().args([
        "--rename-command",
        "FLUSHALL",
        "",
        "--rename-command",
        "COMMAND",
        "",
        "--appendonly",
        "yes",
    ]);
    let server = setup.clone().start();
    assert_eq!(server.connect().answer("RATELIMIT.HIT key 2 1m")[0], 1);
    let server = setup.start_in(server.kill());
    assert_eq!(server.connect().answer("RATELIMIT.HIT key 2 1m")[..3], [1, 2, 0]);
}

#[test]
fn loaded_twice() {
    let server = Setup::new().without_module().args(["--enable-module-command", "yes"]).start();
    let mut client = server.connect();
    let path = module();
    let load = |client: &mut Connection, args: &[&str]| {
        let mut cmd = redis::cmd("MODULE");
        cmd.arg("LOAD").arg(path.to_str().unwrap()).arg(args);
        client.ask(&cmd)
    };
    let refused = Err("ERR Error loading the extension. Please check the server logs.".to_owned());
    assert_eq!(load(&mut client, &["extra"]), refused);
    assert!(server.log().contains("ratelimit takes no arguments at load"));
    assert_eq!(listed(&mut client), None);
    assert_eq!(load(&mut client, &[]), Ok(Value::Okay), "a refused load leaves nothing behind");
    assert_eq!(client.answer("RATELIMIT.HIT key 2 1m")[0], 1);
    assert_eq!(load(&mut client, &[]), refused);
    assert_eq!(client.answer("RATELIMIT.HIT key 2 1m")[..3], [1, 2, 0], "the first one is still there");
    assert!(listed(&mut client).is_some());
}
