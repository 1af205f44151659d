//! Instructions of the server for one command, by callgrind: they repeat, where times on a shared machine do not.
//!
//! Each contender runs twice, on a server of its own and for different times; the difference is what the commands took.
//! What this module may take is written down in `benches/budgets.txt`, and exceeding that by more than 2 % is a failure.
//! `make instructions` runs it; with `BUDGETS=write` it writes the file instead.

#![allow(dead_code)]

mod contenders;
#[path = "../tests/server/support.rs"]
mod support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use contenders::{BATCH, Contender, all, load_scripts, setup};
use support::{Ask, Server, wait_for};

/// Commands of the shorter and of the longer run. Under callgrind a server does some thousand commands a second, so that a
/// log of five seconds is full after the longer of the shorter runs.
const FULL: [usize; 2] = [60_000, 90_000];
const QUICK: [usize; 2] = [10_000, 30_000];

fn budgets_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/budgets.txt")
}

/// Instructions of a server that has carried out so many commands.
fn total(contender: &Contender, commands: usize) -> u64 {
    let server = setup().args(contender.args).start();
    let mut client = server.connect();
    load_scripts(&mut client);
    (contender.prepare)(&mut client);
    client.run("SAVE");
    let dir = server.kill();
    // What was prepared is read again, so that it costs the same in both runs.
    let mut server = setup().args(contender.args).under_callgrind().start_in(dir);
    let mut client = server.connect();
    load_scripts(&mut client);
    for from in (0..commands).step_by(BATCH) {
        let replies: Vec<redis::Value> = contender.batch(from, BATCH).query(&mut client).unwrap();
        assert_eq!(replies.len(), BATCH);
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

fn per_command(contender: &Contender) -> u64 {
    let [short, long] = if contender.fills_up { FULL } else { QUICK };
    (total(contender, long) - total(contender, short)) / (long - short) as u64
}

fn main() {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let writes = std::env::var("BUDGETS").is_ok_and(|what| what == "write");
    let text = fs::read_to_string(budgets_file()).unwrap_or_default();
    let budgets: HashMap<&str, u64> = text
        .lines()
        .filter_map(|line| line.rsplit_once(": "))
        .map(|(name, budget)| (name, budget.parse().unwrap()))
        .collect();
    println!("{:<40} {:>12} {:>10}", "contender", "instructions", "budget");
    let mut written = String::new();
    let mut exceeded = Vec::new();
    for contender in all().iter().filter(|one| wanted.as_ref().is_none_or(|wanted| one.name.contains(wanted))) {
        let measured = per_command(contender);
        let budget = budgets.get(contender.name);
        println!("{:<40} {measured:>12} {:>10}", contender.name, budget.map_or("-".to_owned(), u64::to_string));
        if contender.name.contains("HIT") {
            written += &format!("{}: {measured}\n", contender.name);
            if budget.is_some_and(|budget| measured * 100 > budget * 102) {
                exceeded.push(contender.name);
            }
        }
    }
    if writes {
        fs::write(budgets_file(), written).unwrap();
    } else {
        assert!(exceeded.is_empty(), "more than 2 % over budget: {exceeded:?}");
    }
}
