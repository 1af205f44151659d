//! MODULE UNLOAD is refused, whoever holds the commands; another build takes over by restart or failover and loses nothing.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use redis::{Connection, ConnectionLike, Value};
use support::modules::{module, panicking_module};
use support::{Ask, Running, Server, Setup, assert_same, get, six, skipped, wait_for, wait_for_more, words};
use tempfile::TempDir;

const UNLOAD: &str = "MODULE UNLOAD ratelimit";
const HIT: &str = "RATELIMIT.HIT k 1000000 1h";
const REASON: &str = "ratelimit is never unloaded";

fn refused(client: &mut Connection) {
    let error = client.error(UNLOAD);
    assert!(error.starts_with("ERR Error unloading module: "), "{error}");
}

fn setup() -> Setup {
    Setup::new().args(["--enable-module-command", "yes"])
}

fn server() -> Server {
    setup().start()
}

fn load(client: &mut Connection) -> Result<Value, String> {
    client.ask(redis::cmd("MODULE").arg("LOAD").arg(module().to_str()))
}

/// The replies to many lines that are sent at once.
fn at_once(client: &mut Connection, lines: &[&str]) -> Vec<Value> {
    let mut pipe = redis::pipe();
    for line in lines {
        pipe.add_command(words(line));
    }
    client.req_packed_commands(&pipe.get_packed_pipeline(), 0, lines.len()).unwrap()
}

fn is_refusal(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.details().is_some_and(|text| text.contains("unloading module")))
}

fn is_listed(client: &mut Connection) -> bool {
    format!("{:?}", client.run("MODULE LIST")).contains("\"ratelimit\"")
}

/// From the first command on, also where that is the one that unloads.
#[test]
fn refused_and_the_log_says_why() {
    let mut server = server();
    let mut client = server.connect();
    for times in 1..=3 {
        refused(&mut client);
        assert_eq!(server.log().matches(REASON).count(), times);
    }
    assert!(server.log().contains("restart the server with the new file, or load it on a replica and fail over"));
    assert!(is_listed(&mut client));
    assert_eq!(client.answer(HIT)[..3], [1, 1_000_000, 999_999]);

    // Loaded later, and asked in the same packet.
    let server_without = setup().without_module().start();
    let mut client = server_without.connect();
    let load = format!("MODULE LOAD {}", module().display());
    let replies = at_once(&mut client, &[&load, UNLOAD, UNLOAD]);
    assert_eq!(replies[0], Value::Okay);
    assert!(is_refusal(&replies[1]) && is_refusal(&replies[2]), "{replies:?}");
    assert_eq!(client.answer(HIT)[..3], [1, 1_000_000, 999_999]);
    assert!(server.is_alive());
}

/// Clients come, hit and go while others try to unload: every hit is answered and stored.
fn under_traffic(args: &[&str]) {
    let mut server = setup().args(args).start();
    let (running, admitted, tried) = (AtomicBool::new(true), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while running.load(Relaxed) {
                    let mut client = server.connect();
                    for _ in 0..20 {
                        assert_eq!(client.answer(HIT)[0], 1);
                        for reply in at_once(&mut client, &[HIT; 20]) {
                            assert_eq!(six(&reply)[0], 1);
                        }
                        admitted.fetch_add(21, Relaxed);
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut operator = server.connect();
            while running.load(Relaxed) {
                refused(&mut operator);
                tried.fetch_add(1, Relaxed);
            }
        });
        let _stop = Running(&running);
        wait_for_more("attempts", &tried, 100);
        wait_for_more("traffic", &admitted, 5_000);
    });
    assert!(server.is_alive());
    assert_eq!(server.connect().integer("XLEN k"), admitted.load(Relaxed) as i64);
}

#[test]
fn refused_under_traffic() {
    under_traffic(&[]);
}

/// These look commands up before the main thread runs them.
#[test]
fn refused_with_io_threads() {
    let args = ["--io-threads", "4", "--io-threads-do-reads", "yes"];
    under_traffic(&args);

    // The main thread sleeps, and then unloads before it runs what the others have read meanwhile.
    let mut server = setup().args(args).start();
    let mut operator = server.connect();
    let mut clients: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let unloading = scope.spawn(|| at_once(&mut operator, &["DEBUG SLEEP 0.2", UNLOAD]));
            let hits: Vec<_> = clients.iter_mut().map(|client| scope.spawn(|| client.answer(HIT)[0])).collect();
            assert!(is_refusal(&unloading.join().unwrap()[1]));
            for hit in hits {
                assert_eq!(hit.join().unwrap(), 1);
            }
        });
    }
    assert_eq!(operator.integer("XLEN k"), 60);
    assert!(server.is_alive());
}

/// Rules name commands, and servers read them when they list users.
#[test]
fn refused_with_acl_users() {
    let mut server = server();
    let mut operator = server.connect();
    operator.run("ACL SETUSER app on >pw ~rl:* +ratelimit.hit +ratelimit.peek");
    operator.run("ACL SETUSER web on >pw ~* +@all -ratelimit.reset -ratelimit.top");
    let has_category = operator.ask(&words("ACL CAT ratelimit")).is_ok();
    if has_category {
        operator.run("ACL SETUSER desk on >pw ~rl:* +@ratelimit -ratelimit.top");
        operator.run("ACL SETUSER other on >pw ~* +@all -@ratelimit");
    } else {
        skipped("this server has no ACL categories of modules");
    }
    let users = |client: &mut Connection| -> (Vec<String>, String) {
        let users: Vec<String> = get(client.run("ACL USERS"));
        let each = users.iter().map(|user| format!("{:?}", client.run(&format!("ACL GETUSER {user}")))).collect();
        (get(client.run("ACL LIST")), each)
    };
    let before = users(&mut operator);
    assert_eq!(before.0.len(), if has_category { 5 } else { 3 });
    for _ in 0..3 {
        refused(&mut operator);
        assert_eq!(users(&mut operator), before);
    }
    for (user, command, allowed) in [
        ("app", "RATELIMIT.HIT rl:1 9 1h", true),
        ("app", "RATELIMIT.RESET rl:1", false),
        ("web", "RATELIMIT.HIT rl:1 9 1h", true),
        ("web", "RATELIMIT.TOP", false),
        ("desk", "RATELIMIT.RESET rl:1", true),
        ("desk", "RATELIMIT.TOP", false),
        ("other", "RATELIMIT.HIT rl:1 9 1h", false),
        ("other", "PING", true),
    ] {
        if has_category || ["app", "web"].contains(&user) {
            let mut client = server.connect();
            client.run(&format!("AUTH {user} pw"));
            let reply = client.ask(&words(command));
            assert_eq!(reply.is_ok(), allowed, "{user}: {command}: {reply:?}");
            assert!(allowed || reply.unwrap_err().starts_with("NOPERM"), "{user}: {command}");
        }
    }
    assert!(server.is_alive());
}

/// In queues of every kind: a transaction, behind a command that blocks, behind the attempt itself, held up by a pause.
#[test]
fn refused_while_commands_are_queued() {
    let mut server = server();
    let (mut operator, mut client) = (server.connect(), server.connect());

    for line in ["MULTI", HIT, UNLOAD, HIT] {
        client.run(line);
    }
    refused(&mut operator);
    let Value::Array(replies) = client.run("EXEC") else { panic!("no array") };
    assert_eq!([six(&replies[0])[2], six(&replies[2])[2]], [999_999, 999_998]);
    assert!(is_refusal(&replies[1]), "{replies:?}");

    let mut lines = vec![UNLOAD];
    lines.extend([HIT; 20]);
    let replies = at_once(&mut client, &lines);
    assert!(is_refusal(&replies[0]) && six(&replies[20])[2] == 999_978, "{replies:?}");

    // What a script may not do is an error as well.
    let script = "local hit = redis.call('RATELIMIT.HIT', KEYS[1], 1000000, '1h') \
                  local unload = redis.pcall('MODULE', 'UNLOAD', 'ratelimit') \
                  return {hit[3], unload.err and 1 or 0, redis.call('RATELIMIT.HIT', KEYS[1], 1000000, '1h')[3]}";
    let replies: [i64; 3] = get(client.ask(redis::cmd("EVAL").arg(script).arg(1).arg("k")).unwrap());
    assert_eq!(replies, [999_977, 1, 999_976]);

    let held_up = |lines: &[&str], waits_in: &str, goes_on: &str, operator: &mut Connection| {
        let mut client = server.connect();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || at_once(&mut client, lines));
            wait_for("a client is held up", || operator.text("CLIENT LIST").contains(&format!("cmd={waits_in} ")));
            refused(operator);
            // What was freed would be used again.
            for n in 0..200 {
                operator.run(&format!("SETEX fill:{n} 100 {}", "x".repeat(300)));
            }
            operator.run(goes_on);
            waiting.join().unwrap()
        })
    };
    let mut lines = vec!["BLPOP q 0"];
    lines.extend([HIT; 20]);
    let replies = held_up(&lines, "blpop", "LPUSH q 1", &mut operator);
    assert_eq!(six(&replies[20])[2], 999_956);
    let paused = server.connect().run("CLIENT PAUSE 20000 WRITE");
    assert_eq!(paused, Value::Okay);
    // Those that fill memory would be held up as well.
    let mut client = server.connect();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || client.answer(HIT));
        wait_for("a hit is held up", || operator.text("CLIENT LIST").contains("cmd=ratelimit.hit "));
        refused(&mut operator);
        operator.run("CLIENT UNPAUSE");
        assert_eq!(waiting.join().unwrap()[2], 999_955);
    });
    assert!(server.is_alive());
}

/// A server takes out again what was loaded with a setting that does not exist. That must not be refused: Redis 8 would end.
#[test]
fn a_load_that_failed_leaves_nothing() {
    let mut server = setup().without_module().start();
    let mut client = server.connect();
    let (before, path) = (client.run("MODULE LIST"), module());
    for _ in 0..3 {
        let mut cmd = redis::cmd("MODULE");
        cmd.arg("LOADEX").arg(path.to_str()).arg("CONFIG").arg("ratelimit.nonsense").arg(1);
        assert!(client.ask(&cmd).unwrap_err().starts_with("ERR Error loading the extension"));
        cmd = redis::cmd("MODULE");
        cmd.arg("LOADEX").arg(path.to_str()).arg("CONFIG").arg("ratelimit.cursors").arg("x");
        assert!(client.ask(&cmd).unwrap_err().starts_with("ERR Error loading the extension"));
        cmd = redis::cmd("MODULE");
        cmd.arg("LOAD").arg(path.to_str()).arg("unknown");
        assert!(client.ask(&cmd).unwrap_err().starts_with("ERR Error loading the extension"));
        assert_eq!(client.run("MODULE LIST"), before);
        assert!(client.error(HIT).starts_with("ERR unknown command"));
    }
    // Nor is anything called that was there for a moment.
    let up = |client: &mut Connection| client.info("server", "uptime_in_seconds").parse::<u64>().unwrap();
    let since = up(&mut client);
    wait_for("the server's clock ticks", || up(&mut client) > since + 1);
    client.run("FLUSHALL");
    client.run("SWAPDB 0 1");
    let knew_category = client.ask(&words("ACL CAT ratelimit")).is_ok();
    load(&mut client).unwrap();
    assert_eq!(client.answer(HIT)[2], 999_999);
    refused(&mut client);
    // The server has kept the category, and it holds the commands again.
    if knew_category {
        assert_eq!(get::<Vec<String>>(client.run("ACL CAT ratelimit")).len(), 7);
        client.run("ACL SETUSER app on nopass ~* +@ratelimit");
        client.run("ACL SETUSER web on nopass ~* +@all -@ratelimit");
        assert_eq!(client.run("ACL DRYRUN app RATELIMIT.RESET k"), Value::Okay);
        assert_ne!(client.run("ACL DRYRUN web RATELIMIT.RESET k"), Value::Okay);
    } else {
        skipped("this server keeps no ACL category of a module");
    }
    assert!(server.is_alive());
}

/// What one build stores, another reads: from a snapshot and from an append-only file.
#[test]
fn another_build_reads_the_same_data() {
    for (files, save) in [(["--appendonly", "no"], "SAVE"), (["--appendonly", "yes"], "PING")] {
        let setup = Setup::new().args(files);
        let server = setup.clone().start();
        let mut client = server.connect();
        for line in
            ["HIT a 3 1h", "HIT a 9 1d 3 1h COST 2", "HIT b 1 1m", "HIT b 1 1m STRICT", "MHIT 2 b c 9 1h AND 9 1h"]
        {
            client.run(&format!("RATELIMIT.{line}"));
        }
        client.run(save);
        let before = client.fingerprint();
        let server = setup.module(panicking_module()).start_in(server.kill());
        let mut client = server.connect();
        assert!(
            server.log().contains("target/debug/libratelimit.so") || std::env::var("RATELIMIT_PANIC_MODULE").is_ok()
        );
        assert_eq!(client.fingerprint(), before);
        assert_eq!(client.answer("RATELIMIT.HIT a 9 1d")[..3], [1, 9, 5]);
        assert_eq!(client.answer("RATELIMIT.PEEK b 3 1h")[..3], [0, 3, 0]);
    }
}

/// The upgrade by failover, both ways: the new build as a replica of the old one, then promoted under traffic, and the old
/// server back as its replica, first with the old build and then with the new one.
#[test]
fn another_build_takes_over() {
    for [old, new] in [[module(), panicking_module()], [panicking_module(), module()]] {
        let setup = |build| Setup::new().module(build).tcp().args(["--repl-diskless-sync-delay", "0"]);
        let (primary, replica) = (setup(old).start(), setup(new.clone()).start());
        let follow = |server: &Server, port: u16| {
            let mut client = server.connect();
            client.run(&format!("REPLICAOF 127.0.0.1 {port}"));
            wait_for("the link is up", || client.info("replication", "master_link_status") == "up");
        };
        let mut client = primary.connect();
        for line in ["HIT a 3 1h", "HIT a 9 1d 3 1h COST 2", "HIT b 1 1h STRICT", "HIT b 1 1h STRICT"] {
            client.run(&format!("RATELIMIT.{line}"));
        }
        follow(&replica, primary.port);
        let same = |one: &Server, other: &Server| {
            let (mut one, mut other) = (one.connect(), other.connect());
            wait_for("the replica follows", || one.text("DEBUG DIGEST") == other.text("DEBUG DIGEST"));
            assert_same(&one.fingerprint(), &other.fingerprint(), "primary and replica");
        };
        same(&primary, &replica);
        for server in [&primary, &replica] {
            assert_eq!(server.connect().answer("RATELIMIT.PEEK a 9 1d")[..3], [1, 9, 5]);
            assert_eq!(server.connect().answer("RATELIMIT.PEEK b 3 1h")[..3], [1, 3, 0]);
        }

        // FAILOVER waits for the replica to have everything, so that not one acknowledged hit is lost.
        let (running, admitted) = (AtomicBool::new(true), [AtomicUsize::new(0), AtomicUsize::new(0)]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut clients = [primary.connect(), replica.connect()];
                let mut at = 0;
                while running.load(Relaxed) {
                    match clients[at].ask(&words(HIT)) {
                        Ok(reply) => {
                            assert_eq!(six(&reply)[0], 1);
                            admitted[at].fetch_add(1, Relaxed);
                        }
                        Err(error) => {
                            let temporary = ["READONLY", "LOADING", "MASTERDOWN", "UNBLOCKED"];
                            assert!(temporary.iter().any(|code| error.starts_with(code)), "{error}");
                            at = 1 - at;
                        }
                    }
                }
            });
            let _stop = Running(&running);
            wait_for_more("traffic on the old build", &admitted[0], 500);
            client.run("FAILOVER");
            wait_for_more("traffic on the new build", &admitted[1], 500);
        });
        assert_eq!(replica.connect().info("replication", "role"), "master");
        let hits = admitted.iter().map(|count| count.load(Relaxed)).sum::<usize>();
        assert_eq!(replica.connect().integer("XLEN k"), hits as i64);
        same(&replica, &primary);

        let port = replica.port;
        let primary = setup(new).start_in(primary.kill());
        follow(&primary, port);
        same(&replica, &primary);
        assert_eq!(replica.connect().answer("RATELIMIT.HIT a 9 1d")[..3], [1, 9, 5]);
    }
}

/// A configuration or an ACL file that still names the module's commands or its category keeps a server without the module
/// from starting. Without such rules it starts, and the logs are plain streams.
#[test]
fn taken_out_for_good() {
    let server = setup().args(["--appendonly", "yes"]).start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT rl:1 9 1h");
    let mut rules = vec!["+ratelimit.hit", "-@all +ratelimit.hit", "+@all -ratelimit.top"];
    if client.ask(&words("ACL CAT ratelimit")).is_ok() {
        rules.extend(["+@ratelimit", "+@all -@ratelimit"]);
    } else {
        skipped("this server has no ACL categories of modules");
    }
    for rule in rules {
        for in_file in [false, true] {
            let dir = TempDir::new().unwrap();
            let user = format!("user app on nopass ~rl:* {rule}\n");
            let configuration = dir.path().join("server.conf");
            fs::write(dir.path().join("users.acl"), &user).unwrap();
            fs::write(&configuration, if in_file { "aclfile users.acl\n" } else { &user }).unwrap();
            let with = |setup: Setup| setup.configuration(&configuration);
            let running = with(Setup::new()).start_in(dir);
            assert!(format!("{:?}", running.connect().run("ACL USERS")).contains("app"), "{rule}");
            let why = with(Setup::new().without_module()).does_not_start(running.kill());
            assert!(why.contains("ACL"), "{rule}: {why}");
        }
    }
    // Its settings as well.
    let why = Setup::new().without_module().args(["--ratelimit.cursors", "0"]).does_not_start(TempDir::new().unwrap());
    assert!(why.contains("onfiguration detected without loadmodule"), "{why}");

    let before = client.fingerprint();
    let server = setup().without_module().args(["--appendonly", "yes"]).start_in(server.kill());
    let mut client = server.connect();
    assert_eq!(client.fingerprint(), before);
    assert!(client.integer("PTTL rl:1") > 3_500_000);
    assert!(client.error("RATELIMIT.HIT rl:1 9 1h").starts_with("ERR unknown command"));
}
