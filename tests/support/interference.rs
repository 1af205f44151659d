//! What somebody else does to the keys of a limiter: one generator for every test in which others interfere.
//!
//! An act is chosen without a look at the server, so that a history of acts can be repeated and made shorter. What depends on
//! the entries at the key stands in braces, and is filled in when the act is carried out.

use redis::{Cmd, Value};

use crate::client::{get, id_of, words};

/// Kinds of acts. A test takes those that it has an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Entries as the module writes them.
    Own,
    /// Entries and last IDs ahead of the clock, and tallies and costs that no module writes.
    Forged,
    /// Entries that are no hits.
    Foreign,
    /// The same, with an ID as if it were a hit of one unit.
    Posing,
    /// Entries go, at either end, in the middle, or all of them; or they are replaced.
    Deletion,
    /// The last ID is pushed to the next that a hit may get, or a little further.
    LastId,
    /// Whole keys go, come and change their names.
    Keys,
    Databases,
    /// The database of the connection changes.
    Select,
    /// Commands are queued, and carried out or not.
    Queue,
    Expiry,
    /// An expiry that a script cannot read, because its numbers are not so large.
    Endless,
    /// Values of other types.
    Types,
    Groups,
    Dumps,
    Reload,
    Settings,
}

/// Every act there is, and how often it comes beside others. `%key` and `%other` are keys; `%window` is a window, `%longest`
/// the longest one and `%shorter` less than that; `%cost` is a small number and `%units` one of any size, `%few` may be
/// none; `%ttl` is a time to live; `%ahead` is a time up to a window ahead of the clock, `%id` an ID that nobody should choose and `%any`
/// any number.
const ACTS: &[(Kind, u32, &str)] = &[
    (Kind::Own, 8, "XADD %key {next+%cost} %window %cost"),
    (Kind::Own, 4, "XADD %key {now+0}-{tally+1} %window 1"),
    (Kind::Forged, 4, "XADD %key %ahead-%any %window %units"),
    (Kind::Forged, 4, "XADD %key %ahead-{tally+3} %longest>%shorter 3"),
    (Kind::Forged, 4, "XADD %key %ahead-18446744073709551615 %window 1"),
    (Kind::Forged, 4, "XADD %key %ahead-%few %window %cost"),
    (Kind::Forged, 8, "XADD %key %id %window %units"),
    (Kind::Forged, 4, "XADD %key %id %longest>1ms %cost"),
    (Kind::Forged, 4, "XADD %key %ahead-{tally+0} field value"),
    (Kind::Forged, 4, "XADD %key %id field value"),
    (Kind::Forged, 4, "XSETID %key %ahead-%any"),
    (Kind::Forged, 4, "XSETID %key %ahead-0"),
    (Kind::Forged, 4, "XSETID %key %id"),
    (Kind::Forged, 4, "XSETID %key 18446744073709551615-18446744073709551615"),
    (Kind::Forged, 4, "XTRIM %key MINID %id"),
    (Kind::Forged, 4, "PEXPIREAT %key 9007199254740991"),
    (Kind::Endless, 4, "PEXPIREAT %key 9223372036854775807"),
    (Kind::Foreign, 4, "XADD %key * field value"),
    (Kind::Foreign, 4, "XADD %key {next+2} foreign entry"),
    (Kind::Foreign, 4, "XADD %key {next+2} %window 1 one more"),
    (Kind::Posing, 4, "XADD %key {next+1} foreign entry"),
    (Kind::Posing, 4, "XADD %key {next+1} %window 1 one more"),
    (Kind::Deletion, 8, "XDEL %key {newest}"),
    (Kind::Deletion, 8, "XDEL %key {oldest}"),
    (Kind::Deletion, 8, "XDEL %key {some}"),
    (Kind::Deletion, 4, "XDEL %key 1-1 {all}"),
    (Kind::Deletion, 4, "XTRIM %key MAXLEN %few"),
    (Kind::Deletion, 4, "XTRIM %key MAXLEN ~ %few"),
    (Kind::Deletion, 4, "XTRIM %key MINID {some}"),
    (Kind::Deletion, 4, "EVAL !delete 1 %key"),
    (Kind::Deletion, 4, "EVAL !replace 1 %key {oldest} {next+%cost} %window %cost"),
    (Kind::LastId, 4, "XSETID %key {next+%few}"),
    (Kind::Keys, 8, "DEL %key"),
    (Kind::Keys, 4, "UNLINK %key %other"),
    (Kind::Keys, 4, "RATELIMIT.RESET %key %other"),
    (Kind::Keys, 4, "RENAME %key %other"),
    (Kind::Keys, 4, "COPY %key %other REPLACE"),
    (Kind::Keys, 4, "MOVE %key 1"),
    (Kind::Databases, 4, "SWAPDB 0 1"),
    (Kind::Databases, 1, "FLUSHALL"),
    (Kind::Databases, 1, "FLUSHDB ASYNC"),
    (Kind::Select, 8, "SELECT 0"),
    (Kind::Select, 4, "SELECT 1"),
    (Kind::Queue, 4, "MULTI"),
    (Kind::Queue, 4, "EXEC"),
    (Kind::Queue, 4, "DISCARD"),
    (Kind::Expiry, 8, "PEXPIRE %key %ttl"),
    (Kind::Expiry, 8, "PERSIST %key"),
    (Kind::Expiry, 4, "EXPIRE %key -1"),
    (Kind::Expiry, 4, "PEXPIREAT %key {now-1}"),
    (Kind::Types, 4, "SET %key string"),
    (Kind::Types, 4, "SET %key string PX %ttl"),
    (Kind::Types, 4, "RPUSH %key list"),
    (Kind::Groups, 4, "XGROUP CREATE %key group 0 MKSTREAM"),
    (Kind::Groups, 4, "XGROUP CREATE %key group $ MKSTREAM"),
    (Kind::Groups, 4, "XGROUP DESTROY %key group"),
    (Kind::Groups, 4, "XREADGROUP GROUP group reader COUNT 3 STREAMS %key >"),
    (Kind::Groups, 4, "XREADGROUP GROUP group reader NOACK STREAMS %key >"),
    (Kind::Groups, 4, "XACK %key group {oldest}"),
    // Of Redis 8.2.
    (Kind::Groups, 4, "XACKDEL %key group DELREF IDS 1 {some}"),
    (Kind::Groups, 4, "XDELEX %key DELREF IDS 1 {newest}"),
    (Kind::Dumps, 8, "DUMP %key"),
    (Kind::Dumps, 4, "RESTORE %key 0 !dump REPLACE"),
    (Kind::Dumps, 4, "RESTORE %key %ttl !dump REPLACE"),
    (Kind::Reload, 4, "DEBUG RELOAD"),
    (Kind::Settings, 4, "CONFIG SET ratelimit.cursors 0"),
    (Kind::Settings, 4, "CONFIG SET ratelimit.cursors 4"),
    (Kind::Settings, 4, "CONFIG SET ratelimit.cursors 8192"),
    (Kind::Settings, 2, "CONFIG SET ratelimit.top-entries 0"),
    (Kind::Settings, 2, "CONFIG SET ratelimit.top-entries 8"),
    (Kind::Settings, 2, "CONFIG SET ratelimit.top-entries 1000"),
    (Kind::Settings, 2, "CONFIG SET stream-node-max-entries 1"),
    (Kind::Settings, 2, "CONFIG SET stream-node-max-entries 3"),
    (Kind::Settings, 2, "CONFIG SET stream-node-max-entries 100"),
    (Kind::Settings, 1, "CONFIG SET stream-node-max-bytes 64"),
    (Kind::Settings, 1, "CONFIG SET stream-node-max-bytes 4096"),
];

/// Deletes the three newest entries.
const DELETE: &str = "for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 3)) do \
    redis.call('XDEL', KEYS[1], entry[1]) end";

/// The length is the same as before, and so is nothing else.
const REPLACE: &str = "redis.call('XDEL', KEYS[1], ARGV[1]) redis.call('XADD', KEYS[1], ARGV[2], ARGV[3], ARGV[4])";

/// Somebody who interferes.
#[derive(Clone, Copy, Debug)]
pub struct Interference {
    pub keys: &'static [&'static str],
    /// Milliseconds, the longest last.
    pub windows: &'static [u64],
    pub kinds: &'static [Kind],
}

/// What they do.
#[derive(Clone, Debug)]
pub struct Act {
    pub line: String,
    /// The positions of the keys that it may change; it looks at the first of them.
    pub keys: Vec<usize>,
    key: &'static str,
    /// Which of the dumps is restored.
    dump: usize,
}

impl Interference {
    pub fn act(&self, rng: &mut fastrand::Rng) -> Act {
        let (at, to) = (rng.usize(..self.keys.len()), rng.usize(..self.keys.len()));
        let acts = || ACTS.iter().filter(|(kind, ..)| self.kinds.contains(kind));
        let mut ticket = rng.u32(..acts().map(|act| act.1).sum::<u32>());
        let &(kind, _, template) = acts()
            .find(|(_, weight, _)| {
                let drawn = ticket < *weight;
                ticket = ticket.saturating_sub(*weight);
                drawn
            })
            .unwrap();
        let longest = self.windows[self.windows.len() - 1];
        let window = rng.choice(self.windows).unwrap();
        let ttl = if rng.bool() { rng.u64(1..20) } else { rng.u64(1..=2 * longest) };
        let units = if rng.bool() { rng.u64(1..1 << 53) } else { *rng.choice(&[1, 5, (1 << 53) - 1]).unwrap() };
        let line = template
            .replace("%key", self.keys[at])
            .replace("%other", self.keys[to])
            .replace("%window", &format!("{window}ms"))
            .replace("%longest", &format!("{longest}ms"))
            .replace("%shorter", &format!("{}ms", rng.u64(1..longest)))
            .replace("%cost", &rng.u64(1..9).to_string())
            .replace("%units", &units.to_string())
            .replace("%few", &rng.u64(..5).to_string())
            .replace("%ttl", &ttl.to_string())
            .replace("%ahead", &format!("{{top+{}}}", rng.u64(..=longest)))
            .replace("%id", &random_id(rng))
            .replace("%any", &rng.u64(..).to_string());
        let keys = if kind == Kind::Databases { (0..self.keys.len()).collect() } else { vec![at, to] };
        Act { line, keys, key: self.keys[at], dump: rng.usize(..) }
    }
}

/// A stream ID as nobody should choose it, or nearly as the module would.
fn random_id(rng: &mut fastrand::Rng) -> String {
    const DECADE: u64 = 3_650 * 86_400_000;
    let time = match rng.u8(..10) {
        0 => rng.u64(..).to_string(),
        1 => "0".to_owned(),
        2 => u64::MAX.to_string(),
        3 => format!("{{now+{DECADE}}}"),
        4 => format!("{{now+{}}}", rng.u64(..DECADE)),
        5 => format!("{{now-{}}}", rng.u64(..100_000)),
        _ => format!("{{now+{}}}", rng.u64(..2_000)),
    };
    let tally = match rng.u8(..5) {
        0 => rng.u64(..),
        1 => u64::MAX - rng.u64(..10),
        2 => (1 << 63) - 5 + rng.u64(..10),
        _ => rng.u64(1..100),
    };
    format!("{time}-{tally}")
}

impl Act {
    /// What shows the entries that it goes by.
    pub fn look(&self) -> Cmd {
        words(&format!("XRANGE {} - +", self.key))
    }

    /// The command, where `seen` is the reply to the look and `now` the time of the server.
    pub fn command(&self, seen: &Result<Value, String>, now: u64, dumps: &[Vec<u8>]) -> Cmd {
        let ids: Vec<String> = match seen {
            Ok(rows @ Value::Array(_)) => {
                get::<Vec<(String, Vec<String>)>>(rows.clone()).into_iter().map(|row| row.0).collect()
            }
            _ => Vec::new(),
        };
        let mut line = self.line.clone();
        while let Some((before, rest)) = line.split_once('{') {
            let (name, after) = rest.split_once('}').unwrap();
            line = format!("{before}{}{after}", value_of(name, &ids, now));
        }
        let mut cmd = Cmd::new();
        for word in line.split_whitespace() {
            match word {
                "!delete" => cmd.arg(DELETE),
                "!replace" => cmd.arg(REPLACE),
                "!dump" if !dumps.is_empty() => cmd.arg(&dumps[self.dump % dumps.len()]),
                word => cmd.arg(word),
            };
        }
        cmd
    }

    /// Carries it out. An error is their own business.
    pub fn carry_out(&self, now: u64, dumps: &mut Vec<Vec<u8>>, mut ask: impl FnMut(&Cmd) -> Result<Value, String>) {
        let seen = ask(&self.look());
        if let (Ok(Value::BulkString(dump)), true) = (ask(&self.command(&seen, now, dumps)), self.is_dump()) {
            dumps.push(dump);
        }
    }

    /// Whether its reply is something to restore later.
    pub fn is_dump(&self) -> bool {
        self.line.starts_with("DUMP")
    }
}

/// What stands for a name in braces.
fn value_of(name: &str, ids: &[String], now: u64) -> String {
    let id = |at: Option<&String>| at.map_or("1-1".to_owned(), String::clone);
    let (newest, tally) = ids.last().map_or((0, 0), |id| id_of(id));
    let (name, number) = name.split_at(name.find(['+', '-']).unwrap_or(name.len()));
    let number = || number.parse::<i64>().unwrap();
    match name {
        "oldest" => id(ids.first()),
        "newest" => id(ids.last()),
        "some" => id(ids.get(ids.len() / 2)),
        "all" => ids.join(" "),
        "now" => now.saturating_add_signed(number()).to_string(),
        "top" => now.saturating_add_signed(number()).max(newest).to_string(),
        "tally" => tally.wrapping_add_signed(number()).to_string(),
        "next" => format!("{}-{}", now.max(newest), tally.wrapping_add_signed(number())),
        _ => panic!("{{{name}}} means nothing"),
    }
}
