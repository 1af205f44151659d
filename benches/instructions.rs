//! Counts the server's instructions for one decision, with callgrind. Unlike times on a shared machine, these repeat.
//!
//! Each contender runs twice, on its own server, for different times; the difference is what the commands took. Batches are
//! sent at a steady pace, so as much leaves a log as comes in, on any machine that is fast enough to keep up.
//! `benches/instructions.txt` holds what was measured. For the commands of this module it is a budget: exceeding it by more
//! than 2 % is a failure. `make instructions` runs this. `UPDATE=1` writes the file instead; `ONLY=refused make instructions`
//! measures only contenders with that in their names.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::contenders::{BATCH, Contender, all, load_scripts};
use support::{Ask, Server, root, wait_for};

/// Decisions of the shorter and of the longer run. A log of ten seconds is full after the shorter run; the longer one takes
/// another ten seconds.
const FULL: [usize; 2] = [55_000, 105_000];
const QUICK: [usize; 2] = [10_000, 30_000];

/// Time in which each key gets one hit.
const PACE: Duration = Duration::from_millis(20);

fn file() -> PathBuf {
    root().join("benches/instructions.txt")
}

/// Instructions of a server for this many decisions.
fn total(contender: &Contender, decisions: usize) -> u64 {
    let server = contender.setup().start();
    let mut client = server.connect();
    load_scripts(&mut client);
    (contender.prepare)(&mut client);
    client.run("SAVE");
    let dir = server.kill();
    // Read what was prepared again, so that it costs the same in both runs.
    let mut server = contender.setup().under_callgrind().start_in(dir);
    let mut client = server.connect();
    load_scripts(&mut client);
    let start = Instant::now();
    for (batch, from) in (0..decisions).step_by(BATCH).enumerate() {
        if contender.fills_up {
            sleep((PACE * batch as u32).saturating_sub(start.elapsed()));
        }
        contender.batch(from, BATCH).exec(&mut client).unwrap();
    }
    let _ = client.ask(redis::cmd("SHUTDOWN").arg("NOSAVE"));
    wait_for("the server ends", || !server.is_alive());
    instructions(&server)
}

fn instructions(server: &Server) -> u64 {
    let profile = fs::read_to_string(server.dir().join("callgrind.out")).unwrap();
    let line =
        profile.lines().find_map(|line| line.strip_prefix("totals: ")).expect("callgrind has written its totals");
    line.trim().parse().unwrap()
}

fn per_decision(contender: &Contender) -> u64 {
    let [short, long] = if contender.fills_up { FULL } else { QUICK };
    (total(contender, long) - total(contender, short)) / (long - short) as u64
}

fn main() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let updates = std::env::var_os("UPDATE").is_some();
    let text = fs::read_to_string(file()).unwrap_or_default();
    let before: HashMap<&str, u64> = text
        .lines()
        .filter_map(|line| line.rsplit_once(": "))
        .map(|(name, instructions)| (name, instructions.parse().unwrap()))
        .collect();
    println!("{:<40} {:>12} {:>12}", "", "instructions", "written down");
    let mut lines = String::new();
    let mut exceeded = Vec::new();
    for contender in all() {
        let name = contender.name;
        let known = before.get(name);
        let measured = if name.contains(&only) {
            let measured = per_decision(&contender);
            println!("{name:<40} {measured:>12} {:>12}", known.map_or("-".to_owned(), u64::to_string));
            measured
        } else {
            known.copied().unwrap_or(0)
        };
        lines += &format!("{name}: {measured}\n");
        if name.contains("HIT") && known.is_some_and(|known| measured * 100 > known * 102) {
            exceeded.push(name);
        }
    }
    if updates {
        fs::write(file(), lines).unwrap();
    } else {
        assert!(exceeded.is_empty(), "more than 2 % over what is written down: {exceeded:?}");
    }
}
