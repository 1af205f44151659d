//! What a decision costs a server, beside the alternatives.
//!
//! `make bench` measures all of it, which takes a quarter of an hour, and 10 GB of memory where a key takes 4.4 kB. For
//! development, measure a part:
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

mod keys;
mod load;
mod options;

use support::servers::{label, server_program};

use keys::Sweep;
use options::Options;

fn main() {
    let options = Options::read();
    println!("{}, {} rounds", label(&server_program()), options.rounds);
    Sweep::measure(&options, None, &options.keys);
}
