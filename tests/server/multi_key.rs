//! RATELIMIT.MHIT charges all of its keys or none, in one step.

use std::fs;

use redis::Value;
use support::client::{add_groups, number, time_of};
use support::errors;
use support::oracle::{self, Hit, Question, Tier};
use support::seeds::random;
use support::{Ask, START, Server, Setup, Stage, six};

fn sixes(value: &Value) -> Vec<[i64; 6]> {
    let Value::Array(items) = value else { panic!("{value:?} is no array") };
    items.iter().map(six).collect()
}

fn call(keys: &[String], tiers: &[Tier], cost: u64) -> redis::Cmd {
    let mut cmd = redis::cmd("RATELIMIT.MHIT");
    add_groups(cmd.arg(keys.len()).arg(keys), tiers, cost);
    cmd
}

/// A group for a key: up to three tiers and a cost.
type Group = (Vec<Tier>, u64);

/// One to eight keys out of ten, each with its groups, on a clock that stands still between calls.
#[test]
fn every_value_of_every_array() {
    let mut rng = random("every_value_of_every_array");
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let windows: Vec<u64> = (0..10).map(|_| rng.u64(20..2_000)).collect();
    let mut logs: Vec<Vec<Hit>> = vec![Vec::new(); 10];
    let (mut now, mut admitted, mut refused) = (START, 0, 0);
    for step in 0..6_000 {
        if rng.u8(..3) == 0 {
            now += rng.u64(..60);
            clock.set(now);
        }
        let mut picked: Vec<usize> = (0..10).collect();
        rng.shuffle(&mut picked);
        picked.truncate(rng.usize(1..=8));
        let limit = |rng: &mut fastrand::Rng| if rng.u8(..30) == 0 { rng.u64(..3) } else { rng.u64(20..60) };
        let group = |&at: &usize| -> Group {
            let mut tiers = vec![(limit(&mut rng), windows[at])];
            for _ in 0..rng.usize(..5).saturating_sub(2) {
                tiers.insert(rng.usize(..=tiers.len()), (limit(&mut rng), rng.u64(1..=windows[at])));
            }
            (tiers, if rng.bool() { 1 } else { rng.u64(1..4) })
        };
        let groups: Vec<Group> = picked.iter().map(group).collect();
        let option = *rng.choice(&["", "", "", "", "", "", " STRICT", " FORCE"]).unwrap();
        let with_tiers = rng.u8(..3) == 0;
        let (strict, force) = (option == " STRICT", option == " FORCE");
        let questions: Vec<Question> =
            groups.iter().map(|(tiers, cost)| Question { tiers, cost: *cost, strict, force }).collect();
        let mut chosen: Vec<Vec<Hit>> = picked.iter().map(|&at| logs[at].clone()).collect();
        let expected = oracle::ask_all(&mut chosen, now, &questions);

        let keys: Vec<String> = picked.iter().map(|at| format!("key:{at}")).collect();
        let spelled = |(tiers, cost): &Group| {
            let tiers: Vec<String> = tiers.iter().map(|(limit, window)| format!("{limit} {window}ms")).collect();
            if *cost == 1 { tiers.join(" ") } else { format!("{} COST {cost}", tiers.join(" ")) }
        };
        let groups: Vec<String> = groups.iter().map(spelled).collect();
        let (keys, groups) = (format!("{} {}", keys.len(), keys.join(" ")), groups.join(" AND "));
        let line = format!("RATELIMIT.MHIT {keys} {groups}{option}{}", if with_tiers { " WITHTIERS" } else { "" });
        let reply = client.run(&line);
        // Refused hits that count may drop what decides nothing, so the time until the next one leaves may be later.
        if option == " STRICT" {
            client.run(&format!("DEL {}", picked.iter().map(|at| format!("key:{at}")).collect::<Vec<_>>().join(" ")));
            picked.iter().for_each(|&at| logs[at].clear());
        }
        match (with_tiers, reply) {
            (true, Value::Array(keys)) => {
                let answers: Vec<Vec<[i64; 6]>> = keys.iter().map(sixes).collect();
                let expected: Vec<_> = expected.iter().map(|answer| answer.tiers.clone()).collect();
                assert_eq!(
                    without_next(answers, option),
                    without_next(expected, option),
                    "step {step} at {now}: {line}"
                );
            }
            (_, reply) => {
                let expected: Vec<_> = expected.iter().map(oracle::Answer::six).collect();
                let (answers, expected) = (vec![sixes(&reply)], vec![expected]);
                assert_eq!(
                    without_next(answers, option),
                    without_next(expected, option),
                    "step {step} at {now}: {line}"
                );
            }
        }
        *if expected[0].six()[0] == 1 { &mut admitted } else { &mut refused } += 1;
        if option != " STRICT" {
            for (at, hits) in picked.into_iter().zip(chosen) {
                logs[at] = hits;
            }
        }
    }
    assert!(admitted > 1_000 && refused > 1_000, "{admitted} admitted, {refused} refused");
    for (at, hits) in logs.iter().enumerate() {
        let entries = client.entries(&format!("key:{at}")).into_iter();
        let stored: Vec<Hit> = entries.map(|(id, _, cost)| (time_of(&id), number(&cost))).collect();
        assert!(hits.ends_with(&stored), "key:{at} holds what was admitted, without what has expired");
    }
}

/// The answers; after STRICT without the time until the next hit leaves.
fn without_next(mut answers: Vec<Vec<[i64; 6]>>, option: &str) -> Vec<Vec<[i64; 6]>> {
    if option == " STRICT" {
        answers.iter_mut().flatten().for_each(|answer| answer[5] = 0);
    }
    answers
}

/// With STRICT the keys that refuse are charged, and no others; with FORCE all.
#[test]
fn refusals_that_count() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT full 1 1h");
    let lengths =
        |client: &mut redis::Connection| ["free", "full", "small"].map(|key| client.integer(&format!("XLEN {key}")));
    let call = "RATELIMIT.MHIT 3 free full small 5 1h AND 1 1h AND 1 1h COST 2";
    let verdicts = |client: &mut redis::Connection, option: &str| {
        let reply = sixes(&client.run(&format!("{call}{option}")));
        reply.iter().for_each(|answer| assert_eq!(answer[0], 0));
        [0, 1, 2].map(|at: usize| (reply[at][2], reply[at][3].signum()))
    };
    assert_eq!(verdicts(&mut client, ""), [(5, 0), (0, 1), (1, -1)]);
    assert_eq!(lengths(&mut client), [0, 1, 0]);
    assert_eq!(verdicts(&mut client, " STRICT"), [(5, 0), (0, 1), (1, -1)], "what can never be is not stored");
    assert_eq!(lengths(&mut client), [0, 2, 0]);
    assert_eq!(verdicts(&mut client, " FORCE"), [(4, 0), (0, 1), (0, -1)]);
    assert_eq!(lengths(&mut client), [1, 3, 1]);
}

/// Connections whose sets of keys overlap: what was admitted is what is stored, and no key holds more than its limit.
#[test]
fn overlapping_keys_from_many_connections() {
    let mut rng = random("overlapping_keys");
    let server = Server::start();
    let limits: Vec<u64> = (0..6).map(|_| rng.u64(50..400)).collect();
    let admitted: Vec<[u64; 6]> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| {
                let (mut rng, limits, mut client) = (rng.fork(), &limits, server.connect());
                scope.spawn(move || {
                    let mut admitted = [0; 6];
                    let mut sets = Vec::new();
                    let mut pipe = redis::pipe();
                    for _ in 0..200 {
                        let mut picked: Vec<usize> = (0..6).collect();
                        rng.shuffle(&mut picked);
                        picked.truncate(rng.usize(1..=4));
                        let keys: Vec<String> = picked.iter().map(|at| format!("key:{at}")).collect();
                        let tiers: Vec<Tier> = picked.iter().map(|&at| (limits[at], 3_600_000)).collect();
                        pipe.add_command(call(&keys, &tiers, 1));
                        sets.push(picked);
                    }
                    let replies: Vec<Value> = pipe.query(&mut client).unwrap();
                    for (picked, reply) in sets.iter().zip(replies) {
                        if sixes(&reply)[0][0] == 1 {
                            picked.iter().for_each(|&at| admitted[at] += 1);
                        }
                    }
                    admitted
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let mut client = server.connect();
    let mut full = 0;
    for at in 0..6 {
        let sum: u64 = admitted.iter().map(|counts| counts[at]).sum();
        assert!(sum <= limits[at], "key:{at}: {sum} of {}", limits[at]);
        assert_eq!(client.integer(&format!("XLEN key:{at}")) as u64, sum);
        full += u32::from(sum == limits[at]);
    }
    assert!(full > 0, "somebody was refused");
}

#[test]
fn bad_calls_charge_nobody() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("SET string x");
    client.run("XADD foreign * a b");
    client.run("RATELIMIT.HIT good 5 1h");
    let before = client.fingerprint();
    let numkeys = errors::NUMKEYS;
    let too_few = errors::TOO_FEW_ARGUMENTS;
    let groups = errors::GROUPS;
    let arity = "ERR wrong number of arguments for 'ratelimit.mhit' command";
    for (line, error) in [
        ("", arity),
        ("1", arity),
        ("1 good", arity),
        ("1 good 5", arity),
        ("0 good 5 1h", numkeys),
        ("-1 good 5 1h", numkeys),
        ("x good 5 1h", numkeys),
        ("1.0 good 5 1h", numkeys),
        ("+1 good 5 1h", numkeys),
        ("01 good 5 1h", numkeys),
        ("99999999999999999999 good 5 1h", numkeys),
        ("1000000000000 good 5 1h", too_few),
        ("9223372036854775807 good 5 1h", too_few),
        ("18446744073709551615 good 5 1h", numkeys),
        ("4 good 5 1h", too_few),
        ("3 good 5 1h", errors::SYNTAX),
        ("2 good good2 5 1h", groups),
        ("2 good good2 5 1h COST 2", groups),
        ("2 good good2 5 1h 5 1h", groups),
        ("2 good good2 5 1h AND 5 1h AND 5 1h", groups),
        ("2 good good2 5 1h AND 5 1h AND", groups),
        ("1 good good2 5 1h AND 5 1h", errors::LIMIT),
        ("1 good 5 1h AND 5 1h", groups),
        ("2 good good 5 1h AND 5 1h", errors::KEY_TWICE),
        ("3 good good2 good 5 1h AND 5 1h AND 5 1h", errors::KEY_TWICE),
        ("2 good good2 5 1h AND x 1h", errors::LIMIT),
        ("2 good good2 x 1h AND 5 1h", errors::LIMIT),
        ("2 good good2 5 1h AND 5 1y", errors::WINDOW),
        ("2 good good2 5 1h AND 5", errors::SYNTAX),
        ("2 good good2 5 1h AND", errors::SYNTAX),
        ("2 good good2 AND 5 1h AND 5 1h", errors::LIMIT),
        ("2 good good2 5 1h AND 5 1h COST", errors::SYNTAX),
        ("2 good good2 5 1h AND 5 1h COST 0", errors::COST),
        ("2 good good2 5 1h AND 5 1h COST 1 COST 1", errors::SYNTAX),
        ("2 good good2 5 1h STRICT AND 5 1h", errors::SYNTAX),
        ("2 good good2 5 1h AND 5 1h STRICT FORCE", errors::SYNTAX),
        ("2 good good2 5 1h AND 5 1h STRICT COST 1", errors::SYNTAX),
        ("2 good good2 5 1h AND 5 1h WITHTIERS WITHTIERS", errors::SYNTAX),
        ("2 good good2 5 1h AND 5 1h WAIT 1s", errors::SYNTAX),
        ("2 good string 5 1h AND 5 1h", errors::WRONG_TYPE),
        ("2 string good 5 1h AND 5 1h", errors::WRONG_TYPE),
        ("2 good foreign 5 1h AND 5 1h", errors::NOT_A_LOG),
        ("3 a good foreign 5 1h AND 5 1h AND 5 1h", errors::NOT_A_LOG),
    ] {
        let line = format!("RATELIMIT.MHIT {line}");
        assert_eq!(client.error(line.trim_end()), error, "{line}");
    }
    assert_eq!(client.fingerprint(), before);
    assert_eq!(client.text("PING"), "PONG");
}

#[test]
fn a_refusal_writes_nothing() {
    let server = Setup::new().args(["--appendonly", "yes", "--appendfsync", "always"]).start();
    let (mut client, mut watcher) = (server.connect(), server.connect());
    client.run("RATELIMIT.HIT full 1 1h");
    let before = client.fingerprint();
    let aof = |server: &Server| -> u64 {
        let files = fs::read_dir(server.dir().join("appendonlydir")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let size = aof(&server);
    watcher.run("WATCH a full b");
    let answers = sixes(&client.run("RATELIMIT.MHIT 3 a full b 5 1h AND 1 1h AND 7 1h"));
    assert_eq!(answers[0], [0, 5, 5, 0, 0, 0]);
    assert_eq!((answers[1][..3].to_vec(), answers[1][3] > 0), (vec![0, 1, 0], true));
    assert_eq!(answers[2], [0, 7, 7, 0, 0, 0]);
    assert_eq!(client.fingerprint(), before);
    assert_eq!(aof(&server), size);
    watcher.run("MULTI");
    watcher.run("PING");
    assert_ne!(watcher.run("EXEC"), Value::Nil, "the watching client is not disturbed");

    // What is admitted is one transaction in the AOF, so that it is there whole after a crash, or not at all.
    client.run("RATELIMIT.MHIT 2 a b 5 1h AND 7 1h");
    let after = client.fingerprint();
    let file = fs::read_dir(server.dir().join("appendonlydir")).unwrap();
    let incr = file.map(|file| file.unwrap().path()).find(|path| path.to_string_lossy().ends_with("incr.aof")).unwrap();
    let text = String::from_utf8_lossy(&fs::read(incr).unwrap()).into_owned();
    let commands: Vec<&str> = text.split("\r\n").filter(|word| word.chars().all(|c| c.is_ascii_uppercase())).collect();
    let commands: Vec<&str> = commands.into_iter().filter(|word| word.len() > 3).collect();
    assert_eq!(commands[commands.len() - 6..], ["MULTI", "RESTORE", "ABSTTL", "RESTORE", "ABSTTL", "EXEC"]);
    let setup = Setup::new().without_module().args(["--appendonly", "yes"]);
    let without = setup.start_in(server.kill());
    assert_eq!(without.connect().fingerprint(), after);
}
