//! RATELIMIT.REFUND gives the newest units back.

use redis::{Connection, Value};
use support::client::{HIT, id_of, number};
use support::errors::{self, NOT_A_LOG, SYNTAX, WRONG_TYPE};
use support::oracle::{self, Question};
use support::replication::{Effects, REPLICATION, caught_up, replica_of};
use support::seeds::random;
use support::{Ask, Clock, START, Server, Setup, Stage, assert_same, get, words};

const WINDOW: u64 = 1_000;

/// A log by brute force: time, tally and cost of each hit, oldest first, and the last ID of the stream.
#[derive(Default)]
struct Model {
    hits: Vec<(u64, u64, u64)>,
    last: Option<(u64, u64)>,
}

impl Model {
    /// The log counts from what its first entry says.
    fn add(&mut self, clock: u64, cost: u64, first_tally: impl FnOnce() -> u64) {
        let newest = self.hits.last().map(|hit| (hit.0, hit.1));
        let last = self.last.filter(|_| newest.is_some());
        let tally = newest.map_or_else(first_tally, |newest| newest.1) + cost;
        self.push(clock.max(newest.map_or(0, |newest| newest.0)), tally, cost, last);
    }

    /// The earliest ID from a time on that the stream takes.
    fn push(&mut self, time: u64, tally: u64, cost: u64, last: Option<(u64, u64)>) {
        let time = match last {
            Some(last) if (time, tally) <= last => last.0 + u64::from(tally <= last.1),
            _ => time,
        };
        self.hits.push((time, tally, cost));
        self.last = Some((time, tally));
    }

    fn refund(&mut self, clock: u64, units: u64) -> u64 {
        let Some(now) = self.hits.last().map(|hit| hit.0.max(clock)) else { return 0 };
        let mut given = 0;
        while given < units {
            let Some(&(time, tally, cost)) = self.hits.last().filter(|hit| hit.0 + WINDOW > now) else { break };
            self.hits.pop();
            let left = (given + cost).saturating_sub(units);
            given += cost - left;
            if left > 0 {
                // Its rest is recorded anew. The tally falls, so that needs a later millisecond than the last.
                self.push(now, tally - (cost - left), left, self.last.or(Some((time, tally))));
            }
        }
        if given > 0 && self.hits.last().is_none_or(|hit| hit.0 + WINDOW <= now) {
            *self = Self::default();
        }
        given
    }
}

/// Hits, refunds and pauses. After each the stream holds what it must, and the next answers follow from it.
#[test]
fn the_newest_units_leave() {
    let mut rng = random("the_newest_units_leave");
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let (mut now, mut model) = (START, Model::default());
    let (mut refunded, mut parts, mut emptied) = (0, 0, 0);
    for step in 0..6_000 {
        now += match rng.u8(..40) {
            0 => rng.u64(..2 * WINDOW),
            1..10 => rng.u64(..WINDOW / 10),
            10..15 => 1,
            _ => 0,
        };
        clock.set(now);
        let place = format!("step {step} at {now}");
        if client.integer("EXISTS k") == 0 {
            assert!(model.hits.iter().all(|hit| hit.0 + WINDOW <= now), "{place}");
            model = Model::default();
        }
        if rng.u8(..3) == 0 {
            let units = if rng.u8(..10) == 0 { rng.u64(1..200) } else { rng.u64(1..8) };
            let before = model.hits.len();
            let given = model.refund(now, units);
            assert_eq!(client.integer(&format!("RATELIMIT.REFUND k COST {units}")) as u64, given, "{place}: {units}");
            refunded += given;
            parts += u32::from(model.last == model.hits.last().map(|hit| (hit.0, hit.1)) && given > 0);
            emptied += u32::from(before > 0 && model.hits.is_empty());
        } else {
            let cost = if rng.bool() { 1 } else { rng.u64(1..9) };
            let mut hits: Vec<(u64, u64)> = model.hits.iter().map(|hit| (hit.0, hit.2)).collect();
            let question = Question { tiers: &[(60, WINDOW)], cost, ..Question::default() };
            let allowed = oracle::ask(&mut hits, now.max(model.hits.last().map_or(0, |hit| hit.0)), question)[0];
            let answer = client.answer(&format!("RATELIMIT.HIT k 60 {WINDOW}ms COST {cost}"));
            assert_eq!(answer[0], allowed, "{place}: COST {cost}");
            if allowed == 1 {
                model.add(now, cost, || id_of(&client.entries("k")[0].0).1 - cost);
            }
        }
        let live = |hits: Vec<(u64, u64, u64)>| -> Vec<_> {
            hits.into_iter().filter(|hit| hit.0 + 2 * WINDOW > now).collect()
        };
        let entries = client.entries("k");
        let stored = entries.iter().map(|(id, _, cost)| (id_of(id).0, id_of(id).1, number(cost))).collect();
        let (stored, expected) = (live(stored), live(model.hits.clone()));
        assert!(expected.ends_with(&stored), "{place}: {stored:?} {expected:?}");
        // Expired entries may be trimmed at any time.
        assert!(expected[..expected.len() - stored.len()].iter().all(|hit| hit.0 + WINDOW <= now.max(hit.0 + 1)));
        if let Some(newest) = model.hits.last() {
            assert!(client.integer("PTTL k") >= (newest.0 + WINDOW).saturating_sub(now) as i64, "{place}");
        }
    }
    assert!(refunded > 1_000 && parts > 100 && emptied > 10, "{refunded} units, {parts} parts, {emptied} times all");
}

/// A refund of the hit before leaves the log as if it had never been.
#[test]
fn a_hit_and_its_refund_leave_nothing() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT k 10 1h COST 3");
    let before = client.entries("k");
    for cost in [1, 2, 7] {
        client.run(&format!("RATELIMIT.HIT k 10 1h COST {cost}"));
        assert_eq!(client.integer(&format!("RATELIMIT.REFUND k COST {cost}")), cost);
        assert_eq!(client.entries("k"), before);
    }
    assert_eq!(client.integer("RATELIMIT.REFUND k COST 99"), 3, "no more than there is");
    assert_eq!(client.integer("EXISTS k"), 0);
    assert_eq!(client.integer("RATELIMIT.REFUND k"), 0);
    assert_eq!(client.integer("RATELIMIT.REFUND missing"), 0);
    assert_eq!(client.info("ratelimit", "ratelimit_units_refunded"), "13");
}

/// Every tier in which the units lay has that much more left.
#[test]
fn each_tier_gains_what_was_given_back() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let peek = |client: &mut Connection| -> Vec<i64> {
        let reply = client.run("RATELIMIT.PEEK k 10 1s 50 1m 90 1h COST 0 WITHTIERS");
        get::<Vec<Vec<i64>>>(reply).iter().map(|tier| tier[2]).collect()
    };
    for at in 0..5 {
        clock.set(START + at * 700);
        client.run("RATELIMIT.HIT k 10 1s 50 1m 90 1h COST 4");
    }
    assert_eq!(peek(&mut client), [2, 30, 70]);
    assert_eq!(client.integer("RATELIMIT.REFUND k COST 3"), 3);
    assert_eq!(peek(&mut client), [5, 33, 73]);
    assert_eq!(client.integer("RATELIMIT.REFUND k COST 7"), 7, "of three hits, of which the oldest is cut");
    assert_eq!(peek(&mut client), [8, 40, 80], "its rest is recorded anew");
}

/// Whatever is hit in the millisecond of a refund is accepted.
#[test]
fn hits_in_the_same_millisecond() {
    let Some(Stage { server: _server, mut client, .. }) = Stage::new() else { return };
    client.run("RATELIMIT.HIT k 1000 1m COST 5");
    for _ in 0..20 {
        assert_eq!(client.answer("RATELIMIT.HIT k 1000 1m COST 5")[..3], [1, 1_000, 990]);
        assert_eq!(client.integer("RATELIMIT.REFUND k COST 5"), 5);
        assert_eq!(client.answer("RATELIMIT.HIT k 1000 1m COST 9")[..3], [1, 1_000, 986]);
        assert_eq!(client.integer("RATELIMIT.REFUND k COST 2"), 2);
        assert_eq!(client.integer("RATELIMIT.REFUND k COST 7"), 7);
    }
    assert_eq!(client.integer("XLEN k"), 1);
}

#[test]
fn at_most_1024_hits_leave() {
    let server = Server::start();
    let mut client = server.connect();
    let script = "for _ = 1, 1500 do redis.call('RATELIMIT.HIT', KEYS[1], 5000, '1h') end";
    client.ask(redis::cmd("EVAL").arg(script).arg(1).arg("k")).unwrap();
    assert_eq!(client.integer("RATELIMIT.REFUND k COST 1400"), 1_024);
    assert_eq!(client.integer("XLEN k"), 476);
    assert_eq!(client.integer("RATELIMIT.REFUND k COST 1400"), 476);
    assert_eq!(client.integer("EXISTS k"), 0);
}

#[test]
fn what_is_no_log_is_left_alone() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("SET string x");
    client.run("XADD foreign * a b");
    client.run("XGROUP CREATE empty group $ MKSTREAM");
    client.run("RATELIMIT.HIT log 9 1h");
    let before = client.fingerprint();
    for (line, error) in [
        ("string", WRONG_TYPE),
        ("foreign", NOT_A_LOG),
        ("log COST 0", errors::COST),
        ("log COST -1", errors::COST),
        ("log COST x", errors::COST),
        ("log COST 9007199254740992", errors::COST),
        ("log COST", SYNTAX),
        ("log 1", SYNTAX),
        ("log COST 1 COST 1", SYNTAX),
        ("", "ERR wrong number of arguments for 'ratelimit.refund' command"),
    ] {
        assert_eq!(client.error(format!("RATELIMIT.REFUND {line}").trim_end()), error, "{line}");
    }
    assert_eq!(client.integer("RATELIMIT.REFUND empty"), 0);
    assert_same(&client.fingerprint(), &before, "after all of them");
}

/// Replicas get the effects, and hold the same data.
#[test]
fn effects() {
    let Some(clock) = Clock::at(START) else { return };
    let setup = Setup::new().clock(&clock);
    let (server, mut effects) = Effects::of(setup.clone().args(REPLICATION).tcp());
    let mut client = server.connect();
    let id = |after: u64, units: u64| format!("{}-{units}", START + after);
    (2..6).for_each(|cost| _ = client.run(&format!("RATELIMIT.HIT k 50 8s COST {cost}")));
    effects.take();
    let part = [
        "MULTI".to_owned(),
        format!("XADD k {} 8000ms 2", id(1, 4)),
        format!("XDEL k {} {}", id(0, 9), id(0, 5)),
        "EXEC".to_owned(),
    ];
    for (units, expected) in
        [(5, &[format!("XDEL k {}", id(0, 14))][..]), (5, &part), (50, &["UNLINK k".to_owned()]), (50, &[])]
    {
        client.run(&format!("RATELIMIT.REFUND k COST {units}"));
        assert_eq!(effects.take(), expected, "{units}");
    }
    let replica = replica_of(&server, setup);
    for line in ["HIT k 50 8s COST 9", "REFUND k COST 4", "HIT k 50 8s", "HIT k 50 8s", "REFUND k COST 2"] {
        client.run(&format!("RATELIMIT.{line}"));
    }
    caught_up(&server, &replica);
    assert_same(&replica.connect().fingerprint(), &client.fingerprint(), "the replica");
}

/// A user may have HIT without REFUND; and REFUND needs the rights to read and to write.
#[test]
fn access() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("ACL SETUSER hits on nopass ~rl:* +ratelimit.hit");
    client.run("ACL SETUSER both on nopass ~rl:* +ratelimit.hit +ratelimit.refund");
    client.run("ACL SETUSER reads on nopass %R~rl:* +ratelimit.refund");
    client.run("ACL SETUSER writes on nopass %W~rl:* +ratelimit.refund");
    for (user, line, is_allowed) in [
        ("hits", "RATELIMIT.REFUND rl:1", false),
        ("both", "RATELIMIT.REFUND rl:1", true),
        ("both", "RATELIMIT.REFUND other", false),
        ("reads", "RATELIMIT.REFUND rl:1", false),
        ("writes", "RATELIMIT.REFUND rl:1", false),
    ] {
        let mut other = server.connect();
        other.run(&format!("AUTH {user} x"));
        let reply = other.ask(&words(line));
        assert_eq!(reply.is_ok(), is_allowed, "{user}: {line}: {reply:?}");
        assert!(is_allowed || reply.unwrap_err().starts_with("NOPERM"));
    }
}

/// Failed requests do not count; only failed log-ins count; an estimate is settled.
#[test]
fn documented_uses() {
    let server = Server::start();
    let mut client = server.connect();
    for status in [200, 500, 200, 503, 200] {
        assert_eq!(client.answer("RATELIMIT.HIT api 3 1h")[0], 1);
        if status >= 500 {
            client.run("RATELIMIT.REFUND api");
        }
    }
    assert_eq!(client.answer("RATELIMIT.HIT api 3 1h")[0], 0, "three were answered");

    for right in [false, true, true, false, true] {
        assert_eq!(client.answer("RATELIMIT.HIT login 3 1h")[0], 1);
        if right {
            client.run("RATELIMIT.REFUND login");
        }
    }
    assert_eq!(client.answer("RATELIMIT.PEEK login 3 1h COST 0")[2], 1, "two failed");

    client.run("RATELIMIT.HIT tokens 10000 1h COST 4000");
    client.run("RATELIMIT.REFUND tokens COST 2800");
    assert_eq!(client.answer("RATELIMIT.PEEK tokens 10000 1h COST 0")[2], 8_800, "1200 were used");
    client.run("RATELIMIT.HIT tokens 10000 1h COST 500");
    client.run("RATELIMIT.HIT tokens 10000 1h COST 300 FORCE");
    assert_eq!(client.answer("RATELIMIT.PEEK tokens 10000 1h COST 0")[2], 8_000);
}

/// At the limit of memory it works: it gives memory back.
#[test]
fn without_memory() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT k 9 1h COST 3");
    client.run("CONFIG SET maxmemory 1");
    let refused = client.ask(redis::cmd(HIT).arg(&["k", "9", "1h"]));
    assert!(refused.unwrap_err().starts_with("OOM"));
    assert_eq!(client.run("RATELIMIT.REFUND k COST 2"), Value::Int(2));
    client.run("CONFIG SET maxmemory 0");
    assert_eq!(client.answer("RATELIMIT.PEEK k 9 1h COST 0")[2], 8);
}
