//! Random histories of everything at once: every reply is exact and every copy holds the same data, whatever others do.
//!
//! Several clients send every command of the module and their own commands on its keys, plain, in transactions, scripts and
//! functions; clocks, expiry, rewrites, reloads and changes of settings come in between.
//!
//! What is stored before and after each call is known, so that an oracle can check every value of every reply and every
//! write, whatever the others did. At the end the replica, the append-only file and a snapshot must hold the same data.
//! A history is fixed by its seed. One that fails is made as short as possible, and shown.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use redis::{Cmd, Connection, Value};
use support::client::id_of;
use support::errors::{LAST_ID_AHEAD, NOT_A_LOG, WRONG_TYPE};
use support::interference::{self, Interference, Kind};
use support::judge::is_in_range;
use support::oracle::{self, Hit, Moment, Question, Tier};
use support::replication::{NODES_OF_FOUR, REPLICATION, caught_up, replica_of, start_again};
use support::{Ask, Clock, START, Server, Setup, get, is_long, six, text_of, wait_for, words};

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// All calls on these keys name the longest window, so that nothing that counts is ever forgotten.
const SINGLE_MINDED: usize = 3;
const WINDOWS: [u64; 4] = [20, 300, 1_000, 2_500];
const LONGEST: u64 = WINDOWS[3];

/// Whose doings the oracle has an answer to: no entry is ahead of the clock.
const OTHERS: Interference = Interference {
    keys: &KEYS,
    windows: &WINDOWS,
    kinds: &[
        Kind::Own,
        Kind::Foreign,
        Kind::Deletion,
        Kind::LastId,
        Kind::Keys,
        Kind::Databases,
        Kind::Expiry,
        Kind::Types,
        Kind::Groups,
        Kind::Dumps,
    ],
};

const MAINTENANCE: Interference =
    Interference { keys: &KEYS, windows: &WINDOWS, kinds: &[Kind::Settings, Kind::Reload] };

/// Runs the commands of its arguments, each preceded by its length.
const SCRIPT: &str = "local r, i = {}, 1 while i <= #ARGV do local n = tonumber(ARGV[i]) \
    r[#r + 1] = redis.pcall(unpack(ARGV, i + 1, i + n)) i = i + n + 1 end return r";

#[derive(Clone, Debug)]
struct Call {
    name: &'static str,
    keys: Vec<usize>,
    tiers: Vec<Tier>,
    cost: u64,
    strict: bool,
}

impl Call {
    /// The tiers of the key at this position.
    fn tiers_of(&self, n: usize) -> &[Tier] {
        if self.name == "MHIT" { &self.tiers[n..=n] } else { &self.tiers }
    }

    fn longest(&self, n: usize) -> u64 {
        self.tiers_of(n).iter().map(|tier| tier.1).max().unwrap()
    }

    fn line(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|&key| KEYS[key]).collect();
        let mut line = format!("RATELIMIT.{}", self.name);
        if self.name == "MHIT" {
            write!(line, " {}", keys.len()).unwrap();
        }
        write!(line, " {}", keys.join(" ")).unwrap();
        self.tiers.iter().for_each(|(limit, window)| write!(line, " {limit} {window}ms").unwrap());
        write!(line, " COST {}{}", self.cost, if self.strict { " STRICT" } else { "" }).unwrap();
        line
    }
}

#[derive(Clone, Debug)]
enum Line {
    Call(Call),
    /// What somebody else does.
    Other(interference::Act),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Plain,
    /// The next step happens before EXEC.
    Transaction,
    Script,
    Function,
}

#[derive(Clone, Debug)]
enum Act {
    Lines(How, Vec<Line>),
    /// Something that must change no data.
    Maintain(String),
    /// The replica is asked the same as the primary.
    AskReplica(Call),
}

#[derive(Clone, Debug)]
struct Step {
    client: usize,
    /// Milliseconds that pass before it.
    go: i64,
    act: Act,
}

impl std::fmt::Display for Step {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "client {}, {:+} ms, ", self.client, self.go)?;
        match &self.act {
            Act::Maintain(line) => write!(out, "{line}"),
            Act::AskReplica(call) => write!(out, "on both: {}", call.line()),
            Act::Lines(how, lines) => {
                let line = |line: &Line| match line {
                    Line::Call(call) => call.line(),
                    Line::Other(act) => act.line.clone(),
                };
                write!(out, "{how:?}: {}", lines.iter().map(line).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

fn random_call(rng: &mut fastrand::Rng) -> Call {
    let limit = |rng: &mut fastrand::Rng| match rng.u8(..10) {
        0 => rng.u64(..3),
        1 => (1 << 53) - 1,
        _ => rng.u64(3..40),
    };
    let cost = match rng.u8(..12) {
        0 => rng.u64(1..100),
        1 => (1 << 53) - rng.u64(1..3),
        2..5 => rng.u64(1..5),
        _ => 1,
    };
    if rng.u8(..6) == 0 {
        let mut keys: Vec<usize> = (0..KEYS.len()).collect();
        rng.shuffle(&mut keys);
        keys.truncate(rng.usize(1..=3));
        let window = |key: usize, rng: &mut fastrand::Rng| match key {
            ..SINGLE_MINDED => LONGEST,
            _ => *rng.choice(&WINDOWS).unwrap(),
        };
        let tiers = keys.iter().map(|&key| (limit(rng), window(key, rng))).collect();
        return Call { name: "MHIT", keys, tiers, cost, strict: false };
    }
    let key = rng.usize(..KEYS.len());
    let mut tiers: Vec<Tier> = (0..rng.usize(1..4)).map(|_| (limit(rng), *rng.choice(&WINDOWS).unwrap())).collect();
    if key < SINGLE_MINDED {
        tiers[0].1 = LONGEST;
        rng.shuffle(&mut tiers);
    }
    let name = if rng.u8(..8) == 0 { "PEEK" } else { "HIT" };
    Call { name, keys: vec![key], tiers, cost, strict: name == "HIT" && rng.u8(..12) == 0 }
}

fn random_step(rng: &mut fastrand::Rng, at: usize, backwards: bool) -> Step {
    let go = match rng.u16(..400) {
        0 => rng.i64(0..6_000),
        1 if backwards => -rng.i64(0..4_000),
        2..200 => rng.i64(0..15),
        _ => 0,
    };
    let act = match rng.u16(..200) {
        0..3 => {
            let call = Call { name: "PEEK", strict: false, ..random_call(rng) };
            Act::AskReplica(Call { keys: call.keys[..1].to_vec(), ..call })
        }
        3..12 => Act::Maintain(match rng.u8(..20) {
            0..10 => MAINTENANCE.act(rng).line,
            10 => format!("CONFIG SET notify-keyspace-events {}", rng.choice(["KEA", "Kd"]).unwrap()),
            11 => "BGREWRITEAOF".to_owned(),
            12..15 => "DEBUG RELOAD".to_owned(),
            15 => "RATELIMIT.TOP".to_owned(),
            16 => "RATELIMIT.RESETSTAT".to_owned(),
            17 => "CLIENT KILL TYPE replica".to_owned(),
            18 => "INFO everything".to_owned(),
            _ => "SCRIPT FLUSH".to_owned(),
        }),
        _ => {
            let how = match rng.u8(..20) {
                0 | 1 => How::Transaction,
                2 | 3 => How::Script,
                4 => How::Function,
                _ => How::Plain,
            };
            let lines = if how == How::Plain { rng.usize(1..3) } else { rng.usize(1..6) };
            let line = |_| match rng.u8(..9) {
                0 => Line::Other(OTHERS.act(rng)),
                _ => Line::Call(random_call(rng)),
            };
            // Not every server knows these, and one that does not would refuse the whole transaction.
            let is_new = |line: &Line| matches!(line, Line::Other(act) if act.line.contains("DELREF"));
            let lines = (0..lines).map(line).filter(|line| how != How::Transaction || !is_new(line));
            Act::Lines(how, lines.collect())
        }
    };
    Step { client: at % 3, go, act }
}

/// What is at a key.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    kind: What,
    /// -1 for never, -2 if it does not exist.
    expires: i64,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Absent,
    Stream { rows: Vec<Row>, last: Id },
    Other,
}

type Id = (u64, u64);
type Row = (Id, Vec<String>);

/// The commands that tell what is at a key, and what they tell.
const READS: usize = 3;

fn reads(key: usize) -> [Cmd; READS] {
    ["XRANGE {} - +", "PEXPIRETIME {}", "XINFO STREAM {}"].map(|line| words(&line.replace("{}", KEYS[key])))
}

impl Known {
    fn of(replies: &[Result<Value, String>]) -> Self {
        let [rows, expires, info] = replies else { panic!("three replies") };
        let expires = get(expires.clone().unwrap());
        let kind = match (rows, info) {
            (Ok(rows), Ok(info)) => {
                let rows: Vec<(String, Vec<String>)> = get(rows.clone());
                let info: Vec<(String, Value)> = get(info.clone());
                let last = info.into_iter().find(|(name, _)| name == "last-generated-id").unwrap().1;
                let rows = rows.into_iter().map(|(id, fields)| (id_of(&id), fields)).collect();
                What::Stream { rows, last: id_of(&get::<String>(last)) }
            }
            (Ok(_), Err(_)) => What::Absent,
            (Err(_), _) => What::Other,
        };
        Self { kind, expires }
    }

    /// The same at another time.
    fn at(self, now: u64) -> Self {
        if self.expires >= 0 && (self.expires as u64) < now { Self { kind: What::Absent, expires: -2 } } else { self }
    }

    fn rows(&self) -> &[Row] {
        if let What::Stream { rows, .. } = &self.kind { rows } else { &[] }
    }

    fn last(&self) -> Id {
        if let What::Stream { last, .. } = self.kind { last } else { (0, 0) }
    }
}

/// How long an entry asks to be kept, and its cost; None if it is foreign.
fn entry(fields: &[String]) -> Option<(u64, u64)> {
    let [name, cost] = fields else { return None };
    let keep = name.split('>').next()?.strip_suffix("ms")?.parse().ok()?;
    Some((keep, cost.parse().ok().filter(|cost| *cost > 0)?))
}

/// A log as the oracle takes it.
#[derive(Debug, Default, PartialEq)]
struct Log {
    hits: Vec<Hit>,
    newest: Option<Id>,
    /// How long it is kept, if it holds anything.
    keep: u64,
    /// The last ID, where a hit goes by it: it is known of an empty stream, and otherwise once an ID was not taken.
    last: Id,
    /// It was stamped by a clock that is no longer in use: nothing counts, and it is removed.
    stale: bool,
    /// Foreign entries below the top, or tallies that no module wrote: any answer in range will do.
    wild: bool,
}

/// `longest` is the longest window of the call.
fn log_of(known: &Known, now: u64, longest: u64) -> Result<Log, &'static str> {
    if known.kind == What::Other {
        return Err(WRONG_TYPE);
    }
    let rows = known.rows();
    let Some((newest, fields)) = rows.last() else {
        let last = known.last();
        return if last.0 > now + longest { Err(LAST_ID_AHEAD) } else { Ok(Log { last, ..Log::default() }) };
    };
    let (keep, _) = entry(fields).ok_or(NOT_A_LOG)?;
    if newest.0 > now + keep {
        return Ok(Log { stale: true, ..Log::default() });
    }
    let mut log = Log { newest: Some(*newest), keep, ..Log::default() };
    let mut next: Option<(Id, u64)> = None;
    for (id, fields) in rows.iter().rev() {
        let Some((_, cost)) = entry(fields) else {
            log.wild = true;
            break;
        };
        // Whatever was deleted between two entries counts until the earlier one leaves.
        let missing = next.map_or(0, |(next, next_cost)| next.1.wrapping_sub(id.1).wrapping_sub(next_cost));
        log.wild |= missing > 1 << 56;
        log.hits.push((id.0, cost.saturating_add(missing)));
        next = Some((*id, cost));
    }
    log.hits.reverse();
    Ok(log)
}

/// The ID that the next hit gets, and the moment of it.
fn next_id(log: &Log, clock: u64, cost: u64) -> (Id, Moment) {
    let newest = log.newest.unwrap_or_default();
    let now = clock.max(newest.0).max(log.last.0);
    let mut id = (now, newest.1.wrapping_add(cost));
    if id <= newest.max(log.last) {
        id.0 += 1;
    }
    (id, Moment { clock, now, stamp: id.0 })
}

/// What the oracle answers for each key.
fn expected_of(call: &Call, logs: &[Log], moments: &[(Id, Moment)]) -> Vec<[i64; 6]> {
    if call.name == "MHIT" {
        let mut hits: Vec<Vec<Hit>> = logs.iter().map(|log| log.hits.clone()).collect();
        let moments: Vec<Moment> = moments.iter().map(|moment| moment.1).collect();
        return oracle::ask_all_at(&mut hits, &moments, &call.tiers, call.cost);
    }
    let question = Question { tiers: &call.tiers, cost: call.cost, strict: call.strict };
    vec![oracle::ask_at(&mut logs[0].hits.clone(), moments[0].1, question)]
}

/// One key of a call: what was there before and after it, and what was answered.
#[derive(Clone, Copy)]
struct One<'a> {
    call: &'a Call,
    /// The position of the key in the call.
    n: usize,
    before: &'a Known,
    after: &'a Known,
    answer: [i64; 6],
    allowed: bool,
    stored: bool,
}

impl One<'_> {
    /// The ID of the hit and the answer, which are others than at first sight where the server refuses the ID or a refusal
    /// that counts has dropped entries.
    fn expected(&self, log: &mut Log, now: u64, mut id: Id, mut expected: [i64; 6]) -> Result<(Id, [i64; 6]), String> {
        let Self { call, n, before, after, allowed, stored, .. } = *self;
        // The server refuses an ID that is not above the last one. Then the log goes by the last one, or is started again
        // where that is further ahead than the log is kept.
        let pushed = !log.stale && matches!(before.kind, What::Stream { .. }) && id <= before.last();
        if pushed && stored && !log.wild {
            match before.last().0 > now + log.keep {
                true => *log = Log { stale: true, ..Log::default() },
                false => log.last = before.last(),
            }
            let question = Question { tiers: call.tiers_of(n), cost: call.cost, strict: call.strict };
            let next = next_id(log, now, call.cost);
            id = next.0;
            expected = oracle::ask_at(&mut log.hits.clone(), next.1, question);
        }
        if stored && !allowed && !log.wild {
            // The reply describes the log after the call, which has dropped what no longer decides anything. The hit itself is
            // the last that leaves the tier that binds.
            let window = expected[4] + now as i64 - id.0 as i64;
            let oldest = after.rows().first().map_or(0, |row| row.0.0 as i64);
            expected[5] = expected[5].max(oldest + window - now as i64);
        }
        Ok((id, expected))
    }

    /// Whether a call that stores nothing has written nothing. While a longer policy may be on its way out, a refused hit may
    /// prolong the key's life. And it does where the hit is told to wait for longer.
    fn is_left_alone(&self, log: &Log, now: u64) -> Result<(), String> {
        let Self { call, n, before, after, answer, .. } = *self;
        if call.name == "PEEK" {
            return if before == after { Ok(()) } else { Err("PEEK wrote".to_owned()) };
        }
        let retry = answer[3];
        let waiting = before.rows().last().is_some_and(|(_, fields)| fields[0].contains('>'));
        let longer = !log.stale && log.newest.is_some() && call.longest(n) > log.keep && retry > 0;
        let dies_early = |known: &Known| (0..now as i64 + retry).contains(&known.expires);
        let prolonged = before.expires != after.expires;
        if before.kind != after.kind || prolonged && !waiting && !(longer && dies_early(before)) {
            return Err("a refused hit wrote".to_owned());
        }
        if longer && dies_early(after) {
            return Err("the key does not live to see the end of the wait".to_owned());
        }
        Ok(())
    }
}

struct World {
    primary: Server,
    replica: Server,
    clients: Vec<Connection>,
    side: Connection,
    clock: Clock,
    now: u64,
    /// None for keys that somebody else has touched.
    known: Vec<Option<Known>>,
    /// Admitted hits of the single-minded keys since anybody else touched them.
    admitted: Vec<Vec<Hit>>,
    /// Hits admitted, hits refused, units admitted.
    counted: [u64; 3],
    dumps: Vec<Vec<u8>>,
    setup: Setup,
}

const FILES: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "no"];

impl World {
    fn new(clock: Clock, backwards: bool) -> Self {
        let setup = Setup::new().clock(&clock).args(NODES_OF_FOUR).args(REPLICATION);
        let primary = setup.clone().args(FILES).tcp().start();
        let replica = replica_of(&primary, setup.clone());
        let mut side = primary.connect();
        side.run(if backwards { "DEBUG SET-ACTIVE-EXPIRE 0" } else { "PING" });
        let library = format!("#!lua name=chaos\nredis.register_function('run', function(keys, ARGV) {SCRIPT} end)");
        side.ask(redis::cmd("FUNCTION").arg("LOAD").arg(library)).unwrap();
        let clients = (0..3).map(|_| primary.connect()).collect();
        let (known, admitted) = (vec![None; KEYS.len()], vec![Vec::new(); KEYS.len()]);
        Self {
            primary,
            replica,
            clients,
            side,
            clock,
            now: START,
            known,
            admitted,
            counted: [0; 3],
            dumps: Vec::new(),
            setup,
        }
    }

    fn forget(&mut self, keys: &[usize]) {
        for &key in keys {
            self.known[key] = None;
            self.admitted[key].clear();
        }
    }

    /// Lets time pass, but not to a moment at which a key is just about to expire: servers disagree on what it is then.
    fn go(&mut self, milliseconds: i64) {
        self.now = self.now.saturating_add_signed(milliseconds);
        while self.known.iter().flatten().any(|known| known.expires == self.now as i64) {
            self.now += 1;
        }
        self.clock.set(self.now);
    }

    /// Everything that has expired is gone.
    fn settle(&mut self) {
        for database in [1, 0] {
            self.side.run(&format!("SELECT {database}"));
            self.side.run(&format!("EXISTS {}", KEYS.join(" ")));
        }
    }

    /// Takes the first step, and the next one if it happens within that; what is left.
    fn step<'s>(&mut self, steps: &'s [Step], within: bool) -> Result<&'s [Step], String> {
        let (step, mut rest) = steps.split_first().unwrap();
        self.go(step.go);
        match &step.act {
            Act::Maintain(line) => {
                self.settle();
                let reply = self.side.ask(&words(line));
                // A rewrite may be under way already.
                let fine = reply.is_ok() || line.starts_with("BG") || line.starts_with("CLIENT KILL");
                if line.ends_with("RESETSTAT") {
                    self.counted = [0; 3];
                }
                fine.then_some(rest).ok_or_else(|| format!("{line}: {reply:?}"))
            }
            Act::AskReplica(call) => {
                self.settle();
                caught_up(&self.primary, &self.replica);
                let line = words(&call.line());
                let (one, other) = (self.side.ask(&line), self.replica.connect().ask(&line));
                (one == other)
                    .then_some(rest)
                    .ok_or_else(|| format!("{line:?}: the replica says {other:?}, not {one:?}"))
            }
            Act::Lines(how, lines) => {
                let batch = self.batch(lines, *how);
                let client = step.client;
                let replies = match how {
                    How::Plain => batch.iter().map(|(cmd, _)| self.clients[client].ask(cmd)).collect(),
                    How::Transaction => {
                        self.clients[client].run("MULTI");
                        for (cmd, _) in &batch {
                            self.clients[client].ask(cmd)?;
                        }
                        if !within && rest.first().is_some_and(|next| next.client != client) {
                            rest = self.step(rest, true)?;
                        }
                        values(self.clients[client].ask(&words("EXEC"))?)
                    }
                    How::Script | How::Function => {
                        let mut cmd = match how {
                            How::Script => redis::cmd("EVAL").arg(SCRIPT).to_owned(),
                            _ => redis::cmd("FCALL").arg("run").to_owned(),
                        };
                        cmd.arg(KEYS.len()).arg(&KEYS);
                        for (one, _) in &batch {
                            let args: Vec<Vec<u8>> = one.args_iter().map(arg_bytes).collect();
                            cmd.arg(args.len()).arg(args);
                        }
                        values(self.clients[client].ask(&cmd)?)
                    }
                };
                self.check(&batch, &replies)?;
                Ok(rest)
            }
        }
    }

    /// The commands of some lines, with those that tell what is stored around the calls.
    fn batch(&mut self, lines: &[Line], how: How) -> Vec<(Cmd, Part)> {
        let mut batch = Vec::new();
        for line in lines {
            match line {
                Line::Call(call) => {
                    // Often nothing is read before, so that the call itself finds what has expired.
                    let blind = self.now % 4 != 0 && how != How::Transaction && lines.len() == 1;
                    let unread = call.keys.iter().filter(|&&key| !blind || self.known[key].is_none());
                    batch.extend(unread.flat_map(|&key| reads(key).map(|cmd| (cmd, Part::Read(key)))));
                    batch.push((words(&call.line()), Part::Call(call.clone())));
                    batch.extend(call.keys.iter().flat_map(|&key| reads(key).map(|cmd| (cmd, Part::Read(key)))));
                }
                Line::Other(act) => batch.push((self.resolve(act), Part::Other(act.keys.clone()))),
            }
        }
        batch
    }

    fn resolve(&mut self, act: &interference::Act) -> Cmd {
        let seen = self.side.ask(&act.look());
        let cmd = act.command(&seen, self.now, &self.dumps);
        if act.is_dump() {
            if let Ok(Value::BulkString(dump)) = self.side.ask(&cmd) {
                self.dumps.push(dump);
            }
        }
        cmd
    }

    fn check(&mut self, batch: &[(Cmd, Part)], replies: &[Result<Value, String>]) -> Result<(), String> {
        if batch.len() != replies.len() {
            return Err(format!("{} replies to {} commands", replies.len(), batch.len()));
        }
        let mut at = 0;
        while at < batch.len() {
            match &batch[at].1 {
                Part::Read(key) => {
                    self.known[*key] = Some(Known::of(&replies[at..at + READS]));
                    at += READS;
                }
                Part::Other(keys) => {
                    self.forget(keys);
                    at += 1;
                }
                Part::Call(call) => {
                    let before: Vec<Known> =
                        call.keys.iter().map(|&key| self.known[key].clone().unwrap().at(self.now)).collect();
                    let read = |n: usize| Known::of(&replies[at + 1 + n * READS..][..READS]);
                    let after: Vec<Known> = (0..call.keys.len()).map(read).collect();
                    self.judge(call, &before, &replies[at], &after).map_err(|error| {
                        format!(
                            "{error}\n{} at {}\nreply {:?}\nbefore {before:?}\nafter {after:?}",
                            call.line(),
                            self.now,
                            replies[at]
                        )
                    })?;
                    at += 1 + call.keys.len() * READS;
                    call.keys.iter().zip(after).for_each(|(&key, after)| self.known[key] = Some(after));
                }
            }
        }
        Ok(())
    }

    /// Whether a call was answered and carried out as it must be.
    fn judge(
        &mut self,
        call: &Call,
        before: &[Known],
        reply: &Result<Value, String>,
        after: &[Known],
    ) -> Result<(), String> {
        let now = self.now;
        let logs: Vec<Result<Log, &str>> =
            before.iter().enumerate().map(|(n, known)| log_of(known, now, call.longest(n))).collect();
        let is_wild = |log: &Result<Log, &str>| log.as_ref().is_ok_and(|log| log.wild);
        let may_fail = |log: &Result<Log, &str>, error: &str| *log == Err(error) || is_wild(log) && error == NOT_A_LOG;
        if let Err(error) = reply {
            let expected = logs.iter().any(|log| may_fail(log, error)) && before == after;
            return if expected { Ok(()) } else { Err("an error without a reason".to_owned()) };
        }
        let mut logs = logs.into_iter().collect::<Result<Vec<_>, _>>().map_err(|expected| format!("not {expected}"))?;
        let wild = logs.iter().any(|log| log.wild);
        let answers: Vec<[i64; 6]> = match reply {
            Err(error) => return Err(error.clone()),
            Ok(Value::Array(items)) if call.name == "MHIT" => items.iter().map(six).collect(),
            Ok(value) => vec![six(value)],
        };

        let allowed = answers[0][0] == 1;
        let possible = call.tiers.iter().all(|(limit, _)| call.cost <= *limit);
        let stored = call.name != "PEEK" && (allowed || call.strict && possible);
        let moments: Vec<(Id, Moment)> = logs.iter().map(|log| next_id(log, now, call.cost)).collect();
        let expected = expected_of(call, &logs, &moments);
        for (n, log) in logs.iter_mut().enumerate() {
            let (before, after) = (&before[n], &after[n]);
            let one = One { call, n, before, after, answer: answers[n], allowed, stored };
            let (id, expected) = one.expected(log, now, moments[n].0, expected[n])?;
            if !wild && one.answer != expected {
                return Err(format!("not {expected:?} for {}", KEYS[call.keys[n]]));
            }
            if one.answer[0] != i64::from(allowed)
                || !is_in_range(one.answer, (2 * LONGEST + 1) as i64, call.name != "MHIT")
            {
                return Err("out of range, or a wait longer than two windows".to_owned());
            }
            if stored {
                self.stored(&one, id, log)?
            } else {
                one.is_left_alone(log, now)?
            }
            if call.name != "PEEK" {
                self.counted[0] += u64::from(allowed);
                self.counted[1] += u64::from(!allowed && one.answer[3] != 0);
                self.counted[2] += if allowed { call.cost } else { 0 };
            }
        }
        Ok(())
    }

    /// Whether a hit was stored as it must be, and nothing else was lost.
    fn stored(&mut self, one: &One, id: Id, log: &Log) -> Result<(), String> {
        let One { call, n, before, after, allowed, .. } = *one;
        let Some(((newest, fields), rest)) = after.rows().split_last() else {
            return Err("nothing is stored".to_owned());
        };
        let Some((keep, cost)) = entry(fields) else { return Err("a foreign entry".to_owned()) };
        let own = call.tiers_of(n);
        let begins = log.stale || rest.is_empty() && newest.1 == call.cost;
        if !log.wild && *newest != id || cost != call.cost || after.last() != *newest {
            return Err(format!("not stored as {id:?}"));
        }
        if keep < call.longest(n) || after.expires < (newest.0 + keep) as i64 {
            return Err("it is not kept for long enough".to_owned());
        }
        let key = call.keys[n];
        if begins {
            self.admitted[key].clear();
        } else {
            let (dropped, kept) = before.rows().split_at(before.rows().len().saturating_sub(rest.len()));
            let surplus = !allowed && rest.len() as u64 + 1 >= own.iter().map(|tier| tier.0).max().unwrap();
            let heavy = call.cost > 1 << 32;
            if kept != rest || dropped.iter().any(|row| row.0.0 + keep > newest.0 && !surplus && !heavy) {
                return Err("entries that count were dropped".to_owned());
            }
            // Other calls on a key with STRICT should name the same limits, and do not here.
            if surplus && !dropped.is_empty() {
                self.admitted[key].clear();
            }
        }
        if log.stale && !rest.is_empty() {
            return Err("it was not started again".to_owned());
        }

        if allowed && key < SINGLE_MINDED {
            let hits = &mut self.admitted[key];
            hits.push((newest.0, call.cost));
            for (limit, window) in own {
                let used: u64 = hits.iter().filter(|hit| hit.0 + window > newest.0).map(|hit| hit.1).sum();
                if used > *limit {
                    return Err(format!("{used} units in {window} ms"));
                }
            }
            hits.retain(|hit| hit.0 + LONGEST > newest.0);
        }
        Ok(())
    }

    /// Everybody holds the same data.
    fn compare(mut self) -> Result<(), String> {
        let expire_at = |side: &mut Connection, key: &str| side.integer(&format!("PEXPIRETIME {key}"));
        for database in [1, 0] {
            self.side.run(&format!("SELECT {database}"));
            while KEYS.iter().any(|key| expire_at(&mut self.side, key) == self.now as i64) {
                self.go(1);
            }
        }
        self.settle();
        for (name, counted) in ["hits_admitted", "hits_refused", "units_admitted"].iter().zip(self.counted) {
            let shown = self.side.info("ratelimit", &format!("ratelimit_{name}"));
            if shown != counted.to_string() {
                return Err(format!("INFO says {name} {shown}, not {counted}"));
            }
        }
        let expected = self.side.fingerprint();
        let same = |name: &str, print: Vec<String>| match print == expected {
            true => Ok(()),
            false => Err(format!("{name} holds {print:#?}\nnot {expected:#?}")),
        };
        wait_for("no rewrite is under way", || self.side.info("persistence", "aof_rewrite_in_progress") == "0");
        caught_up(&self.primary, &self.replica);
        same("the replica", self.replica.connect().fingerprint())?;
        let files = self.setup.args(FILES);
        let server = start_again(files.clone(), self.primary.kill());
        let mut client = server.connect();
        same("the append-only file", client.fingerprint())?;
        client.run("DEBUG RELOAD");
        same("a snapshot", client.fingerprint())?;
        let server = start_again(files.without_module(), server.kill());
        same("a server without the module", server.connect().fingerprint())
    }
}

/// What a command of a batch is.
#[derive(Clone, Debug)]
enum Part {
    Call(Call),
    Other(Vec<usize>),
    Read(usize),
}

fn values(reply: Value) -> Vec<Result<Value, String>> {
    let Value::Array(items) = reply else { panic!("{reply:?} is no array") };
    let result = |item| match item {
        Value::ServerError(error) => Err(text_of(&error)),
        value => Ok(value),
    };
    items.into_iter().map(result).collect()
}

fn arg_bytes(arg: redis::Arg<&[u8]>) -> Vec<u8> {
    match arg {
        redis::Arg::Simple(bytes) => bytes.to_vec(),
        _ => panic!("a simple argument"),
    }
}

fn fails(steps: &[Step], backwards: bool) -> Option<String> {
    let clock = Clock::at(START)?;
    let mut world = World::new(clock, backwards);
    let mut rest = steps;
    while !rest.is_empty() {
        match world.step(rest, false) {
            Ok(left) => rest = left,
            Err(error) => {
                let crash = if world.primary.is_alive() { String::new() } else { world.primary.log() };
                return Some(format!("step {}: {error}\n{crash}", steps.len() - rest.len()));
            }
        }
    }
    world.compare().err()
}

/// The first line of an error without its numbers.
fn kind(error: &str) -> String {
    error.lines().next().unwrap_or_default().chars().filter(|char| !char.is_ascii_digit()).collect()
}

/// Fewer steps that still fail: larger and smaller parts are left out, then single lines, for as long as that helps.
fn shrink(mut steps: Vec<Step>, mut error: String, backwards: bool) -> (Vec<Step>, String) {
    let until = Instant::now() + Duration::from_secs(180);
    let mut try_without = |steps: &mut Vec<Step>, fewer: Vec<Step>| {
        let failed = if Instant::now() < until { fails(&fewer, backwards) } else { None };
        // Not with another failure, which would lead astray.
        let failed = failed.filter(|now| kind(now) == kind(&error));
        let has_failed = failed.is_some();
        if let Some(now) = failed {
            (*steps, error) = (fewer, now);
        }
        has_failed
    };
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            at += if try_without(&mut steps, fewer) { 0 } else { size };
        }
        size /= 2;
    }
    for at in 0..steps.len() {
        let mut line = 0;
        while matches!(&steps[at].act, Act::Lines(_, lines) if line < lines.len()) {
            let mut fewer = steps.clone();
            if let Act::Lines(_, lines) = &mut fewer[at].act {
                lines.remove(line);
            }
            line += usize::from(!try_without(&mut steps, fewer));
        }
    }
    (steps, error)
}

/// `SEED` repeats one history.
#[test]
fn everything_at_once() {
    if Clock::at(START).is_none() {
        return;
    }
    let given: Option<u64> = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let first = given.unwrap_or_else(|| fastrand::u64(..1 << 48));
    let (histories, length) = if is_long() { (100, 1_000) } else { (3, 500) };
    let histories = if given.is_some() { 1 } else { histories };
    for seed in first..first + histories {
        let mut rng = fastrand::Rng::with_seed(seed);
        let backwards = rng.bool();
        let steps: Vec<Step> = (0..length).map(|at| random_step(&mut rng, at, backwards)).collect();
        if let Some(error) = fails(&steps, backwards) {
            eprintln!("everything_at_once: SEED={seed}: {error}");
            let (steps, error) = shrink(steps, error, backwards);
            let shown: Vec<String> = steps.iter().map(Step::to_string).collect();
            panic!("everything_at_once: SEED={seed}, these steps suffice:\n{}\n{error}", shown.join("\n"));
        }
    }
    eprintln!("everything_at_once: {histories} histories of {length} steps, seeds from {first}");
}
