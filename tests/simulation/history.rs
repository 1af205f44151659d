//! One history, fixed by its seed, and a shorter one that fails in the same way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::module::{Conditions, load};
use crate::problems;
use crate::server::{FLAVORS, Server, words};
use crate::stream::Bounds;
use crate::workload::Workload;
use crate::world::{Modules, Profile, START, Step, Verdict, World};

/// The copies of the module, which histories take in turns.
pub struct Copies<'a> {
    file: &'a Path,
    pub(crate) free: Vec<Option<Modules>>,
}

impl<'a> Copies<'a> {
    pub fn of(file: &'a Path) -> Self {
        Self { file, free: FLAVORS.iter().map(|_| None).collect() }
    }

    pub(crate) fn take(&mut self, flavor: usize) -> Verdict<Modules> {
        if let Some(modules) = self.free[flavor].take() {
            return Ok(modules);
        }
        let copy = || {
            let mut server = Server::new(&FLAVORS[flavor], START, Bounds { bytes: 4_096, entries: 100 });
            load(self.file, &mut server, Conditions::default())?;
            server.module.ok_or_else(|| "no module".to_owned())
        };
        Ok(Modules { primary: copy()?, replica: copy()? })
    }
}

/// What became of a history.
#[derive(Debug, Default)]
pub struct Outcome {
    pub calls: u64,
    /// Of them, clients that waited, those that were served, and those that would have waited in vain.
    pub waits: [u64; 3],
    pub error: Option<String>,
    /// Steps taken.
    pub taken: usize,
}

/// Takes steps until there is no other, or one is wrong.
fn run(copies: &mut Copies, profile: Profile, mut next: impl FnMut(&World) -> Option<Step>) -> Outcome {
    let flavor = profile.flavor;
    let modules = match copies.take(flavor) {
        Ok(modules) => modules,
        Err(error) => return Outcome { error: Some(error), ..Outcome::default() },
    };
    let mut outcome = Outcome::default();
    let mut world = World::new(profile, modules);
    let result = catch_unwind(AssertUnwindSafe(|| {
        while let Some(step) = next(&world) {
            outcome.taken += 1;
            world.step(&step)?;
        }
        (outcome.calls, outcome.waits) = (world.calls(), world.waits());
        world.end()
    }));
    match result {
        Ok(Ok(modules)) => copies.free[flavor] = Some(modules),
        Ok(Err(error)) => outcome.error = Some(error),
        Err(_) => outcome.error = Some("the simulation itself has panicked, see above".into()),
    }
    problems::first();
    outcome
}

/// The history of a seed. `record` gets its steps.
pub fn of_seed(copies: &mut Copies, seed: u64, mut record: Option<&mut Vec<Step>>) -> Outcome {
    let mut workload = Workload::new(seed);
    let mut left = workload.steps;
    run(copies, workload.profile(), |world| {
        left = left.checked_sub(1)?;
        let step = workload.step(world);
        if let Some(record) = &mut record {
            record.push(step.clone());
        }
        Some(step)
    })
}

/// A history of given steps.
pub fn of_steps(copies: &mut Copies, profile: &Profile, steps: &[Step]) -> Outcome {
    let mut steps = steps.iter();
    run(copies, profile.clone(), |_| steps.next().cloned())
}

/// The first line of an error, without its numbers.
fn kind(error: &str) -> String {
    error.lines().next().unwrap_or_default().chars().filter(|char| !char.is_ascii_digit()).collect()
}

/// Fewer steps that still fail, and how: larger and smaller parts are left out for as long as that helps.
pub fn shrink(copies: &mut Copies, profile: &Profile, mut steps: Vec<Step>, mut error: String) -> (Vec<Step>, String) {
    let until = Instant::now() + Duration::from_secs(30);
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let (mut at, before) = (0, steps.len());
        while at < steps.len() && Instant::now() < until {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            let outcome = of_steps(copies, profile, &fewer);
            // Not with another failure, which would lead astray.
            match outcome.error.filter(|now| kind(now) == kind(&error)) {
                Some(now) => {
                    fewer.truncate(outcome.taken);
                    (steps, error) = (fewer, now);
                }
                None => at += size,
            }
        }
        size = if size == 1 && steps.len() < before { 1 } else { size / 2 };
    }
    (steps, error)
}

/// Steps as one would type them.
pub fn shown(steps: &[Step]) -> String {
    let line = |step: &Step| match step {
        Step::Go(milliseconds) => format!("{milliseconds:+} ms"),
        Step::Command(database, argv) => format!("{database}> {}", words(argv)),
        Step::Together(database, commands) => {
            let lines: Vec<String> = commands.iter().map(|argv| words(argv)).collect();
            format!("{database}> MULTI; {}; EXEC", lines.join("; "))
        }
        Step::React(reactor) => {
            let event = reactor.event.as_deref().unwrap_or("any event");
            let key = reactor.key.as_ref().map_or("any key".into(), |key| String::from_utf8_lossy(key));
            format!("upon {event} of {key}, {} times: {}", reactor.times, words(&reactor.argv))
        }
        Step::AskReplica(database, argv) => format!("replica {database}> {}", words(argv)),
        Step::Expire(database, key) => format!("{database}> # expires if it is time: {}", String::from_utf8_lossy(key)),
        Step::Evict(database, key) => format!("{database}> # is evicted: {}", String::from_utf8_lossy(key)),
        other => format!("# {other:?}"),
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}
