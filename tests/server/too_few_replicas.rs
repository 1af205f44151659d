//! With `min-replicas-to-write` nobody is admitted whom too few replicas would know of: such calls are errors and store nothing.

use redis::{Connection, Value};
use support::checked::Call;
use support::client::{HIT, PEEK};
use support::replication::{REPLICATION, caught_up, replica_of};
use support::{Ask, Server, Setup, assert_same, get, six, wait_for, words};

const NOT_ENOUGH: &str = "NOREPLICAS Not enough good replicas to write.";

const SCRIPT: &str = "return redis.call(unpack(ARGV))";

/// A line of words in a script of the old kind, or of one that declares flags.
fn eval(eval: &str, declared: &str, line: &str) -> redis::Cmd {
    let mut cmd = redis::cmd(eval);
    cmd.arg(format!("{declared}{SCRIPT}")).arg(1).arg("key");
    line.split(' ').for_each(|word| _ = cmd.arg(word));
    cmd
}

/// Everything that there is, and what the module has counted.
fn state(client: &mut Connection) -> Vec<String> {
    let counters = ["hits_admitted", "hits_refused", "units_admitted", "keys_reset"];
    let counted = counters.map(|field| client.info("ratelimit", &format!("ratelimit_{field}")));
    [client.fingerprint(), counted.into()].concat()
}

/// All that would write is an error, wherever it is, and changes nothing. Looking is served.
fn refuses(client: &mut Connection) {
    let before = state(client);
    for line in [
        "HIT key 3 1h",
        "HIT new 3 1h",
        "HIT key 0 1h",
        "HIT key 3 1h COST 9",
        "HIT key 3 1h STRICT",
        "MHIT 2 key new 3 1h AND 3 1h",
        "MHIT 1 key 0 1h",
        "RESET key",
        "RESET new",
    ] {
        let line = format!("RATELIMIT.{line}");
        assert_eq!(client.ask(&words(&line)), Err(NOT_ENOUGH.to_owned()), "{line}");

        let mut pipe = redis::pipe();
        pipe.atomic().add_command(words("RATELIMIT.PEEK key 3 1h")).add_command(words(&line));
        let error = pipe.query::<Value>(client).unwrap_err();
        assert!(format!("{error:?}").contains("NOREPLICAS"), "{line}: {error:?}");

        for declared in ["", "#!lua\n"] {
            // It also says where in the script that was.
            let error = client.ask(&eval("EVAL", declared, &line)).unwrap_err();
            assert!(error.starts_with("NOREPLICAS"), "{declared:?} {line}: {error}");
        }
        // A script that is told of the error goes on.
        let caught = format!("redis.pcall({:?})", line.split(' ').collect::<Vec<_>>()).replace(['[', ']'], "");
        let source = format!("{caught} return redis.call('RATELIMIT.PEEK', KEYS[1], '3', '1h')");
        assert_eq!(get::<Vec<i64>>(client.ask(redis::cmd("EVAL").arg(source).arg(1).arg("key")).unwrap())[1], 3);
    }
    let peek = "RATELIMIT.PEEK key 3 1h";
    let answer = client.answer(peek)[..3].to_owned();
    for (command, declared) in [("EVAL", ""), ("EVAL_RO", ""), ("EVAL", "#!lua flags=no-writes\n")] {
        assert_eq!(six(&client.ask(&eval(command, declared, peek)).unwrap())[..3], answer);
    }
    let both: Vec<Value> =
        redis::pipe().atomic().add_command(words(peek)).add_command(words(peek)).query(client).unwrap();
    both.iter().for_each(|reply| assert_eq!(six(reply)[..3], answer));
    client.run("RATELIMIT.TOP");
    assert_same(&state(client), &before, "nothing has changed");
}

fn guarded() -> Server {
    Setup::new().tcp().args(REPLICATION).args(["--min-replicas-to-write", "1"]).start()
}

/// There was never a replica, there is one, and there is none again.
#[test]
fn without_a_replica_nothing_is_stored() {
    let primary = guarded();
    let mut client = primary.connect();
    refuses(&mut client);
    assert_eq!(client.integer("DBSIZE"), 0);

    let replica = replica_of(&primary, Setup::new());
    wait_for("the replica is good", || client.info("replication", "min_slaves_good_slaves") == "1");
    assert_eq!(client.answer("RATELIMIT.HIT key 3 1h")[..3], [1, 3, 2]);
    let both = get::<Vec<Value>>(client.run("RATELIMIT.MHIT 2 key other 3 1h AND 1 1h"));
    assert_eq!([0, 1].map(|at| six(&both[at])[2]), [1, 0]);
    assert_eq!(six(&client.ask(&eval("EVAL", "", "RATELIMIT.HIT key 3 1h")).unwrap())[..3], [1, 3, 0]);
    assert_eq!(client.answer("RATELIMIT.HIT key 3 1h")[..3], [0, 3, 0]);
    assert_eq!(client.integer("RATELIMIT.RESET other"), 1);
    caught_up(&primary, &replica);
    assert_same(&replica.connect().fingerprint(), &client.fingerprint(), "primary and replica");

    // It was there when the transaction was queued, and is not when that is to be carried out.
    client.run("MULTI");
    client.run("RATELIMIT.HIT key 9 1h");
    client.run("RATELIMIT.HIT late 9 1h");
    let mut other = primary.connect();
    drop(replica.kill());
    wait_for("the replica has gone", || other.info("replication", "connected_slaves") == "0");
    let error = client.error("EXEC");
    assert!(error.starts_with("EXECABORT") && error.contains("NOREPLICAS"), "{error}");
    assert_eq!((client.integer("XLEN key"), client.integer("EXISTS late other")), (3, 0));
    refuses(&mut client);

    // Where it is allowed again, the log is as it was.
    client.run("CONFIG SET min-replicas-to-write 0");
    assert_eq!(client.answer("RATELIMIT.HIT key 4 1h")[..3], [1, 4, 0]);
}

/// A replica that hangs is not good for long. What was admitted until then is all there is, and it gets that when it goes on.
#[test]
fn with_a_replica_that_hangs() {
    const LIMIT: u64 = 1_000_000;
    let primary = guarded();
    let replica = replica_of(&primary, Setup::new());
    let mut client = primary.connect();
    let keys = ["key".to_owned()];
    let call = |name, cost| Call { name, keys: &keys, tiers: &[(LIMIT, 3_600_000)], cost };
    wait_for("the replica is good", || call(HIT, 1).ask(&mut client).is_ok());
    // It was heard of within a second, or two with the fraction.
    client.run("CONFIG SET min-replicas-max-lag 1");
    replica.signal("STOP");
    let mut units = 1;
    wait_for("the replica is not good any more", || match client.ask(&call(HIT, 7).cmd()) {
        Ok(reply) => {
            units += 7;
            assert_eq!(six(&reply)[..3], [1, LIMIT as i64, (LIMIT - units) as i64]);
            false
        }
        Err(error) => {
            assert_eq!(error, NOT_ENOUGH);
            true
        }
    });
    refuses(&mut client);
    assert_eq!(call(PEEK, 1).ask(&mut client).unwrap().answers[0][2] as u64, LIMIT - units - 1);
    replica.signal("CONT");
    wait_for("the replica is good again", || match call(HIT, 1).ask(&mut client) {
        Ok(checked) => {
            assert_eq!(checked.answers[0][2] as u64, LIMIT - units - 1, "nothing was stored meanwhile");
            true
        }
        Err(_) => false,
    });
    caught_up(&primary, &replica);
    assert_same(&replica.connect().fingerprint(), &client.fingerprint(), "primary and replica");
    assert_eq!(client.info("stats", "sync_full"), "1");
}
