//! Everything that the module can be asked, and the alternatives, on a hundred keys.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use support::contenders::{Steady, variants};
use support::servers::free_port;
use support::traffic::{Choice, Runner, median};
use support::{root, wait_for};

use crate::keys::SLICE;
use crate::load::{Load, redis_benchmark, to};

/// With them a log holds the hits of the window, and as many leave as come.
pub const STEADY: Steady = Steady { keys: 100, seconds: 10 };

/// Requests of redis-benchmark, and decisions of one client alone.
const REQUESTS: usize = 30_000;
const ALONE: usize = 2_000;

/// One contender: values of the rounds.
#[derive(Default)]
pub struct Variant {
    pub name: String,
    /// Microseconds of the server's CPU for a decision.
    cpu: Vec<f64>,
    /// None where a decision takes several commands, which redis-benchmark does not send.
    pub loads: Vec<Load>,
    /// Microseconds that one client waits for one decision.
    alone: Vec<f64>,
}

impl Variant {
    pub fn cpu(&self) -> f64 {
        median(self.cpu.clone())
    }

    pub fn alone(&self) -> f64 {
        median(self.alone.clone())
    }
}

pub struct Variants {
    pub all: Vec<Variant>,
    /// Of throttlecrab-server. Empty where it could not be built.
    pub crab: Vec<Load>,
}

impl Variants {
    pub fn measure(rounds: usize) -> Self {
        let mut runners: Vec<Runner> = variants(STEADY)
            .into_iter()
            .map(|contender| {
                let setup = contender.setup();
                Runner::start(contender, setup)
            })
            .collect();
        let name = |runner: &Runner| Variant { name: runner.contender.name.clone(), ..Variant::default() };
        let mut all: Vec<Variant> = runners.iter().map(name).collect();
        let crab = Throttlecrab::start();
        let mut crab_loads = Vec::new();
        // The first round is for filling up.
        for round in 0..=rounds {
            println!("variants on {} keys, round {round} of {rounds}", STEADY.keys);
            for (runner, variant) in runners.iter_mut().zip(&mut all) {
                let keys = Choice::InTurn(runner.contender.keys).keys(round, SLICE);
                let cost = runner.cost(&keys);
                if round > 0 {
                    variant.cpu.push(cost);
                }
            }
            if round % 3 == 1 {
                for (runner, variant) in runners.iter_mut().zip(&mut all) {
                    if let [template] = &runner.contender.templates[..] {
                        let target = to(&runner.server);
                        variant.loads.push(redis_benchmark(&target, template, runner.contender.keys, REQUESTS));
                    }
                    variant.alone.push(alone(runner));
                }
                if let Some(crab) = &crab {
                    let target = ["-h", "127.0.0.1", "-p", &crab.port.to_string()].map(str::to_owned);
                    let template = "THROTTLE KEY 1000000 1000000 10";
                    crab_loads.push(redis_benchmark(&target, template, STEADY.keys, REQUESTS));
                }
            }
        }
        for runner in &mut runners {
            runner.contender.check(&mut runner.client, 0);
        }
        Self { all, crab: crab_loads }
    }

    pub fn of(&self, name: &str) -> &Variant {
        self.all.iter().find(|variant| variant.name == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// How many times the CPU time of another a contender takes.
    pub fn cpu_ratio(&self, one: &str, other: &str) -> f64 {
        let pairs = self.of(one).cpu.iter().zip(&self.of(other).cpu);
        median(pairs.map(|(one, other)| one / other).collect())
    }
}

/// One decision after the other, over one connection.
fn alone(runner: &mut Runner) -> f64 {
    let start = Instant::now();
    for at in 0..ALONE {
        // Each command waits for the reply to the one before.
        runner.contender.decision(&mut runner.client, at % runner.contender.keys);
    }
    start.elapsed().as_secs_f64() / ALONE as f64 * 1e6
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
        command.args(["--redis", "--redis-host", "127.0.0.1", "--redis-port", &port.to_string()]);
        command.args(["--log-level", "error"]);
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
