//! Bad arguments get the one right error, change nothing, and leave a server that answers.

use redis::{Cmd, Connection};
use support::client::{FORMAT, HIT, PEEK, RESET, call};
use support::errors::{COST, LIMIT, NOT_A_LOG, SYNTAX, TOO_MANY_TIERS, WINDOW, WRONG_TYPE, arity};
use support::{Ask, Server, Setup, assert_same, get, in_minutes, words};

const MEGABYTE: usize = 1 << 20;

/// The words of a line with `replacement` for `@`.
fn with(line: &str, replacement: &[u8]) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| if word == "@" { replacement.to_vec() } else { word.into() }).collect()
}

/// Makes a call that must fail with this text, and shows that nothing else happened.
fn refused(client: &mut Connection, cmd: &Cmd, expected: &str) {
    let shown: Vec<String> = cmd
        .args_iter()
        .map(|arg| match arg {
            redis::Arg::Simple(bytes) => bytes.iter().take(40).map(|&byte| byte.escape_ascii().to_string()).collect(),
            _ => "cursor".to_owned(),
        })
        .collect();
    let digest = client.text("DEBUG DIGEST");
    assert_eq!(client.ask(cmd), Err(expected.to_owned()), "{shown:?}");
    assert_eq!(client.text("PING"), "PONG", "{shown:?}");
    assert_eq!(client.text("DEBUG DIGEST"), digest, "{shown:?} changed something");
}

/// The words of a line, and more that a line of words cannot hold.
fn listed(line: &str, more: &[&[u8]], long: &[u8]) -> Vec<Vec<u8>> {
    let words = line.split_whitespace().map(str::as_bytes).chain(more.iter().copied()).map(<[u8]>::to_vec);
    words.chain(long.iter().map(|&byte| vec![byte; MEGABYTE])).collect()
}

/// No number of units, for a limit and a cost alike.
fn bad_units() -> Vec<Vec<u8>> {
    listed(
        "-1 +1 -0 +0 01 00 007 1.0 1. .5 1,0 1_000 1e3 1E3 0x10 0b1 1f 1s NaN nan -nan inf -inf Infinity null true \
         9007199254740992 9223372036854775807 9223372036854775808 -9223372036854775808 18446744073709551615 \
         18446744073709551616 18446744073709551617 340282366920938463463374607431768211457 1e400 \
         %d %n 1%s STRICT COST \u{661} \u{ff11} \u{b2}",
        &[
            b"",
            b" ",
            b"1 ",
            b" 1",
            b"1\n",
            b"\t1",
            b"1\r",
            b"1\0",
            b"\0",
            b"\x001",
            b"\xff",
            b"1\xff",
            b"\xc3\x28",
            FORMAT,
        ],
        b"019x \0\xff",
    )
}

fn bad_windows() -> Vec<Vec<u8>> {
    listed(
        "0 00 0.0 0ms 0s 0d -1 +1 -1s 1e3 1E3 0x10 NaN nan inf -inf s ms m . .5 5. .s 1..2 1.2.3 1.s 1,5 1_000 \
         0.5ms 0.0001 0.0005s 1S 1M 1H 1D 1MS 1Ms 1W 522w 1y 1us 1ns 1sec 1mins 1s1 1m30s 3650.1d 3651d 87601h \
         315360000001ms 315360001 315360000.001 9223372036854775807 18446744073709551615d 18446744073709551616 \
         340282366920938463463374607431768211457d %d %ss 1%s STRICT COST 1\u{b5}s \u{661}s 1\u{ff53}",
        &[
            b"",
            b" ",
            b"1 ",
            b" 1",
            b"1 s",
            b"1\n",
            b"1\0",
            b"1s\0",
            b"1\0s",
            b"\xff",
            b"1\xff",
            b"1s\xff",
            b"\xc3\x28",
            FORMAT,
        ],
        b"019xs.\0\xff",
    )
}

#[test]
fn bad_arguments() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT seen 10 1m");
    client.run("SET other x");
    let before = client.fingerprint();
    // An existing log and a key that does not exist must both be left alone.
    for key in ["seen", "unseen"] {
        for name in [HIT, PEEK] {
            let mut check = |line: String, word: &[u8], expected: &str| {
                refused(&mut client, &call(name, &with(&line, word)), expected);
            };
            for units in bad_units() {
                check(format!("{key} @ 60"), &units, LIMIT);
                check(format!("{key} 5 60 COST @"), &units, COST);
                // After the first tier only a digit begins another one.
                let digit = units.first().is_some_and(u8::is_ascii_digit);
                if !units.eq_ignore_ascii_case(b"STRICT") && !units.eq_ignore_ascii_case(b"COST") {
                    check(format!("{key} 5 60 @ 60"), &units, if digit { LIMIT } else { SYNTAX });
                }
            }
            if name != PEEK {
                check(format!("{key} 5 60 COST @"), b"0", COST);
            }
            for window in bad_windows() {
                check(format!("{key} 5 @"), &window, WINDOW);
                check(format!("{key} 5 60 6 @"), &window, WINDOW);
                check(format!("{key} 5 @ COST 2"), &window, WINDOW);
            }
            for option in
                [&b""[..], b" ", b"NX", b"STRICTLY", b"STRIC", b"COSTS", b"COST\0", b"strict ", b"-1", b"\xff"]
            {
                check(format!("{key} 5 60 @"), option, SYNTAX);
                check(format!("{key} 5 60 @ 1"), option, SYNTAX);
                check(format!("{key} 5 60 COST 2 @"), option, SYNTAX);
            }
            for option in [FORMAT, &[b'x'; MEGABYTE], &[0xff; MEGABYTE], &[b'1'; MEGABYTE]] {
                check(format!("{key} 5 60 @"), option, if option[0] == b'1' { LIMIT } else { SYNTAX });
            }
        }
    }
    assert_same(&client.fingerprint(), &before, "after all of them");
}

#[test]
fn bad_shapes() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT seen 10 1m");
    let before = client.fingerprint();
    let nine = "k 1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9";
    let thousand = format!("k{}", " 1 1s".repeat(1_000));
    // The same for HIT and PEEK.
    let both = [
        ("seen", "arity"),
        ("seen 5", "arity"),
        ("5 60", "arity"),
        ("seen 5 60 6", SYNTAX),
        ("seen 5 60 6 60 7", SYNTAX),
        ("seen 5 60 COST", SYNTAX),
        ("seen 5 60 COST 1 COST", SYNTAX),
        ("seen 5 60 COST 1 COST 1", SYNTAX),
        ("seen 5 60 COST 1 cost 1", SYNTAX),
        ("seen 5 60 COST -1 COST 1", COST),
        ("seen 5 60 COST COST 1", COST),
        ("seen 5 60 COST STRICT", COST),
        ("seen 5 60 6 COST 1", WINDOW),
        ("seen 5 60 6 STRICT", WINDOW),
        ("seen COST 1 5 60", LIMIT),
        ("seen STRICT 5 60", LIMIT),
        ("seen 60s 5", LIMIT),
        ("seen 5 COST 1", WINDOW),
        ("seen 5 STRICT", WINDOW),
        ("seen 5 60 NX", SYNTAX),
        ("seen 5 60 COST 1 NX", SYNTAX),
        ("seen 5 60 COST 1 1", SYNTAX),
        ("seen 5 60s 10m 1", LIMIT),
        (nine, TOO_MANY_TIERS),
        (&thousand, TOO_MANY_TIERS),
    ];
    let mut table: Vec<(&str, &str, &str)> = Vec::new();
    for (line, expected) in both {
        table.extend([(HIT, line, expected), (PEEK, line, expected)]);
    }
    table.extend([
        (HIT, "seen 5 60 STRICT STRICT", SYNTAX),
        (HIT, "seen 5 60 strict COST 1 STRICT", SYNTAX),
        (HIT, "seen 5 60 STRICT 1", SYNTAX),
        (PEEK, "seen 5 60 STRICT", SYNTAX),
        (PEEK, "seen 5 60 COST 1 STRICT", SYNTAX),
    ]);
    for (name, line, expected) in table {
        let text = if expected == "arity" { arity(name) } else { expected.to_owned() };
        refused(&mut client, &call(name, &with(line, b"")), &text);
    }
    for name in [HIT, PEEK, RESET] {
        refused(&mut client, &redis::cmd(name), &arity(name));
    }
    assert_same(&client.fingerprint(), &before, "after all of them");
    // The longest call there is is not one of them.
    assert_eq!(client.answer("RATELIMIT.HIT eight 1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 COST 1 STRICT")[0], 1);
}

/// Fills the server with everything a key can hold; the answer is each key that is no log with its error.
fn foreign_keys(client: &mut Connection) -> Vec<(Vec<u8>, &'static str)> {
    let mut keys = Vec::new();
    let wrong = [
        "SET string x",
        "SET number 10",
        "SETBIT bits 100 1",
        "RPUSH list x y",
        "HSET hash 60000ms 1",
        "SADD set x",
        "ZADD zset 1 x",
        "PFADD hll x",
        "GEOADD geo 1 1 x",
    ];
    for line in wrong {
        client.ask(&words(line)).unwrap();
        keys.push((line.split(' ').nth(1).unwrap().into(), WRONG_TYPE));
    }

    let mut foreign = |name: &str, id: &str, pairs: &[(&[u8], &[u8])]| {
        let mut cmd = call("XADD", &[name, id]);
        for (field, value) in pairs {
            cmd.arg(*field).arg(*value);
        }
        client.ask(&cmd).unwrap();
        if !keys.iter().any(|(key, _)| key == name.as_bytes()) {
            keys.push((name.into(), NOT_A_LOG));
        }
    };
    foreign("elsewhere", "*", &[(b"temperature", b"20")]);
    foreign("two fields", "*", &[(b"60000ms", b"1"), (b"60000ms", b"1")]);
    foreign("log and field", "*", &[(b"60000ms", b"1"), (b"x", b"y")]);
    foreign("many fields", "*", &vec![(&b"60000ms"[..], &b"1"[..]); 500]);
    foreign("last id", "18446744073709551615-18446744073709551615", &[(b"x", b"y")]);
    let names = listed(
        "ms 60000 60s 60000MS 60000Ms 060000ms 0ms -1ms +1ms 1.5ms 60000msms 60000ms> >60000ms 60000ms>60000ms \
         60000ms>60001ms 60000ms>0ms 60000ms>10000 60000ms>10000ms>5ms 315360000001ms 99999999999999999999ms",
        &[b"", b"60000ms ", b" 60000ms", b"60000ms\0", b"60000ms\n", b"\xffms", &[b'1'; 4_000]],
        b"",
    );
    for (at, name) in names.iter().enumerate() {
        foreign(&format!("name:{at}"), "*", &[(name, b"1")]);
    }
    let costs = listed(
        "0 00 01 -1 +1 1.0 x 1e3 0x1 9007199254740992 18446744073709551615 18446744073709551617",
        &[b"", b" 1", b"1 ", b"1\0", b"1\n", b"\xff", &[b'1'; 4_000]],
        b"",
    );
    for (at, cost) in costs.iter().enumerate() {
        foreign(&format!("cost:{at}"), "*", &[(b"60000ms", cost)]);
    }
    // A log on which somebody has put an entry of his own.
    foreign("on top", "1-1", &[(b"60000ms", b"1")]);
    foreign("on top", "*", &[(b"x", b"y")]);
    keys
}

#[test]
fn foreign_keys_are_left_as_they_were() {
    let server = Server::start();
    let mut client = server.connect();
    let keys = foreign_keys(&mut client);
    for good in ["good:1", "good:2"] {
        client.run(&format!("RATELIMIT.HIT {good} 10 1m"));
    }
    let before = client.fingerprint();
    assert!(keys.len() > 60);
    for (key, expected) in &keys {
        for name in [HIT, PEEK] {
            for tail in ["10 1m", "0 1m", "10 1ms 20 1d COST 3"] {
                refused(&mut client, &call(name, &with(&format!("@ {tail}"), key)), expected);
            }
        }
        refused(&mut client, &call(HIT, &with("@ 10 1m STRICT", key)), expected);
        // One wrong key, in any place, and nothing is deleted.
        for line in ["@", "@ good:1", "good:1 good:2 @", "good:1 @ good:2", "good:1 unseen @ @", "unseen @"] {
            refused(&mut client, &call(RESET, &with(line, key)), expected);
        }
    }
    assert_same(&client.fingerprint(), &before, "after all of them");
    assert_eq!(client.integer("RATELIMIT.RESET good:1 unseen good:2 good:1"), 2);
    assert_eq!(client.integer("EXISTS good:1 good:2"), 0);
}

/// A key is any bytes, and two that differ in any byte are two keys. Read back from the AOF they are the same bytes.
#[test]
fn keys_are_any_bytes() {
    let server = Setup::new().args(["--appendonly", "yes"]).start();
    let mut client = server.connect();
    let every_byte: Vec<u8> = (0..=255).collect();
    let keys = listed(
        "a ' \" { {} 1m 10 COST STRICT -1 NaN %s",
        &[
            b"",
            b"\0",
            b"\0\0",
            b"a\0",
            b"a\0b",
            b"\xff",
            b"\xff\xfe",
            b"\xc3\x28",
            b" ",
            b"\r\n",
            b"a b",
            b"$-1\r\n",
            b"*0\r\n",
            FORMAT,
            &every_byte,
        ],
        b"k\0\xff%",
    );
    for key in &keys {
        let mut answer = |name, tail| in_minutes(&client.ask(&call(name, &with(&format!("@ {tail}"), key))).unwrap());
        let shown = &key[..key.len().min(40)];
        assert_eq!(answer(PEEK, "2 1m"), [1, 2, 1, 0, 60_000, 60_000], "{shown:?}");
        assert_eq!(answer(HIT, "2 1m"), [1, 2, 1, 0, 60_000, 60_000], "{shown:?}");
        assert_eq!(answer(HIT, "2 1m"), [1, 2, 0, 0, 60_000, 60_000], "{shown:?}");
        assert_eq!(answer(HIT, "2 1m"), [0, 2, 0, 60_000, 60_000, 60_000], "{shown:?}");
        assert_eq!(answer(PEEK, "2 1m"), [0, 2, 0, 60_000, 60_000, 60_000], "{shown:?}");
        assert_eq!(get::<i64>(client.ask(&call("XLEN", &[key])).unwrap()), 2, "{shown:?}");
    }
    assert_eq!(client.integer("DBSIZE"), keys.len() as i64);
    let before = client.fingerprint();
    client.run("DEBUG LOADAOF");
    assert_same(&client.fingerprint(), &before, "read back");
    assert_eq!(get::<i64>(client.ask(&call(RESET, &keys)).unwrap()), keys.len() as i64);
    assert_eq!(client.integer("DBSIZE"), 0);
    client.run("DEBUG LOADAOF");
    assert_eq!(client.integer("DBSIZE"), 0, "reset, read back");
}
