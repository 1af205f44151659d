//! Unloading, loading again and upgrading on a server that is in use: it works and loses nothing, or is refused.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use redis::{Connection, Value};

use crate::panics::panicking_module;
use crate::support::{Ask, Running, Server, Setup, module, wait_for, words};

const UNLOAD: &str = "MODULE UNLOAD ratelimit";

fn load(client: &mut Connection) {
    client.ask(redis::cmd("MODULE").arg("LOAD").arg(module().to_str())).unwrap();
}

fn server() -> Server {
    Setup::new().args(["--enable-module-command", "yes"]).start()
}

/// Whoever has one of the module's commands queued, waits with one or ran one last would make the server read what it has
/// freed: EXEC ended every server that was tried.
#[test]
fn refused_while_a_client_holds_a_command() {
    const HIT: &str = "RATELIMIT.HIT k 9 1h";
    let mut server = server();
    let (mut operator, mut client) = (server.connect(), server.connect());
    let refused = |operator: &mut Connection| {
        assert!(operator.error(UNLOAD).starts_with("ERR Error unloading module"));
    };
    client.run(HIT);
    refused(&mut operator);
    client.run("PING");
    client.run("MULTI");
    client.run(HIT);
    client.run("PING");
    refused(&mut operator);
    assert!(matches!(client.run("EXEC"), Value::Array(replies) if replies.len() == 2));
    client.run("PING");

    operator.run("CLIENT PAUSE 20000 WRITE");
    let waiting = server.connect();
    std::thread::scope(|scope| {
        let mut waiting = waiting;
        let thread = scope.spawn(move || (waiting.answer(HIT), waiting.run("PING")));
        wait_for("a hit is held up", || operator.text("CLIENT LIST").contains("cmd=ratelimit.hit"));
        refused(&mut operator);
        operator.run("CLIENT UNPAUSE");
        assert_eq!(thread.join().unwrap().0[..3], [1, 9, 6]);
    });

    assert_eq!(server.log().matches("ratelimit stays: a client is in a transaction").count(), 3, "it says why");
    operator.run(UNLOAD);
    assert!(client.error(HIT).starts_with("ERR unknown command"));
    for shown in ["CLIENT LIST", "INFO everything", "COMMAND COUNT", "CONFIG GET *", "MODULE LIST", "SLOWLOG GET"] {
        operator.run(shown);
    }
    assert!(!operator.text("INFO everything").contains("ratelimit_"));
    load(&mut operator);
    assert_eq!(client.answer(HIT)[..3], [1, 9, 5], "the log is where it was");
    assert!(server.is_alive());
}

/// Unloaded and loaded all the time while clients come, hit and go: what they were told is what is stored.
#[test]
fn under_traffic() {
    let mut server = server();
    let (running, admitted) = (AtomicBool::new(true), AtomicUsize::new(0));
    let (mut unloaded, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while running.load(Relaxed) {
                    let mut client = server.connect();
                    for _ in 0..3 {
                        match client.ask(&words("RATELIMIT.HIT k 1000000 1h")) {
                            Ok(_) => _ = admitted.fetch_add(1, Relaxed),
                            Err(error) => assert!(error.starts_with("ERR unknown command"), "{error}"),
                        }
                        client.run("PING");
                    }
                }
            });
        }
        let _stop = Running(&running);
        let mut operator = server.connect();
        wait_for("many unloads and refusals", || {
            match operator.ask(&words(UNLOAD)) {
                Ok(_) => {
                    unloaded += 1;
                    load(&mut operator);
                }
                Err(_) => refused += 1,
            }
            unloaded >= 30 && refused >= 5 && admitted.load(Relaxed) > 1_000
        });
    });
    assert!(server.is_alive());
    assert_eq!(server.connect().integer("XLEN k"), admitted.load(Relaxed) as i64);
}

/// What one build stores, another reads: from a snapshot and from an append-only file.
#[test]
fn another_build_reads_the_same_data() {
    for (files, save) in [(["--appendonly", "no"], "SAVE"), (["--appendonly", "yes"], "PING")] {
        let setup = Setup::new().args(files);
        let server = setup.clone().start();
        let mut client = server.connect();
        for line in ["HIT a 3 1h", "HIT a 9 1d 3 1h COST 2", "HIT b 1 1m", "HIT b 1 1m STRICT", "MHIT 2 b c 9 1h 9 1h"]
        {
            client.run(&format!("RATELIMIT.{line}"));
        }
        client.run(save);
        let before = client.fingerprint();
        let server = setup.module(panicking_module()).start_in(server.kill());
        let mut client = server.connect();
        assert!(
            server.log().contains("target/debug/libratelimit.so") || std::env::var("RATELIMIT_PANIC_MODULE").is_ok()
        );
        assert_eq!(client.fingerprint(), before);
        assert_eq!(client.answer("RATELIMIT.HIT a 9 1d")[..3], [1, 9, 5]);
        assert_eq!(client.answer("RATELIMIT.PEEK b 3 1h")[..3], [0, 3, 0]);
    }
}

/// What stays behind each time is the context that redis-module keeps for good.
#[test]
fn unloading_gives_memory_back() {
    let server = server();
    let mut client = server.connect();
    let mut used_after = |times: usize| {
        for _ in 0..times {
            for key in 0..100 {
                client.run(&format!("RATELIMIT.HIT k:{} {} 1h", key % 10, key / 20));
            }
            client.run("RATELIMIT.RESET k:0 k:1 k:2 k:3 k:4 k:5 k:6 k:7 k:8 k:9");
            client.run(UNLOAD);
            load(&mut client);
        }
        client.info("memory", "used_memory").parse::<i64>().unwrap()
    };
    used_after(5);
    let (few, many) = (used_after(5), used_after(20));
    println!("unloading and loading leaves {} bytes", (many - few) / 20);
    assert!(many - few < 20 * 20_000, "{few} bytes, then {many}");
}
