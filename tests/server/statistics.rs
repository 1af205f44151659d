//! INFO, TOP, events and settings tell an operator the truth.

use redis::Value;
use support::client::number;
use support::errors;
use support::modules::module;
use support::seeds::random;
use support::{Ask, Clock, PATIENCE, START, Server, Setup, Stage, get, words};

#[test]
fn info_counts() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    clock.set(START + 10);
    client.run("RATELIMIT.HIT a 2 1h COST 2");
    client.run("RATELIMIT.HIT a 2 1h");
    client.run("RATELIMIT.HIT a 2 1h STRICT");
    client.run("RATELIMIT.PEEK a 2 1h");
    client.run("RATELIMIT.MHIT 2 b c 1 1h COST 1 AND 9 1h COST 1");
    client.run("RATELIMIT.MHIT 2 b c 1 1h COST 1 AND 9 1h COST 1");
    client.run("XADD foreign * a b");
    client.error("RATELIMIT.HIT foreign 1 1");
    client.error("RATELIMIT.PEEK foreign 1 1");
    client.run("RATELIMIT.RESET b nothing");
    clock.set(START);
    client.run("RATELIMIT.PEEK a 2 1h");
    let expected = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("hits_admitted", "3"),
        ("hits_refused", "3"),
        ("units_admitted", "4"),
        ("keys_reset", "1"),
        ("foreign_stream_errors", "2"),
        ("clock_steps", "1"),
    ];
    for (field, value) in expected {
        assert_eq!(client.info("ratelimit", &format!("ratelimit_{field}")), value, "{field}");
    }
    assert_eq!(client.run("RATELIMIT.RESETSTAT"), Value::Okay);
    for (field, _) in &expected[1..] {
        assert_eq!(client.info("ratelimit", &format!("ratelimit_{field}")), "0", "{field}");
    }
    assert!(client.text("INFO everything").contains("# ratelimit\r\n"));
}

type Rows = Vec<(String, u64, u64)>;

#[test]
fn top_lists_who_is_refused() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    assert_eq!(get::<Rows>(client.run("RATELIMIT.TOP")), []);
    for (key, refused) in [("mild", 1), ("worst", 5), ("bad", 3), ("good", 0)] {
        client.run(&format!("RATELIMIT.HIT {key} 1 1h"));
        for _ in 0..refused {
            client.run(&format!("RATELIMIT.HIT {key} 1 1h"));
        }
    }
    client.run("RATELIMIT.PEEK mild 1 1h");
    let row = |key: &str, refused| (key.to_owned(), refused, START);
    assert_eq!(get::<Rows>(client.run("RATELIMIT.TOP")), [row("worst", 5), row("bad", 3), row("mild", 1)]);
    assert_eq!(get::<Rows>(client.run("RATELIMIT.TOP count 1")), [row("worst", 5)]);
    // Of a call on several keys, those that refuse.
    client.run("RATELIMIT.MHIT 2 other bad 1 1h AND 1 1h");
    assert_eq!(get::<Rows>(client.run("RATELIMIT.TOP COUNT 2")), [row("worst", 5), row("bad", 4)]);
    clock.set(START + 60_000);
    assert_eq!(get::<Rows>(client.run("RATELIMIT.TOP")), [row("bad", 2), row("worst", 2)]);
    client.run("SELECT 1");
    assert_eq!(get::<Rows>(client.run("RATELIMIT.TOP")), []);
    client.run("SELECT 0");
    for (line, error) in [
        ("COUNT", errors::SYNTAX),
        ("COUNT 0", errors::COUNT),
        ("COUNT -1", errors::COUNT),
        ("COUNT x", errors::COUNT),
        ("COUNT 1 1", errors::SYNTAX),
        ("10", errors::SYNTAX),
    ] {
        assert_eq!(client.error(&format!("RATELIMIT.TOP {line}")), error, "{line}");
    }
    client.run("RATELIMIT.RESETSTAT");
    assert_eq!(get::<Rows>(client.run("RATELIMIT.TOP")), []);
    let binary: &[u8] = b"\0\xff\r\n%s";
    client.ask(redis::cmd("RATELIMIT.HIT").arg(binary).arg(0).arg(1)).unwrap();
    let rows: Vec<(Vec<u8>, u64, u64)> = get(client.run("RATELIMIT.TOP"));
    assert_eq!(rows[0].0, binary);
}

/// 100,000 offenders, the n-th of them refused as often as 1/n: the ten worst are named, and memory does not grow.
#[test]
fn top_of_a_zipfian_stream() {
    let mut rng = random("top_of_a_zipfian_stream");
    let server = Server::start();
    let mut client = server.connect();
    let mut cumulative = Vec::new();
    let mut total = 0.0;
    for n in 1..=100_000 {
        total += 1.0 / f64::from(n);
        cumulative.push(total);
    }
    // Every key once, then as Zipf has it.
    let mut keys: Vec<usize> = (1..=100_000).collect();
    rng.shuffle(&mut keys);
    keys.extend((0..300_000).map(|_| {
        let at = rng.f64() * total;
        cumulative.partition_point(|&sum| sum < at) + 1
    }));
    let mut flood = |keys: &[usize]| {
        for batch in keys.chunks(5_000) {
            let mut pipe = redis::pipe();
            for n in batch {
                pipe.cmd("RATELIMIT.HIT").arg(format!("user:{n}")).arg(0).arg(1).ignore();
            }
            pipe.exec(&mut client).unwrap();
        }
        client.info("memory", "used_memory_dataset").parse::<i64>().unwrap()
    };
    let after_many = flood(&keys[..50_000]);
    let after_all = flood(&keys[50_000..]);
    assert!((after_all - after_many).abs() < 300_000, "{after_many} bytes became {after_all}");
    let rows: Rows = get(client.run("RATELIMIT.TOP"));
    let names: Vec<String> = rows.iter().map(|row| row.0.clone()).collect();
    let mut expected: Vec<String> = (1..=10).map(|n| format!("user:{n}")).collect();
    // Neighbours at the end of the list differ by a tenth, so that chance may swap them.
    let mut sorted = names.clone();
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected, "{rows:?}");
    assert_eq!(names[..4], ["user:1", "user:2", "user:3", "user:4"]);
    assert_eq!(client.integer("DBSIZE"), 0);
}

#[test]
fn the_setting_top_entries() {
    let server = Setup::new().args(["--ratelimit.top-entries", "0"]).start();
    let mut client = server.connect();
    let setting =
        |client: &mut redis::Connection| get::<Vec<String>>(client.run("CONFIG GET ratelimit.top-entries"))[1].clone();
    assert_eq!(setting(&mut client), "0");
    client.run("RATELIMIT.HIT key 0 1");
    assert_eq!(get::<Rows>(client.run("RATELIMIT.TOP")), [], "turned off");
    client.run("CONFIG SET ratelimit.top-entries 3");
    assert_eq!(setting(&mut client), "3");
    client.run("RATELIMIT.HIT key 0 1");
    assert_eq!(get::<Rows>(client.run("RATELIMIT.TOP")).len(), 1);
    for value in ["-1", "65537", "x"] {
        let error = client.error(&format!("CONFIG SET ratelimit.top-entries {value}"));
        assert!(error.contains("argument"), "{error}");
    }
    assert_eq!(setting(&mut client), "3");

    // In MODULE LOADEX, and refused there with a line in the log.
    let server = Setup::new().without_module().args(["--enable-module-command", "yes"]).start();
    let mut client = server.connect();
    let mut load = |value: &str| {
        let mut cmd = redis::cmd("MODULE");
        cmd.arg("LOADEX").arg(module().to_str()).arg("CONFIG").arg("ratelimit.top-entries").arg(value);
        client.ask(&cmd)
    };
    assert!(load("65537").is_err());
    assert!(server.log().contains("ratelimit.top-entries"), "{}", server.log());
    load("17").unwrap();
    assert_eq!(setting(&mut client), "17");
    assert_eq!(setting(&mut Server::start().connect()), "1000");
}

/// Every refusal is an event, and only where the server has module events turned on.
#[test]
fn the_event_of_a_refusal() {
    let server = Setup::new().args(["--notify-keyspace-events", "KEA"]).start();
    let mut client = server.connect();
    let mut listener = server.connect();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut listener = listener.as_pubsub();
    listener.psubscribe("__keyevent@*__:*").unwrap();
    let events = |turn: &str| format!("CONFIG SET notify-keyspace-events {turn}");
    client.run("RATELIMIT.HIT key 0 1");
    client.run(&events("Ed"));
    client.run("RATELIMIT.HIT seen 0 1");
    client.run("RATELIMIT.PEEK seen 0 1");
    client.run("RATELIMIT.HIT seen 0 1");
    client.run("RATELIMIT.MHIT 2 fine refused 1 1 AND 0 1");
    client.run(&events("KEA"));
    client.run("SET end x");
    let mut heard = Vec::new();
    while heard.last() != Some(&("__keyevent@0__:set".to_owned(), "end".to_owned())) {
        let message = listener.get_message().unwrap();
        heard.push((message.get_channel_name().to_owned(), message.get_payload::<String>().unwrap()));
    }
    let refused = |key: &str| ("__keyevent@0__:ratelimit.refused".to_owned(), key.to_owned());
    // KEA includes d, so that the first was an event as well.
    assert_eq!(heard[..heard.len() - 1], [refused("key"), refused("seen"), refused("seen"), refused("refused")]);
}

/// What a subscriber hears until `PUBLISH` of a last word: each event once as keyspace and once as keyevent message.
fn events_until(subscriber: &mut redis::PubSub, word: &str) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let message = subscriber.get_message().unwrap();
        let channel = message.get_channel_name().to_owned();
        let payload: String = message.get_payload().unwrap();
        if payload == word {
            return events;
        }
        if let Some(key) = channel.strip_prefix("__keyspace@0__:") {
            events.push(format!("{payload} {key}"));
        } else {
            let event = channel.strip_prefix("__keyevent@0__:").unwrap();
            assert_eq!(events.last(), Some(&format!("{event} {payload}")), "the two come in pairs");
        }
    }
}

#[test]
fn keyspace_events() {
    let Some(clock) = Clock::at(START) else { return };
    let args = ["--notify-keyspace-events", "KEA", "--stream-node-max-entries", "2"];
    let server = Setup::new().args(args).clock(&clock).start();
    let mut client = server.connect();
    let mut listening = server.connect();
    listening.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut subscriber = listening.as_pubsub();
    subscriber.psubscribe("__key*__:*").unwrap();
    for (after, line, expected) in [
        (0, "RATELIMIT.PEEK key 3 1s", &[][..]),
        // A refusal leaves no trace: the event of the module itself is all there is, and only with class d, which A has.
        (0, "RATELIMIT.HIT key 0 1s", &["ratelimit.refused key"]),
        (0, "RATELIMIT.RESET key", &[]),
        (0, "RATELIMIT.HIT key x 1s", &[]),
        (0, "RATELIMIT.HIT key 3 1s", &["restore key", "xadd key", "expire key"]),
        (0, "RATELIMIT.HIT key 3 1s", &["xadd key"]),
        (0, "RATELIMIT.HIT key 3 1s", &["xadd key"]),
        (0, "RATELIMIT.HIT key 3 1s", &["ratelimit.refused key"]),
        (0, "RATELIMIT.PEEK key 3 1s", &[]),
        (0, "RATELIMIT.HIT key 3 1s STRICT", &["xadd key", "ratelimit.refused key"]),
        // Nodes hold two entries: one beyond the three newest goes.
        (0, "RATELIMIT.HIT key 3 1s STRICT", &["xadd key", "xtrim key", "ratelimit.refused key"]),
        // The key's expiry is due for renewal.
        (1_001, "RATELIMIT.HIT key 3 1s", &["xadd key", "expire key"]),
        (1_050, "RATELIMIT.HIT key 3 1s", &["xadd key"]),
        // The clock was set back by more than the log is kept: it is started again.
        (-9_000, "RATELIMIT.HIT key 3 1s", &["restore key", "del key", "xadd key", "expire key"]),
        (-9_000, "RATELIMIT.RESET key", &["del key"]),
        (-9_000, "RATELIMIT.RESET key", &[]),
        (-9_000, "RATELIMIT.HIT key 3 1s", &["restore key", "xadd key", "expire key"]),
        (-9_000, "RATELIMIT.HIT other 3 1s", &["restore other", "xadd other", "expire other"]),
        (-9_000, "RATELIMIT.RESET other unseen key", &["del other", "del key"]),
    ] {
        clock.set(START.checked_add_signed(after).unwrap());
        let _ = client.ask(&words(line));
        client.run("PUBLISH __keyevent@0__:done done");
        assert_eq!(events_until(&mut subscriber, "done"), expected, "{line} at {after}");
    }
}

/// `INFO ratelimit` tells admitted, refused and waiting hits of each policy, whose sums are those of all.
#[test]
fn figures_by_policy() {
    let server = Server::start();
    let mut client = server.connect();
    for line in [
        "HIT a 2 1m",
        "HIT a 2 60s",
        "HIT a 2 60000ms",
        "HIT b 10 1s 500 3600 COST 7",
        "HIT b 10 1s 500 3600 COST 7",
        "PEEK b 10 1s",
        "MHIT 2 c d 5 1w COST 5 AND 2 1m COST 2",
        "MHIT 2 c d 5 1w COST 5 AND 2 1m COST 2",
        // At once, after waiting, and not at all.
        "HIT e 1 1s 9 1h WAIT 10s",
        "HIT e 1 1s 9 1h WAIT 10s",
        "HIT e 1 1s 2 1h WAIT 10s",
    ] {
        client.run(&format!("RATELIMIT.{line}"));
    }
    let figures =
        |client: &mut redis::Connection, policy: &str| client.info("ratelimit", &format!("ratelimit_policy_{policy}"));
    assert_eq!(figures(&mut client, "2/1m"), "admitted=3,refused=2,units=4,waited=0");
    assert_eq!(figures(&mut client, "10/1s+500/1h"), "admitted=1,refused=1,units=7,waited=0");
    assert_eq!(figures(&mut client, "5/1w"), "admitted=1,refused=1,units=5,waited=0");
    assert_eq!(figures(&mut client, "1/1s+9/1h"), "admitted=2,refused=0,units=2,waited=1");
    assert_eq!(figures(&mut client, "1/1s+2/1h"), "admitted=0,refused=1,units=0,waited=0");
    for limit in 1..=100 {
        client.run(&format!("RATELIMIT.HIT many {limit} 1d"));
    }
    let info = client.text("INFO ratelimit");
    let policies: Vec<&str> = info.lines().filter(|line| line.starts_with("ratelimit_policy_")).collect();
    assert_eq!(policies.len(), 65, "{info}");
    assert!(policies[64].starts_with("ratelimit_policy_other:admitted="), "{info}");
    let sum = |name: &str| -> u64 {
        let part = |line: &&str| {
            line.split([':', ',']).find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).map(number)
        };
        policies.iter().filter_map(part).sum()
    };
    assert_eq!(sum("admitted").to_string(), client.info("ratelimit", "ratelimit_hits_admitted"));
    assert_eq!(sum("refused").to_string(), client.info("ratelimit", "ratelimit_hits_refused"));
    assert_eq!(sum("units").to_string(), client.info("ratelimit", "ratelimit_units_admitted"));
    assert_eq!(sum("waited").to_string(), client.info("ratelimit", "ratelimit_waits_admitted"));
    client.run("RATELIMIT.RESETSTAT");
    assert!(!client.text("INFO ratelimit").contains("policy"));

    // Eight tiers with the largest numbers.
    let tiers = ["9007199254740991 315359999999ms"; 8];
    client.run(&format!("RATELIMIT.HIT long {}", tiers.join(" ")));
    let name = tiers.map(|tier| tier.replace(' ', "/")).join("+");
    assert_eq!(figures(&mut client, &name), "admitted=1,refused=0,units=1,waited=0");
}
