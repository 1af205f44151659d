//! Memory is neither misused nor leaked: every command, every error, loading, and a stretch of the fuzzer, under valgrind
//! (`make memcheck`).
//!
//! No access outside of what was allocated, no decision by what was never set, and nothing definitely lost when the server
//! ends, or when it takes out again what it could not load.

use redis::{Connection, Value};
use support::clock::now;
use support::fuzzer::fuzz;
use support::modules::module;
use support::reactions::{act_in_events, setup};
use support::seeds::random;
use support::streams::make_streams;
use support::{Ask, Server, Setup, get, wait_for, words};

fn load(client: &mut Connection, args: &[&str]) -> Result<Value, String> {
    client.ask(redis::cmd("MODULE").arg("LOAD").arg(module().to_str()).arg(args))
}

/// Each command in each of its ways.
fn every_command(client: &mut Connection) {
    for line in [
        "RATELIMIT.HIT a 2 1m",
        "RATELIMIT.HIT a 2 1m COST 2",
        "RATELIMIT.HIT a 2 1m STRICT",
        "RATELIMIT.HIT a 2 1m STRICT",
        "RATELIMIT.HIT a 0 1ms",
        "RATELIMIT.HIT tiers 1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 COST 1 STRICT",
        "RATELIMIT.HIT two 10 1h",
        "RATELIMIT.HIT two 10 1s",
        "RATELIMIT.HIT heavy 9007199254740991 1h COST 9007199254740991",
        "RATELIMIT.PEEK a 2 1m",
        "RATELIMIT.PEEK missing 2 1m COST 3",
        "RATELIMIT.MHIT 2 a b 2 1m AND 2 1m",
        "RATELIMIT.MHIT 2 b c 2 1m COST 2 AND 2 1m COST 2",
        "RATELIMIT.TOP",
        "RATELIMIT.TOP COUNT 1",
        "INFO everything",
        "COMMAND DOCS ratelimit.hit ratelimit.mhit",
        "COMMAND GETKEYS RATELIMIT.MHIT 2 a b 1 1 AND 1 1",
        "CONFIG SET ratelimit.cursors 4",
        "CONFIG SET ratelimit.top-entries 8",
        "MULTI",
        "RATELIMIT.HIT a 1000 1m",
        "RATELIMIT.MHIT 2 a b 1000 1m AND 0 1m",
        "EXEC",
        "DEBUG RELOAD",
        "RATELIMIT.HIT a 1000 1m",
        "PEXPIRE a 1",
        "RATELIMIT.HIT a 1000 1m",
        "XSETID a 18446744073709551615-18446744073709551615",
        "RATELIMIT.HIT a 1000 1m",
        "RATELIMIT.RESET a missing b",
        "RATELIMIT.RESETSTAT",
        "SWAPDB 0 1",
        "FLUSHALL",
    ] {
        client.run(line);
    }
    let script = "return redis.call('RATELIMIT.HIT', KEYS[1], 3, '1m')";
    client.ask(redis::cmd("EVAL").arg(script).arg(1).arg("a")).unwrap();
    // Nodes that fill up, are dropped, and are more than one call drops.
    client.run("CONFIG SET stream-node-max-entries 3");
    for call in 0..3_000 {
        client.run(&format!("RATELIMIT.HIT key:{} 100 {}ms COST {}", call % 5, 1 + call % 60, 1 + call % 3));
    }
}

fn every_stream(client: &mut Connection) {
    make_streams(client, now(), 1_000);
    let keys: Vec<String> = get(client.run("KEYS *"));
    for key in keys {
        for tail in ["10 1m", "9007199254740991 1ms COST 9007199254740991", "1000000 1m COST 500000", "3 1s STRICT"] {
            for name in ["RATELIMIT.PEEK", "RATELIMIT.HIT"] {
                let mut cmd = redis::cmd(name);
                let _ = client.ask(cmd.arg(&key).arg(tail.split(' ').collect::<Vec<_>>()));
            }
        }
        let _ = client.ask(redis::cmd("RATELIMIT.RESET").arg(&key));
    }
}

#[test]
#[ignore = "needs valgrind: make memcheck"]
fn memcheck() {
    let seed = random("memcheck").u64(..);
    let setup = Setup::new().without_module().under_memcheck();
    let mut server = setup.args(["--enable-module-command", "yes"]).start();
    let mut client = server.connect();
    for _ in 0..3 {
        assert!(load(&mut client, &["unknown"]).is_err());
        let mut cmd = redis::cmd("MODULE");
        cmd.arg("LOADEX").arg(module().to_str()).arg("CONFIG").arg("ratelimit.nonsense").arg(1);
        assert!(client.ask(&cmd).is_err(), "it is loaded and taken out again");
        client.error("RATELIMIT.HIT a 1 1");
    }
    load(&mut client, &[]).unwrap();
    assert!(load(&mut client, &[]).is_err(), "it is loaded");
    for _ in 0..3 {
        every_command(&mut client);
        client.error("MODULE UNLOAD ratelimit");
    }
    every_stream(&mut client);
    client.run("FLUSHALL");
    fuzz(&mut server, seed, 10_000);
    client.error("MODULE UNLOAD ratelimit");
    is_clean(server);
}

/// Another module acts in our events.
#[test]
#[ignore = "needs valgrind: make memcheck"]
fn memcheck_of_events() {
    let server = setup(true).under_memcheck().start();
    act_in_events(&mut server.connect(), |_, _, _| {});
    is_clean(server);
}

/// Clients that wait: served, refused, gone, sent away, and one that waits until the server ends.
#[test]
#[ignore = "needs valgrind: make memcheck"]
fn memcheck_of_waiting() {
    let server = Setup::new().under_memcheck().start();
    let mut client = server.connect();
    client.run("ACL SETUSER bob on nopass ~* +@all");
    let mut waiters = Vec::new();
    let mut waits = |client: &mut Connection, line: &str| {
        let before = client.info("ratelimit", "ratelimit_clients_waiting");
        let mut waiter = server.connect();
        waiter.run("AUTH bob x");
        waiter.send_packed_command(&words(line).get_packed_command()).unwrap();
        wait_for("it waits", || client.info("ratelimit", "ratelimit_clients_waiting") != before);
        waiters.push(waiter);
    };
    let ended = |client: &mut Connection, how: &str, count: u32| {
        let field = format!("ratelimit_waits_{how}");
        wait_for(how, || client.info("ratelimit", &field) == count.to_string());
    };
    client.run("RATELIMIT.HIT k 1 1h");
    (0..6).for_each(|_| waits(&mut client, "RATELIMIT.HIT k 1 1h COST 1 WAIT 100h"));
    client.run("RATELIMIT.RESET k");
    ended(&mut client, "admitted", 1);
    client.run("FLUSHALL");
    ended(&mut client, "admitted", 2);
    // The first may no more, and the next have no log.
    client.run("ACL SETUSER bob -ratelimit.hit");
    client.run("SET k x");
    wait_for("they got errors", || client.info("ratelimit", "ratelimit_clients_waiting") == "0");
    client.run("ACL SETUSER bob +@all");
    client.run("DEL k");
    client.run("RATELIMIT.HIT k 2 1s COST 2");
    waits(&mut client, "RATELIMIT.HIT k 2 1s COST 2 WAIT 2s");
    waits(&mut client, "RATELIMIT.HIT k 2 1s WAIT 1h");
    // Others do not wait, until the first has waited too long.
    for _ in 0..4 {
        client.run("RATELIMIT.HIT k 9 1s");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    ended(&mut client, "timed_out", 1);
    client.run("RATELIMIT.HIT last 1 1h");
    waits(&mut client, "RATELIMIT.HIT last 1 1h WAIT 1h");
    client.run("CLIENT KILL USER bob");
    wait_for("they are gone", || client.info("ratelimit", "ratelimit_clients_waiting") == "0");
    waits(&mut client, "RATELIMIT.HIT last 1 1h WAIT 2h");
    client.run("INFO everything");
    is_clean(server);
}

fn is_clean(mut server: Server) {
    let _ = server.connect().ask(&words("SHUTDOWN NOSAVE"));
    wait_for("the server ends", || !server.is_alive());
    let report = std::fs::read_to_string(server.dir().join("valgrind.log")).unwrap();
    let clean = ["definitely lost: 0 bytes in 0 blocks", "ERROR SUMMARY: 0 errors"].map(|text| report.contains(text));
    assert_eq!(clean, [true; 2], "{report}");
}
