//! What tests ask of a connection, and how they take replies.

use std::fmt::Debug;

use redis::{Cmd, ConnectionLike, ServerError, Value};

pub const HIT: &str = "RATELIMIT.HIT";
pub const PEEK: &str = "RATELIMIT.PEEK";
pub const RESET: &str = "RATELIMIT.RESET";
pub const MHIT: &str = "RATELIMIT.MHIT";
pub const TOP: &str = "RATELIMIT.TOP";
pub const RESETSTAT: &str = "RATELIMIT.RESETSTAT";

/// A line for the server's log, were it ever taken for a format.
pub const FORMAT: &[u8] = b"%s%n%x%s%s%s%s";

/// A command from words with single blanks between them.
pub fn words(line: &str) -> Cmd {
    let mut words = line.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    for word in words {
        cmd.arg(word);
    }
    cmd
}

/// A call in which any word may be any bytes.
pub fn call<W: AsRef<[u8]>>(name: &str, args: &[W]) -> Cmd {
    let mut cmd = redis::cmd(name);
    for arg in args {
        cmd.arg(arg.as_ref());
    }
    cmd
}

/// An error as the server sent it.
pub fn text_of(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

/// What tests ask of a connection.
pub trait Ask: ConnectionLike {
    fn ask(&mut self, cmd: &Cmd) -> Result<Value, String> {
        match self.req_command(cmd) {
            Ok(Value::ServerError(error)) => Err(text_of(&error)),
            Ok(value) => Ok(value),
            Err(error) => Err(match (error.code(), error.detail()) {
                (Some(code), Some(detail)) => format!("{code} {detail}"),
                _ => error.to_string(),
            }),
        }
    }

    /// The reply to a line of words; an error fails the test.
    fn run(&mut self, line: &str) -> Value {
        self.ask(&words(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The error to a line of words; anything else fails the test.
    fn error(&mut self, line: &str) -> String {
        match self.ask(&words(line)) {
            Err(error) => error,
            Ok(value) => panic!("{line}: {value:?} is no error"),
        }
    }

    /// The integer that a line of words gets.
    fn integer(&mut self, line: &str) -> i64 {
        get(self.run(line))
    }

    /// The text that a line of words gets.
    fn text(&mut self, line: &str) -> String {
        get(self.run(line))
    }

    /// The six integers that a line of words gets.
    fn answer(&mut self, line: &str) -> [i64; 6] {
        six(&self.run(line))
    }

    /// A field of a section of INFO.
    fn info(&mut self, section: &str, field: &str) -> String {
        let text = self.text(&format!("INFO {section}"));
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
        line.unwrap_or_else(|| panic!("INFO {section} has no {field}:\n{text}"))
    }

    /// Bytes that the server uses.
    fn used_memory(&mut self) -> i64 {
        self.info("memory", "used_memory").parse().unwrap()
    }

    /// Entries of a stream: ID, field, value.
    fn entries(&mut self, key: &str) -> Vec<(String, String, String)> {
        let rows: Vec<(String, Vec<String>)> = get(self.run(&format!("XRANGE {key} - +")));
        rows.into_iter().map(|(id, pair)| (id, pair[0].clone(), pair[1].clone())).collect()
    }

    /// Everything there is, with what DEBUG DIGEST leaves out: expiry times and last IDs.
    fn fingerprint(&mut self) -> Vec<String> {
        let mut lines = vec![self.text("DEBUG DIGEST")];
        let mut keys: Vec<Vec<u8>> = get(self.run("KEYS *"));
        keys.sort();
        for key in keys {
            let one = |name: &str| redis::cmd(name).arg(&key).to_owned();
            let expires: i64 = get(self.ask(&one("PEXPIRETIME")).unwrap());
            let mut line = format!("{:?} expires {expires}", String::from_utf8_lossy(&key));
            if self.ask(&one("TYPE")) == Ok(Value::SimpleString("stream".into())) {
                // Unless it has expired meanwhile.
                let Ok(info) = self.ask(redis::cmd("XINFO").arg("STREAM").arg(&key)) else { continue };
                let fields: Vec<(String, Value)> = get(info);
                for (name, value) in fields {
                    if [
                        "length",
                        "last-generated-id",
                        "first-entry",
                        "last-entry",
                        "entries-added",
                        "max-deleted-entry-id",
                        "groups",
                    ]
                    .contains(&name.as_str())
                    {
                        line += &format!(" {name} {value:?}");
                    }
                }
            }
            lines.push(line);
        }
        lines
    }
}

impl<C: ConnectionLike> Ask for C {}

/// A reply as a type of Rust.
pub fn get<T: redis::FromRedisValue>(value: Value) -> T {
    let shown = format!("{value:?}");
    redis::from_redis_value(value).unwrap_or_else(|error| panic!("{shown}: {error}"))
}

/// The reply of HIT and PEEK.
pub fn six(value: &Value) -> [i64; 6] {
    let Value::Array(items) = value else { panic!("{value:?} is no array") };
    let integer = |item: &Value| match item {
        Value::Int(integer) => *integer,
        other => panic!("{other:?} is no integer"),
    };
    items.iter().map(integer).collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{value:?} has not six items"))
}

/// The same, its times rounded up to minutes, for tests on a clock that runs: what is a minute from now stays one.
pub fn in_minutes(value: &Value) -> [i64; 6] {
    let [allowed, limit, remaining, times @ ..] = six(value);
    let [retry, reset, next] = times.map(|time| if time > 0 { (time + 59_999) / 60_000 * 60_000 } else { time });
    [allowed, limit, remaining, retry, reset, next]
}

/// Two lists that must be equal, shown by their first difference.
pub fn assert_same<T: PartialEq + Debug>(left: &[T], right: &[T], what: &str) {
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left, right, "{what}");
    }
    assert_eq!(left.len(), right.len(), "{what}: length");
}

/// A nested reply as text: lists in brackets, names of maps and lists alike.
pub fn show(value: &Value) -> String {
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

/// The module in `MODULE LIST`, which may have modules of the server beside it.
pub fn listed(client: &mut impl ConnectionLike) -> Option<Vec<(String, Value)>> {
    let modules: Vec<Vec<(String, Value)>> = get(client.run("MODULE LIST"));
    let mut ours = modules.into_iter().filter(|module| module.iter().any(|(_, value)| show(value) == "ratelimit"));
    let module = ours.next();
    assert!(ours.next().is_none(), "it is there twice");
    module
}

/// Adds groups to a call of MHIT: one tier for each key, and a cost.
pub fn add_groups(cmd: &mut Cmd, tiers: &[(u64, u64)], cost: u64) {
    for (at, (limit, window)) in tiers.iter().enumerate() {
        if at > 0 {
            cmd.arg("AND");
        }
        cmd.arg(limit).arg(format!("{window}ms"));
        if cost != 1 {
            cmd.arg("COST").arg(cost);
        }
    }
}

/// The time in the ID of an entry.
pub fn time_of(id: &str) -> u64 {
    id_of(id).0
}

/// The time and the tally in the ID of an entry.
pub fn id_of(id: &str) -> (u64, u64) {
    let (time, tally) = id.split_once('-').unwrap_or_else(|| panic!("{id} is no ID"));
    (number(time), number(tally))
}

/// The units of a log up to this entry. Each log begins to count at some multiple of a million.
pub fn units_of(id: &str) -> u64 {
    id_of(id).1 % 1_000_000
}

/// An ID as it would be if logs began to count at 0.
pub fn plain(id: &str) -> String {
    format!("{}-{}", time_of(id), units_of(id))
}

pub fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}
