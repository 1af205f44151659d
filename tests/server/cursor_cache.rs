//! Cursors change no reply and no stored data: with the table off, tiny or large, three servers that get the same commands
//! at the same time give the same replies and hold the same data, whatever is done to their keys.

use redis::{Cmd, Connection, Value};
use support::interference::{Interference, Kind};
use support::seeds::random;
use support::{Ask, Clock, START, Server, Setup, assert_same, get, six, wait_for, words};

const SIZES: [u32; 3] = [0, 4, 8_192];
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const WINDOWS: [u64; 4] = [20, 300, 1_000, 2_500];

/// Servers that differ in the size of the table only.
struct Lockstep {
    clients: Vec<Connection>,
    clock: Clock,
    now: u64,
    servers: Vec<Server>,
    log: Vec<String>,
}

impl Lockstep {
    fn start(args: &[&str]) -> Option<Self> {
        let clock = Clock::at(START)?;
        let start = |cursors: u32| {
            let setup = Setup::new().clock(&clock).args(["--stream-node-max-entries", "5"]).args(args);
            setup.args(["--ratelimit.cursors", &cursors.to_string()]).start()
        };
        let servers: Vec<Server> = SIZES.into_iter().map(start).collect();
        let clients = servers.iter().map(Server::connect).collect();
        let mut all = Self { clients, clock, now: START, servers, log: Vec::new() };
        // Or what expires before the clock is stepped back is gone on one and not on the other.
        all.run("DEBUG SET-ACTIVE-EXPIRE 0").unwrap();
        Some(all)
    }

    fn go(&mut self, milliseconds: i64) {
        self.now = self.now.saturating_add_signed(milliseconds);
        self.clock.set(self.now);
    }

    /// The reply of all.
    fn ask(&mut self, cmd: &Cmd) -> Result<Value, String> {
        let packed = cmd.get_packed_command();
        self.log.push(format!("{} {}", self.now, String::from_utf8_lossy(&packed).replace("\r\n", " ")));
        let replies: Vec<_> = self.clients.iter_mut().map(|client| client.ask(cmd)).collect();
        for (size, reply) in SIZES.iter().zip(&replies) {
            let last = &self.log[self.log.len().saturating_sub(30)..];
            assert_eq!(*reply, replies[0], "with {size} cursors, after {last:#?}");
        }
        replies.into_iter().next().unwrap()
    }

    fn run(&mut self, line: &str) -> Result<Value, String> {
        self.ask(&words(line))
    }

    fn compare(&mut self) {
        // What has expired and is still there is part of the digest.
        for database in [1, 0] {
            self.run(&format!("SELECT {database}")).unwrap();
            self.run(&format!("EXISTS {} no", KEYS.join(" "))).unwrap();
        }
        let prints: Vec<_> = self.clients.iter_mut().map(Ask::fingerprint).collect();
        for (size, print) in SIZES.iter().zip(&prints) {
            assert_same(print, &prints[0], &format!("with {size} cursors"));
        }
    }
}

fn call(rng: &mut fastrand::Rng) -> String {
    let tier = |rng: &mut fastrand::Rng| {
        let limit = if rng.u8(..8) == 0 { rng.u64(..3) } else { rng.u64(3..60) };
        format!("{limit} {}ms", rng.choice(WINDOWS).unwrap())
    };
    let cost = if rng.u8(..4) == 0 { rng.u64(1..200) } else { 1 };
    if rng.u8(..8) == 0 {
        let mut keys = KEYS.to_vec();
        rng.shuffle(&mut keys);
        keys.truncate(rng.usize(1..=4));
        let groups: Vec<String> = keys.iter().map(|_| format!("{} COST {cost}", tier(rng))).collect();
        let option = if rng.u8(..6) == 0 { " STRICT" } else { "" };
        return format!("RATELIMIT.MHIT {} {} {}{option}", keys.len(), keys.join(" "), groups.join(" AND "));
    }
    let tiers: Vec<String> = (0..rng.usize(1..=3)).map(|_| tier(rng)).collect();
    let key = rng.choice(KEYS).unwrap();
    let (name, strict) = match rng.u8(..12) {
        0 => ("PEEK", ""),
        1 => ("HIT", " STRICT"),
        2 => ("HIT", " FORCE"),
        _ => ("HIT", ""),
    };
    format!("RATELIMIT.{name} {key} {} COST {cost}{strict}", tiers.join(" "))
}

/// What a cursor must not outlive. (Of entries whose running total nobody could have reached, no answer is right, and it may
/// depend on how the log is read. Foreign entries that pose as hits are found out only if they are read.)
const OTHERS: Interference = Interference {
    keys: &KEYS,
    windows: &WINDOWS,
    kinds: &[
        Kind::Own,
        Kind::Foreign,
        Kind::Deletion,
        Kind::LastId,
        Kind::Keys,
        Kind::Databases,
        Kind::Select,
        Kind::Expiry,
        Kind::Endless,
        Kind::Types,
        Kind::Groups,
        Kind::Dumps,
        Kind::Reload,
    ],
};

/// Something that somebody else does to all of them, or that befalls them.
fn outside(rng: &mut fastrand::Rng, all: &mut Lockstep, dumps: &mut Vec<Vec<u8>>) {
    match rng.u8(..180) {
        0 => {
            // At one byte of memory everything is evicted.
            all.run("CONFIG SET maxmemory-policy allkeys-random maxmemory 1").unwrap();
            for client in &mut all.clients {
                wait_for("all keys are evicted", || {
                    let _ = client.ask(&words("SET no room"));
                    client.integer("DBSIZE") == 0
                });
            }
            all.run("CONFIG SET maxmemory 0 maxmemory-policy noeviction").unwrap();
        }
        1 => {
            all.run("REPLICAOF 127.0.0.1 1").unwrap();
            let _ = all.run(&format!("RATELIMIT.PEEK {} 9 1s", rng.choice(KEYS).unwrap()));
            all.run("REPLICAOF NO ONE").unwrap();
        }
        _ => OTHERS.act(rng).carry_out(all.now, dumps, |cmd| all.ask(cmd)),
    }
}

#[test]
fn cursors_change_nothing() {
    let mut rng = random("cursors_change_nothing");
    let Some(mut all) = Lockstep::start(&[]) else { return };
    let mut dumps = Vec::new();
    let (mut admitted, mut refused) = (0, 0);
    for step in 0..9_000 {
        all.go(match rng.u8(..60) {
            0 => rng.i64(0..2_000),
            1 if rng.u8(..8) == 0 => -rng.i64(0..1_500),
            2..20 => rng.i64(0..12),
            _ => 0,
        });
        if rng.u8(..14) == 0 {
            outside(&mut rng, &mut all, &mut dumps);
            continue;
        }
        let line = call(&mut rng);
        match all.run(&line) {
            Ok(Value::Array(items)) if items.len() == 6 && matches!(items[0], Value::Int(_)) => {
                let answer = six(&Value::Array(items));
                *if answer[0] == 1 { &mut admitted } else { &mut refused } += 1;
            }
            Ok(_) => {}
            // Foreign things are cleared away now and then, or soon nothing else would be left.
            Err(_) if rng.u8(..3) == 0 => _ = all.run(&format!("DEL {}", KEYS.join(" "))),
            Err(_) => {}
        }
        if step % 500 == 0 {
            all.compare();
        }
    }
    all.compare();
    assert!(admitted > 1_000 && refused > 1_000, "{admitted} admitted, {refused} refused");
    for server in &mut all.servers {
        assert!(server.is_alive());
    }
}

/// What a transaction or a script does between two hits of its own.
#[test]
fn changes_within_one_step() {
    let Some(mut all) = Lockstep::start(&[]) else { return };
    for _ in 0..4 {
        for line in ["RATELIMIT.HIT k 9 1s"; 3] {
            all.run(line).unwrap();
        }
        all.go(1);
        let newest: Vec<(String, Vec<String>)> = get(all.run("XREVRANGE k + - COUNT 1").unwrap());
        all.run("MULTI").unwrap();
        all.run("RATELIMIT.HIT k 9 1s").unwrap();
        all.run(&format!("XDEL k {}", newest[0].0)).unwrap();
        all.run("RATELIMIT.HIT k 9 1s").unwrap();
        all.run("PERSIST k").unwrap();
        all.run("RATELIMIT.HIT k 9 1s").unwrap();
        all.run("PTTL k").unwrap();
        all.run("RATELIMIT.RESET k").unwrap();
        all.run("RATELIMIT.HIT k 9 1s").unwrap();
        all.run("EXEC").unwrap();
    }
    let script = "local r = {} for i = 1, 40 do \
        r[i] = redis.call('RATELIMIT.HIT', KEYS[1], 30, '1s', 12, '10ms')[3] \
        if i % 7 == 0 then redis.call('XTRIM', KEYS[1], 'MAXLEN', 2) end \
        if i % 11 == 0 then redis.call('DEL', KEYS[1]) end end return r";
    all.ask(redis::cmd("EVAL").arg(script).arg(1).arg("k")).unwrap();
    all.compare();
}

/// A replica's cursors hear what its primary does: PEEK answers the same there.
#[test]
fn on_a_replica() {
    let mut rng = random("on_a_replica");
    let Some(clock) = Clock::at(START) else { return };
    let plain = ["--repl-diskless-sync-delay", "0", "--repl-timeout", "2000000000"];
    let setup = Setup::new().clock(&clock).args(plain);
    let primary = setup.clone().tcp().start();
    let replica = setup.args(["--replicaof", "127.0.0.1", &primary.port.to_string()]).start();
    let (mut one, mut other) = (primary.connect(), replica.connect());
    wait_for("the replica is in sync", || other.info("replication", "master_link_status") == "up");
    let others = Interference { keys: &KEYS, windows: &[40, 300], kinds: &[Kind::Deletion, Kind::Expiry] };
    let mut now = START;
    for _ in 0..1_500 {
        let key = *rng.choice(&KEYS).unwrap();
        now += rng.u64(..8);
        clock.set(now);
        match rng.u8(..10) {
            0 => others.act(&mut rng).carry_out(now, &mut Vec::new(), |cmd| one.ask(cmd)),
            _ => _ = one.run(&format!("RATELIMIT.HIT {key} 30 300ms 12 40ms")),
        }
        wait_for("the replica has read everything", || {
            one.info("replication", "master_repl_offset") == other.info("replication", "slave_repl_offset")
        });
        let peek = format!("RATELIMIT.PEEK {key} 30 300ms 12 40ms COST {}", rng.u8(1..4));
        assert_eq!(other.answer(&peek), one.answer(&peek), "{peek} at {now}");
    }
}

/// Whoever listens to events must not change where a client is, as Valkey 8.1 lets it happen.
#[test]
fn clients_stay_in_their_database() {
    let server = Server::start();
    let mut client = server.connect();
    for line in ["MOVE k 1", "COPY k other DB 2", "RENAME k other", "PEXPIRE k 0", "XDEL k 1-1", "SWAPDB 1 2"] {
        client.run("RATELIMIT.HIT k 9 1h");
        client.run(line);
        assert!(client.text("CLIENT INFO").contains(" db=0 "), "{line}");
    }
}

/// The setting, and that a new size takes effect. What an operator sets is read back, also where no key is followed.
#[test]
fn the_size_of_the_table() {
    let server = Server::start();
    let mut client = server.connect();
    let setting = |client: &mut Connection| get::<Vec<String>>(client.run("CONFIG GET ratelimit.cursors"))[1].clone();
    assert_eq!(setting(&mut client), "32768");
    for size in ["0", "1", "1048576", "100"] {
        client.run(&format!("CONFIG SET ratelimit.cursors {size}"));
        assert_eq!(setting(&mut client), size);
        assert_eq!(client.answer("RATELIMIT.HIT k 1000 1h")[0], 1);
        assert_eq!(client.answer("RATELIMIT.HIT k 1000 1h")[0], 1);
    }
    for bad in ["-1", "1048577", "x"] {
        assert!(client.error(&format!("CONFIG SET ratelimit.cursors {bad}")).contains("CONFIG SET failed"));
    }
    assert_eq!(setting(&mut client), "100");
    assert_eq!(client.integer("XLEN k"), 8);
}
