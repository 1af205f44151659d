//! What a decision costs on few and on many keys. The key counts come one after the other, each with new servers.

use std::fs;

use support::Ask;
use support::contenders::{Contender, HIT, HIT_REFUSED, INCR, THROTTLE, THROTTLE_REFUSED, any_number_of_keys};
use support::traffic::{Choice, Runner, median};

use crate::load::{Load, redis_benchmark, to};
use crate::options::Options;

/// Decisions of a slice.
pub const SLICE: usize = 20_000;

/// Rounds in which keys are created, at least.
const ROUNDS_OF_CREATING: usize = 5;

/// Keys of which the first decision is worth reporting: fewer are created in no time.
const ENOUGH: usize = 10_000;

/// Rounds and requests of redis-benchmark.
const LOADS: usize = 7;
const REQUESTS: usize = 60_000;

/// What one number of keys, taken in one way, cost each contender: microseconds of CPU, one value a round.
pub struct Row {
    pub keys: usize,
    /// `new`, `uniform` or `zipfian`.
    pub order: &'static str,
    costs: Vec<(String, Vec<f64>)>,
}

impl Row {
    pub fn costs(&self, name: &str) -> &[f64] {
        self.costs.iter().find_map(|(known, costs)| (known == name).then_some(costs)).expect("it was measured")
    }

    pub fn cost(&self, name: &str) -> f64 {
        median(self.costs(name).to_vec())
    }

    /// How many times the cost of another one has.
    pub fn ratio(&self, one: &str, other: &str) -> f64 {
        let pairs = self.costs(one).iter().zip(self.costs(other));
        median(pairs.map(|(one, other)| one / other).collect())
    }
}

/// Everything on one server program.
#[derive(Default)]
pub struct Sweep {
    pub rows: Vec<Row>,
    /// On the most keys, many clients that wait for each answer: contenders, and a load for each round.
    pub loads: Vec<(String, Vec<Load>)>,
    /// The most that the servers of one round held together, in bytes.
    pub memory: u64,
}

impl Sweep {
    /// On the server under test, or on another, where refusals are left out.
    pub fn measure(options: &Options, program: Option<&str>, keys: &[usize]) -> Self {
        let mut sweep = Self::default();
        for &keys in keys {
            sweep.add(options, program, keys);
        }
        sweep
    }

    fn add(&mut self, options: &Options, program: Option<&str>, keys: usize) {
        println!("{keys} keys");
        let mut contenders = any_number_of_keys(keys);
        if program.is_some() {
            contenders.retain(|contender| !contender.name.contains("refused"));
        }
        if let Some(before) = &options.before {
            let own: Vec<_> =
                contenders.iter().filter(|contender| contender.name.starts_with("HIT")).cloned().collect();
            contenders.extend(own.iter().map(|contender| contender.with_module("before", before.clone())));
        }
        let start = |contender: Contender| {
            let setup = contender.setup();
            Runner::start(contender, program.map_or(setup.clone(), |program| setup.program(program)))
        };
        let mut runners: Vec<Runner> = contenders.into_iter().map(start).collect();
        let Some(new) = self.create(&mut runners, keys) else { return };
        if keys >= ENOUGH {
            self.rows.push(row(keys, "new", &runners, new));
        }
        for (order, choice) in [("uniform", Choice::Uniform(keys)), ("zipfian", Choice::zipfian(keys))] {
            if options.wants(order) {
                let mut costs = vec![Vec::new(); runners.len()];
                for round in 0..=options.rounds {
                    let drawn = choice.keys(round, SLICE);
                    for (runner, costs) in runners.iter_mut().zip(&mut costs) {
                        costs.push(runner.cost(&drawn));
                    }
                }
                // The first round is for warming up.
                for costs in &mut costs {
                    costs.remove(0);
                }
                self.rows.push(row(keys, order, &runners, costs));
            }
            settled(&mut runners, keys);
        }
        if keys == 1_000_000 && program.is_none() && options.wants("latency") {
            self.loads = loads(&runners, keys);
            settled(&mut runners, keys);
        }
    }

    /// Creates the keys, brings them into their steady state, and tells what the first decisions cost. None where the machine has too little memory.
    fn create(&mut self, runners: &mut [Runner], keys: usize) -> Option<Vec<Vec<f64>>> {
        let slice = SLICE.min(keys.div_ceil(ROUNDS_OF_CREATING));
        let in_turn = Choice::InTurn(keys);
        let mut costs = vec![Vec::new(); runners.len()];
        let used = |runners: &mut [Runner]| -> u64 {
            runners.iter_mut().map(|runner| runner.client.info("memory", "used_memory").parse::<u64>().unwrap()).sum()
        };
        let before = used(runners);
        for round in 0..keys.div_ceil(slice) {
            let chosen = in_turn.keys(round, slice);
            for (runner, costs) in runners.iter_mut().zip(&mut costs) {
                costs.push(runner.cost(&chosen));
            }
            if round == 0 {
                let needed = (used(runners) - before) * keys.div_ceil(slice) as u64;
                let there = memory_there();
                if needed * 11 / 10 > there {
                    println!("{keys} keys are left out: they need {needed} bytes of memory and there are {there}");
                    return None;
                }
            }
        }
        for runner in runners.iter_mut() {
            for _ in 1..runner.contender.touches {
                for round in 0..keys.div_ceil(slice) {
                    runner.send(&in_turn.keys(round, slice));
                }
            }
        }
        settled(runners, keys);
        self.memory = self.memory.max(used(runners));
        Some(costs)
    }
}

fn row(keys: usize, order: &'static str, runners: &[Runner], costs: Vec<Vec<f64>>) -> Row {
    let names = runners.iter().map(|runner| runner.contender.name.clone());
    let row = Row { keys, order, costs: names.zip(costs).collect() };
    for (name, _) in &row.costs {
        let over = if name.starts_with("HIT") { format!("{:8.2}", row.ratio(peer(name), name)) } else { String::new() };
        println!("{:>9} {:<8} {name:<34} {:7.2} us {over}", row.keys, row.order, row.cost(name));
    }
    row
}

/// What a contender of this module is compared with.
fn peer(name: &str) -> &'static str {
    if name.contains("refused") { THROTTLE_REFUSED } else { THROTTLE }
}

/// Every contender decides as it should, and no key has expired.
fn settled(runners: &mut [Runner], keys: usize) {
    for runner in runners {
        runner.contender.check(&mut runner.client, 0);
        let there = runner.client.integer("DBSIZE");
        if there != keys as i64 && runner.contender.lasts {
            println!("only {there} keys are left of {}: the machine is too slow", runner.contender.name);
        }
    }
}

/// Bytes that the machine can still give.
fn memory_there() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn loads(runners: &[Runner], keys: usize) -> Vec<(String, Vec<Load>)> {
    let mut loads = Vec::new();
    for round in 0..LOADS {
        for (at, name) in [INCR, THROTTLE, HIT, HIT_REFUSED].iter().enumerate() {
            let runner = runners.iter().find(|runner| runner.contender.name == *name).unwrap();
            if round == 0 {
                loads.push(((*name).to_owned(), Vec::new()));
            }
            let load = redis_benchmark(&to(&runner.server), &runner.contender.templates[0], keys, REQUESTS);
            loads[at].1.push(load);
        }
    }
    loads
}
