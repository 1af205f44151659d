//! Commands work in transactions, scripts and functions, and a WATCH is disturbed by what changes a key only.

use redis::{Connection, Value};
use support::errors;
use support::{Ask, Server, get, in_minutes, six, text_of, words};

#[test]
fn in_a_transaction() {
    let server = Server::start();
    let mut client = server.connect();
    let lines = [
        ("RATELIMIT.PEEK key 2 1m", Ok([1, 2, 1, 0, 60_000, 60_000])),
        ("RATELIMIT.HIT key 2 1m", Ok([1, 2, 1, 0, 60_000, 60_000])),
        ("RATELIMIT.HIT key x 1m", Err(errors::LIMIT)),
        ("RATELIMIT.HIT key 2 1m", Ok([1, 2, 0, 0, 60_000, 60_000])),
        ("RATELIMIT.HIT key 2 1m", Ok([0, 2, 0, 60_000, 60_000, 60_000])),
        ("RATELIMIT.PEEK key 2 1m", Ok([0, 2, 0, 60_000, 60_000, 60_000])),
    ];
    client.run("MULTI");
    for (line, _) in lines {
        assert_eq!(client.text(line), "QUEUED");
    }
    client.run("RATELIMIT.RESET key");
    client.run("RATELIMIT.HIT key 2 1m");
    let Value::Array(replies) = client.run("EXEC") else { panic!("no array") };
    assert_eq!(replies.len(), lines.len() + 2);
    for ((line, expected), reply) in lines.iter().zip(&replies) {
        match reply {
            Value::ServerError(error) => assert_eq!(Err(&text_of(error)[..]), *expected, "{line}"),
            reply => assert_eq!(Ok(in_minutes(reply)), *expected, "{line}"),
        }
    }
    assert_eq!(replies[lines.len()], Value::Int(1), "RESET");
    assert_eq!(in_minutes(&replies[lines.len() + 1]), [1, 2, 1, 0, 60_000, 60_000], "after RESET");

    // What the server can refuse while queueing ends the transaction before it begins.
    client.run("MULTI");
    let short = client.ask(&words("RATELIMIT.HIT key 2"));
    assert_eq!(short, Err("ERR wrong number of arguments for 'ratelimit.hit' command".to_owned()));
    client.run("RATELIMIT.HIT key 2 1m");
    let aborted = "EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(client.ask(&words("EXEC")), Err(aborted.to_owned()));
    assert_eq!(client.integer("XLEN key"), 1);
}

/// A refusal leaves a WATCH alone, and a hit that is stored does not.
#[test]
fn watched() {
    let server = Server::start();
    let (mut client, mut other) = (server.connect(), server.connect());
    let error = Err(errors::LIMIT);
    // Whether it is allowed, or the keys that are reset; and whether the WATCH is disturbed.
    for (line, expected, disturbs) in [
        ("RATELIMIT.PEEK key 2 1h", Ok(1), false),
        ("RATELIMIT.HIT key 0 1h", Ok(0), false),
        ("RATELIMIT.RESET key", Ok(0), false),
        ("RATELIMIT.HIT key 2 1h", Ok(1), true),
        ("RATELIMIT.PEEK key 2 1h", Ok(1), false),
        ("RATELIMIT.HIT key 2 1h", Ok(1), true),
        ("RATELIMIT.HIT key 2 1h", Ok(0), false),
        ("RATELIMIT.PEEK key 2 1h", Ok(0), false),
        ("RATELIMIT.HIT key x 1h", error, false),
        // It can never be allowed.
        ("RATELIMIT.HIT key 2 1h COST 3 STRICT", Ok(0), false),
        // It counts.
        ("RATELIMIT.HIT key 2 1h STRICT", Ok(0), true),
        ("RATELIMIT.RESET key", Ok(1), true),
    ] {
        client.run("WATCH key");
        let reply = other.ask(&words(line)).map(|reply| match reply {
            Value::Int(reset) => reset,
            reply => six(&reply)[0],
        });
        assert_eq!(reply, expected.map_err(str::to_owned), "{line}");
        client.run("MULTI");
        client.run("PING");
        assert_eq!(client.run("EXEC") == Value::Nil, disturbs, "{line}");
    }
}

/// A script and its arguments, which have no blanks; the script may.
fn script(client: &mut Connection, command: &str, source: &str, rest: &str) -> Result<Value, String> {
    let mut cmd = redis::cmd(command);
    cmd.arg(source).arg(rest.split(' ').collect::<Vec<_>>());
    client.ask(&cmd)
}

#[test]
fn in_scripts() {
    let server = Server::start();
    let mut client = server.connect();
    let hit = "return redis.call('RATELIMIT.HIT', KEYS[1], unpack(ARGV))";
    assert_eq!(in_minutes(&script(&mut client, "EVAL", hit, "1 key 2 1m").unwrap()), [1, 2, 1, 0, 60_000, 60_000]);
    // The six integers are numbers to Lua.
    let arithmetic =
        "local r = redis.call('RATELIMIT.HIT', KEYS[1], unpack(ARGV)) return #r * 1000 + r[1] * 100 + r[3]";
    assert_eq!(script(&mut client, "EVAL", arithmetic, "1 key 2 1m").unwrap(), Value::Int(6_100));
    let error = errors::LIMIT;
    let called = script(&mut client, "EVAL", hit, "1 key x 1m").unwrap_err();
    assert!(called.starts_with(error), "{called}");
    let protected = "return redis.pcall('RATELIMIT.HIT', KEYS[1], unpack(ARGV))";
    let pcalled = script(&mut client, "EVAL", protected, "1 key x 1m").unwrap_err();
    assert_eq!(pcalled, error);
    let caught = "local r = redis.pcall('RATELIMIT.HIT', KEYS[1], unpack(ARGV)) return r.err";
    assert_eq!(script(&mut client, "EVAL", caught, "1 key x 1m").map(get::<String>), Ok(error.to_owned()));
    assert_eq!(
        in_minutes(&script(&mut client, "EVAL", protected, "1 key 2 1m").unwrap()),
        [0, 2, 0, 60_000, 60_000, 60_000],
        "a refusal is an answer in a script as well"
    );

    // Scripts that may not write can ask, and neither charge nor forget.
    let before = client.fingerprint();
    let peek = "return redis.call('RATELIMIT.PEEK', KEYS[1], unpack(ARGV))";
    let reset = "return redis.call('RATELIMIT.RESET', KEYS[1])";
    let answer = script(&mut client, "EVAL_RO", peek, "1 key 3 1m").unwrap();
    assert_eq!(in_minutes(&answer), [1, 3, 0, 0, 60_000, 60_000]);
    for (source, rest) in [(hit, "1 key 3 1m"), (hit, "1 new 3 1m"), (reset, "1 key")] {
        let refused = script(&mut client, "EVAL_RO", source, rest).unwrap_err();
        assert!(refused.starts_with("ERR Write commands are not allowed from read-only scripts"), "{refused}");
    }
    assert_eq!(client.fingerprint(), before);
    assert_eq!(script(&mut client, "EVAL", reset, "1 key").unwrap(), Value::Int(1));

    // All of a script happens in one step: each of its hits sees the ones before.
    let ten = "local n = 0 for i = 1, 10 do n = n + redis.call('RATELIMIT.HIT', KEYS[1], 4, '1h')[1] end return n";
    assert_eq!(script(&mut client, "EVAL", ten, "1 key").unwrap(), Value::Int(4));
}

#[test]
fn in_functions() {
    let server = Server::start();
    let mut client = server.connect();
    let library = "#!lua name=limits\n\
        redis.register_function('hit', function(keys, args)\n\
            return redis.call('RATELIMIT.HIT', keys[1], unpack(args)) end)\n\
        redis.register_function{function_name='peek', flags={'no-writes'}, callback=function(keys, args)\n\
            return redis.call('RATELIMIT.PEEK', keys[1], unpack(args)) end}\n\
        redis.register_function{function_name='sly', flags={'no-writes'}, callback=function(keys, args)\n\
            return redis.call('RATELIMIT.HIT', keys[1], unpack(args)) end}\n";
    let name = client.ask(redis::cmd("FUNCTION").arg("LOAD").arg(library));
    assert_eq!(name.map(get::<String>), Ok("limits".to_owned()));
    assert_eq!(in_minutes(&client.run("FCALL hit 1 key 2 1m")), [1, 2, 1, 0, 60_000, 60_000]);
    assert_eq!(in_minutes(&client.run("FCALL_RO peek 1 key 2 1m")), [1, 2, 0, 0, 60_000, 60_000]);
    assert_eq!(in_minutes(&client.run("FCALL hit 1 key 2 1m")), [1, 2, 0, 0, 60_000, 60_000]);
    assert_eq!(in_minutes(&client.run("FCALL hit 1 key 2 1m")), [0, 2, 0, 60_000, 60_000, 60_000]);
    for line in ["FCALL sly 1 key 9 1m", "FCALL_RO sly 1 key 9 1m"] {
        let refused = client.ask(&words(line)).unwrap_err();
        assert!(refused.starts_with("ERR Write commands are not allowed from read-only scripts"), "{refused}");
    }
    let bad = client.ask(&words("FCALL hit 1 key 2 1x")).unwrap_err();
    assert!(bad.starts_with("ERR window is not a duration"), "{bad}");
    assert_eq!(client.integer("XLEN key"), 2);
}
