//! What a decision costs a server, beside the alternatives. `make bench` prints it, and with `UPDATE=1` writes
//! docs/benchmarks.md and its chart.
//!
//! Every contender has its own server. They take turns in short slices, round after round, so that whatever else the machine
//! does affects all of them. Reported are medians of the rounds; each ratio is taken within one round.

use std::fmt::Write;
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use redis::Connection;
use support::contenders::{Contender, Module, all, load_scripts};
use support::servers::{cpu_time, free_port};
use support::{Ask, Server, root, wait_for, words};

/// Decisions of a slice, and of one batch.
const SLICE: usize = 20_000;
const BATCH: usize = 50;

/// Connections that send batches at the same time.
const PIPELINES: usize = 10;

const ROUNDS: usize = 15;

/// Requests of redis-benchmark in its own slice.
const REQUESTS: usize = 30_000;

/// Connections that each wait for one answer at a time.
const CONNECTIONS: usize = 50;

/// Names of contenders.
const ADMITTED: &str = "HIT admitted";
const REFUSED: &str = "HIT refused";
const THREE_TIERS: &str = "HIT admitted, three tiers";

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Runner {
    contender: Contender,
    server: Server,
    client: Connection,
    clients: Vec<Connection>,
    done: usize,
    /// Microseconds of the server's CPU for a decision, one value a round.
    cpu: Vec<f64>,
    /// What redis-benchmark reports, one element a round.
    loads: Vec<Load>,
    /// Microseconds that one client waits for one decision.
    alone: Vec<f64>,
}

/// Many clients that wait for each answer.
#[derive(Clone, Copy, Default)]
struct Load {
    per_second: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    p999: f64,
}

impl Runner {
    fn new(contender: Contender) -> Self {
        let server = contender.setup().start();
        let mut client = server.connect();
        load_scripts(&mut client);
        (contender.prepare)(&mut client);
        let clients = (0..PIPELINES).map(|_| server.connect()).collect();
        Self { contender, server, client, clients, done: 0, cpu: Vec::new(), loads: Vec::new(), alone: Vec::new() }
    }

    /// Sends this many decisions in pipelined batches, packed beforehand, over connections that keep the server busy.
    fn pipelined(&mut self, decisions: usize) {
        let replies = BATCH * self.contender.templates.len();
        let batches: Vec<Vec<u8>> = (self.done..self.done + decisions)
            .step_by(BATCH)
            .map(|from| self.contender.batch(from, BATCH).get_packed_pipeline())
            .collect();
        self.done += decisions;
        let before = cpu_time(self.server.pid());
        for batches in batches.chunks(PIPELINES) {
            for (client, batch) in self.clients.iter_mut().zip(batches) {
                client.send_packed_command(batch).unwrap();
            }
            for (client, _) in self.clients.iter_mut().zip(batches) {
                for _ in 0..replies {
                    client.recv_response().unwrap();
                }
            }
        }
        let took = cpu_time(self.server.pid()) - before;
        self.cpu.push(took.as_secs_f64() / decisions as f64 * 1e6);
    }

    /// One decision after the other, over one connection.
    fn alone(&mut self, decisions: usize) {
        let start = Instant::now();
        for at in 0..decisions {
            // Each command waits for the reply to the one before.
            for cmd in self.contender.batch(at, 1).cmd_iter() {
                self.client.ask(cmd).unwrap();
            }
        }
        self.alone.push(start.elapsed().as_secs_f64() / decisions as f64 * 1e6);
    }

    fn load(&mut self) {
        let socket = self.server.socket();
        let target = ["-s", socket.to_str().unwrap()];
        self.loads.push(redis_benchmark(&target, &self.contender.templates[0]));
    }
}

/// Runs redis-tools' own load generator. Its keys look like `key:000000000042`.
fn redis_benchmark(target: &[&str], template: &str) -> Load {
    let line = template.replace("KEY", "key:__rand_int__");
    let mut command = Command::new("redis-benchmark");
    command.args(target).args(["-c", &CONNECTIONS.to_string(), "-n", &REQUESTS.to_string(), "-r", "100"]);
    let output = command.args(line.split(' ')).stderr(Stdio::null()).output().expect("redis-benchmark is missing");
    let text = String::from_utf8_lossy(&output.stdout);
    let per_second = text.lines().find_map(|line| line.trim().strip_prefix("throughput summary: ")?.split(' ').next());
    // The first line of the cumulative distribution that reaches this percentage.
    let at = |percent: f64| {
        text.lines()
            .filter_map(|line| {
                let (share, rest) = line.trim().split_once("% <= ")?;
                let milliseconds = rest.split(' ').next()?.parse::<f64>().ok()?;
                (share.parse::<f64>().ok()? >= percent).then_some(milliseconds)
            })
            .next()
            .unwrap_or_else(|| panic!("redis-benchmark: {text}"))
    };
    Load { per_second: per_second.unwrap().parse().unwrap(), p50: at(50.0), p99: at(99.0), p999: at(99.9) }
}

/// throttlecrab-server, a limiter with its own server, if `make bench` could build it.
struct Throttlecrab {
    child: Child,
    port: u16,
}

impl Throttlecrab {
    fn start() -> Option<Self> {
        let program = root().join("target/peers/bin/throttlecrab-server");
        if !program.exists() {
            println!("throttlecrab-server is left out: it could not be built, which needs protobuf-compiler");
            return None;
        }
        let port = free_port();
        let mut command = Command::new(program);
        command.args([
            "--redis",
            "--redis-host",
            "127.0.0.1",
            "--redis-port",
            &port.to_string(),
            "--log-level",
            "error",
        ]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("throttlecrab-server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Self { child, port })
    }
}

impl Drop for Throttlecrab {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes by which a server's memory grows with each of this many calls.
fn growth(module: Module, calls: usize, line: impl Fn(usize) -> redis::Cmd) -> f64 {
    let server = module.setup().start();
    let mut client = server.connect();
    load_scripts(&mut client);
    client.ask(&line(0)).unwrap();
    let before = client.used_memory();
    // In small batches, because a client's buffers are part of what grows.
    for from in (1..=calls).step_by(100) {
        let mut pipe = redis::pipe();
        for at in from..from + 100 {
            pipe.add_command(line(at)).ignore();
        }
        pipe.exec(&mut client).unwrap();
    }
    (client.used_memory() - before) as f64 / calls as f64
}

/// What others notice when a key with a million expired hits is hit again: the time of that hit in microseconds, and the
/// longest wait of a client that keeps asking meanwhile, in milliseconds, beside its p99.9.
struct Stall {
    hit: f64,
    longest: f64,
    p999: f64,
}

fn stall() -> Stall {
    const HITS: u64 = 1_000_000;
    let server = Module::Ratelimit.setup().start();
    let mut client = server.connect();
    for batch in 0..HITS / 1_000 {
        let mut pipe = redis::pipe();
        for at in batch * 1_000..(batch + 1) * 1_000 {
            // In the year 2001.
            pipe.cmd("XADD")
                .arg("key")
                .arg(format!("{}-{}", 1_000_000_000_000 + at, at + 1))
                .arg("60000ms")
                .arg(1)
                .ignore();
        }
        pipe.exec(&mut client).unwrap();
    }
    let stop = AtomicBool::new(false);
    let mut waits = Vec::new();
    let hit = std::thread::scope(|scope| {
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
        std::thread::sleep(Duration::from_millis(200));
        client.run("CONFIG RESETSTAT");
        assert_eq!(client.answer("RATELIMIT.HIT key 2000000 60s")[0], 1);
        let stats = client.info("commandstats", "cmdstat_ratelimit.hit");
        // Freeing in the background takes longer than the command.
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Relaxed);
        waits = other.join().unwrap();
        let usec = stats.split(',').find_map(|part| part.strip_prefix("usec=")).unwrap();
        usec.parse().unwrap()
    });
    assert_eq!(client.integer("XLEN key"), 1);
    waits.sort_by(f64::total_cmp);
    Stall { hit, longest: waits[waits.len() - 1], p999: waits[waits.len() * 999 / 1_000] }
}

fn instructions() -> Vec<(String, u64)> {
    let text = fs::read_to_string(root().join("benches/instructions.txt")).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.rsplit_once(": "));
    pairs.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
}

/// Horizontal bars, the same on a light and on a dark page.
fn chart(title: &str, unit: &str, bars: &[(String, f64)]) -> String {
    let most = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let height = 60 + bars.len() * 26;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>{title}</title>\n\
         <style>text {{ fill: #333 }} .own {{ fill: #2a7ab0 }} .peer {{ fill: #999 }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} .own {{ fill: #5ab0e8 }} .peer {{ fill: #888 }} }}</style>\n\
         <text x=\"10\" y=\"24\" font-size=\"15\">{title}</text>\n"
    );
    for (at, (name, value)) in bars.iter().enumerate() {
        let (y, width) = (44 + at * 26, value / most * 380.0);
        let class = if name.contains("HIT") { "own" } else { "peer" };
        let _ = writeln!(
            svg,
            "<text x=\"250\" y=\"{}\" text-anchor=\"end\">{name}</text>\
             <rect class=\"{class}\" x=\"258\" y=\"{y}\" width=\"{width:.1}\" height=\"18\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value:.2} {unit}</text>",
            y + 14,
            264.0 + width,
            y + 14
        );
    }
    svg + "</svg>\n"
}

fn first_line(path: &str, prefix: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
    line.trim_start_matches([' ', '\t', ':']).to_owned()
}

/// What all contenders did in the rounds.
struct Results {
    runners: Vec<Runner>,
    /// Of throttlecrab-server. Empty where it could not be built.
    crab: Vec<Load>,
}

impl Results {
    fn measure() -> Self {
        let mut runners: Vec<Runner> = all().into_iter().map(Runner::new).collect();
        for runner in &mut runners {
            runner.pipelined(SLICE);
            runner.cpu.clear();
        }
        let crab = Throttlecrab::start();
        let mut crab_loads = Vec::new();
        for round in 0..ROUNDS {
            println!("round {} of {ROUNDS}", round + 1);
            for runner in &mut runners {
                runner.pipelined(SLICE);
            }
            if round % 3 == 0 {
                for runner in &mut runners {
                    runner.load();
                    runner.alone(2_000);
                }
                if let Some(crab) = &crab {
                    let port = crab.port.to_string();
                    let target = ["-h", "127.0.0.1", "-p", &port];
                    crab_loads.push(redis_benchmark(&target, "THROTTLE KEY 1000000 1000000 10"));
                }
            }
        }
        Self { runners, crab: crab_loads }
    }

    fn of(&self, name: &str) -> &Runner {
        self.runners.iter().find(|runner| runner.contender.name == name).unwrap()
    }

    /// How many times the CPU time of another a contender takes.
    fn cpu_ratio(&self, one: &str, other: &str) -> f64 {
        let pairs = self.of(one).cpu.iter().zip(&self.of(other).cpu);
        median(pairs.map(|(one, other)| one / other).collect())
    }

    /// How many times the requests a second of another a contender serves.
    fn rate_ratio(&self, one: &str, other: &str) -> f64 {
        let pairs = self.of(one).loads.iter().zip(&self.of(other).loads);
        median(pairs.map(|(one, other)| one.per_second / other.per_second).collect())
    }
}

/// The title, and what the columns of the first table mean.
fn introduction(version: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "# Benchmarks\n\n\
         Written by `UPDATE=1 make bench` on Redis {version}, {}, {cores} cores. Machines differ: compare the ratios.\n\n\
         ![CPU time of the server for one decision](benchmarks.svg)\n\n\
         ## One decision\n\n\
         * **instructions** of the server, by callgrind (`make instructions`). They repeat, whatever else the machine does.\n\
         * **CPU** of the server in microseconds, in pipelines of {BATCH} over {PIPELINES} connections, and its ratio to `INCR`.\n\
         * **requests a second**, **p50**, **p99** and **p99.9** in milliseconds: {CONNECTIONS} connections that wait for each\n  \
           answer (redis-benchmark, unix socket).\n\
         * **alone**: microseconds that one client waits for one decision.\n\n\
         Medians of {ROUNDS} rounds on 100 keys. The contenders take turns, each on its own server. Where hits are admitted, the\n\
         window is ten seconds and the log holds the hits of that time.\n\n",
        first_line("/proc/cpuinfo", "model name")
    )
}

fn decisions(results: &Results) -> String {
    let mut text = String::from(
        "| | instructions | CPU | / INCR | requests a second | p50 | p99 | p99.9 | alone |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let instructions = instructions();
    for runner in &results.runners {
        let name = runner.contender.name;
        let counted =
            instructions.iter().find(|(known, _)| known == name).map_or("-".to_owned(), |(_, count)| count.to_string());
        let (cpu, ratio) = (median(runner.cpu.clone()), results.cpu_ratio(name, "INCR"));
        let _ = write!(text, "| {name} | {counted} | {cpu:.2} | {ratio:.2} |");
        // redis-benchmark sends one command at a time.
        if runner.contender.templates.len() > 1 {
            text += " - | - | - | - |";
        } else {
            text += &load_columns(&runner.loads);
        }
        let _ = writeln!(text, " {:.0} |", median(runner.alone.clone()));
    }
    if !results.crab.is_empty() {
        let _ =
            writeln!(text, "| throttlecrab-server 0.4.40, over TCP | - | - | - |{} - |", load_columns(&results.crab));
    }
    text
}

fn load_columns(loads: &[Load]) -> String {
    let of = |part: fn(&Load) -> f64| median(loads.iter().map(part).collect());
    let [rate, p50, p99, p999] = [of(|l| l.per_second), of(|l| l.p50), of(|l| l.p99), of(|l| l.p999)];
    format!(" {rate:.0} | {p50:.2} | {p99:.2} | {p999:.2} |")
}

const CPU: &str = "CPU time of the server";

/// The ratios that README shows too.
fn ratios(results: &Results) -> String {
    let requests = "requests a second, 50 connections";
    let rows = [
        (CPU, "CL.THROTTLE admitting, over HIT admitting", results.cpu_ratio("CL.THROTTLE admitted", ADMITTED)),
        (CPU, "CL.THROTTLE refusing, over HIT refusing", results.cpu_ratio("CL.THROTTLE refused", REFUSED)),
        (CPU, "the plain recipe in Lua, over HIT admitting", results.cpu_ratio("Lua: the plain recipe", ADMITTED)),
        (CPU, "a sorted set in Lua, over HIT admitting", results.cpu_ratio("Lua: sorted set", ADMITTED)),
        (CPU, "a fixed window in Lua, over HIT admitting", results.cpu_ratio("Lua: fixed window", ADMITTED)),
        (requests, "HIT admitting, over INCR", results.rate_ratio(ADMITTED, "INCR")),
        (requests, "HIT refusing, over INCR", results.rate_ratio(REFUSED, "INCR")),
    ];
    let mut text = String::from("| | | times |\n| --- | --- | ---: |\n");
    for (measure, what, value) in rows {
        let _ = writeln!(text, "| {measure} | {what} | {value:.2} |");
    }
    text
}

fn further_ratios(results: &Results) -> String {
    let mut text = String::new();
    for (what, one, other) in [
        ("INCR, over HIT refusing", "INCR", REFUSED),
        (
            "a million hits in the log, over what comes in ten seconds",
            "HIT admitted, 1,000,000 hits in the log",
            ADMITTED,
        ),
        ("COST 1000, over COST 1", "HIT admitted, COST 1000", "HIT admitted, COST 1"),
        ("three tiers, over one", THREE_TIERS, ADMITTED),
        ("no table of cursors, over one", "HIT admitted, no cursors", ADMITTED),
    ] {
        let _ = writeln!(text, "| {CPU} | {what} | {:.2} |", results.cpu_ratio(one, other));
    }
    text
}

fn cpu_chart(results: &Results) -> String {
    let shown = [
        REFUSED,
        ADMITTED,
        THREE_TIERS,
        "INCR",
        "CL.THROTTLE refused",
        "CL.THROTTLE admitted",
        "Lua: fixed window",
        "Lua: the plain recipe",
        "Lua: sorted set",
    ];
    let mut bars: Vec<(String, f64)> =
        shown.iter().map(|name| ((*name).to_owned(), median(results.of(name).cpu.clone()))).collect();
    bars.sort_by(|one, other| one.1.total_cmp(&other.1));
    chart("CPU time of the server for one decision, in microseconds", "µs", &bars)
}

fn memory() -> String {
    const CALLS: usize = 100_000;
    let contenders = all();
    let each = |name: &str| {
        let contender = contenders.iter().find(|contender| contender.name == name).unwrap();
        let template = contender.templates[0].replace("10s", "1h").replace(" 10000", " 3600000");
        growth(contender.module, CALLS, |at| words(&template.replace("KEY", &format!("key:{at:012}"))))
    };
    let further = |template: &'static str| growth(Module::Ratelimit, CALLS, move |_| words(template));
    let mut text = String::from(
        "\n## Memory\n\nGrowth of `used_memory` in bytes, with `stream-node-max-bytes 512`: for each of 100,000 new keys, and for each of\n\
         100,000 hits on one key. This includes the key's name and its entries in the server's two dictionaries.\n\n\
         | | bytes |\n| --- | ---: |\n",
    );
    for (what, bytes) in [
        ("a key with one hit", each(ADMITTED)),
        ("a key of CL.THROTTLE", each("CL.THROTTLE admitted")),
        ("a key with one hit of the plain recipe in Lua, which never expires", each("Lua: the plain recipe")),
        ("a key with one hit of the sorted set in Lua", each("Lua: sorted set")),
        ("each further hit", further("RATELIMIT.HIT key 1000000 1h")),
        ("each further hit of COST 1000", further("RATELIMIT.HIT key 1000000000 1h COST 1000")),
    ] {
        let _ = writeln!(text, "| {what} | {bytes:.1} |");
    }
    text
}

fn longest_command() -> String {
    let stalls: Vec<Stall> = (0..3).map(|_| stall()).collect();
    let of = |part: fn(&Stall) -> f64| median(stalls.iter().map(part).collect());
    format!(
        "\n## The longest command\n\nA key with 1,000,000 hits, all expired, is hit again. The command takes {:.0} microseconds, because the log is\n\
         unlinked and freed in the background. A client that sends PING meanwhile waits {:.2} ms at p99.9 and {:.2} ms at most\n\
         (medians of three runs).\n",
        of(|stall| stall.hit),
        of(|stall| stall.p999),
        of(|stall| stall.longest)
    )
}

fn main() {
    let mut results = Results::measure();
    let version = results.runners[0].client.info("server", "redis_version");
    let ratios = ratios(&results);
    let mut text = introduction(&version) + &decisions(&results);
    let _ = write!(text, "\n## Ratios\n\n{ratios}{}", further_ratios(&results));
    let chart = cpu_chart(&results);
    // Their servers would disturb what follows.
    drop(results);
    text += &memory();
    text += &longest_command();
    println!("\n{text}");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join("docs/benchmarks.md"), text).unwrap();
        fs::write(root().join("docs/benchmarks.svg"), chart).unwrap();
        let readme = fs::read_to_string(root().join("README.md")).unwrap();
        let (before, rest) = readme.split_once("make bench -->\n").expect("README has a place for the ratios");
        let (_, after) = rest.split_once("<!-- end").expect("README has an end of the ratios");
        fs::write(root().join("README.md"), format!("{before}make bench -->\n{ratios}<!-- end{after}")).unwrap();
    }
}
