//! Other modules' actions in our events happen as if after the command: commands of their own, hits, FLUSHALL. Nothing of it
//! ends the server or differs on a replica.

use redis::Connection;
use support::reactions::{ACTIONS, SMALL_NODES, act_in_events, begin, command, order, setup};
use support::replication::{REPLICATION, caught_up, replica_of};
use support::{Ask, Setup, assert_same, words};

/// What a caller sees of each key, but for times.
fn state(client: &mut Connection) -> Vec<String> {
    let mut state = Vec::new();
    for key in ["a", "b", "c"] {
        let kind = client.text(&format!("TYPE {key}"));
        let length = client.ask(&words(&format!("XLEN {key}")));
        let mut peek = client.ask(&words(&format!("RATELIMIT.PEEK {key} 1000 1h")));
        if let Ok(redis::Value::Array(values)) = &mut peek {
            values.truncate(3);
        }
        state.push(format!("{key}: {kind} {length:?} {peek:?}"));
    }
    state
}

#[test]
fn actions_come_after_the_command() {
    for reactor_first in [false, true] {
        let mut server = setup(reactor_first).tcp().args(REPLICATION).start();
        let replica = replica_of(&server, Setup::new().without_module());
        let plain = Setup::new().args(SMALL_NODES).start();
        let (mut one_after_the_other, mut on_replica) = (plain.connect(), replica.connect());
        let mut client = server.connect();
        act_in_events(&mut client, |client, call, action| {
            let what = format!("{action} in {call}, reactor first: {reactor_first}");
            begin(&mut one_after_the_other);
            one_after_the_other.run(call);
            let _ = one_after_the_other.ask(&command(action));
            let known = state(client);
            assert_eq!(known, state(&mut one_after_the_other), "{what}");
            client.run("CONFIG SET ratelimit.cursors 0");
            assert_eq!(known, state(client), "without cursors: {what}");
            client.run("CONFIG SET ratelimit.cursors 8192");
            caught_up(&server, &replica);
            assert_same(&on_replica.fingerprint(), &client.fingerprint(), &what);
        });
        assert!(server.is_alive());
    }
}

/// Two events come while the command is at work: `expired` when a key is opened, and `new` when it is created. Others may do
/// anything then but touch a key that is being created: the server's own XADD does not survive that either.
#[test]
fn actions_while_a_command_is_at_work() {
    let mut server = setup(false).tcp().args(REPLICATION).start();
    let replica = replica_of(&server, Setup::new().without_module());
    let (mut client, mut on_replica) = (server.connect(), replica.connect());
    client.run("DEBUG SET-ACTIVE-EXPIRE 0");
    let calls = [
        "RATELIMIT.HIT c 1000 1h",
        "RATELIMIT.MHIT 3 a b c 1000 1h AND 1000 1h AND 1000 1h",
        "RATELIMIT.MHIT 4 c d a b 1000 1h AND 1000 1h AND 1000 1h AND 1000 1h",
        "RATELIMIT.RESET a c b",
        "RATELIMIT.PEEK c 1000 1h",
    ];
    for (event, expired) in [("new", false), ("expired", true)] {
        for call in calls {
            for action in ACTIONS.into_iter().chain(["RATELIMIT.HIT d 1000 1h COST 1000", "SET d string"]) {
                let touches = [" c", "COPY", "FLUSHALL", "SWAPDB"];
                if !expired && touches.iter().any(|word| action.contains(word)) {
                    continue;
                }
                begin(&mut client);
                if expired {
                    client.run("RATELIMIT.HIT c 1000 1h COST 100");
                    client.run("PEXPIRE c 1");
                    // Whoever looked whether it has expired would delete it.
                    client.run("DEBUG SLEEP 0.002");
                }
                order(&mut client, event, "c", action);
                let reply = client.ask(&words(call));
                client.run("REACT");
                let what = format!("{action} at {event} in {call}: {reply:?}");
                // A key may hold something else by now, which the command says.
                assert!(
                    reply.as_ref().is_ok_and(|_| true) || reply.is_err_and(|error| error.contains("WRONGTYPE")),
                    "{what}"
                );
                let known = state(&mut client);
                client.run("CONFIG SET ratelimit.cursors 0");
                assert_eq!(known, state(&mut client), "without cursors: {what}");
                client.run("CONFIG SET ratelimit.cursors 8192");
                // Redis 7.0 replicates that a key has expired after the event, and so after what others did to the key then.
                if !(expired && [" c", "COPY", "SWAPDB"].iter().any(|name| action.contains(name))) {
                    caught_up(&server, &replica);
                    assert_same(&on_replica.fingerprint(), &client.fingerprint(), &what);
                }
                assert!(server.is_alive(), "{what}");
            }
        }
    }
}

/// Another module may hit other keys at every event of ours: each hit is stored as it should be.
#[test]
fn hits_on_other_keys_at_every_event() {
    let server = setup(false).tcp().args(REPLICATION).start();
    let replica = replica_of(&server, Setup::new().without_module());
    let mut client = server.connect();
    for event in ["new", "xadd", "expire", "del"] {
        client.run(&format!("REACT {event} outer 1000000 RATELIMIT.HIT inner:{event} 1000000 1h COST 7"));
    }
    for _ in 0..50 {
        for left in [9, 8, 7] {
            assert_eq!(client.answer("RATELIMIT.HIT outer 10 1m")[..3], [1, 10, left]);
        }
        for (id, field, value) in client.entries("outer") {
            assert_eq!((&field[..], &value[..]), ("60000ms", "1"), "outer {id}");
        }
        client.run("RATELIMIT.RESET outer");
    }
    for event in ["new", "xadd", "expire", "del"] {
        let expected: i64 = if event == "xadd" { 150 } else { 50 };
        assert_eq!(client.integer(&format!("XLEN inner:{event}")), expected, "{event}");
        for (id, field, value) in client.entries(&format!("inner:{event}")) {
            assert_eq!((&field[..], &value[..]), ("3600000ms", "7"), "inner {id}");
        }
    }
    caught_up(&server, &replica);
    assert_same(&replica.connect().fingerprint(), &client.fingerprint(), "on the replica");
}
