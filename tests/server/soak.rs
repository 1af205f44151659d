//! A long run near saturation stays exact, and memory and latency do not grow: `make soak MINUTES=n`.
//!
//! Two servers on a clock that shakes, one the other's replica. Loaders keep the primary busy with every command of the
//! module; checkers ask the oracle about each of their replies. Every round the append-only file is rewritten, the servers
//! change places or the cursors are turned off and on. Memory and latency must not grow after the first quarter.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult, Value};
use support::calls::{question_for, words_of};
use support::client::{number, time_of};
use support::judge::{LONGEST_WAIT, is_in_range};
use support::oracle::{self, Hit, Question};
use support::seeds::random;
use support::{Ask, Clock, Server, Setup, get, six, wait_for, words};

const ROUND: Duration = Duration::from_secs(10);

/// Milliseconds by which the clock may be off, either way.
const SHAKE: i32 = 5;

struct Soak {
    servers: [Server; 2],
    clock: Clock,
    is_over: AtomicBool,
    loaded: AtomicU64,
    checked: AtomicU64,
    refused: AtomicU64,
    /// Checked replies that are right only if the clock was set in the middle.
    unsure: AtomicU64,
}

impl Soak {
    fn begin() -> Self {
        let clock = Clock::running();
        let setup = Setup::new().tcp().clock(&clock).args(["--appendonly", "yes", "--stream-node-max-bytes", "512"]);
        let servers = [setup.clone().start(), setup.start()];
        servers[1].connect().run(&format!("REPLICAOF 127.0.0.1 {}", servers[0].port));
        let [loaded, checked, refused, unsure] = [(); 4].map(|()| AtomicU64::new(0));
        let soak = Self { servers, clock, is_over: false.into(), loaded, checked, refused, unsure };
        soak.in_sync();
        soak
    }

    fn in_sync(&self) {
        let mut replica = self.connect("slave");
        wait_for("the replica is in sync", || replica.info("replication", "master_link_status") == "up");
    }

    fn server(&self, role: &str) -> &Server {
        let mut found = None;
        wait_for(role, || {
            found = self.servers.iter().find(|server| server.connect().info("replication", "role") == role);
            found.is_some()
        });
        found.unwrap()
    }

    fn connect(&self, role: &str) -> Connection {
        self.server(role).connect()
    }

    /// What the primary answers. Whoever is told that it is one no longer has written nothing, and asks the other.
    fn ask(&self, client: &mut Connection, pipe: &redis::Pipeline) -> Vec<Value> {
        loop {
            let replies: RedisResult<Vec<Value>> = pipe.query(client);
            match replies {
                Ok(replies) => return replies,
                Err(error) if ["READONLY", "EXECABORT", "UNBLOCKED"].contains(&error.code().unwrap_or_default()) => {}
                Err(error) => panic!("{error}"),
            }
            *client = self.connect("master");
        }
    }

    fn load(&self, mut rng: fastrand::Rng) {
        let mut client = self.connect("master");
        while !self.is_over.load(Relaxed) {
            let mut pipe = redis::pipe();
            let mut kinds = Vec::new();
            for _ in 0..50 {
                // Names come and go, as clients do.
                let key = |rng: &mut fastrand::Rng| format!("client:{}", rng.u32(..20_000));
                let (limit, window) = (rng.u32(..30), rng.choice(["100ms", "1s", "3s"]).unwrap());
                let (name, line) = match rng.u8(..20) {
                    0..9 => ("HIT", format!("{} {limit} {window}", key(&mut rng))),
                    9..12 => ("HIT", format!("busy {limit} {window} 100 3s COST {}", rng.u32(1..5))),
                    12 => ("HIT", format!("{} {limit} {window} STRICT", key(&mut rng))),
                    13..17 => ("PEEK", format!("{} {limit} {window}", key(&mut rng))),
                    17..19 => ("MHIT", format!("2 {} busy {limit} {window} AND 50 1s", key(&mut rng))),
                    _ => ("RESET", format!("{} {}", key(&mut rng), key(&mut rng))),
                };
                pipe.add_command(words(&format!("RATELIMIT.{name} {line}")));
                kinds.push(name);
            }
            for (kind, reply) in kinds.into_iter().zip(self.ask(&mut client, pipe.atomic())) {
                match (kind, &reply) {
                    ("HIT" | "PEEK", reply) => {
                        assert!(is_in_range(six(reply), LONGEST_WAIT, true), "{kind}: {reply:?}")
                    }
                    ("MHIT", Value::Array(replies)) => {
                        assert!(replies.iter().all(|reply| is_in_range(six(reply), LONGEST_WAIT, false)), "{reply:?}");
                    }
                    ("RESET", Value::Int(0..=2)) => {}
                    _ => panic!("{kind}: {reply:?}"),
                }
            }
            self.loaded.fetch_add(50, Relaxed);
        }
    }

    /// Keys that nobody else names. Each reply must be the oracle's for a moment between two looks at the clock.
    fn check(&self, mut rng: fastrand::Rng) {
        let mut client = self.connect("master");
        let checker = rng.u64(..);
        let mut keys: Vec<(String, u64, Vec<Hit>)> =
            [50, 333, 1_000, 5_000].map(|longest| (format!("checked:{checker}:{longest}"), longest, Vec::new())).into();
        while !self.is_over.load(Relaxed) {
            let (key, longest, hits) = rng.choice(&mut keys).unwrap();
            let (tiers, cost) = question_for(&mut rng, *longest);
            let question = Question { tiers: &tiers, cost, ..Question::default() };
            let mut pipe = redis::pipe();
            pipe.atomic().cmd("TIME").cmd("EXISTS").arg(&*key);
            pipe.cmd("RATELIMIT.HIT").arg(words_of(&mut rng, key, question));
            pipe.cmd("XREVRANGE").arg(&*key).arg("+").arg("-").arg("COUNT").arg(1).cmd("TIME");
            let replies = self.ask(&mut client, &pipe);
            let [before, exists, reply, newest, after] = replies.try_into().unwrap();
            let milliseconds = |time| {
                let (seconds, microseconds): (u64, u64) = get(time);
                seconds * 1_000 + microseconds / 1_000
            };
            let (before, after) = (milliseconds(before), milliseconds(after));
            let (earliest, latest) = (before.min(after), before.max(after));
            if exists == Value::Int(0) {
                // It expired, and the clock may have been set back since.
                let alive = hits.iter().any(|hit| hit.0 + *longest > latest + 2 * SHAKE as u64);
                assert!(!alive, "{key} has gone at {latest} with {hits:?}");
                hits.clear();
            }
            let newest: Vec<(String, Vec<String>)> = get(newest);
            let recorded = newest.first().map(|(id, _)| time_of(id));
            let fits = |now| {
                let mut after = hits.clone();
                let expected = oracle::ask(&mut after, now, question);
                let is_recorded = expected[0] == 0 || recorded == after.last().map(|hit| hit.0);
                (six(&reply) == expected && is_recorded).then_some(after)
            };
            let fitting = (earliest..=latest).find_map(fits).or_else(|| {
                // Unless the clock was set between the looks at it.
                self.unsure.fetch_add(1, Relaxed);
                (earliest - 2 * SHAKE as u64..=latest + 2 * SHAKE as u64).find_map(fits)
            });
            let Some(after) = fitting else {
                panic!("{reply:?} is wrong for {key} from {earliest} to {latest}: {question:?} {hits:?} {newest:?}")
            };
            *hits = after;
            hits.retain(|hit| hit.0 + *longest + 2 * SHAKE as u64 > earliest);
            self.refused.fetch_add(u64::from(six(&reply)[0] == 0), Relaxed);
            self.checked.fetch_add(1, Relaxed);
        }
    }

    fn change_places(&self) {
        self.in_sync();
        let (mut old, mut new) = (self.connect("master"), self.connect("slave"));
        old.run("FAILOVER TIMEOUT 10000");
        let role = |client: &mut Connection, role| client.info("replication", "role") == role;
        wait_for("the servers have changed places", || role(&mut old, "slave") && role(&mut new, "master"));
        self.in_sync();
    }

    fn disturb(&self, round: usize) -> &'static str {
        let mut primary = self.connect("master");
        match round % 4 {
            0 => {
                let _ = primary.run("BGREWRITEAOF");
                "rewrite"
            }
            1 => {
                self.change_places();
                "failover"
            }
            2 => {
                primary.run("CONFIG SET ratelimit.cursors 0");
                "no cursors"
            }
            _ => {
                primary.run("CONFIG SET ratelimit.cursors 8192");
                "cursors"
            }
        }
    }

    /// What the primary shows of one round.
    fn measure(&self, since: Instant, disturbance: &str) -> Round {
        let server = self.server("master");
        let mut client = server.connect();
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = number(line.trim().trim_end_matches(" kB"));
        let percentiles = client.info("latencystats", "latency_percentiles_usec_ratelimit.hit");
        let of = |name: &str| percentiles.split(',').find_map(|each| each.strip_prefix(name)?.parse().ok()).unwrap();
        let (p99, p999) = (of("p99="), of("p99.9="));
        println!(
            "{:>5} s {:<10} {:>10} calls {:>8} checked, {:>7} refused; HIT usec {percentiles}; {} kB resident, {} keys",
            since.elapsed().as_secs(),
            disturbance,
            self.loaded.load(Relaxed),
            self.checked.load(Relaxed),
            self.refused.load(Relaxed),
            resident,
            client.integer("DBSIZE"),
        );
        for server in &self.servers {
            server.connect().run("CONFIG RESETSTAT");
        }
        Round { resident, p99, p999 }
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

struct Round {
    /// Kilobytes.
    resident: u64,
    /// Microseconds of the server's time for a hit, at these percentiles.
    p99: f64,
    p999: f64,
}

#[test]
#[ignore = "a long run: make soak"]
fn soak() {
    let minutes: f64 = std::env::var("MINUTES").map_or(1.0, |minutes| minutes.parse().unwrap());
    let rounds = (minutes * 60.0 / ROUND.as_secs_f64()).ceil().max(8.0) as usize;
    let mut rng = random("soak");
    let soak = Soak::begin();
    let mut measured = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|at| {
                let (soak, rng) = (&soak, rng.fork());
                scope.spawn(move || if at % 2 == 0 { soak.load(rng) } else { soak.check(rng) })
            })
            .collect();
        // Whatever ends the rounds, ends the work.
        let _over = Over(&soak.is_over);
        let since = Instant::now();
        for round in 0..rounds {
            let disturbance = soak.disturb(round);
            while since.elapsed() < ROUND * (round as u32 + 1) {
                soak.clock.run_ahead(rng.i32(-SHAKE..=SHAKE));
                sleep(Duration::from_millis(700));
                assert!(!workers.iter().any(|worker| worker.is_finished()), "a worker has found something, see above");
            }
            measured.push(soak.measure(since, disturbance));
        }
    });
    let (mut primary, mut replica) = (soak.connect("master"), soak.connect("slave"));
    // Nothing expires while they are compared.
    let persist = "for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('PERSIST', key) end";
    primary.ask(redis::cmd("EVAL").arg(persist).arg(0)).unwrap();
    wait_for("the replica holds the same", || primary.fingerprint() == replica.fingerprint());

    let (checked, refused) = (soak.checked.load(Relaxed), soak.refused.load(Relaxed));
    assert!(checked > 1_000 && refused > 100, "{checked} checked, {refused} refused");
    let unsure = soak.unsure.load(Relaxed);
    assert!(unsure * 1_000 < checked, "{unsure} of {checked} need a clock that was set");
    let (_, steady) = measured.split_at(rounds / 4);
    let (first, last) = steady.split_at(steady.len() / 2);
    let resident = |rounds: &[Round]| rounds.iter().map(|round| round.resident).max().unwrap();
    // Of the quietest round, because whatever else the machine does counts as well.
    let least = |rounds: &[Round], of: fn(&Round) -> f64| rounds.iter().map(of).fold(f64::MAX, f64::min);
    let ([before, after], [sooner, later]) =
        ([first, last].map(resident), [first, last].map(|half| least(half, |round| round.p99)));
    println!("resident: {before} kB, then {after} kB; p99: {sooner} usec, then {later} usec; {unsure} unsure");
    println!("p99.9: {} usec, then {} usec", least(first, |round| round.p999), least(last, |round| round.p999));
    assert!(after * 10 < before * 11, "memory grows");
    assert!(later < 2.0 * sooner, "hits get slower");
}
