//! Everywhere a command can run: pipelines, transactions, scripts, functions, both protocols, the shell, under an ACL,
//! without memory; and what the server tells of the commands.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use redis::{Connection, Value};

use crate::support::{Ask, PATIENCE, START, Server, Setup, get, in_minutes, module, text_of, wait_for, words};

/// A call that may fail, from a line of words.
fn reply(client: &mut Connection, line: &str) -> Result<Value, String> {
    client.ask(&words(line))
}

/// A script and its arguments, which have no blanks; the script may.
fn script(client: &mut Connection, command: &str, source: &str, rest: &str) -> Result<Value, String> {
    let mut cmd = redis::cmd(command);
    cmd.arg(source).arg(rest.split(' ').collect::<Vec<_>>());
    client.ask(&cmd)
}

#[test]
fn pipelined() {
    let server = Server::start();
    let mut client = server.connect();
    let mut pipe = redis::pipe();
    for _ in 0..200 {
        pipe.cmd("RATELIMIT.HIT").arg("key").arg(60).arg("1m");
    }
    let replies: Vec<Value> = pipe.query(&mut client).unwrap();
    for (at, reply) in (0..).zip(&replies) {
        let expected = if at < 60 { [1, 60, 59 - at, 0, 60_000, 60_000] } else { [0, 60, 0, 60_000, 60_000, 60_000] };
        assert_eq!(in_minutes(reply), expected, "call {at}");
    }
    assert_eq!(replies.len(), 200);
}

#[test]
fn in_a_transaction() {
    let server = Server::start();
    let mut client = server.connect();
    let lines = [
        ("RATELIMIT.PEEK key 2 1m", Ok([1, 2, 1, 0, 60_000, 60_000])),
        ("RATELIMIT.HIT key 2 1m", Ok([1, 2, 1, 0, 60_000, 60_000])),
        ("RATELIMIT.HIT key x 1m", Err("ERR limit is not an integer or out of range")),
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
    let short = reply(&mut client, "RATELIMIT.HIT key 2");
    assert_eq!(short, Err("ERR wrong number of arguments for 'ratelimit.hit' command".to_owned()));
    client.run("RATELIMIT.HIT key 2 1m");
    let aborted = "EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(reply(&mut client, "EXEC"), Err(aborted.to_owned()));
    assert_eq!(client.integer("XLEN key"), 1);
}

/// A refusal leaves a WATCH alone, and a hit does not.
#[test]
fn watched() {
    let server = Server::start();
    let (mut client, mut other) = (server.connect(), server.connect());
    for (line, disturbs) in [
        ("RATELIMIT.PEEK key 1 1m", false),
        ("RATELIMIT.HIT key 0 1m", false),
        ("RATELIMIT.RESET key", false),
        ("RATELIMIT.HIT key 1 1m", true),
        ("RATELIMIT.HIT key 1 1m", false),
        ("RATELIMIT.HIT key x 1m", false),
        ("RATELIMIT.HIT key 1 1m STRICT", true),
        ("RATELIMIT.RESET key", true),
    ] {
        client.run("WATCH key");
        let _ = reply(&mut other, line);
        client.run("MULTI");
        client.run("PING");
        assert_eq!(client.run("EXEC") == Value::Nil, disturbs, "{line}");
    }
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
    let error = "ERR limit is not an integer or out of range";
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
        let refused = reply(&mut client, line).unwrap_err();
        assert!(refused.starts_with("ERR Write commands are not allowed from read-only scripts"), "{refused}");
    }
    let bad = reply(&mut client, "FCALL hit 1 key 2 1x").unwrap_err();
    assert!(bad.starts_with("ERR window is not a duration"), "{bad}");
    assert_eq!(client.integer("XLEN key"), 2);
}

#[test]
fn both_protocols_get_the_same_bytes() {
    let Some((server, _clock)) = Server::on_clock() else { return };
    let calls = [
        ("RATELIMIT.HIT {} 2 1m", "*6\r\n:1\r\n:2\r\n:1\r\n:0\r\n:60000\r\n:60000\r\n"),
        ("RATELIMIT.HIT {} 2 1m", "*6\r\n:1\r\n:2\r\n:0\r\n:0\r\n:60000\r\n:60000\r\n"),
        ("RATELIMIT.HIT {} 2 1m", "*6\r\n:0\r\n:2\r\n:0\r\n:60000\r\n:60000\r\n:60000\r\n"),
        ("RATELIMIT.PEEK {} 2 1m COST 3", "*6\r\n:0\r\n:2\r\n:0\r\n:-1\r\n:60000\r\n:60000\r\n"),
        ("RATELIMIT.PEEK {} 2 60 COST 0", "-ERR cost is not an integer or out of range\r\n"),
        ("RATELIMIT.RESET {} other", ":1\r\n"),
        ("RATELIMIT.PEEK {} 0 1m", "*6\r\n:0\r\n:0\r\n:0\r\n:-1\r\n:0\r\n:0\r\n"),
    ];
    for protocol in ["2", "3"] {
        let mut stream = UnixStream::connect(server.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut sent = format!("HELLO {protocol}\r\nECHO begin\r\n");
        let mut expected = "$5\r\nbegin\r\n".to_owned();
        for (line, bytes) in calls {
            sent += &(line.replace("{}", &format!("raw:{protocol}")) + "\r\n");
            expected += bytes;
        }
        stream.write_all((sent + "QUIT\r\n").as_bytes()).unwrap();
        let mut received = String::new();
        stream.read_to_string(&mut received).unwrap();
        let (hello, rest) = received.split_at(received.find("$5\r\nbegin").unwrap());
        assert!(hello.starts_with(if protocol == "2" { '*' } else { '%' }), "protocol {protocol}: {hello}");
        assert_eq!(rest, expected + "+OK\r\n", "protocol {protocol}");
    }
    for mut client in [server.connect(), server.connect_resp3()] {
        assert_eq!(client.answer("RATELIMIT.HIT client 2 1m")[0], 1);
        assert_eq!(client.integer("RATELIMIT.RESET client"), 1);
    }
}

#[test]
fn in_a_shell_script() {
    let server = Server::start();
    let script = r#"
        set -eu
        for try in 1 2 3; do
            set -- $(redis-cli -s "$SOCKET" RATELIMIT.HIT login 2 10m)
            if [ "$1" -eq 1 ]; then
                echo "try $try: welcome, $3 of $2 left"
            else
                echo "try $try: come back in $(( ($4 + 59999) / 60000 )) min"
            fi
        done
        redis-cli -s "$SOCKET" RATELIMIT.RESET login
        redis-cli -e -s "$SOCKET" RATELIMIT.HIT login two 10m 2>&1 || echo "failed"
    "#;
    let output = Command::new("sh").args(["-c", script]).env("SOCKET", server.socket()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let expected = [
        "try 1: welcome, 1 of 2 left",
        "try 2: welcome, 0 of 2 left",
        "try 3: come back in 10 min",
        "1",
        "ERR limit is not an integer or out of range",
        "failed",
    ];
    assert_eq!(lines, expected);
    assert!(output.status.success());
}

#[test]
fn under_an_acl() {
    let server = Server::start();
    let mut admin = server.connect();
    admin.run("ACL SETUSER app on >secret ~rl:* +ratelimit.hit");
    admin.run("ACL SETUSER reader on >secret %R~rl:* +ratelimit.hit +ratelimit.peek +ratelimit.reset");
    admin.run("ACL SETUSER support on >secret ~rl:* +ratelimit.reset +ratelimit.peek");
    admin.run("ACL SETUSER writer on >secret %W~rl:* +ratelimit.hit +ratelimit.mhit +ratelimit.peek +ratelimit.reset");
    admin.run("ACL SETUSER mixed on >secret ~rl:* %R~ro:* +ratelimit.mhit");
    admin.run("ACL SETUSER all on >secret ~* +@all -@dangerous -ratelimit.top -ratelimit.resetstat");
    admin.run("SET rl:string x");
    // Redis 7.0 speaks of "this user", later servers of "User app", and of a key in words of their own.
    let (command, key, allowed) = ("permissions to run", "key", "");
    for (user, line, expected) in [
        ("app", "RATELIMIT.HIT rl:1 2 1m", allowed),
        ("app", "RATELIMIT.HIT other 2 1m", key),
        ("app", "RATELIMIT.HIT rl 2 1m", key),
        ("app", "RATELIMIT.HIT 10 10 10", key),
        ("app", "RATELIMIT.PEEK rl:1 2 1m", command),
        ("app", "RATELIMIT.RESET rl:1", command),
        ("app", "SET rl:1 x", command),
        ("app", "XADD rl:1 * 60000ms 1", command),
        ("app", "DEL rl:1", command),
        ("reader", "RATELIMIT.PEEK rl:1 2 1m", allowed),
        ("reader", "RATELIMIT.PEEK other 2 1m", key),
        ("reader", "RATELIMIT.HIT rl:1 2 1m", key),
        ("reader", "RATELIMIT.RESET rl:1", key),
        // An answer tells what is in the log, so that the right to write is not enough; to forget, it is.
        ("writer", "RATELIMIT.HIT rl:1 2 1m", key),
        ("writer", "RATELIMIT.MHIT 1 rl:1 2 1m", key),
        ("writer", "RATELIMIT.PEEK rl:1 2 1m", key),
        ("writer", "RATELIMIT.RESET rl:2", allowed),
        // Every key is looked at, wherever it stands, and what is no number of keys hides none.
        ("mixed", "RATELIMIT.MHIT 2 rl:1 rl:2 9 1m 9 1m", allowed),
        ("mixed", "RATELIMIT.MHIT 2 rl:1 ro:1 9 1m 9 1m", key),
        ("mixed", "RATELIMIT.MHIT 2 ro:1 rl:1 9 1m 9 1m", key),
        ("mixed", "RATELIMIT.MHIT 3 rl:1 rl:2 other 9 1m 9 1m 9 1m", key),
        ("mixed", "RATELIMIT.MHIT 1 rl:1 other 9 1m", "ERR limit"),
        ("mixed", "RATELIMIT.MHIT 01 other 9 1m", "ERR numkeys"),
        ("mixed", "RATELIMIT.MHIT -1 other 9 1m", "ERR numkeys"),
        ("mixed", "RATELIMIT.MHIT 5 other 9 1m", "ERR number of keys"),
        ("mixed", "RATELIMIT.MHIT 18446744073709551617 other 9 1m", "ERR numkeys"),
        ("support", "RATELIMIT.PEEK rl:1 2 1m", allowed),
        ("support", "RATELIMIT.HIT rl:1 2 1m", command),
        ("support", "RATELIMIT.RESET rl:1 other", key),
        ("support", "RATELIMIT.RESET other rl:1", key),
        ("support", "RATELIMIT.RESET rl:1 rl:string", "WRONGTYPE"),
        ("support", "RATELIMIT.RESET rl:2 rl:1", allowed),
        ("support", "DEL rl:string", command),
        ("all", "RATELIMIT.HIT rl:1 2 1m", allowed),
        ("all", "RATELIMIT.TOP", command),
        ("all", "RATELIMIT.RESETSTAT", command),
    ] {
        let mut client = server.connect();
        client.run(&format!("AUTH {user} secret"));
        let outcome = reply(&mut client, line).map(|_| ()).err().unwrap_or_default();
        let matches = match expected {
            "" => outcome.is_empty(),
            error if error.starts_with(char::is_uppercase) => outcome.starts_with(error),
            _ => outcome.starts_with("NOPERM ") && outcome.contains(expected),
        };
        assert!(matches, "{user}: {line}: {outcome:?}");
    }
}

/// What a user may not do, the module does not do for him: it calls no command of the server.
#[test]
fn no_other_command_is_called() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("CONFIG RESETSTAT");
    for line in [
        "RATELIMIT.HIT a 1 1m",
        "RATELIMIT.HIT a 1 1m",
        "RATELIMIT.HIT a 1 1m STRICT",
        "RATELIMIT.HIT a 9 1h",
        "RATELIMIT.PEEK a 1 1m",
        "RATELIMIT.MHIT 2 a b 1 1m 1 1m",
        "RATELIMIT.TOP",
        "RATELIMIT.RESET a b",
        "RATELIMIT.RESETSTAT",
    ] {
        client.run(line);
    }
    let stats = client.text("INFO commandstats");
    let called: Vec<&str> = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next()).collect();
    let own = |name: &&&str| name.starts_with("ratelimit.") || **name == "config|resetstat";
    assert_eq!(called.iter().filter(|name| !own(name)).collect::<Vec<_>>(), [&""; 0], "{stats}");
    assert_eq!(called.iter().filter(|name| name.starts_with("ratelimit.")).count(), 6, "{stats}");
}

/// A nested reply as text: lists in brackets, names of maps and lists alike.
fn show(value: &Value) -> String {
    let list = |items: &[Value]| format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "));
    match value {
        Value::Array(items) | Value::Set(items) => list(items),
        Value::Map(pairs) => {
            list(&pairs.iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect::<Vec<_>>())
        }
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Int(integer) => integer.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn command_info() {
    let server = Server::start();
    let mut client = server.connect();
    let specs = |flags: &str, last: i32| {
        format!(
            "[[flags [{flags}] begin_search [type index spec [index 1]] \
             find_keys [type range spec [lastkey {last} keystep 1 limit 0]]]]"
        )
    };
    for (name, arity, flags, last, key_specs) in [
        ("ratelimit.hit", -4, &["denyoom", "fast", "module", "write"][..], 1, specs("RW access update", 0)),
        ("ratelimit.peek", -4, &["fast", "module", "readonly"], 1, specs("RO access", 0)),
        ("ratelimit.reset", -2, &["module", "write"], -1, specs("RM delete", -1)),
    ] {
        let rows: Vec<Vec<Value>> = get(client.run(&format!("COMMAND INFO {name}")));
        let row = &rows[0];
        let heads = [0, 1, 3, 4, 5].map(|at| show(&row[at]));
        let expected = [name.to_owned(), arity.to_string(), 1.to_string(), last.to_string(), 1.to_string()];
        assert_eq!(heads, expected, "{name}: name, arity, first key, last key, step");
        let mut actual: Vec<String> = get(row[2].clone());
        actual.sort();
        assert_eq!(actual, flags, "{name}");
        assert_eq!(show(&row[8]), key_specs, "{name}");
        // Commands of modules have no categories before Redis 7.2, whatever their flags are.
        let categories: Vec<String> = get(row[6].clone());
        for category in if categories.is_empty() { &[] } else { flags } {
            let follows = ["fast", "write"].contains(category);
            assert!(!follows || categories.contains(&format!("@{category}")), "{name}: {categories:?}");
        }
    }
    assert_eq!(client.run("COMMAND INFO ratelimit.nonsense"), Value::Array(vec![Value::Nil]));
}

#[test]
fn command_getkeys() {
    let server = Server::start();
    let mut client = server.connect();
    for (line, keys) in [
        ("RATELIMIT.HIT k 10 1s", &["k"][..]),
        ("RATELIMIT.HIT k 10 1s 500 1h COST 3 STRICT", &["k"]),
        ("RATELIMIT.HIT 10 10 10", &["10"]),
        ("RATELIMIT.PEEK COST 1 1 COST 2", &["COST"]),
        ("RATELIMIT.PEEK k 1 1 2 2 3 3", &["k"]),
        ("RATELIMIT.RESET a", &["a"]),
        ("RATELIMIT.RESET a b c a", &["a", "b", "c", "a"]),
    ] {
        assert_eq!(get::<Vec<String>>(client.run(&format!("COMMAND GETKEYS {line}"))), keys, "{line}");
    }
    for line in ["RATELIMIT.HIT k 10", "RATELIMIT.PEEK k"] {
        let short = reply(&mut client, &format!("COMMAND GETKEYS {line}"));
        assert_eq!(short, Err("ERR Invalid number of arguments specified for command".to_owned()), "{line}");
    }
}

#[test]
fn command_docs() {
    let server = Server::start();
    let mut client = server.connect();
    const KEY: &str = "[name key type key key_spec_index 0]";
    const TIER: &str = "[name tier type block flags [multiple] \
        arguments [[name limit type integer] [name window type string]]]";
    const COST: &str = "[name units type integer token COST flags [optional]]";
    const STRICT: &str = "[name strict type pure-token token STRICT flags [optional]]";
    for (name, summary, complexity, arguments) in [
        (
            "ratelimit.hit",
            "Records a hit if every limit allows it, and tells what is left.",
            "O(log N) for each tier, N being the number of entries in the log",
            format!("[{KEY} {TIER} {COST} {STRICT}]"),
        ),
        (
            "ratelimit.peek",
            "Tells what RATELIMIT.HIT would answer, and changes nothing.",
            "O(log N) for each tier, N being the number of entries in the log",
            format!("[{KEY} {TIER} {COST}]"),
        ),
        (
            "ratelimit.reset",
            "Forgets the hits of keys.",
            "O(N) where N is the number of keys; their memory is freed in the background",
            "[[name key type key key_spec_index 0 flags [multiple]]]".to_owned(),
        ),
    ] {
        let docs: Vec<(String, Vec<(String, Value)>)> = get(client.run(&format!("COMMAND DOCS {name}")));
        assert_eq!(docs[0].0, name);
        let field = |wanted: &str| {
            let found = docs[0].1.iter().find(|(field, _)| field == wanted);
            found.map_or_else(|| panic!("{name} has no {wanted}"), |(_, value)| show(value))
        };
        assert_eq!(field("summary"), summary, "{name}");
        assert_eq!(field("since"), "0.1.0", "{name}");
        assert_eq!(field("group"), "module", "{name}");
        assert_eq!(field("module"), "ratelimit", "{name}");
        assert_eq!(field("complexity"), complexity, "{name}");
        // Servers from 7.2 on add a text to show to arguments that have none of their own.
        let shown: Vec<String> = field("arguments").split(" display_text ").map(str::to_owned).collect();
        let mut arguments_seen = shown[0].clone();
        for part in &shown[1..] {
            arguments_seen += part.find([' ', ']']).map_or("", |end| &part[end..]);
        }
        assert_eq!(arguments_seen, arguments, "{name}");
    }
}

/// The module in `MODULE LIST`, which may have modules of the server beside it.
fn listed(client: &mut Connection) -> Option<Vec<(String, Value)>> {
    let modules: Vec<Vec<(String, Value)>> = get(client.run("MODULE LIST"));
    let mut ours = modules.into_iter().filter(|module| module.iter().any(|(_, value)| show(value) == "ratelimit"));
    let module = ours.next();
    assert!(ours.next().is_none(), "it is there twice");
    module
}

#[test]
fn module_list_shows_the_packages_version() {
    let server = Server::start();
    let module = listed(&mut server.connect()).unwrap();
    let field = |wanted: &str| &module.iter().find(|(name, _)| name == wanted).unwrap().1;
    let part = |text: &str| text.parse::<i64>().unwrap();
    let version = part(env!("CARGO_PKG_VERSION_MAJOR")) * 10_000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 100
        + part(env!("CARGO_PKG_VERSION_PATCH"));
    assert_eq!(*field("ver"), Value::Int(version));
}

#[test]
fn without_memory() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT key 2 1m");
    client.run("CONFIG SET maxmemory-policy noeviction");
    client.run("CONFIG SET maxmemory 1");
    let before = client.fingerprint();
    let oom = Err("OOM command not allowed when used memory > 'maxmemory'.".to_owned());
    assert_eq!(reply(&mut client, "RATELIMIT.HIT key 2 1m"), oom);
    assert_eq!(reply(&mut client, "RATELIMIT.HIT new 2 1m STRICT"), oom);
    assert_eq!(in_minutes(&client.run("RATELIMIT.PEEK key 2 1m")), [1, 2, 0, 0, 60_000, 60_000]);
    assert_eq!(in_minutes(&client.run("RATELIMIT.PEEK new 2 1m")), [1, 2, 1, 0, 60_000, 60_000]);
    assert_eq!(client.fingerprint(), before);
    assert_eq!(client.integer("RATELIMIT.RESET key"), 1);
    assert_eq!(client.integer("DBSIZE"), 0);
    client.run("CONFIG SET maxmemory 0");
    assert_eq!(in_minutes(&client.run("RATELIMIT.HIT key 2 1m")), [1, 2, 1, 0, 60_000, 60_000]);
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
    let Some(clock) = crate::support::Clock::at(START) else { return };
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
        (0, "RATELIMIT.HIT key 3 1s", &["xadd key", "expire key"]),
        (0, "RATELIMIT.HIT key 3 1s", &["xadd key"]),
        (0, "RATELIMIT.HIT key 3 1s", &["xadd key"]),
        (0, "RATELIMIT.HIT key 3 1s", &["ratelimit.refused key"]),
        (0, "RATELIMIT.PEEK key 3 1s", &[]),
        (0, "RATELIMIT.HIT key 3 1s STRICT", &["xadd key", "ratelimit.refused key"]),
        // Nodes hold two entries: two nodes of expired ones go, and the key's expiry is due for renewal.
        (1_001, "RATELIMIT.HIT key 3 1s", &["xadd key", "xtrim key", "expire key"]),
        (1_050, "RATELIMIT.HIT key 3 1s", &["xadd key"]),
        // The clock was set back by more than the log is kept: it is started again.
        (-9_000, "RATELIMIT.HIT key 3 1s", &["del key", "xadd key", "expire key"]),
        (-9_000, "RATELIMIT.RESET key", &["del key"]),
        (-9_000, "RATELIMIT.RESET key", &[]),
        (-9_000, "RATELIMIT.HIT key 3 1s", &["xadd key", "expire key"]),
        (-9_000, "RATELIMIT.HIT other 3 1s", &["xadd other", "expire other"]),
        (-9_000, "RATELIMIT.RESET other unseen key", &["del other", "del key"]),
    ] {
        clock.set(START.checked_add_signed(after).unwrap());
        let _ = reply(&mut client, line);
        client.run("PUBLISH __keyevent@0__:done done");
        assert_eq!(events_until(&mut subscriber, "done"), expected, "{line} at {after}");
    }
}

/// A typing error in the configuration must not pass for a setting that works.
#[test]
fn arguments_at_load_are_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let log = dir.path().join("log");
    let program = std::env::var("RATELIMIT_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let mut child = Command::new(program)
        .current_dir(dir.path())
        .args(["--port", "0", "--unixsocket", "server.sock", "--save", "", "--logfile", "log"])
        .arg("--loadmodule")
        .args([module().as_os_str(), "extra".as_ref()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut status = None;
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for("the server refuses to start", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
    }));
    let _ = child.kill();
    let _ = child.wait();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(ended.is_ok(), "it started:\n{log}");
    assert!(!status.unwrap().success(), "{log}");
    assert!(log.contains("<ratelimit> ratelimit takes no arguments at load"), "{log}");
}

/// Replicas and append-only files get the server's own commands by their own names.
#[test]
fn renamed_commands() {
    for name in ["XADD", "PEXPIREAT", "UNLINK"] {
        let setup = Setup::new().args(["--rename-command", name, "hidden"]);
        let log = setup.does_not_start(tempfile::TempDir::new().unwrap());
        assert!(log.contains("<ratelimit> ratelimit replicates by XADD"), "{log}");
    }
    let setup = Setup::new().args([
        "--rename-command",
        "FLUSHALL",
        "",
        "--rename-command",
        "COMMAND",
        "",
        "--appendonly",
        "yes",
    ]);
    let server = setup.clone().start();
    assert_eq!(server.connect().answer("RATELIMIT.HIT key 2 1m")[0], 1);
    let server = setup.start_in(server.kill());
    assert_eq!(server.connect().answer("RATELIMIT.HIT key 2 1m")[..3], [1, 2, 0]);
}

#[test]
fn loaded_twice() {
    let server = Setup::new().without_module().args(["--enable-module-command", "yes"]).start();
    let mut client = server.connect();
    let path = module();
    let load = |client: &mut Connection, args: &[&str]| {
        let mut cmd = redis::cmd("MODULE");
        cmd.arg("LOAD").arg(path.to_str().unwrap()).arg(args);
        client.ask(&cmd)
    };
    let refused = Err("ERR Error loading the extension. Please check the server logs.".to_owned());
    assert_eq!(load(&mut client, &["extra"]), refused);
    assert!(server.log().contains("ratelimit takes no arguments at load"));
    assert_eq!(listed(&mut client), None);
    assert_eq!(load(&mut client, &[]), Ok(Value::Okay), "a refused load leaves nothing behind");
    assert_eq!(client.answer("RATELIMIT.HIT key 2 1m")[0], 1);
    assert_eq!(load(&mut client, &[]), refused);
    assert_eq!(client.answer("RATELIMIT.HIT key 2 1m")[..3], [1, 2, 0], "the first one is still there");
    assert!(listed(&mut client).is_some());
}
