//! `WAIT`: clients wait in line for their turn, strictly in order and never in vain, and the server does with them what it does
//! with clients of BLPOP.

use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::{Connection, Value};
use support::client::number;
use support::modules::reactor;
use support::replication::{APPEND_ONLY, Effects, REPLICATION, caught_up, replica_of, start_again};
use support::{
    Ask, PATIENCE, START, Server, Setup, Stage, assert_same, errors, get, is_long, six, text_of, wait_for, words,
};

/// What the module does by itself may take so much longer than it should, because the machine has other things to do. How late it
/// is as a rule is measured by `waiting_crowds`.
const SLACK: Duration = Duration::from_secs(2);

/// A look at each line comes at the latest after this.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// A client that waits.
pub struct Waiter(pub Connection);

impl Waiter {
    /// Its place in line is taken when this returns.
    fn new(server: &Server, line: &str) -> Self {
        let (client, mut operator) = (server.connect(), server.connect());
        let waiter = Self::send(client, line);
        // The first answer may come in the same step of the server as the call; the second comes after it.
        (0..2).for_each(|_| _ = operator.run("PING"));
        waiter
    }

    pub fn send(mut client: Connection, line: &str) -> Self {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_packed_command(&words(line).get_packed_command()).unwrap();
        Self(client)
    }

    pub fn reply(&mut self) -> Result<Value, String> {
        match self.0.recv_response() {
            Ok(Value::ServerError(error)) => Err(text_of(&error)),
            Ok(value) => Ok(value),
            Err(error) => Err(format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default())),
        }
    }

    pub fn answer(&mut self) -> [i64; 6] {
        six(&self.reply().unwrap())
    }
}

pub fn waiting(client: &mut Connection) -> u64 {
    number(&client.info("ratelimit", "ratelimit_clients_waiting"))
}

/// Somebody waits after a while as well.
fn still_wait(client: &mut Connection, time: Duration) -> bool {
    sleep(time);
    waiting(client) > 0
}

/// Admitted, timed out, and gone.
pub fn ended(client: &mut Connection) -> [u64; 3] {
    ["admitted", "timed_out", "disconnected"]
        .map(|how| number(&client.info("ratelimit", &format!("ratelimit_waits_{how}"))))
}

/// One hit of one unit is stored, and fills the limit for this long. The log is kept for longer.
pub fn full(client: &mut Connection, window: &str) {
    client.run("RATELIMIT.RESET k");
    assert_eq!(client.answer(&format!("RATELIMIT.HIT k 1 {window} 1000 1h"))[0], 1);
}

#[test]
fn the_turn_comes_when_there_is_room() {
    let server = Server::start();
    let mut client = server.connect();
    assert_eq!(client.answer("RATELIMIT.HIT k 1 300ms WAIT 1s"), [1, 1, 0, 0, 300, 300], "there is room");
    let mut waiters: Vec<Waiter> =
        (0..3).map(|_| Waiter::new(&server, "RATELIMIT.HIT k 1 300ms 1000 1h WAIT 10s")).collect();
    assert_eq!(client.answer("RATELIMIT.HIT k 1 300ms")[0], 0);
    for waiter in &mut waiters {
        assert_eq!(waiter.answer(), [1, 1, 0, 0, 300, 300]);
    }
    let times: Vec<u64> = client.entries("k").iter().map(|(id, ..)| support::client::time_of(id)).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 300), "{times:?}");
    assert_eq!((waiting(&mut client), ended(&mut client)), (0, [3, 0, 0]));
    assert_eq!(client.info("ratelimit", "ratelimit_hits_admitted"), "4");
    assert_eq!(client.info("ratelimit", "ratelimit_hits_refused"), "1", "who waits is not refused");
}

/// A light hit that would fit does not pass a heavy one that came before. Plain hits do.
#[test]
fn nobody_is_passed() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT k 4 1500ms 1000 1h COST 2");
    let heavy = Waiter::new(&server, "RATELIMIT.HIT k 4 1500ms 1000 1h COST 3 WAIT 10s");
    let lights = [1, 2].map(|_| Waiter::new(&server, "RATELIMIT.HIT k 4 1500ms 1000 1h WAIT 10s"));
    assert_eq!(client.answer("RATELIMIT.PEEK k 4 1500ms")[..3], [1, 4, 1], "there is room for them");
    let [allowed, _, remaining, retry, ..] = client.answer("RATELIMIT.HIT k 4 1500ms 1000 1h WAIT 1ms");
    assert_eq!([allowed, remaining], [0, 2]);
    assert!(retry > 1_500, "behind those who wait: {retry}");
    assert_eq!(client.answer("RATELIMIT.HIT k 4 1500ms 1000 1h")[0], 1, "a plain hit does not look at the line");
    [heavy].into_iter().chain(lights).for_each(|mut waiter| assert_eq!(waiter.answer()[0], 1));
    let costs: Vec<u64> = client.entries("k").iter().map(|(_, _, cost)| number(cost)).collect();
    assert_eq!(costs, [2, 1, 3, 1, 1]);
}

/// On a clock that stands still, all numbers are exact.
#[test]
fn nobody_waits_in_vain() {
    let Some(mut stage) = Stage::new() else { return };
    let call = |wait: &str| format!("RATELIMIT.HIT k 2 1s 100 1m WAIT {wait}");
    stage.client.run("RATELIMIT.HIT k 2 1s COST 2");
    stage.go(100);
    // The turn would come in 900 ms.
    assert_eq!(stage.client.answer(&call("899ms")), [0, 2, 0, 900, 900, 900]);
    assert_eq!(stage.client.answer("RATELIMIT.HIT k 2 1s COST 3 WAIT 1h"), [0, 2, 0, -1, 900, 900], "it never comes");
    let mut first = Waiter::new(&stage.server, &call("900ms"));
    let mut second = Waiter::new(&stage.server, &call("1h COST 2"));
    // They take their turns at 900 and 1900 ms, and after that the window is full until 2900.
    assert_eq!(stage.client.answer(&call("2899ms")), [0, 2, 0, 2900, 900, 900]);
    assert_eq!(stage.client.answer("RATELIMIT.HIT k 2 1s 2 1m WAIT 2s")[3], 61_900, "each tier counts who waits");
    assert_eq!(stage.client.answer("RATELIMIT.HIT k 9 1s WAIT 1ms")[3], 1_900, "there is room, but not for who passes");
    let mut third = Waiter::new(&stage.server, &call("2900ms"));
    assert_eq!(stage.client.answer("RATELIMIT.HIT k 2 1s")[3], 900, "plain hits do not look at the line");
    for (time, waiter) in [(1_000, &mut first), (2_000, &mut second), (3_000, &mut third)] {
        stage.at(time - 1);
        let before = waiting(&mut stage.client);
        sleep(2 * LOOK_AFTER);
        assert_eq!(waiting(&mut stage.client), before, "{time}");
        stage.at(time);
        assert_eq!(waiter.answer()[0], 1, "{time}");
    }
    let ids: Vec<u64> = stage.client.entries("k").iter().map(|(id, ..)| support::client::time_of(id) - START).collect();
    assert_eq!(ids, [0, 1_000, 2_000, 3_000]);
}

/// Whoever leaves makes room in the line.
#[test]
fn a_turn_comes_earlier_if_somebody_ahead_leaves() {
    let Some(mut stage) = Stage::new() else { return };
    let call = |wait: &str| format!("RATELIMIT.HIT k 1 1s WAIT {wait}");
    stage.client.run(&call("1s"));
    let mut waiters: Vec<Waiter> = (0..4).map(|_| Waiter::new(&stage.server, &call("10s"))).collect();
    assert_eq!(stage.client.answer(&call("1s"))[3], 5_000);
    drop(waiters.remove(1));
    drop(waiters.remove(1));
    wait_for("they have left", || waiting(&mut stage.client) == 2);
    assert_eq!(stage.client.answer(&call("1s"))[3], 3_000);
    // A hit of somebody who does not wait in line makes it later.
    stage.client.run("RATELIMIT.HIT k 2 1s");
    stage.go(500);
    stage.client.run("RATELIMIT.HIT k 3 1s");
    assert_eq!(stage.client.answer(&call("1s"))[3], 3_000, "1000 + 2 * 1000 from the last hit");
}

#[test]
fn refused_at_the_timeout() {
    let server = Server::start();
    let mut client = server.connect();
    full(&mut client, "2s");
    let since = Instant::now();
    let mut waiter = Waiter::new(&server, "RATELIMIT.HIT k 1 2s WAIT 2400ms");
    sleep(Duration::from_millis(1_200));
    // A plain hit comes in between.
    let mut both = redis::pipe();
    both.atomic().add_command(words("RATELIMIT.RESET k")).add_command(words("RATELIMIT.HIT k 1 2s"));
    both.query::<Value>(&mut client).unwrap();
    let [allowed, limit, remaining, retry, ..] = waiter.answer();
    let waited = since.elapsed();
    assert_eq!([allowed, limit, remaining], [0, 1, 0]);
    assert!((1..=2_000).contains(&retry), "{retry}");
    assert!(waited > Duration::from_millis(2_395) && waited < Duration::from_millis(2_400) + SLACK, "{waited:?}");
    assert_eq!((waiting(&mut client), ended(&mut client)), (0, [0, 1, 0]));
    assert_eq!(client.info("ratelimit", "ratelimit_hits_refused"), "1");
    assert_eq!(get::<Vec<(String, u64, u64)>>(client.run("RATELIMIT.TOP"))[0].1, 1);
}

/// A client that goes leaves the line, and nothing is recorded for it.
#[test]
fn who_disconnects_leaves_the_line() {
    let server = Server::start();
    let mut client = server.connect();
    full(&mut client, "1h");
    let [gone, mut stays] = [(); 2].map(|()| Waiter::new(&server, "RATELIMIT.HIT k 1 1h WAIT 3h"));
    drop(gone);
    wait_for("it has left", || waiting(&mut client) == 1);
    assert_eq!(ended(&mut client), [0, 0, 1]);
    client.run("RATELIMIT.RESET k");
    assert_eq!(stays.answer()[0], 1);
    assert_eq!(client.integer("XLEN k"), 1);
    // Whoever was behind a heavy hit need not wait for the next look.
    client.run("RATELIMIT.HIT other 4 1h COST 2");
    let heavy = Waiter::new(&server, "RATELIMIT.HIT other 4 1h COST 3 WAIT 2h");
    let mut light = Waiter::new(&server, "RATELIMIT.HIT other 4 1h WAIT 2h");
    assert_eq!(waiting(&mut client), 2);
    drop(heavy);
    assert_eq!(light.answer()[0], 1);
    // Killed by an operator.
    let mut waiter = Waiter::new(&server, "RATELIMIT.HIT k 1 1h WAIT 2h");
    client.run("CLIENT KILL TYPE normal SKIPME yes");
    assert!(waiter.reply().is_err());
    wait_for("it has left", || waiting(&mut server.connect()) == 0);
}

#[test]
fn client_unblock() {
    let server = Server::start();
    let mut client = server.connect();
    full(&mut client, "1h");
    for (how, expected) in
        [("", Ok(0)), (" TIMEOUT", Ok(0)), (" ERROR", Err("UNBLOCKED client unblocked via CLIENT UNBLOCK"))]
    {
        let mut blocked = server.connect();
        let id = blocked.integer("CLIENT ID");
        let mut waiter = Waiter::send(blocked, "RATELIMIT.HIT k 1 1h WAIT 2h");
        wait_for("it waits", || waiting(&mut client) == 1);
        assert_eq!(client.integer(&format!("CLIENT UNBLOCK {id}{how}")), 1);
        let reply = waiter.reply();
        assert_eq!(reply.as_ref().map(|reply| six(reply)[0]).map_err(String::as_str), expected, "{how}");
        // The connection goes on.
        assert_eq!(waiter.0.answer("RATELIMIT.HIT k 1 1h")[0], 0);
    }
    assert_eq!((waiting(&mut client), ended(&mut client)), (0, [0, 2, 1]));
    assert_eq!(client.integer("XLEN k"), 1);
}

/// Where blocking is forbidden, nobody waits, as BLPOP does not.
#[test]
fn transactions_scripts_and_functions_do_not_wait() {
    let server = Server::start();
    let mut client = server.connect();
    let call = ["RATELIMIT.HIT", "k", "1", "1h", "WAIT", "2h"];
    let line = call.join(" ");
    let library =
        "#!lua name=lib\nredis.register_function('f', function(keys, args) return redis.call(unpack(args)) end)";
    client.ask(redis::cmd("FUNCTION").arg("LOAD").arg(library)).unwrap();
    for expected in [1, 0] {
        for how in 0..3 {
            if expected == 1 {
                client.run("RATELIMIT.RESET k");
            }
            let reply = match how {
                0 => {
                    let mut pipe = redis::pipe();
                    pipe.atomic().add_command(words(&line));
                    let Value::Array(mut replies) = pipe.query(&mut client).unwrap() else { panic!("no array") };
                    replies.remove(0)
                }
                1 => client
                    .ask(redis::cmd("EVAL").arg("return redis.call(unpack(ARGV))").arg(1).arg("k").arg(&call))
                    .unwrap(),
                _ => client.ask(redis::cmd("FCALL").arg("f").arg(1).arg("k").arg(&call)).unwrap(),
            };
            assert_eq!(six(&reply)[0], expected, "{how}");
        }
    }
    let [.., retry, _, _] = client.answer("RATELIMIT.PEEK k 1 1h");
    assert!(retry > 3_500_000);
    assert_eq!((waiting(&mut client), ended(&mut client)), (0, [0; 3]));
}

/// Another module that calls the command gets the answer at once as well.
#[test]
fn other_modules_do_not_wait() {
    let server = Setup::new().args(["--loadmodule"]).args([reactor().display()]).start();
    let mut client = server.connect();
    full(&mut client, "1h");
    client.run("SET x y");
    client.run("REACT del x 1 RATELIMIT.HIT k 1 1h WAIT 2h");
    assert_eq!(client.integer("DEL x"), 1);
    assert_eq!(client.info("ratelimit", "ratelimit_hits_refused"), "1", "it was called");
    assert_eq!((waiting(&mut client), ended(&mut client)), (0, [0; 3]));
}

/// What a client sends behind a call that waits is answered after it, in both protocols.
#[test]
fn pipelines() {
    let server = Server::start();
    for mut client in [server.connect(), server.connect_resp3()] {
        client.run("RATELIMIT.RESET k");
        let mut pipe = redis::pipe();
        for line in [
            "RATELIMIT.HIT k 1 200ms 100 1h WAIT 1h",
            "RATELIMIT.HIT k 1 200ms 100 1h WAIT 1h",
            "XLEN k",
            "RATELIMIT.HIT k 1 200ms 100 1h WAIT 1h WITHTIERS",
            "XLEN k",
        ] {
            pipe.add_command(words(line));
        }
        let replies: Vec<Value> = pipe.query(&mut client).unwrap();
        assert_eq!([&replies[0], &replies[1]].map(|reply| six(reply)[0]), [1, 1]);
        let Value::Array(tiers) = &replies[3] else { panic!("no array: {replies:?}") };
        assert_eq!(tiers.iter().map(six).map(|tier| tier[..3].to_vec()).collect::<Vec<_>>(), [[1, 1, 0], [1, 100, 97]]);
        assert_eq!([&replies[2], &replies[4]], [&Value::Int(2), &Value::Int(3)]);
    }
}

/// Whatever makes room, those who wait have it soon.
#[test]
fn others_make_room() {
    let server = Server::start();
    let mut client = server.connect();
    let [mut at_once, mut soon] = [PATIENCE; 2];
    for line in [
        "RATELIMIT.RESET k",
        "RATELIMIT.REFUND k",
        "DEL k",
        "UNLINK k",
        "RENAME k other",
        "MOVE k 1",
        "FLUSHDB",
        "FLUSHALL",
        "SWAPDB 0 2",
        "PEXPIRE k 1",
        "XTRIM k MAXLEN 0",
    ] {
        client.run("FLUSHALL");
        full(&mut client, "1h");
        let mut waiter = Waiter::new(&server, "RATELIMIT.HIT k 1 1h WAIT 2h");
        let since = Instant::now();
        client.run(line);
        assert_eq!(waiter.answer()[0], 1, "{line}");
        let waited = since.elapsed();
        assert!(waited < LOOK_AFTER + SLACK, "{line}: {waited:?}");
        let quickest = if line.starts_with("RATELIMIT") { &mut at_once } else { &mut soon };
        *quickest = waited.min(*quickest);
    }
    assert!(at_once < LOOK_AFTER / 2, "{at_once:?}");
    assert!(soon < LOOK_AFTER * 3 / 2, "{soon:?}");
}

/// A key that holds something else by then is an error, and so is a stream of somebody else.
#[test]
fn a_key_that_is_no_log_any_more() {
    let server = Server::start();
    let mut client = server.connect();
    for (line, expected) in [("SET k x", errors::WRONG_TYPE), ("XADD k * a b", errors::NOT_A_LOG)] {
        client.run("DEL k");
        full(&mut client, "1h");
        let mut waiters = [0, 1].map(|_| Waiter::new(&server, "RATELIMIT.HIT k 1 1h WAIT 2h"));
        client.run(line);
        waiters.iter_mut().for_each(|waiter| assert_eq!(waiter.reply(), Err(expected.to_owned()), "{line}"));
        let error = client.error("RATELIMIT.HIT k 1 1h WAIT 2h");
        assert_eq!(error, expected);
    }
}

/// The clock was set back, further than the log is kept, or forward.
#[test]
fn steps_of_the_clock() {
    let Some(mut stage) = Stage::new() else { return };
    for step in [-3_600_000, 3_600_000] {
        stage.client.run("RATELIMIT.RESET k");
        stage.client.run("RATELIMIT.HIT k 1 1m");
        let mut waiter = Waiter::new(&stage.server, "RATELIMIT.HIT k 1 1m WAIT 1h");
        let since = Instant::now();
        stage.go(step);
        assert_eq!(waiter.answer()[0], 1, "{step}");
        let waited = since.elapsed();
        assert!(waited < 3 * LOOK_AFTER + SLACK, "{step}: {waited:?}");
    }
}

/// In each database its own line.
#[test]
fn databases() {
    let server = Server::start();
    let mut client = server.connect();
    let mut waiters = Vec::new();
    for database in [3, 0, 5] {
        client.run(&format!("SELECT {database}"));
        full(&mut client, "300ms");
        let mut other = server.connect();
        other.run(&format!("SELECT {database}"));
        waiters.push(Waiter::send(other, "RATELIMIT.HIT k 1 300ms 100 1h WAIT 1h"));
    }
    waiters.iter_mut().for_each(|waiter| assert_eq!(waiter.answer()[0], 1));
    for database in [3, 0, 5] {
        client.run(&format!("SELECT {database}"));
        assert_eq!(client.integer("XLEN k"), 2, "{database}");
    }
    assert!(client.info("keyspace", "db3").starts_with("keys=1,"));
}

/// While writes are paused nobody is served, as no hit is.
#[test]
fn paused() {
    let server = Server::start();
    let mut client = server.connect();
    for kind in ["WRITE", "ALL"] {
        full(&mut client, "800ms");
        let mut waiter = Waiter::new(&server, "RATELIMIT.HIT k 1 800ms WAIT 1h");
        client.run(&format!("CLIENT PAUSE 2000 {kind}"));
        let since = Instant::now();
        // A paused client is not told.
        assert!(kind == "ALL" || still_wait(&mut client, Duration::from_millis(1_200)), "{kind}");
        assert_eq!(waiter.answer()[0], 1);
        let waited = since.elapsed();
        assert!(
            waited > Duration::from_millis(1_990) && waited < Duration::from_millis(2_000) + LOOK_AFTER + SLACK,
            "{waited:?}"
        );
    }
    // A timeout in a pause writes nothing, and is told.
    client.run("RATELIMIT.RESET k");
    client.run("RATELIMIT.HIT k 1 800ms");
    let mut waiter = Waiter::new(&server, "RATELIMIT.HIT k 1 800ms WAIT 1s");
    client.run("CLIENT PAUSE 2000 WRITE");
    let [allowed, ..] = waiter.answer();
    assert_eq!(allowed, 0);
    client.run("CLIENT UNPAUSE");
    assert_eq!(client.integer("RATELIMIT.RESET k"), 0, "it has expired, and nothing came after it");
}

/// Where a hit would be an error, the turn is one, in the server's own words. Nothing is stored.
#[test]
fn errors_of_the_server() {
    let server = Setup::new().args(["--enable-protected-configs", "yes"]).start();
    let mut client = server.connect();
    let refused = |client: &mut Connection, how: &[&str], undo: &[&str]| {
        full(client, "1s");
        let admitted = client.info("ratelimit", "ratelimit_hits_admitted");
        let mut waiter = Waiter::new(&server, "RATELIMIT.HIT k 1 1s 100 1h WAIT 1h");
        how.iter().for_each(|line| _ = client.run(line));
        let error = waiter.reply().unwrap_err();
        let plain = client.error("RATELIMIT.HIT k 9 1s");
        assert_eq!(error, plain, "what a hit gets");
        undo.iter().for_each(|line| _ = client.run(line));
        assert_eq!(client.info("ratelimit", "ratelimit_hits_admitted"), admitted, "{error}");
        error
    };
    let error = refused(&mut client, &["CONFIG SET maxmemory 1"], &["CONFIG SET maxmemory 0"]);
    assert!(error.starts_with("OOM"), "{error}");
    let error = refused(&mut client, &["CONFIG SET min-replicas-to-write 1"], &["CONFIG SET min-replicas-to-write 0"]);
    assert!(error.starts_with("NOREPLICAS"), "{error}");
    // A snapshot cannot take the place of a folder.
    std::fs::create_dir(server.dir().join("folder")).unwrap();
    client.run("CONFIG SET dbfilename folder");
    client.ask(redis::cmd("CONFIG").arg("SET").arg("save").arg("3600 1")).unwrap();
    client.run("BGSAVE");
    wait_for("it fails", || client.info("persistence", "rdb_last_bgsave_status") == "err");
    client.run("CONFIG SET stop-writes-on-bgsave-error no");
    let on = ["CONFIG SET stop-writes-on-bgsave-error yes"];
    let error = refused(&mut client, &on, &["CONFIG SET stop-writes-on-bgsave-error no"]);
    assert!(error.starts_with("MISCONF"), "{error}");
    assert_eq!(waiting(&mut client), 0);
}

/// A user who lost the right to the command or to the key meanwhile.
#[test]
fn users_who_lose_their_rights() {
    let server = Server::start();
    let mut client = server.connect();
    for (change, is_served) in [("-ratelimit.hit", false), ("resetkeys", false), ("+get", true)] {
        client.run("ACL SETUSER bob on nopass resetkeys ~k +@all");
        full(&mut client, "1s");
        let mut bob = server.connect();
        bob.run("AUTH bob x");
        let mut waiter = Waiter::send(bob, "RATELIMIT.HIT k 1 1s WAIT 1h");
        wait_for("bob waits", || waiting(&mut client) == 1);
        client.run(&format!("ACL SETUSER bob {change}"));
        match waiter.reply() {
            Ok(reply) => assert!(is_served && six(&reply)[0] == 1, "{change}"),
            Err(error) => assert!(!is_served && error.starts_with("NOPERM"), "{change}: {error}"),
        }
    }
    // Without the user there is no connection.
    full(&mut client, "1h");
    let mut bob = server.connect();
    bob.run("AUTH bob x");
    let mut waiter = Waiter::send(bob, "RATELIMIT.HIT k 1 1h WAIT 2h");
    wait_for("bob waits", || waiting(&mut client) == 1);
    client.run("ACL DELUSER bob");
    assert!(waiter.reply().is_err());
    wait_for("he is gone", || waiting(&mut client) == 0);
}

/// A server that becomes a replica sends those who wait away, as it does with clients of BLPOP.
#[test]
fn a_primary_that_becomes_a_replica() {
    let (server, other) = (Server::start(), Setup::new().tcp().start());
    let mut client = server.connect();
    full(&mut client, "1s");
    let mut waiters = [0, 1].map(|_| Waiter::new(&server, "RATELIMIT.HIT k 1 1s WAIT 1h"));
    client.run(&format!("REPLICAOF 127.0.0.1 {}", other.port));
    for waiter in &mut waiters {
        let error = waiter.reply().unwrap_err();
        assert!(error.starts_with("UNBLOCKED"), "{error}");
    }
    assert_eq!((waiting(&mut client), ended(&mut client)), (0, [0, 0, 2]));
    sleep(Duration::from_millis(1_200));
    assert_eq!(client.info("ratelimit", "ratelimit_hits_admitted"), "1");
    assert!(client.error("RATELIMIT.HIT k 1 1s WAIT 1h").starts_with("READONLY"));
}

/// `FAILOVER` hands over while clients wait. None of them is counted that was not told.
#[test]
fn a_failover_in_the_middle() {
    let (clients, limit) = if is_long() { (1_000, 20) } else { (100, 1) };
    let setup = Setup::new().tcp().args(REPLICATION);
    let primary = setup.clone().start();
    let replica = replica_of(&primary, setup);
    let mut client = primary.connect();
    client.run("RATELIMIT.HIT k 1 1h");
    let line = format!("RATELIMIT.HIT k {limit} 50ms 1000000 1h WAIT 1h");
    let connections: Vec<Connection> = (0..clients).map(|_| primary.connect()).collect();
    let mut waiters: Vec<Waiter> = connections.into_iter().map(|client| Waiter::send(client, &line)).collect();
    wait_for("some are served", || ended(&mut client)[0] >= 3 * limit);
    client.run("FAILOVER");
    let mut served = 0_i64;
    for waiter in &mut waiters {
        match waiter.reply() {
            Ok(reply) => served += six(&reply)[0],
            Err(error) => assert!(error.starts_with("UNBLOCKED"), "{error}"),
        }
    }
    let mut other = replica.connect();
    wait_for("the other one has taken over", || other.info("replication", "role") == "master");
    wait_for("it is a replica", || client.info("replication", "master_link_status") == "up");
    assert_eq!(other.integer("XLEN k"), 1 + served);
    assert_eq!(waiting(&mut client), 0);
    assert_eq!(Waiter::send(replica.connect(), &line).answer()[0], 1);
}

/// Whoever waits at a primary that dies has to ask its successor, and waits there as anybody does.
#[test]
fn a_primary_that_dies() {
    let setup = Setup::new().tcp().args(REPLICATION);
    let primary = setup.clone().start();
    let replica = replica_of(&primary, setup);
    let mut client = primary.connect();
    full(&mut client, "2s");
    let line = "RATELIMIT.HIT k 1 2s 100 1h WAIT 1h";
    let mut waiters = [(); 3].map(|()| Waiter::new(&primary, line));
    caught_up(&primary, &replica);
    drop(primary.kill());
    waiters.iter_mut().for_each(|waiter| assert!(waiter.reply().is_err()));
    let mut other = replica.connect();
    assert!(other.error(line).starts_with("READONLY"));
    other.run("REPLICAOF NO ONE");
    assert_eq!(Waiter::send(replica.connect(), line).answer()[0], 1);
    assert_eq!(other.integer("XLEN k"), 2, "the first hit, and that of the one that has asked again");
}

/// A server that shuts down gives its replicas time to catch up. Nobody is served any more.
#[test]
fn a_server_that_shuts_down() {
    let setup = Setup::new().tcp().args(REPLICATION).args(APPEND_ONLY).args(["--shutdown-timeout", "2"]);
    let mut primary = setup.clone().start();
    let replica = replica_of(&primary, Setup::new());
    let mut client = primary.connect();
    client.run("RATELIMIT.HIT k 1 1s 100 1h");
    let mut waiter = Waiter::new(&primary, "RATELIMIT.HIT k 1 1s 100 1h WAIT 1h");
    caught_up(&primary, &replica);
    replica.signal("STOP");
    client.run("SET behind it");
    let since = Instant::now();
    assert!(client.ask(&words("SHUTDOWN")).is_err());
    assert!(since.elapsed() > Duration::from_millis(500), "it has waited for the replica");
    assert!(waiter.reply().is_err());
    wait_for("it has ended", || !primary.is_alive());
    let server = start_again(setup, primary.kill());
    assert_eq!(server.connect().text("GET behind"), "it");
    assert_eq!(server.connect().integer("XLEN k"), 1);
}

/// While data are loaded nobody is served, and afterwards the line goes on.
#[test]
fn loading() {
    let slowly = ["--key-load-delay", "200", "--loading-process-events-interval-bytes", "1024"];
    let server = Setup::new().args(slowly).start();
    let (mut client, mut operator) = (server.connect(), server.connect());
    client.run("DEBUG POPULATE 8000");
    client.run("RATELIMIT.HIT k 1 800ms 100 1h");
    let mut waiter = Waiter::new(&server, "RATELIMIT.HIT k 1 800ms 100 1h WAIT 1h");
    let seen_loading = std::thread::scope(|scope| {
        let reload = scope.spawn(move || operator.run("DEBUG RELOAD"));
        let mut seen_loading = 0;
        while !reload.is_finished() {
            let now = support::clock::now();
            match client.ask(&words("RATELIMIT.HIT other 1 1h WAIT 2h COST 2")) {
                Err(error) if error.starts_with("LOADING") => seen_loading = now,
                other => assert!(other.is_ok_and(|reply| six(&reply)[3] == -1)),
            }
        }
        reload.join().unwrap();
        seen_loading
    });
    assert!(seen_loading > 0, "it was seen loading");
    assert_eq!(waiter.answer()[0], 1);
    let times: Vec<u64> = client.entries("k").iter().map(|(id, ..)| support::client::time_of(id)).collect();
    assert!(times.len() == 2 && times[1] >= times[0] + 800 && times[1] >= seen_loading, "{times:?} {seen_loading}");
}

/// A replica that takes writes has lines of its own.
#[test]
fn a_replica_that_takes_writes() {
    let setup = Setup::new().tcp().args(REPLICATION);
    let primary = setup.clone().start();
    let replica = replica_of(&primary, setup.args(["--replica-read-only", "no"]));
    let mut other = replica.connect();
    full(&mut other, "200ms");
    assert_eq!(Waiter::new(&replica, "RATELIMIT.HIT k 1 200ms 100 1h WAIT 1h").answer()[0], 1);
    // Who waits for a turn that does not come.
    full(&mut other, "1h");
    let mut waiter = Waiter::new(&replica, "RATELIMIT.HIT k 1 1h WAIT 2h");
    other.run("REPLICAOF NO ONE");
    other.run("RATELIMIT.RESET k");
    assert_eq!(waiter.answer()[0], 1, "as a primary it goes on with them");
}

/// Replicas and the append-only file get what was done for those who wait.
#[test]
fn replicated_by_effect() {
    let setup = Setup::new().tcp().args(REPLICATION);
    let (primary, mut effects) = Effects::of(setup);
    let replica = replica_of(&primary, Setup::new());
    let mut client = primary.connect();
    full(&mut client, "1s");
    let mut waiters =
        [2, 1].map(|cost| Waiter::new(&primary, &format!("RATELIMIT.HIT k 2 1s 100 1h COST {cost} WAIT 1h")));
    effects.complete(&primary);
    effects.take();
    waiters.iter_mut().for_each(|waiter| assert_eq!(waiter.answer()[0], 1));
    // One is told what was done before it is answered, also of what another command will be told.
    assert_eq!(client.integer("WAIT 1 10000"), 1);
    effects.complete(&primary);
    let told: Vec<String> = effects.take().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert!(told.contains(&"XADD".to_owned()), "{told:?}");
    assert!(told.iter().all(|word| !word.starts_with("RATELIMIT")), "{told:?}");
    caught_up(&primary, &replica);
    assert_same(&replica.connect().fingerprint(), &client.fingerprint(), "primary and replica");
    assert_eq!(client.integer("XLEN k"), 3);
}

#[test]
fn most_that_may_wait() {
    let server = Setup::new().args(["--ratelimit.max-waiters", "2"]).start();
    let mut client = server.connect();
    full(&mut client, "1h");
    let waiters = [0, 1].map(|_| Waiter::new(&server, "RATELIMIT.HIT k 1 1h WAIT 9h"));
    let [allowed, .., retry, _, _] = client.answer("RATELIMIT.HIT k 1 1h WAIT 9h");
    assert!(allowed == 0 && retry > 2 * 3_600_000, "at once, behind all who wait: {retry}");
    assert_eq!(client.answer("RATELIMIT.HIT other 1 1h WAIT 9h")[0], 1, "there is room");
    drop(waiters);
    wait_for("they have left", || waiting(&mut client) == 0);
    client.run("CONFIG SET ratelimit.max-waiters 0");
    assert_eq!(client.answer("RATELIMIT.HIT k 1 1h WAIT 9h")[0], 0);
}

/// One by one, so that each has its place before the next comes.
#[test]
fn heavy_and_light_are_served_in_order() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT k 100000 1h COST 100000");
    let line = |cost: u64| format!("RATELIMIT.HIT k 100 100ms 100000 1h COST {cost} WAIT 2h");
    // Some are lighter than those before them.
    let costs: Vec<u64> = (0..40).map(|nth| 1 + nth * 7 % 10).collect();
    let mut waiters: Vec<Waiter> = costs.iter().map(|cost| Waiter::new(&server, &line(*cost))).collect();
    // One in four leaves.
    let stay: Vec<usize> = (0..waiters.len()).filter(|at| at % 4 != 3).collect();
    let mut at = 0..;
    waiters.retain(|_| at.next().unwrap() % 4 != 3);
    wait_for("they have left", || waiting(&mut client) == stay.len() as u64);
    client.run("RATELIMIT.RESET k");
    waiters.iter_mut().for_each(|waiter| assert_eq!(waiter.answer()[0], 1));
    let served: Vec<u64> = client.entries("k").iter().map(|(_, _, cost)| number(cost)).collect();
    assert_eq!(served, stay.iter().map(|&at| costs[at]).collect::<Vec<_>>());
}

#[test]
fn wrong_arguments() {
    let server = Server::start();
    let mut client = server.connect();
    for (options, expected) in [
        ("WAIT", errors::SYNTAX),
        ("WAIT 0", errors::TIMEOUT),
        ("WAIT -1", errors::TIMEOUT),
        ("WAIT forever", errors::TIMEOUT),
        ("WAIT 1s WAIT 1s", errors::SYNTAX),
        ("WAIT 1s STRICT", errors::SYNTAX),
        ("STRICT WAIT 1s", errors::SYNTAX),
    ] {
        assert_eq!(client.error(&format!("RATELIMIT.HIT k 1 1s {options}")), expected, "{options}");
    }
    assert_eq!(client.error("RATELIMIT.PEEK k 1 1s WAIT 1s"), errors::SYNTAX);
    assert_eq!(client.answer("RATELIMIT.HIT WAIT 1 1h WAIT 1s")[0], 1, "a key may have any name");
    assert_eq!(client.integer("EXISTS k"), 0);
}

/// Names of keys decide in which slot the server looks for those who wait. All of them are served.
#[test]
fn any_name() {
    let server = Server::start();
    let mut client = server.connect();
    for name in ["WAIT", "{}", "{", "}", "{a}b", "a}b", "a{}b{c}", "%s%n", "ratelimit.waiting"] {
        client.run(&format!("RATELIMIT.HIT {name} 1 100ms"));
        let mut waiter = Waiter::new(&server, &format!("RATELIMIT.HIT {name} 1 100ms wait 1h COST 1"));
        assert_eq!(waiter.answer()[0], 1, "{name}");
    }
    let mut empty = redis::cmd("RATELIMIT.HIT");
    empty.arg("").arg("1").arg("100ms").arg("WAIT").arg("1h");
    assert_eq!([0, 1].map(|_| six(&client.ask(&empty).unwrap())[0]), [1, 1]);
    let mut odd = redis::cmd("RATELIMIT.HIT");
    odd.arg(&[0, 0xff, b'{', b'\n'][..]).arg("1").arg("100ms").arg("WAIT").arg("1h");
    assert_eq!([0, 1].map(|_| six(&client.ask(&odd).unwrap())[0]), [1, 1]);
}

/// A shell script that simply waits.
#[test]
fn redis_cli_waits() {
    let server = Server::start();
    let since = Instant::now();
    for _ in 0..3 {
        let output = server.redis_cli().args(["RATELIMIT.HIT", "k", "1", "200ms", "WAIT", "10s"]).output().unwrap();
        assert!(output.stdout.starts_with(b"1\n"), "{output:?}");
    }
    assert!(since.elapsed() >= Duration::from_millis(400));
}

/// A node of a cluster, which serves all slots if `slots` is given.
fn node(slots: &str) -> (Server, String) {
    let bus = support::servers::free_port();
    let setup = Setup::new().tcp().args(["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()]);
    let server = setup.args(["--cluster-announce-ip", "127.0.0.1"]).start();
    let mut client = server.connect();
    if !slots.is_empty() {
        client.run(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
    }
    let id = client.text("CLUSTER MYID");
    (server, id)
}

/// A slot that moves takes the key with it. Who waits is sent after it, and nothing is stored where it was.
#[test]
fn slots_that_move() {
    let ((from, from_id), (to, to_id)) = (node("0 16383"), node(""));
    let (mut client, mut other) = (from.connect(), to.connect());
    let bus = &get::<Vec<String>>(other.run("CONFIG GET cluster-port"))[1];
    client.run(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", to.port));
    for client in [&mut client, &mut other] {
        wait_for("both know both", || {
            let nodes = client.text("CLUSTER NODES");
            nodes.lines().count() == 2
                && !nodes.contains("handshake")
                && client.text("CLUSTER INFO").contains("cluster_state:ok")
        });
    }
    let slot = client.integer("CLUSTER KEYSLOT k");
    client.run("RATELIMIT.HIT k 1 1s");
    let mut waiter = Waiter::new(&from, "RATELIMIT.HIT k 1 1s WAIT 1h");
    other.run(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
    client.run(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
    client.run(&format!("MIGRATE 127.0.0.1 {} k 0 5000", to.port));
    assert!(still_wait(&mut client, Duration::from_millis(300)), "the key has gone, which is no room");
    other.run(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
    client.run(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
    let error = waiter.reply().unwrap_err();
    assert!(error.starts_with(&format!("MOVED {slot} ")), "{error}");
    assert_eq!(other.integer("XLEN k"), 1);
    assert_eq!((waiting(&mut client), ended(&mut client)), (0, [0, 0, 1]));
    // And there one waits as before.
    other.run("RATELIMIT.HIT a{k} 1 200ms");
    assert_eq!(Waiter::new(&to, "RATELIMIT.HIT a{k} 1 200ms WAIT 1h").answer()[0], 1);
}

/// A log that is kept for a short time is not gone before the turn of somebody who looks further back.
#[test]
fn the_key_outlives_the_wait() {
    let Some(mut stage) = Stage::new() else { return };
    stage.client.run("RATELIMIT.HIT k 9 300ms");
    let mut waiter = Waiter::new(&stage.server, "RATELIMIT.HIT k 1 1s WAIT 5s");
    assert!(stage.client.integer("PTTL k") >= 1_000);
    stage.at(999);
    assert!(still_wait(&mut stage.client, 2 * LOOK_AFTER));
    stage.at(1_000);
    assert_eq!(waiter.answer(), [1, 1, 0, 0, 1_000, 1_000]);
}

/// What others do is seen soon, also if somebody else joins the line before.
#[test]
fn who_joins_hides_no_change() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT k 2 1h");
    let mut first = Waiter::new(&server, "RATELIMIT.HIT k 1 1h WAIT 2h");
    let mut both = redis::pipe();
    both.add_command(words("DEL k")).add_command(words("RATELIMIT.HIT k 2 1h WAIT 1ms"));
    both.query::<Value>(&mut client).unwrap();
    wait_for("it is served", || waiting(&mut client) == 0);
    assert_eq!(first.answer()[0], 1);
}
