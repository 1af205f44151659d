//! A history that a real server can be told: what it is told, and what it must reply, tell replicas, and hold.
//!
//! It has everything but what a real server cannot be made to do: other modules that act in events, functions of the API
//! that fail, keys that expire at a chosen moment without a command, promotions. `tests/server/replays.rs` tells it.

use fastrand::Rng;

use crate::history::Copies;
use crate::server::{DATABASES, Effect, Reply, Value, argv, text};
use crate::stream::Text;
use crate::workload::{KEYS, Workload};
use crate::world::{Profile, START, Step, Verdict, World};

/// One step. The clock stands still in it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Milliseconds since the epoch.
    pub now: i64,
    pub step: Step,
    pub replies: Vec<Reply>,
    /// What replicas are told, a step of the server at a time.
    pub effects: Vec<Vec<Effect>>,
    /// Whether TOP must reply the same, though the table of another process has its keys in other places.
    pub is_top_sure: bool,
}

/// What is at a key in the end.
#[derive(Clone, Debug)]
pub struct Held {
    pub database: usize,
    pub key: Text,
    pub expires: Option<i64>,
    pub value: Value,
}

#[derive(Debug)]
pub struct Recording {
    pub profile: Profile,
    pub told: Vec<Told>,
    /// What the clock shows in the end.
    pub now: i64,
    /// Keys that have not expired.
    pub held: Vec<Held>,
    /// Values that DUMP has put aside, by the number that it replied.
    pub dumps: Vec<Value>,
    pub calls: u64,
}

impl Recording {
    /// With those in which time passes.
    pub fn steps(&self) -> Vec<Step> {
        let mut now = START;
        let mut steps = Vec::new();
        for told in &self.told {
            if told.now != now {
                steps.push(Step::Go(told.now - now));
                now = told.now;
            }
            steps.push(told.step.clone());
        }
        steps
    }
}

/// The history of a seed, on a server of this flavor.
pub fn of_seed(copies: &mut Copies, seed: u64, flavor: usize) -> Verdict<Recording> {
    let mut workload = Workload::for_real(seed, flavor);
    let mut rng = Rng::with_seed(!seed);
    let mut left = workload.steps;
    // The last first.
    let mut due = Vec::new();
    record(copies, workload.profile(), |world| {
        if let Some(step) = due.pop() {
            return Some(step);
        }
        left = left.checked_sub(1)?;
        Some(match rng.u16(..1_000) {
            0 => {
                // A reload drops keys that have expired and tells nobody, which copies would notice.
                due = vec![Step::Reload, all_exist(1)];
                all_exist(0)
            }
            1..4 => Step::Info,
            4..80 => Step::Command(rng.usize(..DATABASES), vec![text("DUMP"), workload.key()]),
            _ => match workload.step(world) {
                Step::Together(database, mut commands) => {
                    // A server that cannot queue one of them does none of them.
                    commands.retain(|argv| !is_too_short(world, argv));
                    Step::Together(database, commands)
                }
                step => step,
            },
        })
    })
}

/// Looks at all keys, which deletes those that have expired.
fn all_exist(database: usize) -> Step {
    Step::Command(database, argv(&format!("EXISTS {}", KEYS.join(" "))))
}

/// A history of given steps.
pub fn of_steps(copies: &mut Copies, profile: &Profile, steps: &[Step]) -> Verdict<Recording> {
    let mut steps = steps.iter();
    record(copies, profile.clone(), |_| steps.next().cloned())
}

fn is_too_short(world: &World, argv: &[Text]) -> bool {
    let module = world.primary().module.as_ref();
    let arity = argv.first().and_then(|name| Some(module?.command(name)?.arity)).unwrap_or(0);
    let many = argv.len() as i32;
    if arity < 0 { many < -arity } else { arity > 0 && many != arity }
}

fn record(copies: &mut Copies, profile: Profile, mut next: impl FnMut(&World) -> Option<Step>) -> Verdict<Recording> {
    let flavor = profile.flavor;
    let mut world = World::new(profile.clone(), copies.take(flavor)?);
    let mut told = Vec::new();
    // The module looks at the clock, and forgets that it has gone back since the last history.
    let mut first = ["RATELIMIT.PEEK s1 1 1", "RATELIMIT.RESETSTAT"].into_iter();
    while let Some(step) = first.next().map(|line| Step::Command(0, argv(line))).or_else(|| next(&world)) {
        let (unread, was_sure) = (world.unread().len(), world.is_top_sure());
        let replies = world.step(&step)?;
        let effects = world.unread().iter().skip(unread).cloned().collect();
        match step {
            Step::Go(_) => {}
            Step::Command(..) | Step::Together(..) | Step::Reload | Step::Info => {
                let is_top_sure = was_sure && world.is_top_sure();
                told.push(Told { now: world.primary().now, step, replies, effects, is_top_sure });
            }
            other => return Err(format!("no real server can be told {other:?}")),
        }
    }
    let server = world.primary();
    let mut held = Vec::new();
    for database in 0..DATABASES {
        for (key, entry) in server.databases[database].iter() {
            if entry.expires.is_none_or(|at| at >= server.now) {
                held.push(Held { database, key: key.clone(), expires: entry.expires, value: entry.value.clone() });
            }
        }
    }
    let now = server.now;
    let dumps = server.dumps.borrow().clone();
    let calls = world.calls();
    copies.free[flavor] = Some(world.end()?);
    Ok(Recording { profile, told, now, held, dumps, calls })
}

/// Which of [`crate::server::FLAVORS`] a server has that shows this in `INFO server`.
pub fn flavor_of(info: &str) -> usize {
    let version = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    match (version("valkey_version"), version("redis_version")) {
        (Some(valkey), _) if valkey.starts_with("9.") => 3,
        (Some(_), _) => 2,
        (None, Some(redis)) if redis.starts_with("7.0.") => 0,
        _ => 1,
    }
}
