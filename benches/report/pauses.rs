//! How long others wait: when a long log is hit again, and while many keys expire.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::clock::now;
use support::contenders::Contender;
use support::traffic::{Choice, Runner, median};
use support::{Ask, Server, Setup};

/// Runs of which medians are taken.
const RUNS: usize = 3;

/// Hits of the long log, and keys that expire.
const MANY: usize = 1_000_000;

/// What a client that keeps sending PING waits, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    pub longest: f64,
    pub p999: f64,
    /// What the measured work itself took.
    pub took: f64,
}

impl Waits {
    fn median(runs: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| median(runs.iter().map(part).collect());
        Self { longest: of(|run| run.longest), p999: of(|run| run.p999), took: of(|run| run.took) }
    }
}

/// Another client keeps asking while something is done, which tells how long it took.
fn asked_meanwhile(server: &Server, work: impl FnOnce() -> f64) -> Waits {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut stream = UnixStream::connect(server.socket()).unwrap();
            let mut waits = Vec::new();
            let mut reply = [0; 7];
            while !stop.load(Relaxed) {
                let start = Instant::now();
                stream.write_all(b"PING\r\n").unwrap();
                stream.read_exact(&mut reply).unwrap();
                waits.push(start.elapsed().as_secs_f64() * 1e3);
            }
            waits
        });
        let took = work();
        stop.store(true, Relaxed);
        let mut waits = other.join().unwrap();
        waits.sort_by(f64::total_cmp);
        Waits { longest: waits[waits.len() - 1], p999: waits[waits.len() * 999 / 1_000], took }
    })
}

/// A key with a million expired hits is hit again, which takes so many microseconds.
pub fn long_log() -> Waits {
    let runs: Vec<Waits> = (0..RUNS).map(|_| one_long_log()).collect();
    println!("a hit on {MANY} expired hits: {runs:?}");
    Waits::median(&runs)
}

fn one_long_log() -> Waits {
    let server = Setup::new().start();
    let mut client = server.connect();
    for batch in 0..MANY / 1_000 {
        let mut pipe = redis::pipe();
        for at in batch * 1_000..(batch + 1) * 1_000 {
            // In the year 2001.
            let id = format!("{}-{}", 1_000_000_000_000 + at, at + 1);
            pipe.cmd("XADD").arg("key").arg(id).arg("60000ms").arg(1).ignore();
        }
        pipe.exec(&mut client).unwrap();
    }
    let waits = asked_meanwhile(&server, || {
        let mut client = server.connect();
        sleep(Duration::from_millis(200));
        client.run("CONFIG RESETSTAT");
        assert_eq!(client.answer("RATELIMIT.HIT key 2000000 60s")[0], 1);
        let stats = client.info("commandstats", "cmdstat_ratelimit.hit");
        // Freeing in the background takes longer than the command.
        sleep(Duration::from_millis(300));
        stats.split(',').find_map(|part| part.strip_prefix("usec=")).unwrap().parse().unwrap()
    });
    assert_eq!(client.integer("XLEN key"), 1);
    waits
}

/// A million keys expire at the same time: logs of one hit, and strings, for comparison. It takes the server so many milliseconds
/// to be rid of them.
pub fn expiry() -> [(&'static str, Waits); 2] {
    let log = Contender::new("logs of one hit", "RATELIMIT.HIT KEY 10 1h");
    let string = Contender::new("strings", "SET KEY 1 EX 3600");
    [("logs of one hit", log), ("strings", string)].map(|(name, contender)| {
        let runs: Vec<Waits> = (0..RUNS).map(|_| one_expiry(contender.clone())).collect();
        println!("{MANY} keys expire, {name}: {runs:?}");
        (name, Waits::median(&runs))
    })
}

fn one_expiry(contender: Contender) -> Waits {
    let setup = contender.setup();
    let mut runner = Runner::start(contender, setup);
    let slices = MANY / 10_000;
    let in_turn = Choice::InTurn(MANY);
    for slice in 0..slices {
        runner.send(&in_turn.keys(slice, 10_000));
    }
    let by = |at: u64| Contender::new("", &format!("PEXPIREAT KEY {at}"));
    let mut expire = Runner::on(by(now() + 3_600_000), runner.server);
    let start = Instant::now();
    expire.send(&in_turn.keys(0, 10_000));
    let at = now() + (start.elapsed().as_millis() * 3 / 2 * slices as u128) as u64 + 2_000;
    let mut expire = Runner::on(by(at), expire.server);
    for slice in 0..slices {
        expire.send(&in_turn.keys(slice, 10_000));
    }
    assert!(now() < at, "the machine is too slow");
    let mut client = expire.server.connect();
    asked_meanwhile(&expire.server, || {
        sleep(Duration::from_millis(at.saturating_sub(now())));
        while client.integer("DBSIZE") > 0 {
            sleep(Duration::from_millis(20));
        }
        (now() - at) as f64
    })
}
