//! This module and the alternatives, each as one command on a key.

use std::path::PathBuf;

use redis::{Connection, Value};

use crate::client::Ask;
use crate::clock::now;
use crate::modules::redis_cell;
use crate::servers::Setup;

/// Hits that long logs hold before the run.
const MANY: u64 = 1_000_000;

/// What a server must load. Each kind has its own server, because a module that listens to events, as this one does, makes the
/// commands of others dearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    None,
    Ratelimit,
    RedisCell,
    /// Another build of this one.
    Other(PathBuf),
}

/// One way to decide.
#[derive(Clone)]
pub struct Contender {
    pub name: String,
    pub module: Module,
    /// Options of the server, which otherwise has its defaults.
    pub args: &'static [&'static str],
    /// Run once, before anything is measured.
    pub prepare: fn(&mut Connection),
    /// How many keys take turns.
    pub keys: usize,
    /// The commands of one decision. `KEY` stands for the key, `KEYb` and so on for more keys, `START` for the time at which the
    /// window begins.
    pub templates: Vec<String>,
    /// Milliseconds of the window.
    pub window: u64,
    /// Whether the log must first fill up until as many hits leave as come.
    pub fills_up: bool,
    /// How many decisions a key has behind it once it is in its steady state.
    pub touches: usize,
    /// The first item of its reply in the steady state, if it is an array.
    pub verdict: Option<i64>,
    /// Whether its keys live as long as a run takes.
    pub lasts: bool,
}

impl Contender {
    pub fn new(name: &str, template: &str) -> Self {
        let module = match template {
            _ if template.starts_with("RATELIMIT.") => Module::Ratelimit,
            _ if template.starts_with("CL.") => Module::RedisCell,
            _ => Module::None,
        };
        Self {
            name: name.to_owned(),
            module,
            args: &[],
            prepare: |_| {},
            keys: 1,
            templates: vec![template.to_owned()],
            window: 0,
            fills_up: false,
            touches: 1,
            verdict: None,
            lasts: true,
        }
    }

    fn lua(name: &str, source: &str, args: &str) -> Self {
        let sha = redis::Script::new(source).get_hash().to_owned();
        Self::new(name, &format!("EVALSHA {sha} 1 KEY {args}"))
    }

    fn on(self, keys: usize) -> Self {
        Self { keys, ..self }
    }

    fn verdict(self, first: i64) -> Self {
        Self { verdict: Some(first), ..self }
    }

    /// The same with another build of the module.
    pub fn with_module(&self, name: &str, path: PathBuf) -> Self {
        Self { name: format!("{}, {name}", self.name), module: Module::Other(path), ..self.clone() }
    }

    /// A server for it: the one under test, or another.
    pub fn setup(&self) -> Setup {
        let setup = Setup::new().args(self.args);
        match &self.module {
            Module::None => setup.without_module(),
            Module::Ratelimit => setup,
            Module::RedisCell => setup.module(redis_cell()),
            Module::Other(path) => setup.module(path.clone()),
        }
    }

    /// One decision on the key with this number: a reply to each of its commands.
    pub fn decision(&self, client: &mut Connection, key: usize) -> Vec<Value> {
        let start = (now() - self.window).to_string();
        let line = |template: &String| template.replace("KEY", &format!("key:{key:012}")).replace("START", &start);
        self.templates.iter().map(|template| client.run(&line(template))).collect()
    }

    /// Fails where it decides otherwise than it should.
    pub fn check(&self, client: &mut Connection, key: usize) {
        let replies = self.decision(client, key);
        if let (Some(verdict), Value::Array(items)) = (self.verdict, &replies[0]) {
            assert_eq!(items[0], Value::Int(verdict), "{} on key {key}: {replies:?}", self.name);
        }
    }
}

/// This log in Lua, for servers without the module.
const ENGINE: &str = include_str!("../../clients/lua/ratelimit.lua");

const FIXED_WINDOW: &str = "local n = redis.call('INCR', KEYS[1]) \
    if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end \
    return n <= tonumber(ARGV[1])";

const RECIPE: &str = "local t = redis.call('TIME') \
    local now = t[1] * 1000 + math.floor(t[2] / 1000) \
    redis.call('XADD', KEYS[1], '*', 'hit', 1) \
    redis.call('XTRIM', KEYS[1], 'MINID', '~', now - ARGV[2]) \
    return redis.call('XLEN', KEYS[1]) <= tonumber(ARGV[1])";

const LOG: &str = "local t = redis.call('TIME') \
    local now = t[1] * 1000000 + t[2] \
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2] * 1000) \
    if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end \
    redis.call('ZADD', KEYS[1], now, now) \
    redis.call('PEXPIRE', KEYS[1], ARGV[2]) \
    return 1";

/// Loads the scripts for EVALSHA.
pub fn load_scripts(client: &mut Connection) {
    for source in [FIXED_WINDOW, RECIPE, LOG, ENGINE] {
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

/// How GCRA decides on a client below its limit, whose key expires long before the next decision: it makes a new one.
const IDLE: &str = "CL.THROTTLE KEY 1000000 1000000 10 1";

/// On how many keys, and in windows of how many seconds, logs get into their steady state.
#[derive(Clone, Copy)]
pub struct Steady {
    pub keys: usize,
    pub seconds: u64,
}

/// Everything that this module can be asked, and the alternatives, on few keys. If hits are admitted, a key holds those of the
/// window: as many hits leave as come.
pub fn variants(Steady { keys, seconds }: Steady) -> Vec<Contender> {
    let new = |name, template: &str| Contender {
        window: seconds * 1_000,
        ..Contender::new(name, &template.replace("WINDOW", &format!("{seconds}s"))).on(keys)
    };
    let full = |contender| Contender { fills_up: true, ..contender };
    let hit = |name, args: &str| new(name, &format!("RATELIMIT.HIT KEY {args}")).verdict(1);
    let mhit = format!("RATELIMIT.MHIT 3 KEY KEYb KEYc {}", ["1000000 WINDOW"; 3].join(" AND "));
    let tiers = format!("1000000 {}ms 1000000 {}ms 1000000 WINDOW", seconds * 100, seconds * 500);
    let lua = |name, source| Contender::lua(name, source, &format!("1000000 {}", seconds * 1_000)).on(keys);
    let three_trips = ["XADD KEY * hit 1", "XTRIM KEY MINID ~ START", "XLEN KEY"].map(str::to_owned).to_vec();
    vec![
        new("PING", "PING"),
        new(INCR, "INCR KEY"),
        full(hit(HIT, "1000000 WINDOW")),
        full(Contender {
            args: &["--stream-node-max-bytes", "512"],
            ..hit("HIT admitted, nodes of 512 bytes", "1000000 WINDOW")
        }),
        full(Contender { args: &["--ratelimit.cursors", "0"], ..hit("HIT admitted, no cursors", "1000000 WINDOW") }),
        full(hit("HIT admitted, three tiers", &tiers)),
        full(hit("HIT admitted, COST 1", "1000000000 WINDOW COST 1")),
        full(hit("HIT admitted, COST 1000", "1000000000 WINDOW COST 1000")),
        Contender {
            prepare: |client| fill(client, 1),
            ..hit("HIT admitted, 1,000,000 hits in the log", "9000000 1h").on(1)
        },
        Contender { touches: 10, ..hit(HIT_REFUSED, "10 1h").verdict(0) },
        Contender {
            prepare: |client| fill(client, 100),
            ..hit("HIT refused, 10,000 hits in the log", "10000 1h").on(100).verdict(0)
        },
        full(new("MHIT of three keys", &mhit)),
        new(THROTTLE, "CL.THROTTLE KEY 1000000 1 60 1").verdict(0),
        new(THROTTLE_IDLE, IDLE).verdict(0),
        Contender { touches: 11, ..new(THROTTLE_REFUSED, "CL.THROTTLE KEY 10 10 3600 1").verdict(1) },
        lua(FIXED, FIXED_WINDOW),
        full(lua("Lua: the plain recipe", RECIPE)),
        full(lua(SORTED_SET, LOG)),
        full(lua(SCRIPT, ENGINE)).verdict(1),
        Contender { templates: three_trips, ..new("the plain recipe, three trips", "XADD") },
    ]
}

/// Names that others use.
pub const INCR: &str = "INCR";
pub const FIXED: &str = "Lua: fixed window";
pub const SORTED_SET: &str = "Lua: sorted set";
/// The script of clients/lua.
pub const SCRIPT: &str = "Lua: this log, without the module";
pub const THROTTLE: &str = "CL.THROTTLE admitted";
pub const THROTTLE_IDLE: &str = "CL.THROTTLE admitted, key expired";
pub const THROTTLE_REFUSED: &str = "CL.THROTTLE refused";
pub const HIT: &str = "HIT admitted";
pub const HIT_REFUSED: &str = "HIT refused";

/// On as many keys as there may be, none of which expires within three minutes of its first decision, except [`IDLE`] ones.
pub fn any_number_of_keys(keys: usize) -> Vec<Contender> {
    let contenders = vec![
        Contender::new(INCR, "INCR KEY"),
        Contender::lua(FIXED, FIXED_WINDOW, "1000000 180000"),
        Contender::new(THROTTLE, "CL.THROTTLE KEY 1000000 1 180 1").verdict(0),
        Contender { lasts: false, ..Contender::new(THROTTLE_IDLE, IDLE).verdict(0) },
        Contender::new(THROTTLE_REFUSED, "CL.THROTTLE KEY 0 1 3600 1").verdict(1),
        Contender::new(HIT, "RATELIMIT.HIT KEY 1000000 180s").verdict(1),
        Contender { touches: 3, ..Contender::new(HIT_REFUSED, "RATELIMIT.HIT KEY 3 1h").verdict(0) },
    ];
    contenders.into_iter().map(|contender| contender.on(keys)).collect()
}

/// Rows of `make instructions`: one decision after the other on each of many keys.
pub const NTH_HITS: [&str; 4] =
    ["HIT, first on a key", "HIT, second on a key", "HIT, third on a key", "HIT, fourth on a key"];
pub const NTH_THROTTLES: [&str; 2] = ["CL.THROTTLE, first on a key", "CL.THROTTLE, second on a key"];

/// Commands of others: what a row is called without the module, and the command. With the module it is called the same, and
/// [`BESIDE`].
pub const OTHERS: [(&str, &str); 4] = [
    ("SET EX", "SET KEY 1 EX 100"),
    ("DEL", "DEL KEY"),
    ("EXPIRE", "EXPIRE KEY 100"),
    ("XADD", "XADD KEY * field value"),
];
pub const BESIDE: &str = " beside the module";
