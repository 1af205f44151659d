//! Instructions of the server for one decision, by callgrind: they repeat, where times on a shared machine do not.
//!
//! Each contender runs twice, on a server of its own and for different times; the difference is what the commands took.
//! Batches are sent at a steady pace, so that as much leaves a log as comes into it, on any machine that is fast enough
//! to keep up. `benches/instructions.txt` holds what was measured; for the commands of this module it is a budget, and
//! exceeding that by more than 2 % is a failure. `make instructions` runs it, with `UPDATE=1` it writes the file instead,
//! and `ONLY=refused make instructions` measures those contenders only whose names have that in them.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::contenders::{BATCH, Contender, all, load_scripts};
use support::{Ask, Server, root, wait_for};

/// Decisions of the shorter and of the longer run. A log of ten seconds is full after the shorter one, and the longer one
/// takes another ten.
const FULL: [usize; 2] = [55_000, 105_000];
const QUICK: [usize; 2] = [10_000, 30_000];

/// Each of the keys gets a hit in this time.
const PACE: Duration = Duration::from_millis(20);

fn file() -> PathBuf {
    root().join("benches/instructions.txt")
}

/// Instructions of a server that has carried out so many decisions.
fn total(contender: &Contender, decisions: usize) -> u64 {
    let server = contender.setup().start();
    let mut client = server.connect();
    load_scripts(&mut client);
    (contender.prepare)(&mut client);
    client.run("SAVE");
    let dir = server.kill();
    // What was prepared is read again, so that it costs the same in both runs.
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
