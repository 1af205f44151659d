//! Another module that acts in our events: see `reactor.rs`.

use redis::Connection;

use crate::client::{Ask, words};
use crate::modules::{module, reactor};
use crate::servers::Setup;

/// A server with both modules. The one that is loaded first hears of an event first.
pub fn setup(reactor_first: bool) -> Setup {
    let (first, second) = if reactor_first { (reactor(), module()) } else { (module(), reactor()) };
    let second = second.display().to_string();
    Setup::new().module(first).args(["--loadmodule", &second]).args(SMALL_NODES)
}

/// So that every call beyond a limit trims.
pub const SMALL_NODES: [&str; 2] = ["--stream-node-max-entries", "2"];

/// Calls that send the event on the key `a`.
const CALLS: [(&str, &[&str]); 5] = [
    (
        "xadd",
        &[
            "RATELIMIT.HIT a 1000 1h COST 10",
            "RATELIMIT.MHIT 2 a b 1000 1h COST 10 AND 1000 1h COST 10",
            "RATELIMIT.MHIT 3 b c a 1000 1h AND 1000 1h AND 1000 1h",
            "RATELIMIT.HIT a 1000 1h 1000 1d",
        ],
    ),
    ("expire", &["RATELIMIT.HIT a 1000 2h", "RATELIMIT.MHIT 3 a b c 1000 2h AND 1000 2h AND 1000 2h"]),
    ("xtrim", &["RATELIMIT.HIT a 1 1h STRICT"]),
    ("del", &["RATELIMIT.RESET a b", "RATELIMIT.RESET b a", "RATELIMIT.RESET a c"]),
    (
        "ratelimit.refused",
        &["RATELIMIT.HIT a 0 1h", "RATELIMIT.MHIT 2 a b 0 1h AND 1000 1h", "RATELIMIT.MHIT 2 a b 0 1h AND 0 1h"],
    ),
];

/// What the other module does.
pub const ACTIONS: [&str; 24] = [
    "DEL a",
    "DEL b",
    "DEL c",
    "UNLINK a b c",
    "RATELIMIT.HIT a 1000 1h COST 100",
    "RATELIMIT.HIT b 1000 1h COST 100",
    "RATELIMIT.HIT c 1000 1h COST 100",
    "RATELIMIT.PEEK b 1000 1h",
    "RATELIMIT.MHIT 3 a b c 1000 1h COST 100 AND 1000 1h COST 100 AND 1000 1h COST 100",
    "RATELIMIT.RESET a b c",
    "XTRIM a MAXLEN 1",
    "XTRIM b MAXLEN 0",
    "XADD a 9999999999999-9 3600000ms 5",
    "XSETID b 18446744073709551615-1",
    "SET a string",
    "SET b string",
    "SET c string",
    "PEXPIRE a 3000000",
    "PERSIST b",
    "RENAME b a",
    "COPY a c",
    "FLUSHALL",
    "SWAPDB 0 1",
    // Deletes from both ends, looks, and hits: whatever is known of the keys is wrong, though their lengths may not be.
    "EVAL script 3 a b c",
];

const SCRIPT: &str = "for _, key in ipairs(KEYS) do local log = redis.call('XRANGE', key, '-', '+') \
    if #log > 2 then redis.call('XDEL', key, log[1][1], log[#log][1]) end \
    redis.call('RATELIMIT.PEEK', key, 1000, '1h') redis.call('RATELIMIT.HIT', key, 1000, '1h', 'COST', 7) end";

/// An action as a command.
pub fn command(line: &str) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in line.split(' ') {
        command.arg(if word == "script" { SCRIPT } else { word });
    }
    command
}

/// Tells the other module what to do at the next such event.
pub fn order(client: &mut Connection, event: &str, key: &str, action: &str) {
    let mut react = redis::cmd("REACT");
    react.arg(event).arg(key).arg(1);
    for word in command(action).args_iter() {
        if let redis::Arg::Simple(word) = word {
            react.arg(word);
        }
    }
    client.ask(&react).unwrap();
}

/// Logs of several hits at `a` and `b`, which the table of cursors follows, and nothing at `c`.
pub fn begin(client: &mut Connection) {
    client.run("FLUSHALL");
    for key in ["a", "b"] {
        for _ in 0..5 {
            client.run(&format!("RATELIMIT.HIT {key} 1000 1h COST 100"));
        }
    }
}

/// Plays every call with every action, and shows `check` what was done.
pub fn act_in_events(client: &mut Connection, mut check: impl FnMut(&mut Connection, &str, &str)) {
    client.run("CONFIG SET notify-keyspace-events KEAd");
    for (event, calls) in CALLS {
        for call in calls {
            for action in ACTIONS {
                begin(client);
                order(client, event, "a", action);
                client.ask(&words(call)).unwrap_or_else(|error| panic!("{call}: {error}"));
                client.run("REACT");
                check(client, call, action);
            }
        }
    }
}
