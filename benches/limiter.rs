//! How long the decision takes without a server: the arithmetic over a log in memory.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use limiter::answer::Answer;
use limiter::error::Error;
use limiter::log::{Back, Entry, Hit, Id, Log};
use limiter::retention::Retention;
use limiter::syntax::{Asker, Call};
use limiter::usage::Usage;

const NOW: u64 = 1_767_225_600_000;

/// A hit of cost 1 in every millisecond up to now.
struct Steady(Vec<Entry>);

impl Steady {
    fn new(entries: u64) -> Self {
        let retention = Retention { longest: 60_000, fallback: None };
        let entry = |tally| Entry { hit: Hit { id: Id { time: NOW - entries + tally, tally }, cost: 1 }, retention };
        Self((1..=entries).map(entry).collect())
    }
}

impl Log for Steady {
    fn read_back(&mut self, visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
        self.0.iter().rev().all(|entry| visit(entry.hit.id, Some(entry.hit.cost)) != Back::Stop);
        Ok(self.0.last().copied())
    }

    fn last_id(&mut self) -> Result<Id, Error> {
        Ok(self.0.last().map(|entry| entry.hit.id).unwrap_or_default())
    }

    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
        let start = self.0.partition_point(|entry| entry.hit.id.time < from);
        self.0[start..].iter().all(|entry| visit(entry.hit));
        Ok(())
    }

    fn walk_since(&mut self, from: u64, _: Id, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
        self.walk(from, visit)
    }
}

fn call(line: &str) -> Call {
    let mut call = Call::default();
    call.parse(line.split(' ').map(str::as_bytes), Asker::Hit).unwrap();
    call
}

fn decide(log: &mut Steady, call: &Call) -> Result<Answer, Error> {
    let mut usage = Usage::new(call, NOW, Id::default());
    usage.read(log)?;
    Ok(usage.peek(log)?.0)
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pure");
    group.throughput(Throughput::Elements(1));
    for line in ["100 1m", "10 1s 500 1h COST 7 STRICT"] {
        group.bench_function(format!("parse {line}"), |bencher| bencher.iter(|| call(black_box(line))));
    }
    let mut log = Steady::new(10_000);
    for (name, line) in [
        ("admit", "1000000 60s"),
        ("admit, three tiers", "1000000 60s 1000000 30s 1000000 1s"),
        ("refuse", "10000 60s"),
        ("refuse a cost of 1000", "10000 60s COST 1000"),
    ] {
        let call = call(line);
        group.bench_function(name, |bencher| bencher.iter(|| decide(&mut log, black_box(&call))));
    }
    group.finish();
}

criterion_group!(limiter_benches, benches);
criterion_main!(limiter_benches);
