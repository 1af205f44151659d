//! Counts the server's instructions for one decision, with callgrind. Unlike times on a shared machine, these repeat.
//!
//! The server says what it has executed before and after what is counted, so that starting, loading and warming up are no part
//! of it:
//!
//! * *a busy key*: many decisions. Where hits are admitted, batches are sent at a steady pace, so that as much leaves a log as
//!   comes in, on any machine that is fast enough to keep up.
//! * *the n-th decision on each of 10,000 keys*: the n-th pass over the keys. The server holds 20,000 other keys, which have made
//!   its tables as large as they will be: loading sizes them, and growing them is no part of the count.
//! * *commands of others*: many, on a server with the module, which knows some logs, and on one without, which holds as many
//!   other keys with an expiry.
//! * *other servers*: a busy key on those that `scripts/servers.sh fetch` has got. Rows of absent ones stay as they are.
//!
//! Servers run at their default settings. `benches/instructions.txt` holds what was counted. For the commands of this module it
//! is a budget: exceeding it by more than 2 % is a failure, and so is making a command of others dearer, beside what it takes
//! without the module, by one percent more than is written. `make instructions` runs this. `UPDATE=1` writes the file
//! instead. `ONLY=word` takes rows with that in their names: `refused`, `first`, `XADD`, `Valkey`. With `RATELIMIT_SERVER` the
//! rows without a server's name are counted on that one, and compared with nothing.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::contenders::{
    BESIDE, Contender, HIT, HIT_REFUSED, Module, NTH_HITS, NTH_THROTTLES, OTHERS, Steady, THROTTLE, THROTTLE_IDLE,
    variants,
};
use support::counts::Counts;
use support::servers::{fetched, label, server_program};
use support::traffic::{Choice, Runner};
use support::{Ask, wait_for};

/// Logs of 500 hits, which are there after a short time.
const STEADY: Steady = Steady { keys: 10, seconds: 5 };

/// Decisions that are not counted, and those that are. Where logs fill up, they are full after the first, and as many hits leave
/// during the second.
const FULL: [usize; 2] = [5_500, 5_000];
const QUICK: [usize; 2] = [2_000, 10_000];

/// Decisions sent at once, and the time for them: each log gets a hundred hits a second, which is no more than the dearest
/// contender takes under callgrind.
const SLICE: usize = 100;
const PACE: Duration = Duration::from_millis(100);

/// Keys of which each gets the n-th decision, and others.
const KEYS: usize = 10_000;
const OTHER_KEYS: usize = 20_000;

/// Keys that are there before others' commands come.
const THERE: usize = 20_000;

/// A server under callgrind, with the data that another one had.
struct Counting {
    runner: Runner,
    /// How often it has written what it executed.
    dumps: usize,
}

impl Counting {
    fn start(runner: Runner) -> Self {
        let Runner { contender, server, mut client, .. } = runner;
        client.run("SAVE");
        let setup = server.setup();
        let dir = server.kill();
        let prepared = Contender { prepare: |_| {}, ..contender };
        Self { runner: Runner::on(prepared, setup.under_callgrind().start_in(dir)), dumps: 0 }
    }

    /// Over one connection, so that a turn of the server's loop takes all of it, whatever comes first elsewhere.
    fn send(&mut self, keys: &[usize]) {
        self.runner.send_over(keys, SLICE, 1);
    }

    /// Instructions since the last time.
    fn count(&mut self) -> u64 {
        let pid = self.runner.server.pid().to_string();
        let output = Command::new("callgrind_control").args(["-d", "count", &pid]).output().unwrap();
        self.dumps += 1;
        let file = self.runner.server.dir().join(format!("callgrind.out.{}", self.dumps));
        let read = || {
            fs::read_to_string(&file).ok()?.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
        };
        wait_for("callgrind writes its totals", || output.status.success() && read().is_some());
        read().unwrap()
    }
}

fn start(contender: &Contender, program: &str) -> Runner {
    // A server that ticks less often executes less that is nobody's.
    Runner::start(contender.clone(), contender.setup().args(["--hz", "1"]).program(program))
}

/// Instructions of one decision on a busy key.
fn busy(contender: &Contender, program: &str) -> u64 {
    let [before, counted] = if contender.fills_up { FULL } else { QUICK };
    let mut server = Counting::start(start(contender, program));
    let start = Instant::now();
    for (slice, from) in (0..before + counted).step_by(SLICE).enumerate() {
        if from == before {
            server.count();
        }
        if contender.fills_up {
            sleep((PACE * slice as u32).saturating_sub(start.elapsed()));
        }
        let keys: Vec<usize> = (from..from + SLICE).map(|at| at % contender.keys).collect();
        server.send(&keys);
    }
    server.count() / counted as u64
}

/// Strings that expire some day.
fn other_keys(client: &mut redis::Connection) {
    fill(client, "other", OTHER_KEYS);
}

fn keys_of_others(client: &mut redis::Connection) {
    fill(client, "key", THERE);
}

fn fill(client: &mut redis::Connection, name: &str, keys: usize) {
    let mut pipe = redis::pipe();
    for key in 0..keys {
        pipe.cmd("SET").arg(format!("{name}:{key:012}")).arg(1).arg("EX").arg(1_000_000).ignore();
    }
    pipe.exec(client).unwrap();
}

/// Instructions of a command of others: the least of three servers, because the seed of a server's hash tables decides what the
/// look-up of its name costs.
fn of_others(line: &str, module: Module, program: &str) -> u64 {
    (0..3).map(|_| once_of_others(line, module.clone(), program)).min().unwrap()
}

fn once_of_others(line: &str, module: Module, program: &str) -> u64 {
    let mut contender = Contender { module, ..Contender::new("", line) };
    if !line.starts_with("XADD") {
        contender.prepare = keys_of_others;
    }
    // Streams are few and long. Of strings each is taken once.
    let keys = if line.starts_with("XADD") { 100 } else { THERE };
    let mut server = Counting::start(start(&contender, program));
    // Without the module, other keys with an expiry stand in place of the logs: a server that has any looks for that of each key.
    for key in 0..100 {
        let line = match contender.module {
            Module::None => format!("SET log:{key} 1 EX 3600"),
            _ => format!("RATELIMIT.HIT log:{key} 100 1h"),
        };
        server.runner.client.run(&line);
    }
    let [before, counted] = QUICK;
    for from in (0..before + counted).step_by(SLICE) {
        if from == before {
            server.count();
        }
        server.send(&(from..from + SLICE).map(|at| at % keys).collect::<Vec<_>>());
    }
    server.count() / counted as u64
}

/// Rows as they are counted.
struct Rows {
    only: String,
    written: Counts,
    counted: Counts,
    /// Whether what is written was counted on this server.
    is_same: bool,
    exceeded: Vec<String>,
}

impl Rows {
    fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    fn add(&mut self, name: &str, count: u64, is_same: bool) {
        let known = self.written.get(name);
        let shown = known.filter(|_| is_same).map_or("-".to_owned(), |known| known.to_string());
        println!("{name:<44} {count:>12} {shown:>12}");
        self.counted.set(name, count);
        if is_same && name.contains("HIT") && known.is_some_and(|known| count * 100 > known * 102) {
            self.exceeded.push(name.to_owned());
        }
    }

    fn busy_keys(&mut self, program: &str) {
        for contender in variants(STEADY) {
            if self.wants(&contender.name) {
                self.add(&contender.name, busy(&contender, program), self.is_same);
            }
        }
    }

    fn nth(&mut self, contender: &Contender, names: &[&str], program: &str) {
        let Some(last) = names.iter().rposition(|name| self.wants(name)) else { return };
        let mut server = Counting::start(start(contender, program));
        server.count();
        for (pass, name) in names[..=last].iter().enumerate() {
            for keys in Choice::InTurn(KEYS).keys(pass, KEYS).chunks(SLICE) {
                server.send(keys);
            }
            let count = server.count() / KEYS as u64;
            if self.wants(name) {
                self.add(name, count, self.is_same);
            }
        }
    }

    fn others(&mut self, program: &str) {
        for (name, line) in OTHERS {
            let beside = format!("{name}{BESIDE}");
            if !self.wants(&beside) {
                continue;
            }
            let without = of_others(line, Module::None, program);
            let with = of_others(line, Module::Ratelimit, program);
            let more = |with: u64, without: u64| (with as f64 / without as f64 - 1.0) * 100.0;
            let written = self.written.get(&beside).zip(self.written.get(name)).filter(|_| self.is_same);
            self.add(name, without, self.is_same);
            self.add(&beside, with, self.is_same);
            let now = more(with, without);
            let known = written.map(|(with, without)| more(with, without));
            let shown = known.map_or("-".to_owned(), |known| format!("{known:.1} %"));
            println!("{:<44} {:>12} {shown:>12}", "    more", format!("{now:.1} %"));
            if known.is_some_and(|known| now > known + 1.0) {
                self.exceeded.push(beside);
            }
        }
    }

    fn matrix(&mut self) {
        for (server, program) in fetched() {
            for contender in variants(STEADY) {
                let name = format!("{server}: {}", contender.name);
                if [HIT, HIT_REFUSED, THROTTLE, THROTTLE_IDLE].contains(&&contender.name[..]) && self.wants(&name) {
                    self.add(&name, busy(&contender, &program), true);
                }
            }
        }
        let there: Vec<String> = fetched().into_iter().map(|(server, _)| server).collect();
        for server in self.written.servers().filter(|server| !there.contains(server)) {
            println!("{server}: skipped, scripts/servers.sh fetch has not fetched it");
            self.counted.take_over(&self.written, &server);
        }
    }
}

fn main() {
    let program = server_program();
    let server = label(&program);
    let updates = std::env::var_os("UPDATE").is_some();
    let written = Counts::read();
    let is_same = written.server == server;
    if !is_same {
        println!("this is {server}; what is written down was counted on {}", written.server);
    }
    println!("{:<44} {:>12} {:>12}", "", "instructions", "written down");
    let only = std::env::var("ONLY").unwrap_or_default();
    // Rows that are not counted stay, unless all are.
    let mut counted = if only.is_empty() { Counts::default() } else { Counts::read() };
    counted.server = server;
    let mut rows = Rows { only, written, counted, is_same, exceeded: Vec::new() };
    rows.busy_keys(&program);
    let nth = |line: &str| Contender { prepare: other_keys, ..Contender::new("", line) };
    rows.nth(&nth("RATELIMIT.HIT KEY 1000000 1h"), &NTH_HITS, &program);
    rows.nth(&nth("CL.THROTTLE KEY 1000000 1 3600 1"), &NTH_THROTTLES, &program);
    rows.others(&program);
    if std::env::var_os("RATELIMIT_SERVER").is_none() {
        rows.matrix();
    }
    if updates {
        assert!(std::env::var_os("RATELIMIT_SERVER").is_none(), "UPDATE=1 writes what this machine's own server takes");
        rows.counted.write();
    } else {
        assert!(rows.exceeded.is_empty(), "more than is written down: {:?}", rows.exceeded);
    }
}
