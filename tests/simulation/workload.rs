//! What a seed makes happen: who calls, who interferes, and what fails.

use fastrand::Rng;
use oracle::Tier;

use crate::server::{FLAVORS, Failure, Reactor, Value, argv, text};
use crate::stream::{Bounds, Id, Text};
use crate::world::{Profile, START, Step, World};

/// Names of keys: those in `s` are called with the longest window alone, so that nothing that counts is ever forgotten.
pub const KEYS: [&str; 8] = ["s1", "s2", "s3", "d", "e", "f", "g", "h"];

/// Lengths of windows, the longest last.
const WINDOWS: [&[u64]; 5] = [
    &[20, 300, 1_000, 2_500],
    &[1_000, 10_000, 60_000, 3_600_000],
    &[1, 2, 3, 7],
    &[60_000],
    &[1_000, 86_400_000, 3_650 * 86_400_000],
];

/// More entries than any log is given to begin with.
const BACKLOG: u64 = 10_000;

/// How often things happen, in a history.
pub struct Workload {
    rng: Rng,
    windows: &'static [u64],
    keys: usize,
    /// Of 1,000 steps.
    others: u32,
    reactions: u32,
    faults: u32,
    pauses: u32,
    /// Entries to append before anything else.
    backlog: u64,
    /// The longest pause in milliseconds.
    pause: u64,
    /// Entries that nobody should write.
    is_forged: bool,
    is_strict: bool,
    /// Of 16 hits, and the longest time.
    waits: u8,
    wait: u64,
    is_denied: bool,
    limits: u64,
    is_out_of_memory: bool,
    pub steps: usize,
    profile: Profile,
    vocabulary: Vocabulary,
}

/// Words that come again and again, so that they need not be made again and again.
struct Vocabulary {
    keys: Vec<Text>,
    numbers: Vec<Text>,
    words: Vec<(&'static str, Text)>,
    /// Lengths of time, in all their spellings.
    spans: Vec<(u64, Vec<Text>)>,
}

impl Vocabulary {
    fn new() -> Self {
        Self {
            keys: KEYS.iter().map(text).collect(),
            numbers: (0..=100).map(|number: u64| text(number.to_string())).collect(),
            words: Vec::new(),
            spans: Vec::new(),
        }
    }

    fn number(&self, number: u64) -> Text {
        self.numbers.get(number as usize).cloned().unwrap_or_else(|| text(number.to_string()))
    }

    /// As a length of time is written in entries.
    fn milliseconds(&mut self, milliseconds: u64) -> Text {
        let spans = &mut self.spans;
        match spans.iter().find(|(span, _)| *span == milliseconds) {
            Some((_, spellings)) => spellings[0].clone(),
            None => {
                spans.push((milliseconds, spellings_of(milliseconds)));
                self.milliseconds(milliseconds)
            }
        }
    }

    fn word(&mut self, word: &'static str) -> Text {
        if let Some((_, text)) = self.words.iter().find(|(known, _)| std::ptr::eq(*known, word)) {
            return text.clone();
        }
        let known = text(word);
        self.words.push((word, known.clone()));
        known
    }
}

impl Workload {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let flavor = rng.usize(..FLAVORS.len());
        let windows = WINDOWS[rng.choice([0, 0, 0, 1, 1, 2, 3, 4]).unwrap_or(0)];
        let longest = windows[windows.len() - 1];
        let is_ticking = rng.u8(..3) == 0;
        // A log as only nodes without a bound can hold it, all of which expires at once.
        let backlog = if rng.u8(..48) == 0 && !windows.contains(&1) { rng.u64(1_100..3_000) } else { 0 };
        let is_backwards = rng.u8(..3) == 0;
        let profile = Profile {
            flavor,
            bounds: Bounds {
                bytes: if backlog > 0 {
                    rng.choice([0, 0, 512]).unwrap_or(0)
                } else {
                    rng.choice([4_096, 4_096, 512, 128, 0]).unwrap_or(0)
                },
                entries: if backlog > 0 {
                    rng.choice([0, 100]).unwrap_or(0)
                } else {
                    rng.choice([100, 4, 4, 16, 1, 2, 0]).unwrap_or(0)
                },
            },
            cursors: rng.choice([8_192, 8_192, 8, 4, 0]).unwrap_or(0),
            top_entries: rng.choice([1_000, 1_000, 64, 8, 0]).unwrap_or(0),
            tick: if is_ticking { rng.i64(0..4) } else { 0 },
            is_backwards,
            replica_ahead: if rng.bool() { 0 } else { rng.i64(-5_000..5_000) },
            has_replica: rng.u8(..3) == 0,
            reactors_first: rng.usize(..3),
            longest,
            max_waiters: 10_000,
        };
        let often = |rng: &mut Rng, most: u32| if rng.bool() { rng.u32(..most) } else { 0 };
        let mut workload = Self {
            windows,
            keys: rng.usize(1..=KEYS.len()),
            others: often(&mut rng, 250),
            reactions: often(&mut rng, 80),
            faults: often(&mut rng, 60),
            pauses: rng.choice([50, 300, 500]).unwrap_or(0),
            pause: if backlog > 0 {
                rng.choice([longest, longest / 4 + 1]).unwrap_or(0)
            } else {
                rng.choice([2, 15, longest / 4 + 1, longest + 2]).unwrap_or(0)
            },
            backlog,
            is_forged: rng.u8(..4) == 0,
            is_strict: rng.bool(),
            // Hits that are admitted keep the log alive while the backlog expires.
            limits: if backlog > 0 { 1 << 40 } else { rng.choice([3, 10, 30, 30, 100]).unwrap_or(0) },
            waits: 0,
            wait: 1,
            is_denied: false,
            is_out_of_memory: false,
            steps: backlog as usize + rng.choice([100, 400, 1_000, 2_000]).unwrap_or(0),
            profile,
            vocabulary: Vocabulary::new(),
            rng,
        };
        let rng = &mut workload.rng;
        // Turns are exact where the clock stands still within a step.
        let waits = rng.bool() && std::env::var_os("WAITS").is_none_or(|waits| waits != "0");
        if backlog == 0 && workload.profile.tick == 0 && waits {
            workload.waits = rng.u8(1..14);
            // So that somebody has to wait.
            workload.limits = workload.limits.min(rng.u64(2..12));
            workload.steps = workload.steps.min(1_000);
            workload.wait = rng.choice([5, 400, 3_000, 20_000]).unwrap_or(1).min(3 * longest + 2);
            workload.profile.max_waiters = rng.choice([10_000, 10_000, 10_000, 3, 0]).unwrap_or(0);
        }
        workload
    }

    /// The same as far as a real server of this flavor can be told it, whose clock stands still while it is not set.
    pub fn for_real(seed: u64, flavor: usize) -> Self {
        let mut workload = Self::new(seed);
        workload.profile = Profile { flavor, tick: 0, replica_ahead: 0, has_replica: true, ..workload.profile };
        (workload.reactions, workload.faults, workload.waits) = (0, 0, 0);
        workload.profile.max_waiters = 10_000;
        workload.steps = workload.steps.min(400);
        workload
    }

    pub fn profile(&self) -> Profile {
        self.profile.clone()
    }

    /// The next step. It may depend on what is stored, but once it is chosen it is the same wherever it is taken.
    pub fn step(&mut self, world: &World) -> Step {
        if self.backlog > 0 {
            self.backlog -= 1;
            let id = text(format!("{START}-{}", BACKLOG - self.backlog));
            let words = &mut self.vocabulary;
            let name = words.milliseconds(self.windows[self.windows.len() - 1]);
            let words = vec![words.word("XADD"), words.keys[0].clone(), id, name, words.number(1)];
            return Step::Command(0, words);
        }
        let mut ticket = self.rng.u32(..1_000);
        let mut is = |share: u32| {
            let drawn = ticket < share;
            ticket = ticket.wrapping_sub(share);
            drawn
        };
        if is(self.pauses) {
            return self.pause(world);
        }
        if is(self.others) {
            return Step::Command(self.database(), self.other(world));
        }
        if is(self.reactions) {
            return self.reaction(world);
        }
        if is(self.faults) {
            return self.fault(world);
        }
        if self.waits > 0 && is(40) {
            return self.trouble();
        }
        if is(40) {
            let many = self.rng.usize(2..6);
            let one = |_| if self.rng.u8(..5) == 0 { self.other(world) } else { self.call() };
            let commands = (0..many).map(one).collect();
            return Step::Together(self.database(), commands);
        }
        Step::Command(self.database(), self.call())
    }

    /// What happens to those who wait.
    fn trouble(&mut self) -> Step {
        match self.rng.u8(..16) {
            0..7 => Step::Leave(self.rng.usize(..64)),
            7..11 => Step::Unblock(self.rng.usize(..64)),
            11..13 => Step::Pause(self.rng.u64(..=self.pause.min(2_000)) as i64),
            13 => {
                self.is_denied = !self.is_denied;
                Step::Deny(self.is_denied)
            }
            _ => {
                let key = self.key();
                let place = [&b"{"[..], &key, b"}:ratelimit.waiting"].concat();
                Step::Command(0, vec![self.vocabulary.word("RPUSH"), text(place), self.vocabulary.word("x")])
            }
        }
    }

    fn database(&mut self) -> usize {
        usize::from(self.rng.u8(..12) == 0)
    }

    fn pause(&mut self, world: &World) -> Step {
        // Not to before 1997.
        let most = (world.primary().now - START / 2).max(0);
        let far = self.windows[self.windows.len() - 1];
        Step::Go(match self.rng.u16(..400) {
            0 => self.rng.u64(..3 * far + 2) as i64,
            1..4 if self.profile.is_backwards => -(self.rng.u64(..2 * far) as i64).min(most),
            _ => self.rng.u64(..=self.pause) as i64,
        })
    }

    pub(crate) fn key(&mut self) -> Text {
        self.vocabulary.keys[self.rng.usize(..self.keys)].clone()
    }

    fn limit(&mut self) -> u64 {
        match self.rng.u8(..12) {
            0 => self.rng.u64(..3),
            1 => (1 << 53) - 1,
            _ => self.rng.u64(1..=self.limits),
        }
    }

    fn cost(&mut self) -> u64 {
        match self.rng.u8(..16) {
            0 => self.rng.u64(1..100),
            1 if self.rng.u8(..4) == 0 => (1 << 53) - self.rng.u64(1..3),
            2..5 => self.rng.u64(1..5),
            _ => 1,
        }
    }

    fn window(&mut self) -> u64 {
        self.windows[self.rng.usize(..self.windows.len())]
    }

    /// A call of the module.
    fn call(&mut self) -> Vec<Text> {
        match self.rng.u16(..1_000) {
            0..20 => self.reset(),
            20..30 => self.broken(),
            30..36 => argv(
                ["RATELIMIT.TOP", "RATELIMIT.TOP COUNT 1", "RATELIMIT.top count 3", "RATELIMIT.TOP COUNT 0"]
                    [self.rng.usize(..4)],
            ),
            36..38 => argv("RATELIMIT.RESETSTAT"),
            38..58 => self.refund(),
            58..158 => self.multi_hit(),
            _ => self.hit(),
        }
    }

    fn refund(&mut self) -> Vec<Text> {
        let mut words = vec![self.vocabulary.word("RATELIMIT.REFUND"), self.key()];
        if self.rng.u8(..4) > 0 {
            let units = if self.rng.u8(..8) == 0 { self.rng.u64(1..5_000) } else { self.rng.u64(1..9) };
            words.extend([self.vocabulary.word("COST"), self.vocabulary.number(units)]);
        }
        words
    }

    fn reset(&mut self) -> Vec<Text> {
        let many = self.rng.usize(1..4);
        let mut words = vec![self.vocabulary.word("RATELIMIT.RESET")];
        words.extend((0..many).map(|_| self.key()));
        words
    }

    fn hit(&mut self) -> Vec<Text> {
        let key = self.key();
        let longest = self.windows[self.windows.len() - 1];
        let many = self.rng.choice([1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 8]).unwrap_or(1);
        let mut tiers: Vec<Tier> = (0..many).map(|_| (self.limit(), self.window())).collect();
        if key.starts_with(b"s") {
            tiers[0].1 = longest;
            self.rng.shuffle(&mut tiers);
        }
        let is_peek = self.rng.u8(..10) == 0;
        let mut words = Vec::with_capacity(5 + 2 * tiers.len());
        words.extend([self.vocabulary.word(if is_peek { "RATELIMIT.PEEK" } else { "RATELIMIT.HIT" }), key]);
        for (limit, window) in tiers {
            words.extend([self.vocabulary.number(limit), self.spell(window)]);
        }
        let cost = if is_peek && self.rng.u8(..4) == 0 { 0 } else { self.cost() };
        if cost != 1 || self.rng.u8(..4) == 0 {
            words.extend([self.vocabulary.word("COST"), self.vocabulary.number(cost)]);
        }
        self.options(&mut words, !is_peek);
        words
    }

    fn multi_hit(&mut self) -> Vec<Text> {
        let mut keys = self.vocabulary.keys[..self.keys].to_vec();
        self.rng.shuffle(&mut keys);
        keys.truncate(self.rng.usize(1..=4));
        let mut words = Vec::with_capacity(4 + 3 * keys.len());
        words.extend([self.vocabulary.word("RATELIMIT.MHIT"), self.vocabulary.number(keys.len() as u64)]);
        words.extend_from_slice(&keys);
        for (at, key) in keys.iter().enumerate() {
            if at > 0 {
                words.push(self.vocabulary.word("AND"));
            }
            for _ in 0..self.rng.choice([1, 1, 1, 1, 2, 3]).unwrap_or(1) {
                let window = if key.starts_with(b"s") { self.windows[self.windows.len() - 1] } else { self.window() };
                let limit = self.limit();
                words.extend([self.vocabulary.number(limit), self.spell(window)]);
            }
            let cost = self.cost();
            if cost != 1 {
                words.extend([self.vocabulary.word("COST"), self.vocabulary.number(cost)]);
            }
        }
        self.options(&mut words, true);
        words
    }

    fn options(&mut self, words: &mut Vec<Text>, charges: bool) {
        if charges && self.waits > 0 && words[0].len() == 13 && self.rng.u8(..16) < self.waits {
            let wait = self.rng.u64(1..=self.wait);
            words.extend([self.vocabulary.word("WAIT"), text(format!("{wait}ms"))]);
        } else if charges && self.is_strict && self.rng.u8(..6) == 0 {
            words.push(self.vocabulary.word("STRICT"));
        } else if charges && self.rng.u8(..30) == 0 {
            words.push(self.vocabulary.word("FORCE"));
        }
        if self.rng.u8(..12) == 0 {
            words.push(self.vocabulary.word("WITHTIERS"));
        }
    }

    /// One of the spellings of a length of time.
    fn spell(&mut self, milliseconds: u64) -> Text {
        let Some((_, spellings)) = self.vocabulary.spans.iter().find(|(span, _)| *span == milliseconds) else {
            self.vocabulary.spans.push((milliseconds, spellings_of(milliseconds)));
            return self.spell(milliseconds);
        };
        spellings[self.rng.usize(..spellings.len())].clone()
    }

    /// A call with something wrong, or unusual.
    fn broken(&mut self) -> Vec<Text> {
        let mut words = match self.rng.u8(..4) {
            0 => self.multi_hit(),
            1 => self.reset(),
            _ => self.hit(),
        };
        let at = self.rng.usize(1..words.len());
        const ODD: [&str; 16] = [
            "",
            "-1",
            "0",
            "abc",
            "1.5",
            "9007199254740992",
            "99999999999999999999",
            "STRICT",
            "COST",
            "1ms",
            "0.0001s",
            "10S",
            "1e3",
            "+1",
            "COUNT",
            "-1s",
        ];
        match self.rng.u8(..4) {
            0 => words.truncate(at.max(1)),
            1 => words.insert(at, text(ODD[self.rng.usize(..ODD.len())])),
            2 => words[at] = text(ODD[self.rng.usize(..ODD.len())]),
            _ => words.push(text(ODD[self.rng.usize(..ODD.len())])),
        }
        words
    }

    /// What somebody else does to a key.
    fn other(&mut self, world: &World) -> Vec<Text> {
        let (key, to) = (self.key(), self.key());
        let now = world.primary().now as u64;
        let entry = world.primary().entry(0, &key);
        let stream = entry.and_then(|entry| match &entry.value {
            Value::Stream(stream) => Some(stream),
            Value::Other(_) => None,
        });
        let last = stream.map_or(Id::default(), |stream| stream.last_id());
        let ids: Vec<Id> = stream.map_or(Vec::new(), |stream| stream.iter().map(|row| row.id).collect());
        let id = |at: usize| ids.get(at).map_or("1-1".to_owned(), Id::to_string);
        let rng = &mut self.rng;
        let window = self.windows[rng.usize(..self.windows.len())];
        let longest = self.windows[self.windows.len() - 1];
        let cost = rng.u64(1..9);
        let next = |more: u64| format!("{}-{}", now.max(last.ms), last.seq.wrapping_add(more));
        let ttl = if rng.bool() { rng.u64(1..20) } else { rng.u64(1..=2 * longest) };
        let dumps = world.primary().dumps.borrow().len();
        let named = |line: String| -> Vec<Text> {
            line.split(' ')
                .map(|word| {
                    if word == "%key" {
                        key.clone()
                    } else if word == "%other" {
                        to.clone()
                    } else {
                        text(word)
                    }
                })
                .collect()
        };
        if self.is_forged && rng.u8(..3) == 0 {
            let any = rng.u64(..);
            let ahead = now + rng.u64(..=longest);
            let odd = odd_id(rng, now);
            return named(match rng.u8(..9) {
                0 => format!("XADD %key {ahead}-{any} {window}ms {}", rng.u64(1..1 << 53)),
                1 => format!("XADD %key {ahead}-{} {longest}ms>1ms 3", last.seq.wrapping_add(3)),
                2 => format!("XADD %key {ahead}-{} {window}ms {cost}", rng.u64(..5)),
                3 => format!("XADD %key {odd} {window}ms {cost}"),
                4 => format!("XADD %key {odd} field value"),
                5 => format!("XSETID %key {ahead}-{any}"),
                6 => format!("XSETID %key {odd}"),
                7 => format!("XTRIM %key MINID {odd}"),
                _ => format!("XADD %key {ahead}-{} field value", last.seq),
            });
        }
        named(match rng.u8(..44) {
            0..3 => format!("XADD %key {} {window}ms {cost}", next(cost)),
            3 => format!("XADD %key {now}-{} {window}ms 1", last.seq.wrapping_add(1)),
            4 => format!("XADD %key {} foreign entry", next(1)),
            5 => "XADD %key * field value".into(),
            6 => format!("XADD %key {} {window}ms 1 one more", next(1)),
            7..10 => format!("XDEL %key {}", id(ids.len().wrapping_sub(1))),
            10..12 => format!("XDEL %key {}", id(0)),
            12..14 => format!("XDEL %key {}", id(ids.len() / 2)),
            14 => format!("XDEL %key 1-1 {}", ids.iter().map(Id::to_string).collect::<Vec<_>>().join(" "))
                .trim_end()
                .to_owned(),
            15 => format!("XTRIM %key MAXLEN {}", rng.u64(..5)),
            16 => format!("XTRIM %key MAXLEN ~ {}", rng.u64(..5)),
            17 => format!("XTRIM %key MINID {}", id(ids.len() / 2)),
            18 => format!("XTRIM %key MINID ~ {}", id(ids.len() / 2)),
            19 => format!("XSETID %key {}", next(rng.u64(..5))),
            20 => format!("XADD %key MAXLEN {} {} {window}ms {cost}", rng.u64(1..9), next(cost)),
            21..23 => "DEL %key".into(),
            23 => "UNLINK %key %other".into(),
            24 => "RENAME %key %other".into(),
            25 => "COPY %key %other REPLACE".into(),
            26 => "MOVE %key 1".into(),
            27 => "SWAPDB 0 1".into(),
            28 => {
                if rng.u8(..4) == 0 {
                    "FLUSHALL".into()
                } else {
                    "DEL %key".into()
                }
            }
            29..31 => format!("PEXPIRE %key {ttl}"),
            31 => "PERSIST %key".into(),
            32 => "EXPIRE %key -1".into(),
            33 => "SET %key string".into(),
            34 => format!("SET %key string PX {ttl}"),
            35 => "RPUSH %key list".into(),
            36 => "XGROUP CREATE %key group $ MKSTREAM".into(),
            37 => "XGROUP DESTROY %key group".into(),
            38..40 => "DUMP %key".into(),
            40 if dumps > 0 => format!("RESTORE %key 0 {} REPLACE", rng.usize(..dumps)),
            41 if dumps > 0 => format!("RESTORE %key {ttl} {} REPLACE", rng.usize(..dumps)),
            42 => format!("CONFIG SET ratelimit.cursors {}", rng.choice([0, 4, 8_192]).unwrap_or(0)),
            43 => format!("CONFIG SET notify-keyspace-events {}", rng.choice(["KEAd", "KEA"]).unwrap_or("")),
            _ => "EXISTS %key %other".into(),
        })
    }

    /// Another module is told to do something in an event.
    fn reaction(&mut self, world: &World) -> Step {
        const EVENTS: [&str; 8] = ["xadd", "xtrim", "expire", "del", "expired", "new", "ratelimit.refused", "xdel"];
        let event = match self.rng.u8(..10) {
            0 => None,
            _ => Some(EVENTS[self.rng.usize(..EVENTS.len())].to_owned()),
        };
        let key = (self.rng.u8(..3) > 0).then(|| self.key());
        let mut words = if self.rng.bool() { self.call() } else { self.other(world) };
        if *words[0] == b"RATELIMIT.RESETSTAT"[..] {
            // What was counted before it in the same step, nobody could say.
            words = self.hit();
        }
        Step::React(Reactor::new(event, key, self.rng.u32(1..4), words))
    }

    fn fault(&mut self, world: &World) -> Step {
        let key = self.key();
        let database = self.database();
        match self.rng.u8(..34) {
            0..6 => Step::Expire(database, key),
            6..9 => Step::Evict(database, key),
            9 | 10 => {
                self.is_out_of_memory = !self.is_out_of_memory;
                Step::OutOfMemory(self.is_out_of_memory)
            }
            11..13 => Step::Fail(Failure::StreamAdd),
            13 => Step::Fail(Failure::Xinfo),
            32 => Step::Fail(Failure::Restore),
            33 => Step::Fail(Failure::RestoreIsRenamed),
            14 => Step::Reload,
            15 => Step::Replay,
            16 => Step::SlotsMove(self.rng.u8(..3)),
            17 => Step::Tick,
            18..22 if world.profile().has_replica => Step::Feed(self.rng.usize(..20)),
            22..25 if world.profile().has_replica => {
                let mut words = self.hit();
                words[0] = text("RATELIMIT.PEEK");
                words.retain(|word| **word != b"STRICT"[..]);
                Step::AskReplica(database, words)
            }
            25 if world.profile().has_replica => Step::Promote,
            26 if self.is_out_of_memory => {
                self.is_out_of_memory = false;
                Step::OutOfMemory(false)
            }
            _ => Step::Info,
        }
    }
}

fn spellings_of(milliseconds: u64) -> Vec<Text> {
    let mut spellings = vec![text(format!("{milliseconds}ms"))];
    for (unit, suffix) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1_000, "")] {
        if milliseconds % unit == 0 {
            spellings.push(text(format!("{}{suffix}", milliseconds / unit)));
        }
    }
    if milliseconds % 100 == 0 {
        spellings.push(text(format!("{}.{}s", milliseconds / 1_000, milliseconds % 1_000 / 100)));
    }
    spellings
}

/// A stream ID as nobody should choose it, or nearly as the module would.
fn odd_id(rng: &mut Rng, now: u64) -> String {
    const DECADE: u64 = 3_650 * 86_400_000;
    let time = match rng.u8(..10) {
        0 => rng.u64(..),
        1 => 0,
        2 => u64::MAX,
        3 => now + DECADE,
        4 => now + rng.u64(..DECADE),
        5 => now - rng.u64(..100_000),
        _ => now + rng.u64(..2_000),
    };
    let tally = match rng.u8(..5) {
        0 => rng.u64(..),
        1 => u64::MAX - rng.u64(..10),
        2 => (1 << 63) - 5 + rng.u64(..10),
        _ => rng.u64(1..100),
    };
    format!("{time}-{tally}")
}
