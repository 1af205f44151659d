//! A key lives one window after the newest hit and not much more, and as long as the longest policy in use.

use redis::{Connection, Value};
use support::client::time_of;
use support::oracle::{self, Hit, Question, Tier};
use support::replication::Effects;
use support::seeds::random;
use support::{Ask, Clock, START, Server, Setup, Stage, six, wait_for, words};

/// The longest that a key with one policy outlives its newest hit.
fn at_most(window: u64) -> i64 {
    (window + window / 8) as i64
}

#[test]
fn one_policy_keeps_a_key_for_its_window() {
    let mut rng = random("one_policy_keeps_a_key_for_its_window");
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let mut now = START;
    for key in 0..150 {
        let window = match rng.u8(..4) {
            0 => rng.u64(1..20),
            1 => rng.u64(1..10_000),
            2 => rng.u64(1..100_000_000),
            _ => rng.u64(1..=3650 * 86_400_000),
        };
        let shorter = rng.u64(1..=window);
        for _ in 0..20 {
            let answer = client.answer(&format!("RATELIMIT.HIT {key} 15 {shorter}ms 15 {window}ms"));
            let left = client.integer(&format!("PTTL {key}"));
            // A refused hit renews nothing; the key still outlives the hits that refuse it.
            let least = if answer[0] == 1 { window as i64 } else { answer[4] };
            assert!((least..=at_most(window)).contains(&left), "{left} ms are left of {window}: {answer:?}");
            now += match rng.u8(..3) {
                0 => rng.u64(..=window / 8),
                1 => rng.u64(..=window / 40),
                _ => rng.u64(..3),
            };
            clock.set(now);
        }
    }
}

#[test]
fn one_policy_on_a_clock_that_runs() {
    let server = Server::start();
    let mut client = server.connect();
    let mut renewed = 0;
    let mut before = 0;
    for _ in 0..3_000 {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for line in ["RATELIMIT.HIT k 100000 100ms", "PEXPIRETIME k", "XREVRANGE k + - COUNT 1"] {
            pipe.add_command(words(line));
        }
        let (_, expires, newest): (Value, u64, Vec<(String, Vec<String>)>) = pipe.query(&mut client).unwrap();
        let hit = time_of(&newest[0].0);
        assert!((hit + 100..=hit + 112).contains(&expires), "a hit at {hit} is kept until {expires}");
        renewed += usize::from(expires != before);
        before = expires;
    }
    assert!(renewed < 300, "the expiry was set {renewed} times");
}

#[test]
fn an_idle_key_goes() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    assert_eq!(client.answer("RATELIMIT.HIT k 5 8s")[0], 1);
    clock.set(START + 1_000);
    assert_eq!(client.answer("RATELIMIT.HIT k 5 8s")[0], 1);
    clock.set(START + 8_999);
    assert_eq!(client.integer("EXISTS k"), 1);
    assert_eq!(client.answer("RATELIMIT.PEEK k 5 8s")[2], 3, "the second hit is still in the window");
    // The server counts a key as expired after its time, not at it.
    clock.set(START + 9_001);
    assert_eq!(client.integer("EXISTS k"), 0);
    assert_eq!(client.integer("DBSIZE"), 0);
    assert_eq!(client.answer("RATELIMIT.HIT k 5 8s"), [1, 5, 4, 0, 8_000, 8_000]);
    assert_eq!(client.integer("XLEN k"), 1);
}

/// Nobody has to ask for an idle key: the server finds it.
#[test]
fn idle_keys_go_unasked() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    for key in 0..200 {
        client.run(&format!("RATELIMIT.HIT {key} 5 10s"));
    }
    assert_eq!(client.integer("DBSIZE"), 200);
    clock.set(START + 11_251);
    wait_for("the keys expire", || client.integer("DBSIZE") == 0);
}

#[test]
fn a_steady_client_sets_its_expiry_eight_times_a_window() {
    let Some(clock) = Clock::at(START) else { return };
    let (server, mut effects) = Effects::of(Setup::new().clock(&clock));
    let mut client = server.connect();
    let (window, windows, gap) = (8_000, 12, 20);
    for step in 0..windows * window / gap {
        clock.set(START + step * gap);
        assert_eq!(client.answer("RATELIMIT.HIT k 100000 8s")[0], 1);
    }
    let effects = effects.take();
    let count = |name: &str| effects.iter().filter(|line| line.starts_with(name)).count() as u64;
    assert_eq!((count("RESTORE"), count("XADD")), (1, windows * window / gap - 1));
    // One whenever more than an eighth has passed since the last.
    assert_eq!(count("PEXPIREAT"), (windows * window - gap) / (window / 8 + gap));
    assert_eq!(count("MULTI"), count("PEXPIREAT"), "it comes together with a hit");
}

#[test]
fn an_expiry_changed_by_hand_is_repaired() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let mut hit = |line: &str, after_start: u64| {
        clock.set(START + after_start);
        client.run(line);
        assert_eq!(client.answer("RATELIMIT.HIT k 9 8s")[0], 1);
        client.integer("PTTL k")
    };
    assert_eq!(hit("PING", 0), 9_000);
    assert_eq!(hit("PERSIST k", 10), 9_000, "there was none");
    assert_eq!(hit("PEXPIRE k 7999", 20), 9_000, "it was too short");
    assert_eq!(hit("PEXPIRE k 1", 20), 9_000);
    assert_eq!(hit("PEXPIRE k 8000", 20), 8_000, "it is long enough");
    assert_eq!(hit("PEXPIRE k 100000", 20), 100_000, "it is longer than needed, and nobody's business");
    assert_eq!(hit("PERSIST k", 20), 9_000);
    // A refused hit writes nothing, so what it finds stays.
    client.run("PERSIST k");
    assert_eq!(client.answer("RATELIMIT.HIT k 3 8s")[0], 0);
    assert_eq!(client.integer("PTTL k"), -1);
}

/// A stage whose nodes hold ten entries.
fn shared() -> Option<Stage> {
    Stage::of(Setup::new().args(["--stream-node-max-entries", "10"]))
}

/// Sets the clock and hits, and tells the name of the newest entry and how long the key still lives.
fn hit(log: &mut Stage, after_start: u64, policy: &str) -> (i64, String, i64) {
    let client = &mut log.at(after_start).client;
    let allowed = client.answer(&format!("RATELIMIT.HIT k {policy}"))[0];
    let newest = client.entries("k").pop().unwrap();
    (allowed, newest.1, client.integer("PTTL k"))
}

/// The rule of retention, step by step.
#[test]
fn two_policies_on_one_key() {
    let (long, short, middle) = ("5 60s", "100 1s", "100 8s");
    let Some(mut log) = shared() else { return };
    let kept = |name: &str, left: i64| (1, name.to_owned(), left);
    let refused = |name: &str, left: i64| (0, name.to_owned(), left);
    // The long policy comes second and takes over, whatever is left of the short one's expiry.
    assert_eq!(hit(&mut log, 0, short), kept("1000ms", 1_125));
    assert_eq!(hit(&mut log, 10, long), kept("60000ms", 67_500));
    // The short one leaves the log alone for as long as the long one may still be in use.
    assert_eq!(hit(&mut log, 7_510, short), kept("60000ms", 60_000));
    assert_eq!(hit(&mut log, 7_511, short), kept("60000ms>1000ms", 127_500));
    // The longest policy since the waiting began is what remains.
    assert_eq!(hit(&mut log, 7_512, middle), kept("60000ms>8000ms", 127_499));
    assert_eq!(hit(&mut log, 7_513, short), kept("60000ms>8000ms", 127_498));
    // A long hit ends the waiting, a refused one begins it again, once in an eighth of the window.
    assert_eq!(hit(&mut log, 7_514, "9 60s"), kept("60000ms", 127_497));
    assert_eq!(hit(&mut log, 7_515, short), kept("60000ms", 127_496));
    assert_eq!(hit(&mut log, 75_012, short), kept("60000ms>1000ms", 127_500));
    assert_eq!(hit(&mut log, 75_012, "0 60s"), refused("60000ms>1000ms", 127_500));
    assert_eq!(hit(&mut log, 82_512, "0 60s"), refused("60000ms>1000ms", 120_000));
    assert_eq!(hit(&mut log, 82_513, "0 1s"), refused("60000ms>1000ms", 119_999));
    assert_eq!(hit(&mut log, 82_513, "0 60s"), refused("60000ms>1000ms", 127_500));
    assert_eq!(hit(&mut log, 82_514, "0 8s"), refused("60000ms>1000ms", 127_499));
    assert_eq!(hit(&mut log, 90_014, "0 8s"), refused("60000ms>1000ms", 127_500));
    // It ends when nobody has asked for a whole window.
    assert_eq!(hit(&mut log, 157_513, short), kept("60000ms>1000ms", 60_001));
    assert_eq!(hit(&mut log, 157_514, short), kept("1000ms", 1_125));
    // PERSIST: as if the waiting began now.
    assert_eq!(hit(&mut log, 157_514, "9999 60s"), kept("60000ms", 67_500));
    log.client.run("PERSIST k");
    assert_eq!(hit(&mut log, 157_515, short), kept("60000ms>1000ms", 127_500));
    log.client.run("PERSIST k");
    assert_eq!(hit(&mut log, 157_516, middle), kept("60000ms>8000ms", 127_500));
}

/// A policy of a minute is used once and given up: the log is kept for it for a while, and then for a second only.
#[test]
fn a_policy_that_is_given_up_costs_no_memory() {
    let Some(mut log) = shared() else { return };
    hit(&mut log, 0, "1000 1m");
    let mut fell = None;
    let mut longest = 0;
    for step in 1..=1_600 {
        let (allowed, name, _) = hit(&mut log, step * 100, "20 1s");
        assert_eq!(allowed, 1);
        let length = log.client.integer("XLEN k");
        longest = length.max(longest);
        match fell {
            None if name == "1000ms" => fell = Some(step * 100),
            None => assert!(name.starts_with("60000ms")),
            Some(_) => {
                assert_eq!(name, "1000ms");
                // What the window holds, and less than one node and 32 hits more.
                assert!(length < 11 + 10 + 32, "{length} entries are kept for a window that holds ten");
            }
        }
    }
    // The waiting began at 7.6 s, an expiry of 17/8 minutes was set, and a minute before that is the end.
    assert_eq!(fell, Some(75_100));
    assert!((600..640).contains(&longest), "{longest} entries were kept for the minute");
}

/// A refused hit is told to wait for longer than anybody has stored for: the key lives to see the end of it, which is
/// written once and not at every refusal.
#[test]
fn a_refusal_names_no_wait_that_the_key_does_not_live_to_see() {
    let Some(clock) = Clock::at(START) else { return };
    let (server, mut effects) = Effects::of(Setup::new().clock(&clock));
    let mut client = server.connect();
    const HOUR: u64 = 3_600_000;
    for hit in ["RATELIMIT.HIT k 1 1h", "RATELIMIT.MHIT 2 k other 1 1h AND 1 1h", "RATELIMIT.HIT k 9 1ms 1 1h"] {
        clock.set(START);
        client.run("FLUSHALL");
        client.run("RATELIMIT.HIT k 1 300ms");
        effects.take();
        let mut ask = |after_start: u64| {
            clock.set(START + after_start);
            let value = client.run(hit);
            match &value {
                Value::Array(keys) if matches!(keys[0], Value::Array(_)) => six(&keys[0]),
                _ => six(&value),
            }
        };
        assert_eq!(ask(0), [0, 1, 0, HOUR as i64, HOUR as i64, HOUR as i64]);
        assert_eq!(effects.take(), [format!("PEXPIREAT k {}", START + HOUR + HOUR / 8)], "{hit}");
        for later in [1, 600, HOUR / 2, HOUR - 1] {
            assert_eq!(ask(later)[3], (HOUR - later) as i64);
            assert_eq!(effects.take(), [""; 0], "{hit}");
        }
        assert_eq!(ask(HOUR)[..3], [1, 1, 0], "{hit}");
        effects.take();
    }
    // A wait that the key lives to see anyway, one that never ends, and a look change nothing.
    client.run("FLUSHALL");
    client.run("RATELIMIT.HIT k 5 1h COST 5");
    effects.take();
    for line in ["HIT k 5 1h", "HIT k 5 1m", "HIT k 0 1d", "HIT k 1 1d COST 2", "PEEK k 5 1d", "HIT k 5 1h COST 5"] {
        assert_eq!(client.answer(&format!("RATELIMIT.{line}"))[0], 0, "{line}");
        assert_eq!(effects.take(), [""; 0], "{line}");
    }
}

/// Whatever has piled up goes bit by bit, at most a thousand entries and a node a hit, and it does go: also where nodes have
/// no bound of entries, from which the server derives its own, and where one node holds more than a thousand.
#[test]
fn a_backlog_goes_bit_by_bit() {
    const ENTRIES: i64 = 6_000;
    const HITS: i64 = 8 * 32;
    for nodes in [["0", "512"], ["0", "65536"], ["100", "4096"], ["5000", "0"]] {
        let Some(clock) = Clock::at(START) else { return };
        let [entries, bytes] = nodes;
        let setup = Setup::new().args(["--stream-node-max-entries", entries, "--stream-node-max-bytes", bytes]);
        let server = setup.clock(&clock).start();
        let mut client = server.connect();
        let script = "for _ = 1, ARGV[1] do redis.call('RATELIMIT.HIT', KEYS[1], 10000000, '60s', 'COST', ARGV[2]) end";
        let fill = |client: &mut Connection, cost: i64| {
            client.ask(redis::cmd("EVAL").arg(script).arg(1).arg("k").arg(ENTRIES).arg(cost)).unwrap();
        };
        for (cost, hit, left) in [
            // All but the newest has expired; looked for once in 32 hits.
            (1, "RATELIMIT.HIT k 10000000 60s", 1_001),
            (1_000, "RATELIMIT.HIT k 10000000 60s COST 1000", 1_001),
            // A refusal that counts keeps no more than its limit.
            (1, "RATELIMIT.HIT k 5 60s STRICT", 2_000),
        ] {
            clock.set(START);
            client.run("FLUSHALL");
            fill(&mut client, cost);
            clock.set(START + 59_999);
            client.run("RATELIMIT.HIT k 10000000 60s");
            clock.set(START + if hit.ends_with("STRICT") { 59_999 } else { 60_000 });
            let (mut length, mut most) = (client.integer("XLEN k"), 0);
            let mut pipe = redis::pipe();
            for _ in 0..HITS {
                pipe.add_command(words(hit)).ignore().cmd("XLEN").arg("k");
            }
            for after in pipe.query::<Vec<i64>>(&mut client).unwrap() {
                let before = std::mem::replace(&mut length, after);
                most = most.max(before - length);
            }
            assert!((1..=1_000).contains(&most), "{nodes:?} {hit}: {most} entries went in one hit");
            // What one node may hold beyond that, and what these hits have added.
            let added = if hit.ends_with("STRICT") { 0 } else { HITS };
            assert!(length <= left + added, "{nodes:?} {hit}: {length} entries are left");
        }
    }
}

/// A refusal that counts, and drops what no longer decides anything, describes what is left.
#[test]
fn a_strict_reply_describes_the_log_after_it() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let mut dropped = 0;
    for step in 0..310 {
        clock.set(START + step);
        let before = client.integer("XLEN k");
        let hit = client.answer("RATELIMIT.HIT k 5 10s STRICT");
        dropped += i64::from(client.integer("XLEN k") < before);
        if step >= 5 {
            assert_eq!(hit, client.answer("RATELIMIT.PEEK k 5 10s"), "hit {step}");
        }
    }
    assert!(dropped > 0, "nothing was dropped");
}

/// What a longer window still finds counts on, also in a long log of which nothing is alive by the window before.
#[test]
fn a_longer_policy_keeps_what_it_has_counted() {
    let Some(mut log) = shared() else { return };
    let mut pipe = redis::pipe();
    for _ in 0..1_100 {
        pipe.add_command(words("RATELIMIT.HIT k 5000 8s")).ignore();
    }
    pipe.exec(&mut log.client).unwrap();
    log.clock.set(START + 8_500);
    assert_eq!(log.client.answer("RATELIMIT.HIT k 5000 1h")[2], 3_899);
    assert_eq!(log.client.answer("RATELIMIT.HIT k 5000 1h")[2], 3_898);
}

/// For as long as the long policy is asked, admitted or not, both are exact, however the short one floods.
#[test]
fn a_long_policy_in_use_holds_exactly() {
    let mut rng = random("a_long_policy_in_use_holds_exactly");
    for round in 0..4 {
        let (long, short): (Tier, Tier) = ((rng.u64(2..120), 8_000), (rng.u64(2..20), 500));
        let Some(mut log) = shared() else { return };
        let mut hits: Vec<Hit> = Vec::new();
        let (mut now, mut asked) = (START, START);
        let mut admitted = [0; 2];
        for step in 0..700 {
            // Rarely, but not more rarely than once in its own window.
            let ask_long = step == 0 || now + 400 - asked >= long.1 || rng.u8(..30) == 0;
            let tier = if ask_long { long } else { short };
            asked = if ask_long { now } else { asked };
            let expected = oracle::ask(&mut hits, now, Question { tiers: &[tier], cost: 1, ..Question::default() });
            let line = format!("RATELIMIT.HIT k {} {}ms", tier.0, tier.1);
            assert_eq!(log.client.answer(&line), expected, "round {round}, step {step}: {line}");
            admitted[usize::from(ask_long)] += expected[0];
            now += if rng.bool() { rng.u64(..400) } else { rng.u64(..30) };
            log.clock.set(now);
        }
        assert!(admitted[0] > 30 && admitted[1] > 0, "{admitted:?} were admitted");
    }
}

/// Two to four policies that come, go and are refused on one key: no hit is forgotten that a policy counts which was
/// asked at least once in each of its own windows.
#[test]
fn policies_that_share_a_key_forget_nothing_they_need() {
    let mut rng = random("policies_that_share_a_key_forget_nothing_they_need");
    let (mut bound, mut forgotten) = (0, 0);
    for _ in 0..8 {
        let windows = rng.choose_multiple([50_u64, 100, 200, 300, 600, 1_000, 2_400], 4);
        let policies: Vec<Tier> =
            windows.into_iter().take(rng.usize(2..=4)).map(|window| (rng.u64(1..25), window)).collect();
        let Some(mut log) = shared() else { return };
        let (mut hits, mut calls): (Vec<Hit>, Vec<oracle::Call>) = (Vec::new(), Vec::new());
        let mut in_use = policies.clone();
        let mut now = START;
        for _ in 0..700 {
            if rng.u8(..50) == 0 {
                in_use = rng.choose_multiple(&policies, policies.len()).into_iter().copied().collect();
                in_use.truncate(rng.usize(1..=policies.len()));
            }
            let (limit, window) = *rng.choice(&in_use).unwrap();
            now += rng.u64(..40) * window / 200;
            log.clock.set(now);
            if log.client.integer("EXISTS k") == 0 {
                calls.clear();
            }
            let live =
                |since: u64| hits.iter().filter(|(time, _)| *time >= since && *time + window > now).count() as u64;
            let (needed, all) = (live(oracle::needed_since(&calls, now, window)), live(0));
            let answer = six(&log.client.run(&format!("RATELIMIT.HIT k {limit} {window}ms")));
            let (allowed, remaining) = (answer[0] == 1, answer[2] as u64);
            assert!(!allowed || needed < limit, "a needed hit was forgotten");
            assert!(allowed || all >= limit, "refused without need");
            // After the call, what was admitted counts as well.
            let counted = |hits: u64| limit.saturating_sub(hits + u64::from(allowed));
            assert!((counted(all)..=counted(needed)).contains(&remaining), "{answer:?}: {needed} to {all} hits");
            bound += usize::from(needed == all && !allowed);
            forgotten += usize::from(needed < all);
            calls.push((now, window, allowed));
            if allowed {
                hits.push((now, 1));
            }
        }
    }
    assert!(
        bound > 200 && forgotten > 20,
        "{bound} calls were decided by needed hits, {forgotten} might have forgotten"
    );
}
