//! A user can do what the ACL allows, key by key and command by command, and the module does nothing else for him.

use redis::{Connection, Value};
use support::client::{FORMAT, HIT, MHIT, PEEK, RESET, TOP, call};
use support::errors::WRONG_TYPE;
use support::{Ask, Server, Setup, get, skipped, words};

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
        ("mixed", "RATELIMIT.MHIT 2 rl:1 rl:2 9 1m AND 9 1m", allowed),
        ("mixed", "RATELIMIT.MHIT 2 rl:1 ro:1 9 1m AND 9 1m", key),
        ("mixed", "RATELIMIT.MHIT 2 ro:1 rl:1 9 1m AND 9 1m", key),
        ("mixed", "RATELIMIT.MHIT 3 rl:1 rl:2 other 9 1m AND 9 1m AND 9 1m", key),
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
        let outcome = client.ask(&words(line)).map(|_| ()).err().unwrap_or_default();
        let matches = match expected {
            "" => outcome.is_empty(),
            error if error.starts_with(char::is_uppercase) => outcome.starts_with(error),
            _ => outcome.starts_with("NOPERM ") && outcome.contains(expected),
        };
        assert!(matches, "{user}: {line}: {outcome:?}");
    }
}

/// What a user may not do, the module does not do for him: it calls no command of the server but RESTORE, to begin a log.
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
        "RATELIMIT.MHIT 2 a b 1 1m AND 1 1m",
        "RATELIMIT.TOP",
        "RATELIMIT.RESET a b",
        "RATELIMIT.RESETSTAT",
    ] {
        client.run(line);
    }
    let stats = client.text("INFO commandstats");
    let called: Vec<&str> = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next()).collect();
    // A log begins by RESTORE.
    let own = |name: &&&str| name.starts_with("ratelimit.") || ["config|resetstat", "restore"].contains(name);
    assert_eq!(called.iter().filter(|name| !own(name)).collect::<Vec<_>>(), [&""; 0], "{stats}");
    assert_eq!(called.iter().filter(|name| name.starts_with("ratelimit.")).count(), 6, "{stats}");
}

#[test]
fn the_category_of_the_module() {
    let server = Server::start();
    let mut client = server.connect();
    let categories: Vec<String> = get(client.run("ACL CAT"));
    if !categories.contains(&"ratelimit".to_owned()) {
        // Before Redis 7.4 and Valkey 8 a module cannot add one.
        assert!(client.info("server", "redis_version").starts_with("7."), "{categories:?}");
        skipped("this server has no ACL categories of modules");
        return;
    }
    let mut commands: Vec<String> = get(client.run("ACL CAT ratelimit"));
    commands.sort();
    let all = ["hit", "mhit", "peek", "refund", "reset", "resetstat", "top"].map(|name| format!("ratelimit.{name}"));
    assert_eq!(commands, all);
    client.run("ACL SETUSER app on nopass ~rl:* +@ratelimit -@admin");
    let as_app = |client: &mut Connection, line: &str| {
        client.run("AUTH app x");
        let reply = client.ask(&words(line));
        client.run("AUTH default x");
        reply
    };
    assert!(as_app(&mut client, "RATELIMIT.HIT rl:1 1 1").is_ok());
    assert!(as_app(&mut client, "RATELIMIT.HIT other 1 1").unwrap_err().starts_with("NOPERM"));
    assert!(as_app(&mut client, "RATELIMIT.MHIT 2 rl:1 other 1 1 AND 1 1").unwrap_err().starts_with("NOPERM"));
    assert!(as_app(&mut client, "RATELIMIT.TOP").unwrap_err().starts_with("NOPERM"));
}

/// The crate's log functions take their text for a printf format, so nothing that a client sends may get there.
#[test]
fn nothing_of_the_input_is_logged() {
    let server = Setup::new().args(["--loglevel", "debug"]).start();
    let mut client = server.connect();
    for word in [FORMAT, b"%s%n%x", b"%n", b"secret%s"] {
        client.ask(&call("SET", &[&[b"string:", word].concat()[..], word])).unwrap();
        let one = ["@ 10 1m", "string:@ 10 1m", "k @ 1m", "k 10 @", "k 10 1m @", "k 10 1m COST @", "k 10 1m @ 1m"];
        let many =
            ["1 @ 10 1m", "2 k string:@ 10 1m 10 1m", "@ k 10 1m", "1 k 10 @", "1 k 10 1m @", "2 @ @ 10 1m 10 1m"];
        let calls = [(HIT, &one[..]), (PEEK, &one), (MHIT, &many), (TOP, &["@", "COUNT @", "COUNT 1 @"])];
        for (name, line) in calls.into_iter().flat_map(|(name, lines)| lines.iter().map(move |line| (name, *line))) {
            let args: Vec<Vec<u8>> =
                line.split(' ').map(|part| part.split('@').map(str::as_bytes).collect::<Vec<_>>().join(word)).collect();
            let reply = client.ask(&call(name, &args));
            let text = format!("{reply:?}");
            assert!(!text.contains('%') && !text.contains("secret"), "{name} {line}: {text}");
            assert_eq!(reply.is_ok(), ["@ 10 1m", "1 @ 10 1m"].contains(&line), "{name} {line}: {text}");
        }
        assert_eq!(client.ask(&call(RESET, &[word])), Ok(Value::Int(1)));
        let other = client.ask(&call(RESET, &[word, &[b"string:", word].concat()[..]]));
        assert_eq!(other, Err(WRONG_TYPE.to_owned()));
    }
    assert_eq!(client.text("PING"), "PONG");
    let log = server.log();
    assert!(log.contains("ratelimit"), "this is the server's log");
    for word in ["%s", "%n", "%x", "secret", "panicked"] {
        assert!(!log.contains(word), "{word} is in the log:\n{log}");
    }
}
