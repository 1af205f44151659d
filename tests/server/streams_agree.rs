//! The simulated server's streams are this server's streams: the same random commands give the same replies, entries and
//! counters, and the same nodes, each with the same key, bytes, live and deleted entries.

use fastrand::Rng;
use redis::{Cmd, Connection, ConnectionLike, Pipeline, Value};
use simulation::replay::flavor_of;
use simulation::server::FLAVORS;
use simulation::stream::{Bounds, Dump, Fields, Id, NodeView, Row, Server, Stream};
use support::client::{call, show, text_of};
use support::seeds::{calls_or, random};
use support::{Ask, Setup, get};

const KEY: &str = "key";

#[test]
fn nodes_are_equal() {
    let mut rng = random("nodes_are_equal");
    let server = Setup::new().without_module().args(["--rdbcompression", "no"]).start();
    let client = server.connect();
    let mut pair = Pair::new(client);
    let mut left = calls_or(1_200);
    while left > 0 {
        let calls = rng.usize(20..200).min(left);
        left -= calls;
        history(&mut pair, &mut rng, calls);
    }
    eprintln!("{:?}", pair.seen);
}

/// What a run has come across.
#[derive(Debug, Default)]
struct Seen {
    commands: usize,
    most_entries: u64,
    most_nodes: usize,
    most_bytes: u64,
    /// Steps after which a node had tombstones, or nothing else, or an ID below the one before it, or a node
    /// took the place of another.
    tombstones: usize,
    buried: usize,
    disordered: usize,
    lost: usize,
}

/// A server's stream and the simulated one.
struct Pair {
    client: Connection,
    kind: Server,
    bounds: Bounds,
    stream: Stream,
    /// Since the key was created.
    typed: Vec<String>,
    seen: Seen,
}

/// What is asked after each step.
#[derive(Clone, Copy, Debug)]
struct Reading {
    from: Id,
    to: Id,
    count: usize,
}

impl Pair {
    fn new(mut client: Connection) -> Self {
        let kind = FLAVORS[flavor_of(&client.text("INFO server"))].streams;
        Self {
            client,
            stream: Stream::of(kind),
            kind,
            bounds: Bounds::DEFAULT,
            typed: Vec::new(),
            seen: Seen::default(),
        }
    }

    fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        for (name, value) in [("bytes", bounds.bytes), ("entries", bounds.entries)] {
            let line = format!("CONFIG SET stream-node-max-{name} {value}");
            self.client.run(&line);
            self.typed.push(line);
        }
    }

    /// Runs commands on the server, and says what it replied and what it then has.
    fn run(&mut self, cmds: &[Cmd], reading: Reading) -> (Vec<Result<Value, String>>, Vec<Value>) {
        let mut pipeline = Pipeline::new();
        for cmd in cmds {
            self.typed.push(typed(cmd));
            pipeline.add_command(cmd.clone());
        }
        let Reading { from, to, count } = reading;
        for line in [
            format!("XLEN {KEY}"),
            format!("XRANGE {KEY} - +"),
            format!("XRANGE {KEY} {from} {to} COUNT {count}"),
            format!("XREVRANGE {KEY} {to} {from} COUNT {count}"),
            format!("XINFO STREAM {KEY} FULL COUNT 1"),
            format!("DUMP {KEY}"),
        ] {
            pipeline.add_command(support::words(&line));
        }
        self.seen.commands += cmds.len();
        let replies = self.client.req_packed_commands(&pipeline.get_packed_pipeline(), 0, cmds.len() + 6);
        let mut replies = replies.unwrap_or_else(|error| panic!("{error}, after {}", self.typed.join("\n")));
        let state = replies.split_off(cmds.len());
        let replies = replies.into_iter().map(|reply| match reply {
            Value::ServerError(error) => Err(text_of(&error)),
            value => Ok(value),
        });
        (replies.collect(), state)
    }

    /// Compares what the server has with the simulated stream.
    fn agree(&mut self, state: Vec<Value>, reading: Reading) {
        let told = || format!("{reading:?} after\n{}", self.typed.join("\n"));
        let stream = &self.stream;
        let [len, all, forward, backward, info, dump]: [Value; 6] = state.try_into().unwrap();
        assert_eq!(len, Value::Int(stream.len() as i64), "XLEN: {}", told());
        let Reading { from, to, count } = reading;
        assert_rows(all, stream.iter(), || format!("XRANGE: {}", told()));
        assert_rows(forward, stream.range(from, to).take(count), || format!("a part: {}", told()));
        assert_rows(backward, stream.range(from, to).rev().take(count), || format!("backwards: {}", told()));

        let nodes = stream.nodes();
        let info: Vec<(String, Value)> = get(info);
        let mut fields = 0;
        for (name, value) in info {
            let ours = match name.as_str() {
                "length" => stream.len().to_string(),
                "radix-tree-keys" => nodes.len().to_string(),
                "last-generated-id" => stream.last_id().to_string(),
                "max-deleted-entry-id" => stream.max_deleted_id().to_string(),
                "entries-added" => (stream.entries_added() as i64).to_string(),
                "recorded-first-entry-id" => stream.first_id().to_string(),
                "groups" => {
                    let groups: Vec<Vec<(String, Value)>> = get(value);
                    let theirs: Vec<(String, String)> = groups
                        .into_iter()
                        .map(|group| (text(&group, "name"), text(&group, "last-delivered-id")))
                        .collect();
                    let name = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
                    let ours: Vec<_> = stream.groups().map(|(group, id)| (name(group), id.to_string())).collect();
                    assert_eq!(theirs, ours, "groups: {}", told());
                    assert_eq!(theirs.len(), stream.group_count());
                    fields += 1;
                    continue;
                }
                _ => continue,
            };
            fields += 1;
            assert_eq!(show(&value), ours, "{name}: {}", told());
        }
        assert_eq!(fields, 7, "fields of XINFO");

        let theirs = Dump::read(&get::<Vec<u8>>(dump));
        assert_eq!(theirs, Some(Dump::of(stream)), "DUMP of the server, and ours: {}", told());

        self.seen.most_entries = self.seen.most_entries.max(stream.len());
        self.seen.most_nodes = self.seen.most_nodes.max(nodes.len());
        self.seen.most_bytes = self.seen.most_bytes.max(nodes.iter().map(|node| node.bytes).max().unwrap_or_default());
        self.seen.tombstones += usize::from(nodes.iter().any(|node| node.deleted > 0));
        self.seen.buried += usize::from(nodes.iter().any(|node| node.entries == 0));
        self.seen.disordered += usize::from(!stream.iter().is_sorted_by_key(|row| row.id));
        self.seen.lost += usize::from(self.has_lost());
        if self.seen.commands % 8 == 0 {
            walk_is_consistent(stream);
        }
    }

    /// Whether the stream counts entries of a node that is lost. The server ends itself at XSETID if no others are left.
    fn has_lost(&self) -> bool {
        self.stream.nodes().iter().map(|node| node.entries).sum::<u64>() < self.stream.len()
    }

    /// One command, its reply compared, and all that the server has.
    fn step(&mut self, rng: &mut Rng, action: &Action) {
        let reading = reading(rng, &self.stream);
        let cmds = action.commands();
        let (replies, state) = self.run(&cmds, reading);
        for (reply, ours) in replies.into_iter().zip(action.apply(&mut self.stream, self.bounds)) {
            let theirs = reply.map(|value| if value == Value::Okay { "OK".to_owned() } else { show(&value) });
            let same = match (&theirs, &ours) {
                // Which it is depends on how far the last ID is.
                (Err(text), Err("")) => text.starts_with("ERR The "),
                (Err(text), Err(ours)) => text == ours,
                (Ok(text), Ok(ours)) => text == ours,
                _ => false,
            };
            assert!(same, "{theirs:?}, not {ours:?}:\n{}", self.typed.join("\n"));
        }
        self.agree(state, reading);
    }
}

/// A command to both.
#[derive(Clone, Debug)]
enum Action {
    Add(Vec<(Id, Vec<Vec<u8>>)>),
    AddAndTrim(Id, Vec<Vec<u8>>, Trim),
    Trim(Trim),
    Delete(Vec<Id>),
    SetId(Id, Option<u64>, Option<Id>),
    CreateGroup(String, Id),
    DestroyGroup(String),
}

#[derive(Clone, Copy, Debug)]
struct Trim {
    target: Target,
    approximately: bool,
    limit: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Length(u64),
    MinId(Id),
}

impl Trim {
    fn words(self) -> Vec<Vec<u8>> {
        let (name, target) = match self.target {
            Target::Length(length) => ("MAXLEN", length.to_string()),
            Target::MinId(id) => ("MINID", id.to_string()),
        };
        let mut words = vec![name.to_owned(), if self.approximately { "~" } else { "=" }.to_owned(), target];
        if let Some(limit) = self.limit {
            words.extend(["LIMIT".to_owned(), limit.to_string()]);
        }
        words.into_iter().map(String::into_bytes).collect()
    }

    fn apply(self, stream: &mut Stream, bounds: Bounds) -> u64 {
        let limit = if self.approximately { self.limit.unwrap_or(bounds.limit_of_command()) } else { 0 };
        match self.target {
            Target::Length(length) => stream.trim_length(length, self.approximately, limit),
            Target::MinId(id) => stream.trim_min_id(id, self.approximately, limit),
        }
    }
}

impl Action {
    fn commands(&self) -> Vec<Cmd> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let id = |id: &Id| bytes(&id.to_string());
        let one = |name: &str, words: Vec<Vec<u8>>| {
            let words: Vec<Vec<u8>> = [bytes(KEY)].into_iter().chain(words).collect();
            vec![call(name, &words)]
        };
        match self {
            Action::Add(entries) => {
                let add = |(at, texts): &(Id, Vec<Vec<u8>>)| one("XADD", [vec![id(at)], texts.clone()].concat());
                entries.iter().flat_map(add).collect()
            }
            Action::AddAndTrim(at, texts, trim) => one("XADD", [trim.words(), vec![id(at)], texts.clone()].concat()),
            Action::Trim(trim) => one("XTRIM", trim.words()),
            Action::Delete(ids) => one("XDEL", ids.iter().map(id).collect()),
            Action::SetId(at, added, max_deleted) => {
                let mut words = vec![id(at)];
                if let Some(added) = added {
                    words.extend([bytes("ENTRIESADDED"), bytes(&added.to_string())]);
                }
                if let Some(max_deleted) = max_deleted {
                    words.extend([bytes("MAXDELETEDID"), id(max_deleted)]);
                }
                one("XSETID", words)
            }
            Action::CreateGroup(name, at) => vec![call("XGROUP", &["CREATE", KEY, name, &at.to_string()])],
            Action::DestroyGroup(name) => vec![call("XGROUP", &["DESTROY", KEY, name])],
        }
    }

    /// What the replies must be; an empty error is any.
    fn apply(&self, stream: &mut Stream, bounds: Bounds) -> Vec<Result<String, &'static str>> {
        let mut add = |id: Id, texts: &[Vec<u8>]| {
            let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
            let added = match id.seq % 2 {
                0 => stream.append(id, Fields::new(&texts), bounds),
                _ => stream.append_texts(id, &texts, bounds),
            };
            if added { Ok(id.to_string()) } else { Err("") }
        };
        match self {
            Action::Add(entries) => entries.iter().map(|(id, texts)| add(*id, texts)).collect(),
            Action::AddAndTrim(id, texts, trim) => {
                let reply = add(*id, texts);
                if reply.is_ok() {
                    trim.apply(stream, bounds);
                }
                vec![reply]
            }
            Action::Trim(trim) => vec![Ok(trim.apply(stream, bounds).to_string())],
            Action::Delete(ids) => vec![Ok(ids.iter().filter(|&&id| stream.delete(id)).count().to_string())],
            Action::SetId(id, added, max_deleted) => {
                vec![stream.set_id(*id, *added, *max_deleted).map(|()| "OK".to_owned())]
            }
            Action::CreateGroup(name, id) => {
                let new = stream.create_group(name.as_bytes(), *id);
                let reply = if new { Ok("OK".to_owned()) } else { Err("BUSYGROUP Consumer Group name already exists") };
                vec![reply]
            }
            Action::DestroyGroup(name) => vec![Ok(u8::from(stream.destroy_group(name.as_bytes())).to_string())],
        }
    }
}

/// A command as one would type it.
fn typed(cmd: &Cmd) -> String {
    let word = |arg: redis::Arg<&[u8]>| match arg {
        redis::Arg::Simple(bytes) if bytes.len() > 100 => format!("{}...({})", bytes[..10].escape_ascii(), bytes.len()),
        redis::Arg::Simple(bytes) if !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        redis::Arg::Simple(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        _ => "?".to_owned(),
    };
    cmd.args_iter().map(word).collect::<Vec<_>>().join(" ")
}

fn text(fields: &[(String, Value)], name: &str) -> String {
    fields.iter().find(|field| field.0 == name).map(|field| show(&field.1)).unwrap_or_default()
}

fn assert_rows<'a>(theirs: Value, ours: impl Iterator<Item = Row<'a>>, told: impl Fn() -> String) {
    let theirs: Vec<(String, Vec<Vec<u8>>)> = redis::from_redis_value(theirs).unwrap();
    let ours: Vec<Row> = ours.collect();
    let same = |(theirs, ours): (&(String, Vec<Vec<u8>>), &Row)| {
        Id::parse(theirs.0.as_bytes()) == Some(ours.id)
            && theirs.1.len() == 2 * ours.fields.len()
            && (0..ours.fields.len()).all(|at| ours.fields.get(at) == (&theirs.1[2 * at], &theirs.1[2 * at + 1]))
    };
    if theirs.len() != ours.len() || !theirs.iter().zip(&ours).all(same) {
        panic!("{theirs:?}\nof the server, and ours:\n{ours:?}\n{}", told());
    }
}

/// Places lead to the same entries as ranges do.
fn walk_is_consistent(stream: &Stream) {
    let forward = std::iter::successors(stream.first_at_or_after(Id::MIN), |&place| stream.after(place));
    assert!(forward.map(|place| stream.at(place)).eq(stream.iter()));
    let backward = std::iter::successors(stream.last(), |&place| stream.before(place));
    assert!(backward.map(|place| stream.at(place)).eq(stream.iter().rev()));
    // Both ends meet.
    let mut ends = stream.iter();
    let mut taken = 0;
    while let Some(front) = ends.next() {
        taken += 1;
        let Some(back) = ends.next_back() else { break };
        taken += 1;
        assert_ne!(front.id, back.id);
    }
    assert_eq!(taken, stream.iter().count());
    assert!(ends.next().is_none() && ends.next_back().is_none());
}

/// What the commands of a history are made of.
struct Habits {
    names: Vec<Vec<Vec<u8>>>,
    /// One value, over and over, or others.
    value: Option<Vec<u8>>,
    /// IDs that were appended.
    ids: Vec<Id>,
    small: bool,
}

fn history(pair: &mut Pair, rng: &mut Rng, calls: usize) {
    pair.client.run(&format!("DEL {KEY}"));
    pair.typed.clear();
    pair.stream = Stream::of(pair.kind);
    let bounds = bounds(rng);
    pair.set_bounds(bounds);
    let mut habits = Habits {
        names: (0..rng.usize(1..4)).map(|_| (0..rng.usize(1..4)).map(|_| any_text(rng)).collect()).collect(),
        value: rng.bool().then(|| any_text(rng)),
        ids: Vec::new(),
        small: rng.u8(..4) > 0,
    };
    if rng.bool() {
        habits.names.truncate(1);
    }
    // The first makes the key.
    let start = match rng.u8(..4) {
        0 => Id::new(0, 1),
        1 => Id::new(rng.u64(..) >> rng.u32(1..64), rng.u64(..)),
        _ => Id::new(1_767_225_600_000, rng.u64(1..1_000)),
    };
    let texts = habits.texts(rng);
    add(pair, rng, &mut habits, vec![(start, texts)]);
    for _ in 1..calls {
        if pair.has_lost() {
            return;
        }
        match rng.u8(..100) {
            0..51 => {
                let entries = habits.entries(rng, &pair.stream, 1);
                add(pair, rng, &mut habits, entries);
            }
            51..53 => {
                // So many rarely, and not for long: each step asks for all of them.
                let is_huge = rng.u16(..500) == 0;
                let many = if is_huge { 4_500 } else { rng.usize(2..200) };
                let entries = habits.entries(rng, &pair.stream, many);
                add(pair, rng, &mut habits, entries);
                if is_huge {
                    let target = Target::Length(rng.u64(..300));
                    pair.step(rng, &Action::Trim(Trim { target, approximately: false, limit: None }));
                }
            }
            53..56 => {
                let (id, texts) = habits.entries(rng, &pair.stream, 1).remove(0);
                let trim = habits.trim(rng, &pair.stream);
                habits.ids.push(id);
                pair.step(rng, &Action::AddAndTrim(id, texts, trim));
            }
            56..74 => {
                let trim = habits.trim(rng, &pair.stream);
                pair.step(rng, &Action::Trim(trim));
            }
            74..90 => {
                let ids = habits.victims(rng, &pair.stream);
                pair.step(rng, &Action::Delete(ids));
            }
            90..94 => {
                let id = habits.known(rng, &pair.stream);
                let added = (rng.u8(..4) == 0).then(|| rng.u64(..2 * pair.stream.len() + 2));
                let max_deleted = (rng.u8(..4) == 0).then(|| habits.known(rng, &pair.stream));
                pair.step(rng, &Action::SetId(id, added, max_deleted));
            }
            94..96 => bury(pair, rng, &mut habits),
            96..98 => {
                let name = format!("group {}", rng.u8(..3));
                let id = habits.known(rng, &pair.stream);
                let action = if rng.bool() { Action::CreateGroup(name, id) } else { Action::DestroyGroup(name) };
                pair.step(rng, &action);
            }
            _ => {
                let bounds = self::bounds(rng);
                pair.set_bounds(bounds);
            }
        }
    }
}

fn add(pair: &mut Pair, rng: &mut Rng, habits: &mut Habits, entries: Vec<(Id, Vec<Vec<u8>>)>) {
    habits.ids.extend(entries.iter().map(|entry| entry.0));
    pair.step(rng, &Action::Add(entries));
}

/// Leaves nothing but tombstones, lowers the last ID below them, and appends until there is a node before them.
fn bury(pair: &mut Pair, rng: &mut Rng, habits: &mut Habits) {
    let Some(NodeView { master, entries, .. }) = pair.stream.nodes().pop() else { return };
    let many = rng.u64(1..5).min(entries.saturating_sub(1)) as usize;
    let last: Vec<Id> = pair.stream.iter().rev().take(many).map(|row| row.id).collect();
    let Some(&newest) = last.first() else { return };
    pair.step(rng, &Action::Delete(last));
    pair.step(rng, &Action::Trim(Trim { target: Target::MinId(newest), approximately: false, limit: None }));
    let top = pair.stream.last_id();
    pair.step(rng, &Action::SetId(top, None, Some(Id::new(0, 1))));
    let down = rng.u64(1..6);
    let below = if rng.bool() { newest } else { master };
    let below = Id::new(below.ms, below.seq.saturating_sub(down));
    pair.step(rng, &Action::SetId(below, None, None));
    if rng.bool() {
        let room = pair.stream.nodes().last().map_or(0, |node| node.entries + node.deleted) + rng.u64(..3);
        pair.set_bounds(Bounds { bytes: 4_096, entries: room });
    }
    for _ in 0..rng.usize(..4) {
        let Some(id) = pair.stream.last_id().next() else { return };
        let texts = habits.texts(rng);
        add(pair, rng, habits, vec![(id, texts)]);
    }
}

fn bounds(rng: &mut Rng) -> Bounds {
    let entries = *rng.choice(&[0, 1, 2, 3, 4, 16, 100, 100, 130, 5_000]).unwrap();
    let bytes = *rng.choice(&[0, 1, 64, 128, 512, 4_096, 4_096, 4_097, 100_000, 2 << 30]).unwrap();
    Bounds { bytes, entries }
}

/// A power of two or next to one.
fn edge(rng: &mut Rng) -> u64 {
    let most = rng.u32(1..64);
    (1 << rng.u32(..most)) + rng.u64(..3) - 1
}

fn any_text(rng: &mut Rng) -> Vec<u8> {
    const ODD: [&str; 18] = [
        "",
        "0",
        "-0",
        "00",
        "007",
        "-1",
        "+1",
        "-",
        "1 ",
        " 1",
        "1.0",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "99999999999999999999",
        "-99999999999999999999",
    ];
    let bytes = |many: usize| vec![b'x'; many];
    match rng.u8(..100) {
        0..30 => rng.u64(..200).to_string().into_bytes(),
        30..45 => {
            let sign = if rng.bool() { "-" } else { "" };
            format!("{sign}{}", edge(rng)).into_bytes()
        }
        45..55 => rng.choice(&ODD).unwrap().as_bytes().to_vec(),
        55..70 => b"60000ms".to_vec(),
        70..80 => (0..rng.usize(..12)).map(|_| rng.u8(..)).collect(),
        80..88 => bytes(rng.usize(58..70)),
        88..95 => bytes(rng.usize(118..132)),
        95..98 => bytes(rng.usize(4_085..4_100)),
        98 => bytes(rng.usize(16_376..16_381)),
        _ => {
            if rng.u8(..50) == 0 {
                bytes(rng.usize(2_097_144..2_097_149))
            } else {
                bytes(rng.usize(..2_000))
            }
        }
    }
}

impl Habits {
    fn texts(&self, rng: &mut Rng) -> Vec<Vec<u8>> {
        let names = rng.choice(&self.names).unwrap();
        let value = |rng: &mut Rng| match &self.value {
            Some(value) if rng.u8(..8) > 0 => value.clone(),
            _ => any_text(rng),
        };
        names.iter().flat_map(|name| [name.clone(), value(rng)]).collect()
    }

    /// Entries that can be appended, and some that cannot.
    fn entries(&self, rng: &mut Rng, stream: &Stream, many: usize) -> Vec<(Id, Vec<Vec<u8>>)> {
        let mut last = stream.last_id();
        let mut entries = Vec::new();
        for _ in 0..many {
            let id = self.above(rng, last);
            last = last.max(id);
            // Many of them are small, or there would be no end of it.
            let texts = if many > 1 { vec![b"60000ms".to_vec(), b"1".to_vec()] } else { self.texts(rng) };
            entries.push((id, texts));
        }
        entries
    }

    fn above(&self, rng: &mut Rng, last: Id) -> Id {
        let Id { ms, seq } = last;
        let kind = if self.small { rng.u8(..12) } else { rng.u8(..16) };
        match kind {
            0..4 => Id::new(ms, seq.saturating_add(rng.u64(1..4))),
            4..8 => Id::new(ms.saturating_add(rng.u64(1..300)), seq.wrapping_add(rng.u64(..3))),
            8..10 => Id::new(ms.saturating_add(rng.u64(1..5)), seq.wrapping_sub(edge(rng))),
            10 => Id::new(ms.saturating_add(rng.u64(1..5)), seq.wrapping_add(edge(rng))),
            11 if rng.bool() => last.prev().unwrap_or(last),
            11 => last,
            12 => Id::new(ms.saturating_add(edge(rng)), *rng.choice(&[0, 1, seq, u64::MAX]).unwrap()),
            13 => Id::new(ms.saturating_add(edge(rng)), seq.wrapping_sub(edge(rng))),
            14 => Id::new(ms, seq.saturating_add(edge(rng))),
            _ => Id::new(ms.saturating_add(edge(rng)), rng.u64(..)),
        }
    }

    /// An ID of an entry that is or was there, or next to one.
    fn known(&self, rng: &mut Rng, stream: &Stream) -> Id {
        let id = match rng.u8(..10) {
            0 => stream.last_id(),
            1 => stream.last().map_or(Id::MIN, |place| stream.at(place).id),
            2 => stream.max_deleted_id(),
            3 => stream.first_id(),
            4 => rng.choice(stream.nodes()).map_or(Id::MIN, |node| node.master),
            5 => *rng.choice(&[Id::MIN, Id::new(0, 1), Id::MAX]).unwrap(),
            _ => rng.choice(&self.ids).copied().unwrap_or_default(),
        };
        match rng.u8(..6) {
            0 => id.next().unwrap_or(id),
            1 => id.prev().unwrap_or(id),
            _ => id,
        }
    }

    fn trim(&self, rng: &mut Rng, stream: &Stream) -> Trim {
        let approximately = rng.bool();
        let len = stream.len();
        let target = match rng.u8(..4) {
            0 => Target::Length(rng.u64(..len + 3)),
            1 => Target::Length(len.saturating_sub(rng.u64(..5))),
            2 => Target::MinId(self.known(rng, stream)),
            _ => {
                let oldest = stream.iter().nth(rng.usize(..8));
                Target::MinId(oldest.map_or_else(|| self.known(rng, stream), |row| row.id))
            }
        };
        let most = *rng.choice(&[2, 20, 500]).unwrap();
        let limit = (approximately && rng.bool()).then(|| rng.u64(..most));
        Trim { target, approximately, limit }
    }

    /// What to delete: the newest ones, the oldest, any, or all.
    fn victims(&self, rng: &mut Rng, stream: &Stream) -> Vec<Id> {
        let many = rng.usize(1..4);
        let mut ids: Vec<Id> = match rng.u8(..20) {
            0 => stream.iter().map(|row| row.id).collect(),
            1..6 => stream.iter().take(many).map(|row| row.id).collect(),
            6..11 => stream.iter().rev().take(many).map(|row| row.id).collect(),
            _ => Vec::new(),
        };
        if ids.is_empty() {
            ids = (0..many).map(|_| self.known(rng, stream)).collect();
        }
        if rng.u8(..4) == 0 {
            rng.shuffle(&mut ids);
        }
        ids
    }
}

fn reading(rng: &mut Rng, stream: &Stream) -> Reading {
    let row = |rng: &mut Rng| {
        let nodes = stream.nodes();
        let id = match rng.u8(..4) {
            0 => rng.choice(&nodes).map_or(Id::MIN, |node| node.master),
            1 => *rng.choice(&[Id::MIN, Id::MAX, stream.last_id()]).unwrap(),
            _ => stream.iter().nth(rng.usize(..=stream.len() as usize)).map_or(Id::MAX, |row| row.id),
        };
        match rng.u8(..4) {
            0 => id.next().unwrap_or(id),
            1 => id.prev().unwrap_or(id),
            _ => id,
        }
    };
    Reading { from: row(rng), to: row(rng), count: rng.usize(1..20) }
}
