//! Lines of clients that wait: turns are what brute force says, and come when they were said to come.

use limiter::line::{Held, LOOK_AFTER, Lines, Turn};
use oracle::{Hit, InLine, Tier};

use crate::memory_log::{START, Subject, call_of, old_log};

const DATABASE: i32 = 3;
const KEY: &[u8] = b"key";

struct World {
    rng: fastrand::Rng,
    subject: Subject,
    lines: Lines<usize>,
    hits: Vec<Hit>,
    /// Those who wait, in order, with their numbers.
    line: Vec<(u64, InLine)>,
    now: u64,
    /// Turns that could not be told.
    unknown: usize,
}

impl World {
    fn new(seed: u64, longest: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let cursors = [0, 64][rng.usize(0..2)];
        // One that wraps within a millisecond would stamp a hit with the next one.
        let tally = [0, rng.u64(..) / 2][rng.usize(0..2)];
        let subject = Subject::new(old_log(tally, longest, rng.usize(0..5)), cursors);
        Self { rng, subject, lines: Lines::new(), hits: Vec::new(), line: Vec::new(), now: START, unknown: 0 }
    }

    fn question(&mut self, longest: u64) -> (Vec<Tier>, u64) {
        let mut tiers = vec![(self.rng.u64(1..40), longest)];
        if self.rng.bool() {
            tiers.push((self.rng.u64(1..10), self.rng.u64(1..=longest)));
        }
        let cost = if self.rng.u32(0..3) == 0 { self.rng.u64(1..12) } else { 1 };
        (tiers, cost)
    }

    fn turn(&mut self, tiers: &[Tier], cost: u64) -> (Turn, bool) {
        let (call, now, lines) = (call_of(tiers, cost, false), self.now, &mut self.lines);
        self.subject.open(now, |log| lines.turn(DATABASE, KEY, log, &call, now)).unwrap()
    }

    /// Asks for a turn, and waits unless it is now or in vain.
    fn ask(&mut self, (tiers, cost): (Vec<Tier>, u64)) {
        let wait = self.rng.u64(1..600);
        let (turn, others_wait) = self.turn(&tiers, cost);
        assert_eq!(others_wait, !self.line.is_empty());
        let ahead: Vec<InLine> = self.line.iter().map(|(_, one)| one.clone()).collect();
        let expected = oracle::turn(&self.hits, self.now, &ahead, (&tiers, cost));
        match turn {
            Turn::Never => assert_eq!(expected, None),
            Turn::Unknown => {
                assert!(expected.is_some());
                self.unknown += 1;
            }
            Turn::At { time, .. } => assert_eq!(Some(time), expected, "{:?} {:?} {ahead:?}", self.now, self.hits),
        }
        let deadline = self.now + wait;
        if turn == Turn::Never || turn.time().is_some_and(|time| time > deadline) {
            return;
        }
        if !others_wait && turn.time() == Some(self.now) {
            assert!(self.hit(&tiers, cost));
            return;
        }
        let mut call = call_of(&tiers, cost, false);
        call.wait = wait;
        let id = self.lines.next_id();
        self.lines.join(DATABASE, KEY, id, self.now, turn, Held { call, client: id as usize });
        self.line.push((id, InLine { tiers, cost, deadline }));
        assert_eq!(self.lines.waiting(), self.line.len());
        assert_eq!(self.lines.next_deadline(), self.line.iter().map(|(_, one)| one.deadline).min());
    }

    fn hit(&mut self, tiers: &[Tier], cost: u64) -> bool {
        let answer = self.subject.hit(self.now, &call_of(tiers, cost, false)).unwrap();
        if answer.allowed {
            self.hits.push((self.now, cost));
        }
        answer.allowed
    }

    /// Serves whoever is due, as the timer does.
    fn serve(&mut self) {
        while let Some(first) = self.lines.first_due(self.now) {
            let (number, id, call) = (first.number, first.id, first.held.call);
            assert_eq!((first.database, first.held.client as u64), (DATABASE, id));
            assert_eq!(id, self.line[0].0, "the first is served first");
            let (now, lines) = (self.now, &mut self.lines);
            self.subject.open(now, |log| lines.see(number, log)).unwrap();
            let answer = self.subject.peek(now, &call).unwrap();
            if answer.allowed {
                let (id, InLine { tiers, cost, .. }) = self.line.remove(0);
                assert!(self.hit(&tiers, cost));
                assert_eq!(self.lines.serve(id).unwrap().client as u64, id);
            } else {
                let at = now + answer.retry_after.unwrap();
                self.lines.look_at(number, now, at);
                assert_eq!(self.lines.next_look(), Some(at.min(now + LOOK_AFTER)));
            }
        }
        // Nobody who has room waits, unless others made it.
        assert!(self.lines.next_look().is_none_or(|at| at > self.now));
    }

    fn leave(&mut self, at: usize) {
        let (id, _) = self.line.remove(at);
        assert_eq!(self.lines.leave(id).unwrap().client as u64, id);
        assert!(self.lines.leave(id).is_none() && self.lines.serve(id).is_none());
    }

    /// What somebody in the line is told whose time is over.
    fn times_out(&mut self, at: usize) {
        let (id, InLine { tiers, cost, .. }) = self.line[at].clone();
        let ahead: Vec<InLine> = self.line[..at].iter().map(|(_, one)| one.clone()).collect();
        let (now, lines) = (self.now, &mut self.lines);
        let turn = self.subject.open(now, |log| lines.turn_of(id, log, now)).unwrap();
        if let Some(time) = turn.time() {
            assert_eq!(Some(time), oracle::turn(&self.hits, now, &ahead, (&tiers, cost)));
        }
        self.leave(at);
    }

    fn tick(&mut self) {
        self.now += 1;
        while let Some(at) = self.line.iter().position(|(_, one)| one.deadline < self.now) {
            self.times_out(at);
        }
        self.serve();
    }
}

#[test]
fn turns_are_what_brute_force_says() {
    let (mut asked, mut unknown) = (0, 0);
    for seed in 0..300 {
        let longest = [20, 100, 300][seed as usize % 3];
        let mut world = World::new(seed, longest);
        let disturbs = world.rng.bool();
        for _ in 0..200 {
            match world.rng.u32(0..20) {
                0..10 => {
                    let question = world.question(longest);
                    world.ask(question);
                    asked += 1;
                }
                10 if disturbs && !world.line.is_empty() => {
                    let at = world.rng.usize(0..world.line.len());
                    if world.rng.bool() { world.leave(at) } else { world.times_out(at) }
                }
                11 if disturbs => {
                    let (tiers, cost) = world.question(longest);
                    world.hit(&tiers, cost);
                }
                12 if disturbs => {
                    // The key is deleted.
                    world.subject.log.clear();
                    world.hits.clear();
                    assert_eq!(world.lines.wake(DATABASE, KEY, world.now), !world.line.is_empty());
                }
                _ => {
                    for _ in 0..world.rng.u32(0..30) {
                        world.tick();
                    }
                }
            }
        }
        unknown += world.unknown;
        while !world.line.is_empty() {
            world.tick();
        }
        assert_eq!((world.lines.waiting(), world.lines.next_look(), world.lines.next_deadline()), (0, None, None));
    }
    assert!(unknown * 50 < asked, "{unknown} of {asked} could not be told");
}

/// A long line that is disturbed all the time is not planned anew for each who asks.
#[test]
fn a_disturbed_line_costs_little() {
    const CLIENTS: u64 = 1_000;
    let mut world = World::new(1, 1_000);
    let tiers = vec![(1, 1_000)];
    for _ in 0..CLIENTS {
        let (turn, _) = world.turn(&tiers, 1);
        let mut call = call_of(&tiers, 1, false);
        call.wait = 10_000_000;
        let id = world.lines.next_id();
        world.lines.join(DATABASE, KEY, id, world.now, turn, Held { call, client: 0 });
    }
    let turn = world.turn(&tiers, 1).0.time();
    assert_eq!(turn, Some(START + CLIENTS * 1_000));
    let mut told = 0;
    for nth in 0..200 {
        assert!(world.lines.leave(1 + nth * 3).is_some());
        world.now += u64::from(nth % 2 == 0);
        told += u32::from(world.turn(&tiers, 1).0 != Turn::Unknown);
    }
    assert!((3..=12).contains(&told), "{told}");
    world.now += 100;
    // The first of them has room now.
    assert_eq!(world.turn(&tiers, 1).0.time(), Some(world.now + (CLIENTS - 200) * 1_000));
    assert_eq!(world.turn(&[(0, 1)], 1).0, Turn::Never);
}

/// Lines of other keys and databases do not mix, and a clock that was set back makes nobody wait for it.
#[test]
fn each_key_has_its_line() {
    let mut world = World::new(1, 1_000);
    assert!(world.hit(&[(1, 1_000)], 1));
    let names: [(i32, &[u8]); 4] = [(0, b"a"), (1, b"a"), (0, b"b"), (0, b"")];
    let (turn, _) = world.turn(&[(1, 1_000)], 1);
    for (database, name) in names {
        let call = call_of(&[(1, 1_000)], 1, false);
        let id = world.lines.next_id();
        world.lines.join(database, name, id, START, turn, Held { call, client: 0 });
    }
    assert_eq!((world.lines.waiting(), world.lines.next_look()), (4, Some(START + LOOK_AFTER)));
    assert!(world.lines.first_due(START + LOOK_AFTER - 1).is_none());
    assert_eq!(world.lines.first_due(START + LOOK_AFTER).map(|first| first.id), Some(1));
    assert!(world.lines.wake(0, b"b", START) && !world.lines.wake(1, b"b", START));
    assert_eq!(world.lines.first_due(START).map(|first| first.id), Some(3));
    assert!(world.lines.first(3).is_some() && world.lines.first(9).is_none());
    world.lines.mind_the_clock(START - 50_000);
    assert_eq!(world.lines.next_look(), Some(START - 50_000));
    world.lines.most = 4;
    assert!(!world.lines.has_place());
    (1..=4).for_each(|id| assert!(world.lines.leave(id).is_some()));
    assert!(world.lines.has_place() && world.lines.next_look().is_none());
}
