//! What a user would pick instead, and this module, each as one command on a key.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redis::{Cmd, Connection, Pipeline};

use crate::support::{Ask, Setup, words};

/// Keys of a run, which take turns.
pub const KEYS: usize = 100;

/// Commands that are sent at once.
pub const BATCH: usize = 100;

/// Hits that a key with a long log holds before the run.
const MANY: u64 = 1_000_000;

/// Nodes as in `redis.conf`.
pub const CONF: [&str; 2] = ["--stream-node-max-bytes", "512"];

/// redis-cell as a module, which `cargo` builds from benches/peers.
pub fn redis_cell() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/release/libredis_cell.so");
    assert!(path.exists(), "{} is missing, run: make bench", path.display());
    path
}

/// A server with both modules.
pub fn setup() -> Setup {
    Setup::new().args(CONF).args(["--hz", "1", "--loadmodule"]).args([redis_cell().display()])
}

pub struct Contender {
    pub name: &'static str,
    /// Options of the server, over those of [`setup`].
    pub args: &'static [&'static str],
    /// Run once, before anything is measured.
    pub prepare: fn(&mut Connection),
    /// How many keys take turns.
    pub keys: usize,
    template: String,
    /// Whether the log must first fill up with as many hits as stay in it.
    pub fills_up: bool,
}

impl Contender {
    /// `KEY` in the template stands for the key, `KEY1` and so on for keys beside it.
    fn new(name: &'static str, template: &str) -> Self {
        Self { name, args: &[], prepare: |_| {}, keys: KEYS, template: template.to_owned(), fills_up: false }
    }

    fn filling_up(self) -> Self {
        Self { fills_up: true, ..self }
    }

    fn lua(name: &'static str, source: &str, args: &str) -> Self {
        let sha = redis::Script::new(source).get_hash().to_owned();
        // The server learns the script when it is run for the first time.
        Self::new(name, &format!("EVALSHA {sha} 1 KEY {args}"))
    }

    pub fn command(&self, at: usize) -> Cmd {
        words(&self.template.replace("KEY", &format!("key:{:012}", at % self.keys)))
    }

    pub fn batch(&self, from: usize, size: usize) -> Pipeline {
        let mut pipe = redis::pipe();
        for at in from..from + size {
            pipe.add_command(self.command(at));
        }
        pipe
    }
}

const FIXED_WINDOW: &str = "local n = redis.call('INCR', KEYS[1]) \
    if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end \
    return n <= tonumber(ARGV[1])";

const RECIPE: &str = "local t = redis.call('TIME') \
    local now = t[1] * 1000 + math.floor(t[2] / 1000) \
    redis.call('XADD', KEYS[1], '*', 'hit', 1) \
    redis.call('XTRIM', KEYS[1], 'MINID', '~', now - ARGV[2]) \
    return redis.call('XLEN', KEYS[1]) <= tonumber(ARGV[1])";

const SORTED_SET: &str = "local t = redis.call('TIME') \
    local now = t[1] * 1000000 + t[2] \
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2] * 1000) \
    if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end \
    redis.call('ZADD', KEYS[1], now, now) \
    redis.call('PEXPIRE', KEYS[1], ARGV[2]) \
    return 1";

/// Loads the scripts, so that EVALSHA finds them.
pub fn load_scripts(client: &mut Connection) {
    for source in [FIXED_WINDOW, RECIPE, SORTED_SET] {
        client.ask(redis::cmd("SCRIPT").arg("LOAD").arg(source)).unwrap();
    }
}

/// A log of a million hits, evenly over the hour in which they count.
fn fill_with_many(client: &mut Connection) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    for batch in 0..MANY / 1_000 {
        let mut pipe = redis::pipe();
        for at in batch * 1_000..(batch + 1) * 1_000 {
            let id = format!("{}-{}", now - 3_595_000 + at * 3_595_000 / MANY, at + 1);
            pipe.cmd("XADD").arg("key:000000000000").arg(id).arg("3600000ms").arg(1).ignore();
        }
        pipe.exec(client).unwrap();
    }
    client.run("PEXPIRE key:000000000000 4000000");
}

/// Where hits are admitted, a key holds what comes in five seconds, a few hundred hits: as many leave as come.
pub fn all() -> Vec<Contender> {
    vec![
        Contender::new("PING", "PING"),
        Contender::new("INCR", "INCR KEY"),
        Contender::new("HIT admitted", "RATELIMIT.HIT KEY 1000000 5s").filling_up(),
        Contender {
            args: &["--stream-node-max-bytes", "4096"],
            ..Contender::new("HIT admitted, default node size", "RATELIMIT.HIT KEY 1000000 5s").filling_up()
        },
        Contender {
            args: &["--ratelimit.cursors", "0"],
            ..Contender::new("HIT admitted, no cursors", "RATELIMIT.HIT KEY 1000000 5s").filling_up()
        },
        Contender::new("HIT admitted, three tiers", "RATELIMIT.HIT KEY 1000000 1s 1000000 3s 1000000 5s").filling_up(),
        Contender::new("HIT admitted, COST 1000", "RATELIMIT.HIT KEY 1000000000 5s COST 1000").filling_up(),
        Contender {
            keys: 1,
            prepare: fill_with_many,
            ..Contender::new("HIT admitted, 1,000,000 hits in the log", "RATELIMIT.HIT KEY 9000000 1h")
        },
        Contender::new("HIT refused", "RATELIMIT.HIT KEY 10 1h"),
        Contender::new("MHIT of three keys", "RATELIMIT.MHIT 3 KEY KEYb KEYc 1000000 5s 1000000 5s 1000000 5s")
            .filling_up(),
        Contender::new("CL.THROTTLE admitted", "CL.THROTTLE KEY 1000000 1000000 5 1"),
        Contender::new("CL.THROTTLE refused", "CL.THROTTLE KEY 10 10 3600 1"),
        Contender::lua("Lua: fixed window", FIXED_WINDOW, "1000000 5000"),
        Contender::lua("Lua: the plain recipe", RECIPE, "1000000 5000").filling_up(),
        Contender::lua("Lua: sorted set", SORTED_SET, "1000000 5000").filling_up(),
    ]
}
