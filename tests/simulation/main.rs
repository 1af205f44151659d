//! Drives the module through histories until the time is up or one of them is wrong.
//!
//! `MODULE` names the file of the module, `SECONDS` or `MINUTES` how long to go on, `HISTORIES` and `CALLS` how many there
//! may be, and `SEED` where to begin. With `BRIEF` a failure is not made shorter, with `UPDATE` what the module registers is written down.
//! With `WAITS=0` nobody waits.

mod chance;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use simulation::history::{self, Copies};
use simulation::loading;
#[cfg(not(feature = "sanitized"))]
use simulation::memory::Pool;
use simulation::workload::Workload;

#[cfg(not(feature = "sanitized"))]
#[global_allocator]
static POOL: Pool = Pool;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn main() -> ExitCode {
    let module =
        std::env::var_os("MODULE").map_or_else(|| PathBuf::from("target/release/libratelimit.so"), PathBuf::from);
    let first = number("SEED").unwrap_or_else(chance::seed);
    let seconds = number("SECONDS").or(number("MINUTES").map(|minutes| minutes * 60)).unwrap_or(20);
    let (histories, most) = (number("HISTORIES").unwrap_or(u64::MAX), number("CALLS").unwrap_or(u64::MAX));
    if let Err(error) = loading::check(&module) {
        println!("{error}");
        return ExitCode::FAILURE;
    }
    let mut copies = Copies::of(&module);
    let began = Instant::now();
    let (mut calls, mut seed, mut waits) = (0, first, [0; 3]);
    let goes_on = |seed: u64, calls: u64| {
        let is_time = began.elapsed() < Duration::from_secs(seconds);
        seed == first || is_time && seed - first < histories && calls < most
    };
    while goes_on(seed, calls) {
        let outcome = history::of_seed(&mut copies, seed, None);
        if let Some(error) = outcome.error {
            report(&mut copies, seed, &error);
            return ExitCode::FAILURE;
        }
        calls += outcome.calls;
        waits.iter_mut().zip(outcome.waits).for_each(|(sum, more)| *sum += more);
        seed += 1;
    }
    let [waited, served, in_vain] = waits;
    let rate = calls as f64 / began.elapsed().as_secs_f64();
    println!("{waited} clients waited, {served} of them were served, {in_vain} would have waited in vain");
    println!("{calls} calls, {} histories, {rate:.0} calls a second, 0 failures (SEED={first})", seed - first);
    ExitCode::SUCCESS
}

/// Shows a failure as short as it can be made.
fn report(copies: &mut Copies, seed: u64, error: &str) {
    let mut steps = Vec::new();
    let again = history::of_seed(copies, seed, Some(&mut steps));
    println!("SEED={seed} fails after {} steps: {error}\n", steps.len());
    let Some(error) = again.error else {
        println!("It does not when it is repeated.");
        return;
    };
    if std::env::var_os("BRIEF").is_some() {
        return;
    }
    let profile = Workload::new(seed).profile();
    let (steps, error) = history::shrink(copies, &profile, steps, error);
    println!("{profile:?}\nThese steps suffice:\n{}\n\n{error}\n", history::shown(&steps));
    println!("Repeat it with: SEED={seed} make sim");
}
