//! Replicas and files hold the same data: they get the effects of a hit as plain commands.

use redis::{Connection, Value};
use support::interference::{Interference, Kind};
use support::replication::{
    APPEND_ONLY, Effects, NODES_OF_FOUR, REPLICATION, caught_up, offset, replica_of, start_again,
};
use support::seeds::random;
use support::{Ask, Clock, START, Setup, Stage, assert_same, six, wait_for, words};

const KEYS: [&str; 6] = ["one", "two", "three", "tiers", "login", "heavy"];

/// The policies that share each of [`KEYS`].
const POLICIES: [&[&str]; 6] = [
    &["20 500ms"],
    &["60 2s", "9 100ms"],
    &["100 5s", "30 1s", "5 60ms"],
    &["10 100ms 60 3s", "25 300ms"],
    &["5 400ms STRICT", "5 400ms"],
    &["1000 1s COST 90", "1000 1s COST 7", "9007199254740991 3s COST 9007199254740000"],
];

/// Random calls, and somebody else's hand at the expiry of the keys. Ends with no key that is past its expiry but still
/// there, which no fingerprint could show in the same way on two servers.
fn traffic(rng: &mut fastrand::Rng, client: &mut Connection, clock: &Clock, now: &mut u64) {
    let others = Interference { keys: &KEYS, windows: &[300, 5_000], kinds: &[Kind::Expiry] };
    for _ in 0..1_500 {
        let at = rng.usize(..KEYS.len());
        let key = KEYS[at];
        *now += match rng.u16(..1_000) {
            0 => rng.u64(..8_000),
            1..600 => rng.u64(..12),
            _ => 0,
        };
        if rng.u16(..400) == 0 {
            *now -= rng.u64(..12_000);
        }
        clock.set(*now);
        let line = match rng.u8(..100) {
            0 => format!("RATELIMIT.RESET {key} {}", rng.choice(KEYS).unwrap()),
            1 | 2 => {
                others.act(rng).carry_out(*now, &mut Vec::new(), |cmd| client.ask(cmd));
                continue;
            }
            3..8 => format!("RATELIMIT.PEEK {key} 7 {}ms", rng.u64(1..1_000)),
            _ => format!("RATELIMIT.HIT {key} {}", rng.choice(POLICIES[at]).unwrap()),
        };
        client.run(&line);
    }
    client.run(&format!("EXISTS {}", KEYS.join(" ")));
    // Or a jump of the clock at the very end may leave nothing to compare.
    for (key, policies) in KEYS.iter().zip(POLICIES) {
        client.run(&format!("RATELIMIT.HIT {key} {}", policies[0]));
    }
}

#[test]
fn replicas_hold_the_same_data() {
    let mut rng = random("replicas_hold_the_same_data");
    let Some(clock) = Clock::at(START) else { return };
    let plain = Setup::new().clock(&clock);
    let primary = plain.clone().tcp().args(REPLICATION).args(NODES_OF_FOUR).start();
    let mut client = primary.connect();
    let mut now = START;
    traffic(&mut rng, &mut client, &clock, &mut now);
    let replicas = [
        ("the same", replica_of(&primary, plain.clone().args(NODES_OF_FOUR))),
        ("larger nodes", replica_of(&primary, plain.clone())),
        ("smaller nodes", replica_of(&primary, plain.clone().args(["--stream-node-max-entries", "1"]))),
        ("no module", replica_of(&primary, plain.without_module().args(["--stream-node-max-entries", "7"]))),
    ];
    for _ in 0..2 {
        traffic(&mut rng, &mut client, &clock, &mut now);
        let expected = client.fingerprint();
        assert!(expected.len() > 3, "there is something to compare");
        for (name, replica) in &replicas {
            caught_up(&primary, replica);
            let mut replica = replica.connect();
            assert_same(&replica.fingerprint(), &expected, name);
            assert!(replica.info("stats", "sync_full") == "0" && replica.info("replication", "role") == "slave");
        }
    }
    let synced: usize = client.info("stats", "sync_full").parse().unwrap();
    assert_eq!(synced, replicas.len(), "the rest came command by command");
}

/// After `kill -9`, from the append-only file: as it was written, rewritten as an RDB or as commands in the middle; read
/// by this module or by a server that has never heard of it.
#[test]
fn an_append_only_file_holds_the_same_data() {
    let mut rng = random("an_append_only_file_holds_the_same_data");
    for rewrite in [None, Some("yes"), Some("no")] {
        let Some(clock) = Clock::at(START) else { return };
        let setup = Setup::new().clock(&clock).args(NODES_OF_FOUR);
        let setup = setup.args(["--aof-use-rdb-preamble", rewrite.unwrap_or("yes")]);
        let (server, mut effects) = Effects::of(setup.clone());
        let mut client = server.connect();
        let mut now = START;
        traffic(&mut rng, &mut client, &clock, &mut now);
        let written = effects.take();
        for part in ["MINID", "PEXPIREAT", "UNLINK", "PERSIST", ">"] {
            assert!(written.iter().any(|line| line.contains(part)), "{part} is among the effects");
        }
        if rewrite.is_some() {
            client.run("BGREWRITEAOF");
            traffic(&mut rng, &mut client, &clock, &mut now);
            wait_for("the file is rewritten", || client.info("persistence", "aof_rewrite_in_progress") == "0");
            assert_eq!(client.info("persistence", "aof_last_bgrewrite_status"), "ok");
            traffic(&mut rng, &mut client, &clock, &mut now);
        }
        let expected = client.fingerprint();
        let again = setup.clone().args(APPEND_ONLY);
        let server = start_again(again.clone(), server.kill());
        assert_same(&server.connect().fingerprint(), &expected, "the module reads the file");
        let server = start_again(again.without_module(), server.kill());
        assert_same(&server.connect().fingerprint(), &expected, "a server without the module reads the file");
    }
}

#[test]
fn a_snapshot_holds_the_same_data() {
    let mut rng = random("a_snapshot_holds_the_same_data");
    let Some(clock) = Clock::at(START) else { return };
    let setup = Setup::new().clock(&clock).args(NODES_OF_FOUR);
    let server = setup.clone().start();
    let mut client = server.connect();
    let mut now = START;
    traffic(&mut rng, &mut client, &clock, &mut now);
    let expected = client.fingerprint();
    client.run("DEBUG RELOAD");
    assert_same(&client.fingerprint(), &expected, "after DEBUG RELOAD");
    // What was loaded is a log like any other.
    traffic(&mut rng, &mut client, &clock, &mut now);
    let expected = client.fingerprint();
    client.run("SAVE");
    let server = start_again(setup.clone(), server.kill());
    assert_same(&server.connect().fingerprint(), &expected, "after a restart");
    let server = start_again(setup.without_module(), server.kill());
    assert_same(&server.connect().fingerprint(), &expected, "on a server without the module");
}

/// What must come of one call after the other.
struct Written {
    stage: Stage,
    effects: Effects,
}

impl Written {
    fn new() -> Option<Self> {
        let clock = Clock::at(START)?;
        let (server, effects) = Effects::of(Setup::new().clock(&clock).args(["--stream-node-max-entries", "2"]));
        Some(Self { stage: Stage::with(server, clock), effects })
    }

    fn client(&mut self) -> &mut Connection {
        &mut self.stage.client
    }

    fn at(&mut self, after_start: u64) -> &mut Self {
        self.stage.at(after_start);
        self
    }

    fn sends(&mut self, line: &str, expected: &[&str]) -> Value {
        let reply = self.stage.client.run(line);
        assert_eq!(self.effects.take(), expected, "{line}");
        reply
    }

    fn admitted(&mut self, line: &str, expected: &[&str]) -> &mut Self {
        assert_eq!(six(&self.sends(line, expected))[0], 1, "{line}");
        self
    }

    fn refused(&mut self, line: &str, expected: &[&str]) -> &mut Self {
        assert_eq!(six(&self.sends(line, expected))[0], 0, "{line}");
        self
    }
}

/// `after_start` as the server spells it.
fn ms(after_start: u64) -> String {
    (START + after_start).to_string()
}

#[test]
fn the_effects_of_a_log_from_first_to_last() {
    let Some(mut stage) = Written::new() else { return };
    let hit = "RATELIMIT.HIT k 30 8s";
    stage.admitted(hit, &[&format!("RESTORE k {} {}-1 8000ms 1 ABSTTL", ms(9_000), ms(0))]);
    stage.at(1).admitted(hit, &[&format!("XADD k {}-2 8000ms 1", ms(1))]);
    stage.at(2).admitted("RATELIMIT.HIT k 30 8s COST 27", &[&format!("XADD k {}-29 8000ms 27", ms(2))]);
    stage.refused("RATELIMIT.HIT k 30 8s COST 4", &[]);
    stage.refused("RATELIMIT.HIT k 30 8s COST 31", &[]);
    stage.refused("RATELIMIT.HIT k 30 8s COST 31 STRICT", &[]);
    stage.sends("RATELIMIT.PEEK k 30 8s", &[]);
    // The expiry may be an eighth of the window late, and is renewed only then.
    stage.at(1_000).admitted(hit, &[&format!("XADD k {}-30 8000ms 1", ms(1_000))]);
    stage.at(7_999).refused(hit, &[]);
    stage.at(8_000).admitted(
        hit,
        &["MULTI", &format!("XADD k {}-31 8000ms 1", ms(8_000)), &format!("PEXPIREAT k {}", ms(17_000)), "EXEC"],
    );
    // Only now has the whole of the first node expired, and the tally passes a multiple of 32.
    stage.at(8_001).admitted(hit, &[&format!("XADD k MINID = {}-29 {}-32 8000ms 1", ms(2), ms(8_001))]);
    stage.sends("RATELIMIT.RESET k", &["UNLINK k"]);
    stage.sends("RATELIMIT.RESET k", &[]);
    stage.refused("RATELIMIT.HIT k 0 8s", &[]);
    assert_eq!(stage.client().integer("EXISTS k"), 0);
}

#[test]
fn the_effects_of_renewing_and_dropping_at_once() {
    // A shorter log is not looked through for this.
    const LEAST: u64 = 32;
    for hits in [LEAST - 2, LEAST] {
        let Some(mut stage) = Written::new() else { return };
        for after_start in 0..hits {
            stage.at(after_start).client().run("RATELIMIT.HIT k 90 1s COST 2");
        }
        stage.effects.take();
        let cut = if hits == LEAST { format!("MINID = {}-6 ", ms(2)) } else { String::new() };
        stage.at(1_002).admitted(
            "RATELIMIT.HIT k 90 1s COST 2",
            &[
                "MULTI",
                &format!("XADD k {cut}{}-{} 1000ms 2", ms(1_002), 2 * hits + 2),
                &format!("PEXPIREAT k {}", ms(1_002 + 1_125)),
                "EXEC",
            ],
        );
    }
}

#[test]
fn the_effects_of_refused_hits_that_count() {
    let Some(mut stage) = Written::new() else { return };
    let hit = "RATELIMIT.HIT k 2 8s STRICT";
    for expected in 1..=2 {
        stage.client().run(hit);
        stage.effects.take();
        assert_eq!(stage.client().integer("XLEN k"), expected);
    }
    stage.refused(hit, &[&format!("XADD k {}-3 8000ms 1", ms(0))]);
    // Nodes beyond the two newest entries go.
    stage.refused(hit, &[&format!("XADD k MINID = {}-3 {}-4 8000ms 1", ms(0), ms(0))]);
}

#[test]
fn the_effects_of_starting_again() {
    let Some(mut stage) = Written::new() else { return };
    let hit = "RATELIMIT.HIT k 6 8s";
    let again = |after_start: u64| {
        [
            "MULTI".to_owned(),
            "UNLINK k".to_owned(),
            format!("RESTORE k {} {}-1 8000ms 1 ABSTTL", ms(after_start + 9_000), ms(after_start)),
            "EXEC".to_owned(),
        ]
    };
    stage.at(20_000).client().run(hit);
    stage.client().run(hit);
    stage.effects.take();
    // Further back than the log is kept: it is stale.
    let expected = again(11_999);
    stage.at(11_999).admitted(hit, &expected.each_ref().map(String::as_str));
    // Somebody pushes the last ID ahead, so that the server does not take an entry for now: the next that it takes.
    stage.client().run(&format!("XSETID k {}-0", ms(11_999 + 500)));
    stage.effects.take();
    stage.admitted(hit, &[&format!("XADD k {}-2 8000ms 1", ms(11_999 + 500))]);
    // Further than the log is kept.
    stage.client().run(&format!("XSETID k {}-0", ms(11_999 + 8_001)));
    stage.effects.take();
    stage.at(11_999).admitted(hit, &expected.each_ref().map(String::as_str));
    assert_eq!(stage.client().integer("XLEN k"), 1);
    // Several keys are forgotten in one transaction.
    stage.client().run("RATELIMIT.HIT other 1 1s");
    stage.effects.take();
    stage.sends("RATELIMIT.RESET k missing other", &["MULTI", "UNLINK k", "UNLINK other", "EXEC"]);
}

/// The one thing that a refused hit can write: a long policy is still asked while the log waits to forget it.
#[test]
fn the_effects_of_two_policies_on_one_key() {
    let Some(mut stage) = Written::new() else { return };
    let (long, short) = ("RATELIMIT.HIT k 1 10s", "RATELIMIT.HIT k 10 1s");
    stage.client().run(long);
    stage.effects.take();
    stage.at(1_250).admitted(short, &[&format!("XADD k {}-2 10000ms 1", ms(1_250))]);
    stage.refused(long, &[]);
    stage.at(2_000).admitted(
        short,
        &[
            "MULTI",
            &format!("XADD k {}-3 10000ms>1000ms 1", ms(2_000)),
            &format!("PEXPIREAT k {}", ms(2_000 + 21_250)),
            "EXEC",
        ],
    );
    stage.at(3_250).refused(long, &[]);
    stage.at(3_251).refused(long, &[&format!("PEXPIREAT k {}", ms(3_251 + 21_250))]);
    stage.refused(long, &[]);
    stage.refused("RATELIMIT.HIT k 2 1s COST 3", &[]);
}

#[test]
fn effects_inside_transactions_and_scripts_come_once() {
    let Some(mut stage) = Written::new() else { return };
    let hit = "RATELIMIT.HIT k 4 8s";
    let add = |tally: u64| format!("XADD k {}-{tally} 8000ms 1", ms(0));
    let first = format!("RESTORE k {} {}-1 8000ms 1 ABSTTL", ms(9_000), ms(0));

    let transaction = |stage: &mut Written, lines: &[&str]| {
        let mut pipe = redis::pipe();
        pipe.atomic();
        lines.iter().for_each(|line| {
            pipe.add_command(words(line));
        });
        let replies: Vec<Value> = pipe.query(stage.client()).unwrap();
        assert_eq!(replies.len(), lines.len());
        stage.effects.take()
    };
    let effects = transaction(&mut stage, &[hit, hit, "RATELIMIT.HIT k 2 8s"]);
    assert_eq!(effects, ["MULTI", &first, &add(2), "EXEC"]);
    assert_eq!(transaction(&mut stage, &["RATELIMIT.HIT k 2 8s", "RATELIMIT.PEEK k 2 8s"]), [""; 0]);

    let script = "for _ = 1, 9 do redis.call('RATELIMIT.HIT', KEYS[1], ARGV[1], '8s') end";
    let mut run = |limit: u64| {
        stage.client().ask(redis::cmd("EVAL").arg(script).arg(1).arg("k").arg(limit)).unwrap();
        stage.effects.take()
    };
    assert_eq!(run(2), [""; 0]);
    assert_eq!(run(4), ["MULTI", &add(3), &add(4), "EXEC"]);
    assert_eq!(run(5), [add(5)]);
    assert_eq!(stage.stage.server.connect().integer("XLEN k"), 5);
}

#[test]
fn a_replica_answers_and_does_not_write() {
    let mut rng = random("a_replica_answers_and_does_not_write");
    let Some(clock) = Clock::at(START) else { return };
    let setup = Setup::new().clock(&clock).args(NODES_OF_FOUR);
    let primary = setup.clone().tcp().args(REPLICATION).start();
    let replica = replica_of(&primary, setup);
    let (mut client, mut reader) = (primary.connect(), replica.connect());
    let mut now = START;
    for _ in 0..10 {
        for _ in 0..30 {
            now += rng.u64(..10);
            clock.set(now);
            client.run(&format!("RATELIMIT.HIT k 20 300ms COST {}", rng.u64(1..4)));
        }
        caught_up(&primary, &replica);
        // The last one is a moment at which the key is past its expiry but the replica still has it.
        for later in [0, rng.u64(..300), 1_000] {
            clock.set(now + later);
            for policy in ["20 300ms", "20 300ms COST 5", "3 10ms 20 300ms", "5 150ms", "0 1s"] {
                let line = format!("RATELIMIT.PEEK k {policy}");
                let answer = reader.answer(&line);
                assert_eq!(answer, client.answer(&line), "{line} after {later} ms");
            }
            for line in ["RATELIMIT.HIT k 20 300ms", "RATELIMIT.HIT k 0 1s", "RATELIMIT.RESET k"] {
                let error = reader.error(line);
                assert!(error.starts_with("READONLY"), "{line}: {error}");
            }
        }
        assert_eq!(reader.answer("RATELIMIT.PEEK k 20 300ms"), [1, 20, 19, 0, 300, 300], "the log has expired");
        clock.set(now);
    }
}

/// A module that is not known to bear it would turn off `repl-diskless-load swapdb` for the whole server.
#[test]
fn a_replica_answers_while_it_loads_another_data_set() {
    let primary = Setup::new().tcp().args(["--repl-diskless-sync-delay", "0"]).start();
    let port = primary.port.to_string();
    let swap = ["--repl-diskless-load", "swapdb", "--replicaof", "127.0.0.1", &port];
    // A snapshot takes its time, and others are served every kilobyte.
    let slowly = ["--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024"];
    let replica = Setup::new().args(swap).args(slowly).start();
    let (mut client, mut reader) = (primary.connect(), replica.connect());
    wait_for("in sync", || reader.info("replication", "master_link_status") == "up");
    (0..5).for_each(|_| assert_eq!(client.answer("RATELIMIT.HIT k 9 1h")[0], 1));
    caught_up(&primary, &replica);
    (0..3).for_each(|_| assert_eq!(reader.answer("RATELIMIT.PEEK k 9 1h")[2], 3));
    // In one step the link is cut and the replica misses so much that only another snapshot helps, in which the log has
    // the same length.
    client.run("CONFIG SET repl-backlog-size 16384");
    let filler = format!("SET filler {}", "x".repeat(20_000));
    let (hits, fillers) = (["RATELIMIT.HIT k 99 1h COST 7"; 5], [filler.as_str(); 10]);
    let mut pipe = redis::pipe();
    pipe.atomic();
    let change = ["CLIENT KILL TYPE replica", "DEBUG POPULATE 2000", "RATELIMIT.RESET k"];
    for line in change.into_iter().chain(hits).chain(fillers) {
        pipe.add_command(words(line)).ignore();
    }
    pipe.exec(&mut client).unwrap();
    let is_loading = |reader: &mut Connection| reader.info("persistence", "async_loading") == "1";
    let mut answered = 0;
    wait_for("in sync again", || {
        if is_loading(&mut reader) {
            let answer = reader.answer("RATELIMIT.PEEK k 9 1h");
            if is_loading(&mut reader) {
                assert_eq!(answer[2], 3, "the old data");
                answered += 1;
            }
        }
        reader.info("replication", "master_link_status") == "up" && reader.integer("DBSIZE") > 2_000
    });
    assert!(answered > 0, "it answers while it loads");
    assert!(!replica.log().contains("not aware of async replication"), "{}", replica.log());
    caught_up(&primary, &replica);
    assert_eq!(reader.answer("RATELIMIT.PEEK k 99 1h")[..3], [1, 99, 99 - 5 * 7 - 1]);
}

#[test]
fn a_flood_of_refusals_writes_nothing() {
    let (primary, mut effects) = Effects::of(Setup::new().tcp().args(REPLICATION));
    let replica = replica_of(&primary, Setup::new());
    let mut client = primary.connect();
    client.run("RATELIMIT.HIT k 1 1h");
    caught_up(&primary, &replica);
    let written = effects.take();
    assert!(written.iter().any(|line| line.starts_with("RESTORE")), "{written:?}");
    let size = |client: &mut Connection| client.info("persistence", "aof_current_size");
    let before = (offset(&mut client), size(&mut client), client.fingerprint());
    let mut pipe = redis::pipe();
    for _ in 0..20_000 {
        pipe.add_command(words("RATELIMIT.HIT k 1 1h"));
    }
    let replies: Vec<Value> = pipe.query(&mut client).unwrap();
    assert!(replies.iter().all(|reply| six(reply)[0] == 0));
    assert_eq!((offset(&mut client), size(&mut client), client.fingerprint()), before);
    assert_eq!(effects.take(), [""; 0]);
    assert_eq!(client.info("replication", "connected_slaves"), "1");
}
