//! What a decision costs a server, beside the alternatives.
//!
//! `make bench` measures all of it, which takes a quarter of an hour and some gigabytes of memory. For development, measure
//! a part:
//!
//! ```text
//! QUICK=1 make bench                        10,000 keys, uniform, in some ten seconds
//! QUICK=1 BEFORE=/path/old.so make bench    the same, with another build of the module in the same rounds
//! KEYS=100,1000000 make bench               new, uniform and zipfian on so many keys; KEYS=10000 ONLY=uniform ROUNDS=5
//! ONLY=memory make bench                    one part: new, uniform, zipfian, latency, servers, variants, memory, expiry, stall
//! RATELIMIT_SERVER=/path make bench         on another server
//! UPDATE=1 make bench                       all, and writes docs/benchmarks.md, its chart and the table in README.md
//! ```
//!
//! Every contender has its own server. They take turns in short slices, round after round, so that whatever else the machine
//! does affects all of them. Reported are medians of the rounds; each ratio is taken within one round.

mod chart;
mod keys;
mod load;
mod memory;
mod options;
mod pauses;
mod text;
mod variants;

use std::fs;

use support::root;
use support::servers::{fetched, label, server_program};

use keys::Sweep;
use memory::Memory;
use options::Options;
use pauses::Waits;
use variants::Variants;

/// Rounds on servers other than the one under test, and on how many keys.
const FEWER_ROUNDS: usize = 7;
const FEWER_KEYS: [usize; 3] = [100, 10_000, 1_000_000];

/// What was measured. The rest is empty.
#[derive(Default)]
struct Report {
    server: String,
    rounds: usize,
    sweep: Sweep,
    /// On other servers, with their names.
    others: Vec<(String, Sweep)>,
    variants: Option<Variants>,
    memory: Vec<Memory>,
    long_log: Option<Waits>,
    expiry: Vec<(&'static str, Waits)>,
}

impl Report {
    fn measure(options: &Options) -> Self {
        let mut report = Self { server: label(&server_program()), rounds: options.rounds, ..Self::default() };
        println!("{}, {} rounds", report.server, report.rounds);
        if ["new", "uniform", "zipfian", "latency"].iter().any(|part| options.wants(part)) {
            report.sweep = Sweep::measure(options, None, &options.keys);
        }
        if options.wants("servers") {
            for (name, program) in fetched() {
                println!("{name}");
                let fewer = options.on_others(FEWER_ROUNDS);
                let keys: Vec<usize> = FEWER_KEYS.into_iter().filter(|keys| options.keys.contains(keys)).collect();
                report.others.push((name, Sweep::measure(&fewer, Some(&program), &keys)));
            }
        }
        if options.wants("variants") {
            report.variants = Some(Variants::measure(options.rounds));
        }
        if options.wants("memory") {
            report.memory = memory::measure();
        }
        if options.wants("stall") {
            report.long_log = Some(pauses::long_log());
        }
        if options.wants("expiry") {
            report.expiry = pauses::expiry().to_vec();
        }
        report
    }
}

fn main() {
    let options = Options::read();
    assert!(!options.updates || !fetched().is_empty(), "the other servers are missing, run: scripts/servers.sh fetch");
    let report = Report::measure(&options);
    let text = text::all(&report);
    println!("\n{text}");
    if options.updates {
        fs::write(root().join("docs/benchmarks.md"), text).unwrap();
        fs::write(root().join("docs/benchmarks.svg"), text::cpu_chart(&report.sweep)).unwrap();
        let readme = fs::read_to_string(root().join("README.md")).unwrap();
        let (before, rest) = readme.split_once("make bench -->\n").expect("README has a place for the ratios");
        let (_, after) = rest.split_once("<!-- end").expect("README has an end of the ratios");
        let short = text::in_short(&report);
        fs::write(root().join("README.md"), format!("{before}make bench -->\n{short}<!-- end{after}")).unwrap();
    }
}
