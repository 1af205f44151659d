//! No window exceeds its limit, and each reply is exact: random hits on a real server, every value against brute force.

use redis::Value;
use support::calls::{any_case, question_for, words_of};
use support::client::{number, time_of};
use support::oracle::{self, Hit, Question, Tier};
use support::seeds::random;
use support::{Ask, START, Server, Stage, get, six};

struct Client {
    key: String,
    /// One tier of every call on the key has this window, so that nothing that counts is ever forgotten.
    longest: u64,
    hits: Vec<Hit>,
}

/// On a clock that stands still between calls, so that the exact moment of each is known.
#[test]
fn every_value_of_every_reply() {
    let mut rng = random("every_value_of_every_reply");
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let windows = [20, 50, 333, 1_000, 5_400_000, 86_400_000];
    let clients = windows.iter().enumerate();
    let mut clients: Vec<Client> =
        clients.map(|(at, &longest)| Client { key: format!("client:{at}"), longest, hits: Vec::new() }).collect();
    let mut now = START;
    let (mut admitted, mut refused) = (0, 0);
    for step in 0..12_000 {
        let at = rng.usize(..clients.len());
        let Client { key, longest, hits } = &mut clients[at];
        if rng.u8(..3) == 0 {
            now += match rng.u8(..30) {
                0 => rng.u64(..=*longest),
                1..12 => rng.u64(..=20),
                _ => 1,
            };
            clock.set(now);
        }
        let (tiers, mut cost) = question_for(&mut rng, *longest);
        let peek = rng.u8(..8) == 0;
        if peek && rng.u8(..3) == 0 {
            cost = 0;
        }
        let force = !peek && rng.u8(..12) == 0;
        let question = Question { tiers: &tiers, cost, force, ..Question::default() };
        let mut after = hits.clone();
        let answer = oracle::answer(&mut after, now, question);
        let expected = answer.six();
        let name = any_case(&mut rng, if peek { "RATELIMIT.PEEK" } else { "RATELIMIT.HIT" });
        let mut words = words_of(&mut rng, key, question);
        let with_tiers = rng.u8(..4) == 0;
        if with_tiers {
            words.push(any_case(&mut rng, "WITHTIERS"));
        }
        let reply = client.ask(redis::cmd(&name).arg(&words)).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        match reply {
            Value::Array(each) if with_tiers => {
                let tiers: Vec<[i64; 6]> = each.iter().map(six).collect();
                assert_eq!(tiers, answer.tiers, "step {step} at {now}: {name} {words:?}");
            }
            reply => assert_eq!(six(&reply), expected, "step {step} at {now}: {name} {words:?}"),
        }
        if !peek {
            *hits = after;
            hits.retain(|hit| hit.0 + *longest > now);
            *if expected[0] == 1 { &mut admitted } else { &mut refused } += 1;
        }
    }
    assert!(admitted > 2_000 && refused > 2_000, "{admitted} admitted, {refused} refused");
    for Client { key, longest, mut hits } in clients {
        hits.retain(|hit| hit.0 + longest > now);
        let stored: Vec<Hit> =
            client.entries(&key).into_iter().map(|(id, _, cost)| (time_of(&id), number(&cost))).collect();
        assert!(stored.ends_with(&hits), "{key} holds what was admitted");
    }
}

/// On the machine's own clock: the server says in the same transaction what time it is before and after the hit, and the
/// reply must be right for a moment between the two.
#[test]
fn on_a_clock_that_runs() {
    let mut rng = random("on_a_clock_that_runs");
    let server = Server::start();
    let mut client = server.connect();
    let mut hits: Vec<Hit> = Vec::new();
    let mut calls = 0;
    while calls < 6_000 {
        let mut pipe = redis::pipe();
        pipe.atomic();
        let (tiers, cost) = question_for(&mut rng, 60);
        pipe.cmd("TIME").cmd("RATELIMIT.HIT").arg(words_of(
            &mut rng,
            "key",
            Question { tiers: &tiers, cost, ..Question::default() },
        ));
        pipe.cmd("TIME").cmd("XREVRANGE").arg(&["key", "+", "-", "COUNT", "1"]);
        type Newest = Vec<(String, Vec<String>)>;
        let (before, reply, after, newest): ((u64, u64), Value, (u64, u64), Newest) = pipe.query(&mut client).unwrap();
        let milliseconds = |(seconds, microseconds)| seconds * 1_000 + microseconds / 1_000;
        // Later servers than 7.0 go by the time at which the transaction began, which is before the first answer.
        let possible = milliseconds(before) - 20..=milliseconds(after);
        // A hit that was admitted says when; what a refused one leaves behind is the same at any time.
        let moments = match six(&reply)[0] {
            1 => time_of(&newest[0].0)..=time_of(&newest[0].0),
            _ => possible.clone(),
        };
        assert!(possible.contains(moments.start()), "{newest:?} at {before:?}");
        let fitting = moments.into_iter().find_map(|now| {
            let mut after = hits.clone();
            let expected = oracle::ask(&mut after, now, Question { tiers: &tiers, cost, ..Question::default() });
            (six(&reply) == expected).then_some((now, after))
        });
        let (now, after) =
            fitting.unwrap_or_else(|| panic!("{reply:?} is wrong from {before:?} to {after:?}: {tiers:?}"));
        hits = after;
        hits.retain(|hit| hit.0 + 60 > now);
        calls += 1;
    }
}

/// Refused hits that count.
#[test]
fn strict() {
    let mut rng = random("strict");
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let mut now = START;
    for key in 0..30 {
        let longest = rng.u64(20..500);
        let tiers: Vec<Tier> = question_for(&mut rng, longest).0;
        let mut hits = Vec::new();
        for _ in 0..80 {
            now += if rng.bool() { rng.u64(..longest / 8) } else { 0 };
            clock.set(now);
            let question = Question { tiers: &tiers, cost: rng.u64(1..5), strict: rng.bool(), ..Question::default() };
            let expected = oracle::ask(&mut hits, now, question);
            let words = words_of(&mut rng, &format!("strict:{key}"), question);
            let answer = six(&client.ask(redis::cmd("RATELIMIT.HIT").arg(&words)).unwrap());
            // A strict log forgets what decides nothing, so that its oldest live entry may be a later one.
            assert_eq!(answer[..5], expected[..5], "{words:?}");
            assert!(answer[5] >= expected[5], "{words:?}");
        }
    }
    // An attacker who never stops keeps himself out and costs no more than the limit's worth of memory.
    for step in 1..=5_000_u64 {
        clock.set(now + step);
        let answer = client.answer("RATELIMIT.HIT login 5 1m STRICT");
        assert_eq!(answer[0], i64::from(step <= 5));
        assert!(step <= 5 || answer[3] == 60_000 - 4, "only silence helps: {answer:?}");
    }
    assert!(client.integer("XLEN login") <= 5 + 100);
    clock.set(now + 5_000 + 60_000);
    assert_eq!(client.answer("RATELIMIT.HIT login 5 1m STRICT")[0], 1);
    let impossible = client.answer("RATELIMIT.HIT never 5 1m COST 6 STRICT");
    assert_eq!(impossible, [0, 5, 5, -1, 0, 0]);
    assert_eq!(client.integer("EXISTS never"), 0, "a call that can never be allowed stores nothing");
}

/// 32 connections, 200 pipelined hits each, a limit of 100: exactly 100 get in.
#[test]
fn many_connections_at_once() {
    let server = Server::start();
    for round in 0..10 {
        let admitted: usize = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..32)
                .map(|_| {
                    let mut client = server.connect();
                    scope.spawn(move || {
                        let mut pipe = redis::pipe();
                        for _ in 0..200 {
                            pipe.cmd("RATELIMIT.HIT").arg(format!("round:{round}")).arg(100).arg("1h");
                        }
                        let replies: Vec<Value> = pipe.query(&mut client).unwrap();
                        replies.iter().filter(|reply| six(reply)[0] == 1).count()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(admitted, 100, "round {round}");
        let length: i64 = get(server.connect().run(&format!("XLEN round:{round}")));
        assert_eq!(length, 100);
    }
}
