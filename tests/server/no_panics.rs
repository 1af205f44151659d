//! No client can cause a panic, and a panic would be an error reply.
//!
//! The reply is shown on a build in which a panic is planted (`RATELIMIT.PEEK` on the key `planted-panic`); for the rest, the
//! sources are searched for what they must not contain.

use std::fs;
use std::path::{Path, PathBuf};

use redis::Value;
use support::errors::INTERNAL;
use support::modules::panicking_module;
use support::{Ask, Server, Setup, get, in_minutes, root, text_of, words};

fn server() -> Server {
    let server = Setup::new().module(panicking_module()).start();
    let reply = server.connect().ask(&words(PANIC));
    assert_eq!(reply, Err(INTERNAL.to_owned()), "is the module built with --features planted-panic?");
    server
}

const PANIC: &str = "RATELIMIT.PEEK planted-panic 2 1m";

#[test]
fn the_server_outlives_a_panic() {
    let server = server();
    let mut client = server.connect();
    assert_eq!(client.text("PING"), "PONG");
    assert!(server.log().contains("panicked at src/commands/peek.rs"), "the reason is in the log");
    let panic = |client: &mut redis::Connection| {
        assert_eq!(client.ask(&words(PANIC)), Err(INTERNAL.to_owned()));
    };

    // On a key that does not exist, on a log that is open and being read, and on a log after many panics.
    for hits in 0..3 {
        let before = client.fingerprint();
        for _ in 0..100 {
            panic(&mut client);
        }
        assert_eq!(client.fingerprint(), before, "{hits} hits");
        let expected = if hits < 2 { [1, 2, 1 - hits, 0, 60_000, 60_000] } else { [0, 2, 0, 60_000, 60_000, 60_000] };
        assert_eq!(in_minutes(&client.run("RATELIMIT.HIT planted-panic 2 1m")), expected);
        assert_eq!(client.answer(&format!("RATELIMIT.PEEK other:{hits} 2 1m"))[0], 1);
        assert_eq!(client.integer("XLEN planted-panic"), 2.min(hits + 1));
    }
    assert_eq!(client.integer("RATELIMIT.RESET planted-panic"), 1);
    panic(&mut client);
    assert_eq!(client.integer("DBSIZE"), 0);
}

#[test]
fn inside_a_transaction() {
    let server = server();
    let mut client = server.connect();
    client.run("MULTI");
    client.run("RATELIMIT.HIT planted-panic 2 1m");
    client.run(PANIC);
    client.run("RATELIMIT.HIT planted-panic 2 1m");
    let Value::Array(replies) = client.run("EXEC") else { panic!("no array") };
    assert_eq!(in_minutes(&replies[0]), [1, 2, 1, 0, 60_000, 60_000]);
    let Value::ServerError(error) = &replies[1] else { panic!("{:?} is no error", replies[1]) };
    assert_eq!(text_of(error), INTERNAL);
    assert_eq!(in_minutes(&replies[2]), [1, 2, 0, 0, 60_000, 60_000]);
    assert_eq!(client.text("PING"), "PONG");
}

#[test]
fn inside_a_script() {
    let server = server();
    let mut client = server.connect();
    let source = "local k = KEYS[1] \
        local first = redis.call('RATELIMIT.HIT', k, 2, '1m') \
        local panic = redis.pcall('RATELIMIT.PEEK', k, 2, '1m') \
        local second = redis.call('RATELIMIT.HIT', k, 2, '1m') \
        return {first[3], panic.err, second[3]}";
    let eval = |source: &str| redis::cmd("EVAL").arg(source).arg(1).arg("planted-panic").to_owned();
    let caught: (i64, String, i64) = get(client.ask(&eval(source)).unwrap());
    assert_eq!(caught, (1, INTERNAL.to_owned(), 0));
    let uncaught = client.ask(&eval("return redis.call('RATELIMIT.PEEK', KEYS[1], 2, '1m')"));
    assert!(uncaught.as_ref().is_err_and(|text| text.starts_with(INTERNAL)), "{uncaught:?}");
    assert_eq!(client.integer("XLEN planted-panic"), 2);
    assert_eq!(client.text("PING"), "PONG");
}

/// Unwinding closes the key and stops the iterator: what is left open would never be freed.
#[test]
fn nothing_is_leaked() {
    let server = server();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT planted-panic 2 1m");
    let mut used_after = |panics: usize| {
        let mut pipe = redis::pipe();
        for _ in 0..panics {
            pipe.add_command(words(PANIC));
        }
        let replies = redis::ConnectionLike::req_packed_commands(&mut client, &pipe.get_packed_pipeline(), 0, panics);
        assert!(replies.unwrap().iter().all(|reply| matches!(reply, Value::ServerError(_))));
        client.used_memory()
    };
    // Buffers of the connection reach their size first.
    used_after(1_000);
    let few = used_after(1_000);
    let many = used_after(1_000);
    // An open key and its iterator take about 200 bytes.
    assert!(many - few < 100_000, "{few} bytes, then {many}");
}

/// The code of a source file without its tests and whole-line comments, each line with its number.
fn code_of(source: &str) -> Vec<(usize, &str)> {
    let tests = source.find("\n#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    let after = source[tests..].trim_end();
    assert_eq!(after.matches("\n}").count(), usize::from(!after.is_empty()), "the tests are the end of the file");
    let lines = source[..tests].lines().enumerate();
    lines.map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.starts_with("//")).collect()
}

/// Ways to panic, `unsafe` where it has no place, and names of what a folder must not know. `name` is the path under `src`.
fn offences(name: &str, source: &str) -> Vec<String> {
    const PANICS: [&str; 6] = [".unwrap()", ".expect(", "panic!", "unreachable!", "todo!", "unimplemented!"];
    // The limiter is pure, and the server's interface knows no command. The compiler keeps the rest: the limiter is a crate.
    let unknown: &[&str] = match name.split('/').next() {
        Some("limiter") => &["redis_module"],
        Some("server") => &["crate::commands"],
        _ => &[],
    };
    let may_be_unsafe = name.starts_with("server/");
    let is_unsafe = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let found = code_of(source).into_iter().flat_map(|(at, line)| {
        let texts = PANICS.iter().chain(unknown).copied().filter(move |text| line.contains(text));
        let unsafes = (!may_be_unsafe && is_unsafe(line)).then_some("unsafe");
        texts.chain(unsafes).map(move |text| (at, text))
    });
    found.map(|(at, text)| format!("{name}:{at}: {text}")).collect()
}

/// Every Rust file in a folder and in those within it.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        } else {
            assert!(path.ends_with("Cargo.toml"), "{} is not read here", path.display());
        }
    }
    found
}

#[test]
fn the_sources_neither_panic_nor_are_unsafe_elsewhere() {
    // That it would be seen.
    let sample = "// panic!\nfn f() {\n    x.unwrap();\n    unsafe { y }.unwrap_or(1)\n    unsafe_code\n}\n\n\
                  #[cfg(test)]\nmod tests {\n    todo!()\n}\n";
    assert_eq!(offences("commands/f.rs", sample), ["commands/f.rs:3: .unwrap()", "commands/f.rs:4: unsafe"]);
    assert_eq!(offences("server/f.rs", sample), ["server/f.rs:3: .unwrap()"]);
    let sample = "use crate::commands::Hit;\nuse redis_module::Context;\n";
    assert_eq!(offences("limiter/f.rs", sample), ["limiter/f.rs:2: redis_module"]);
    assert_eq!(offences("server/f.rs", sample), ["server/f.rs:1: crate::commands"]);
    assert_eq!(offences("commands/f.rs", sample), [""; 0]);

    let folder = root().join("src");
    let mut names = Vec::new();
    let mut found = Vec::new();
    for path in sources(&folder) {
        let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        found.extend(offences(&name, &fs::read_to_string(&path).unwrap()));
        names.push(name);
    }
    let known = ["lib.rs", "commands/hit.rs", "server/key.rs", "limiter/lib.rs", "limiter/cursors/table.rs"];
    assert!(known.iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    assert!(found.is_empty(), "{found:#?}");
}
