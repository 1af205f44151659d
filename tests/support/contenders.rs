//! This module and the alternatives, each as one command on a key.

use redis::{Connection, Pipeline};

use crate::client::{Ask, words};
use crate::clock::now;
use crate::modules::redis_cell;
use crate::servers::Setup;

/// Keys of a run. They take turns.
pub const KEYS: usize = 100;

/// Commands sent at once.
pub const BATCH: usize = 100;

/// Hits that long logs hold before the run.
const MANY: u64 = 1_000_000;

/// Nodes as in `redis.conf`.
pub const CONF: [&str; 2] = ["--stream-node-max-bytes", "512"];

/// What a server must load. Each kind has its own server, because a module that listens to stream events, as this one does,
/// makes XADD more expensive for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    None,
    Ratelimit,
    RedisCell,
}

impl Module {
    pub fn setup(self) -> Setup {
        let setup = Setup::new().args(CONF).args(["--hz", "1"]);
        match self {
            Self::None => setup.without_module(),
            Self::Ratelimit => setup,
            Self::RedisCell => setup.module(redis_cell()),
        }
    }
}

pub struct Contender {
    pub name: &'static str,
    pub module: Module,
    /// Options of the server, in addition to those of [`Module::setup`].
    pub args: &'static [&'static str],
    /// Run once, before anything is measured.
    pub prepare: fn(&mut Connection),
    /// How many keys take turns.
    pub keys: usize,
    /// The commands of one decision. `KEY` stands for the key, `KEYb` and so on for more keys, `START` for the time at which a
    /// window of ten seconds begins.
    pub templates: Vec<String>,
    /// Whether the log must first fill up until as many hits leave as come.
    pub fills_up: bool,
}

impl Contender {
    fn new(name: &'static str, template: &str) -> Self {
        let module = match template {
            _ if template.starts_with("RATELIMIT.") => Module::Ratelimit,
            _ if template.starts_with("CL.") => Module::RedisCell,
            _ => Module::None,
        };
        let templates = vec![template.to_owned()];
        Self { name, module, args: &[], prepare: |_| {}, keys: KEYS, templates, fills_up: false }
    }

    fn filling_up(self) -> Self {
        Self { fills_up: true, ..self }
    }

    fn lua(name: &'static str, source: &str, args: &str) -> Self {
        let sha = redis::Script::new(source).get_hash().to_owned();
        Self::new(name, &format!("EVALSHA {sha} 1 KEY {args}"))
    }

    pub fn setup(&self) -> Setup {
        self.module.setup().args(self.args)
    }

    /// The commands of `size` decisions, on one key after the other.
    pub fn batch(&self, from: usize, size: usize) -> Pipeline {
        let ten_seconds_ago = (now() - 10_000).to_string();
        let mut pipe = redis::pipe();
        for at in from..from + size {
            let key = format!("key:{:012}", at % self.keys);
            for template in &self.templates {
                pipe.add_command(words(&template.replace("KEY", &key).replace("START", &ten_seconds_ago)));
            }
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

/// Loads the scripts for EVALSHA.
pub fn load_scripts(client: &mut Connection) {
    for source in [FIXED_WINDOW, RECIPE, SORTED_SET] {
        client.ask(redis::cmd("SCRIPT").arg("LOAD").arg(source)).unwrap();
    }
}

/// A million hits in this many logs, spread evenly over half of the hour in which they count.
fn fill(client: &mut Connection, keys: u64) {
    let (now, hits) = (now(), MANY / keys);
    for key in 0..keys {
        let key = format!("key:{key:012}");
        for batch in 0..hits / 1_000 {
            let mut pipe = redis::pipe();
            for at in batch * 1_000..(batch + 1) * 1_000 {
                let id = format!("{}-{}", now - 1_800_000 + at * 1_795_000 / hits, at + 1);
                pipe.cmd("XADD").arg(&key).arg(id).arg("3600000ms").arg(1).ignore();
            }
            pipe.exec(client).unwrap();
        }
        client.run(&format!("PEXPIRE {key} 4000000"));
    }
}

/// If hits are admitted, a key holds those of ten seconds: as many hits leave as come.
pub fn all() -> Vec<Contender> {
    let hit = |name, args: &str| Contender::new(name, &format!("RATELIMIT.HIT KEY {args}"));
    let three_trips = ["XADD KEY * hit 1", "XTRIM KEY MINID ~ START", "XLEN KEY"].map(str::to_owned).to_vec();
    vec![
        Contender::new("PING", "PING"),
        Contender::new("INCR", "INCR KEY"),
        hit("HIT admitted", "1000000 10s").filling_up(),
        Contender {
            args: &["--stream-node-max-bytes", "4096"],
            ..hit("HIT admitted, default node size", "1000000 10s").filling_up()
        },
        Contender {
            args: &["--ratelimit.cursors", "0"],
            ..hit("HIT admitted, no cursors", "1000000 10s").filling_up()
        },
        hit("HIT admitted, three tiers", "1000000 1s 1000000 5s 1000000 10s").filling_up(),
        hit("HIT admitted, COST 1", "1000000000 10s COST 1").filling_up(),
        hit("HIT admitted, COST 1000", "1000000000 10s COST 1000").filling_up(),
        Contender {
            keys: 1,
            prepare: |client| fill(client, 1),
            ..hit("HIT admitted, 1,000,000 hits in the log", "9000000 1h")
        },
        hit("HIT refused", "10 1h"),
        Contender {
            prepare: |client| fill(client, KEYS as u64),
            ..hit("HIT refused, 10,000 hits in the log", "10000 1h")
        },
        Contender::new("MHIT of three keys", "RATELIMIT.MHIT 3 KEY KEYb KEYc 1000000 10s 1000000 10s 1000000 10s")
            .filling_up(),
        Contender::new("CL.THROTTLE admitted", "CL.THROTTLE KEY 1000000 1000000 10 1"),
        Contender::new("CL.THROTTLE refused", "CL.THROTTLE KEY 10 10 3600 1"),
        Contender::lua("Lua: fixed window", FIXED_WINDOW, "1000000 10000"),
        Contender::lua("Lua: the plain recipe", RECIPE, "1000000 10000").filling_up(),
        Contender::lua("Lua: sorted set", SORTED_SET, "1000000 10000").filling_up(),
        Contender { templates: three_trips, ..Contender::new("the plain recipe, three trips", "XADD") },
    ]
}
