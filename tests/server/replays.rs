//! The simulated server is this server: histories of the simulation are repeated here, and every reply, every command that
//! replicas are told, every key, its expiry and each node of its stream are the same.
//!
//! The histories are those of `tests/simulation`, as far as a real server can be told them: all commands of the module, right
//! and wrong, and what others do to its keys, alone, in transactions, scripts and functions, with reloads and a clock that
//! may go back. What is simulated is checked by the oracle while it is recorded, so that these replies are exact too. In the
//! end a replica, the append-only file, a snapshot and a server without the module hold the same data.

use std::time::{Duration, Instant};

use redis::{Cmd, Connection, ConnectionLike, Pipeline, Value};
use simulation::history::{self, Copies};
use simulation::replay::{self, Held, Recording, Told};
use simulation::server::{DATABASES, Effect, FLAVORS, Reply, Value as Kept, words as typed};
use simulation::stream::{Dump, Id, Text};
use simulation::workload::KEYS;
use simulation::world::{START as FIRST, Step};
use support::client::{show, text_of};
use support::modules::module;
use support::replication::{APPEND_ONLY, Effects, REPLICATION, caught_up, replica_of, start_again};
use support::{Ask, Clock, START, Server, Setup, get, is_long, wait_for, words};

/// Runs the commands of its arguments, each preceded by its length.
const SCRIPT: &str = "local r, i = {}, 1 while i <= #ARGV do local n = tonumber(ARGV[i]) \
    r[#r + 1] = redis.pcall(unpack(ARGV, i + 1, i + n)) i = i + n + 1 end return r";

/// The server, and how far it was told.
struct Real {
    server: Server,
    client: Connection,
    clock: Clock,
    setup: Setup,
    effects: Effects,
    /// The database of the append-only file, and that of the connection.
    told: usize,
    selected: usize,
    /// Payloads by their numbers.
    dumps: Vec<Vec<u8>>,
}

/// What is sent before the clock moves on.
#[derive(Default)]
struct Batch {
    pipeline: Pipeline,
    /// For each reply the step that it belongs to.
    replies: Vec<Option<usize>>,
}

impl Batch {
    fn add(&mut self, cmd: Cmd, step: Option<usize>) {
        self.pipeline.add_command(cmd);
        self.replies.push(step);
    }

    fn line(&mut self, line: &str) {
        self.add(words(line), None);
    }
}

/// Those that a script may not run.
fn is_for_scripts(argv: &[Text]) -> bool {
    !["CONFIG", "RATELIMIT.RESETSTAT"].iter().any(|name| argv[0].eq_ignore_ascii_case(name.as_bytes()))
}

impl Real {
    fn new(clock: Clock) -> Self {
        let setup = Setup::new().clock(&clock).args(REPLICATION).args(["--rdbcompression", "no"]);
        let files = setup.clone().args(["--auto-aof-rewrite-percentage", "0"]).tcp();
        let (server, mut effects) = Effects::of(files);
        let mut client = server.connect();
        client.run("DEBUG SET-ACTIVE-EXPIRE 0");
        let library = format!("#!lua name=replay\nredis.register_function('run', function(keys, ARGV) {SCRIPT} end)");
        client.ask(redis::cmd("FUNCTION").arg("LOAD").arg(library)).unwrap();
        effects.take();
        Self { server, client, clock, setup, effects, told: 0, selected: 0, dumps: Vec::new() }
    }

    /// Begins anew, so that one server serves all histories.
    fn prepare(&mut self, recording: &Recording) {
        let profile = &recording.profile;
        self.clock.set(START);
        for line in [
            "SELECT 0".to_owned(),
            "FLUSHALL".to_owned(),
            "CONFIG SET notify-keyspace-events ".to_owned(),
            // A number that no history has, or it would not be set.
            "CONFIG SET ratelimit.cursors 5".to_owned(),
            "CONFIG SET ratelimit.top-entries 0".to_owned(),
            format!("CONFIG SET ratelimit.cursors {}", profile.cursors),
            format!("CONFIG SET ratelimit.top-entries {}", profile.top_entries),
            format!("CONFIG SET stream-node-max-bytes {}", profile.bounds.bytes),
            format!("CONFIG SET stream-node-max-entries {}", profile.bounds.entries),
        ] {
            self.client.run(&line);
        }
        self.selected = 0;
        self.dumps.clear();
        self.effects.steps(&mut self.told);
    }

    /// Repeats a history, and says what is not as it was.
    fn replay(&mut self, recording: &Recording) -> Result<(), String> {
        self.prepare(recording);
        let mut now = FIRST;
        let mut batch = Batch::default();
        for (at, told) in recording.told.iter().enumerate() {
            if told.now != now || self.lacks_dump(told) {
                self.send(std::mem::take(&mut batch), recording)?;
            }
            if told.now != now {
                now = told.now;
                self.clock.set(now as u64);
            }
            self.add(&mut batch, told, at);
        }
        self.send(batch, recording)?;
        self.clock.set(recording.now as u64);
        self.same_effects(recording)?;
        (0..DATABASES).try_for_each(|database| self.same_data(recording, database))
    }

    /// Whether a value is restored that the server has not been asked for yet.
    fn lacks_dump(&self, told: &Told) -> bool {
        let commands = match &told.step {
            Step::Command(_, argv) => std::slice::from_ref(argv),
            Step::Together(_, commands) => commands,
            _ => &[],
        };
        commands.iter().filter_map(|argv| dump_of(argv)).any(|number| number >= self.dumps.len())
    }

    fn words(&self, argv: &[Text]) -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = argv.iter().map(|word| word.to_vec()).collect();
        if let Some(dump) = dump_of(argv).and_then(|number| self.dumps.get(number)) {
            words[3] = dump.clone();
        }
        words
    }

    fn cmd(&self, argv: &[Text]) -> Cmd {
        let words = self.words(argv);
        let mut cmd = Cmd::new();
        words.iter().for_each(|word| _ = cmd.arg(word));
        cmd
    }

    fn add(&mut self, batch: &mut Batch, told: &Told, at: usize) {
        let database = match told.step {
            Step::Command(database, _) | Step::Together(database, _) => database,
            _ => self.selected,
        };
        if database != self.selected {
            batch.line(&format!("SELECT {database}"));
            self.selected = database;
        }
        match &told.step {
            Step::Command(_, argv) => batch.add(self.cmd(argv), Some(at)),
            Step::Together(_, commands) if at % 2 == 0 || !commands.iter().all(|argv| is_for_scripts(argv)) => {
                batch.line("MULTI");
                for argv in commands {
                    batch.add(self.cmd(argv), None);
                }
                batch.add(words("EXEC"), Some(at));
            }
            Step::Together(_, commands) => {
                let mut cmd = match at % 4 {
                    1 => redis::cmd("EVAL").arg(SCRIPT).to_owned(),
                    _ => redis::cmd("FCALL").arg("run").to_owned(),
                };
                cmd.arg(0);
                for argv in commands {
                    cmd.arg(argv.len()).arg(self.words(argv));
                }
                batch.add(cmd, Some(at));
            }
            Step::Reload => batch.add(words("DEBUG RELOAD"), Some(at)),
            Step::Info => batch.add(words("INFO ratelimit"), Some(at)),
            other => panic!("no server can be told {other:?}"),
        }
    }

    fn send(&mut self, batch: Batch, recording: &Recording) -> Result<(), String> {
        if batch.replies.is_empty() {
            return Ok(());
        }
        let packed = batch.pipeline.get_packed_pipeline();
        let replies = self.client.req_packed_commands(&packed, 0, batch.replies.len());
        let replies = replies.unwrap_or_else(|error| panic!("{error}:\n{}", self.server.log()));
        for (reply, step) in replies.into_iter().zip(batch.replies) {
            if let Some(at) = step {
                let told = &recording.told[at];
                self.same_replies(recording, told, reply)
                    .map_err(|error| format!("reply: step {at}: {}: {error}", shown(told)))?;
            } else if let Value::ServerError(error) = reply {
                return Err(format!("reply: what is queued is refused: {}", text_of(&error)));
            }
        }
        Ok(())
    }

    fn same_replies(&mut self, recording: &Recording, told: &Told, reply: Value) -> Result<(), String> {
        match &told.step {
            Step::Reload => match reply == Value::Okay {
                true => Ok(()),
                false => Err(show(&reply)),
            },
            Step::Info => same_info(&get::<String>(reply), &told.replies),
            Step::Command(_, argv) => self.same_reply(recording, told, argv, reply, &told.replies[0]),
            Step::Together(_, commands) => {
                let Value::Array(items) = reply else { return Err(show(&reply)) };
                assert_eq!(items.len(), commands.len(), "{}", shown(told));
                let mut all = commands.iter().zip(items).zip(&told.replies);
                all.try_for_each(|((argv, item), ours)| self.same_reply(recording, told, argv, item, ours))
            }
            other => panic!("no server can be told {other:?}"),
        }
    }

    fn same_reply(
        &mut self,
        recording: &Recording,
        told: &Told,
        argv: &[Text],
        reply: Value,
        ours: &Reply,
    ) -> Result<(), String> {
        let is = |name: &[u8]| argv[0].eq_ignore_ascii_case(name);
        let is_same = match (&reply, ours) {
            // The server's own texts are not the module's business.
            (Value::ServerError(error), Reply::Error(ours)) => !is_own(argv) || text_of(error) == *ours,
            (Value::BulkString(payload), Reply::Integer(number)) if is(b"DUMP") => {
                let number = *number as usize;
                assert_eq!(number, self.dumps.len(), "numbers of dumps");
                let (theirs, ours) = (Dump::read(payload), of_kept(&recording.dumps[number]));
                self.dumps.push(payload.clone());
                if theirs != ours {
                    return Err(format!("{}: {theirs:#?}\nsimulated {ours:#?}", typed(argv)));
                }
                true
            }
            // Values of other types have no contents in the simulation.
            (Value::Int(1..), Reply::Integer(1)) if is(b"RPUSH") => true,
            (Value::Array(_), Reply::Array(_)) if is(b"RATELIMIT.TOP") && !told.is_top_sure => true,
            _ => is_equal(&reply, ours),
        };
        match is_same {
            true => Ok(()),
            false => Err(format!("{}: {}, simulated {ours:?}", typed(argv), show(&reply))),
        }
    }

    fn same_effects(&mut self, recording: &Recording) -> Result<(), String> {
        let mut theirs = self.effects.steps(&mut self.told).into_iter();
        for (at, told) in recording.told.iter().enumerate() {
            for effects in &told.effects {
                let ours: Vec<(usize, Vec<Vec<u8>>)> =
                    effects.iter().map(|Effect { database, argv }| (*database, self.words(argv))).collect();
                let theirs = theirs.next().unwrap_or_default();
                if theirs != ours {
                    let shown = shown(told);
                    let list = |list: &[(usize, Vec<Vec<u8>>)]| {
                        let line = |(database, argv): &(usize, Vec<Vec<u8>>)| {
                            format!("{database}> {}", argv.join(&b' ').escape_ascii())
                        };
                        list.iter().map(line).collect::<Vec<_>>().join("; ")
                    };
                    return Err(format!(
                        "effects: step {at}: {shown}: told {}, simulated {}",
                        list(&theirs),
                        list(&ours)
                    ));
                }
            }
        }
        match theirs.next() {
            Some(more) => Err(format!("effects: told more: {more:?}, simulated nothing")),
            None => Ok(()),
        }
    }

    /// Whether a database holds what is simulated.
    fn same_data(&mut self, recording: &Recording, database: usize) -> Result<(), String> {
        self.client.run(&format!("SELECT {database}"));
        self.selected = database;
        let mut keys: Vec<Vec<u8>> = get(self.client.run("KEYS *"));
        keys.sort();
        let held: Vec<&Held> = recording.held.iter().filter(|held| held.database == database).collect();
        let ours: Vec<&[u8]> = held.iter().map(|held| &*held.key).collect();
        if keys != ours {
            let list = |keys: &[&[u8]]| keys.join(&b' ').escape_ascii().to_string();
            let theirs: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            return Err(format!("data: database {database} holds {}, simulated {}", list(&theirs), list(&ours)));
        }
        if keys.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        for key in &keys {
            for name in ["PEXPIRETIME", "TYPE", "DUMP", "XRANGE"] {
                let cmd = pipeline.cmd(name).arg(key);
                if name == "XRANGE" {
                    cmd.arg("-").arg("+");
                }
            }
        }
        let replies = self.client.req_packed_commands(&pipeline.get_packed_pipeline(), 0, 4 * keys.len()).unwrap();
        for (held, replies) in held.into_iter().zip(replies.chunks(4)) {
            let [expires, kind, dump, rows] = replies else { panic!("four replies") };
            let key = held.key.escape_ascii();
            let ours = held.expires.unwrap_or(-1);
            if *expires != Value::Int(ours) {
                return Err(format!("data: {key} expires at {expires:?}, simulated {ours}"));
            }
            let (theirs, ours) = (
                show(kind),
                match &held.value {
                    Kept::Stream(_) => "stream".to_owned(),
                    Kept::Other(kind) => String::from_utf8_lossy(kind).into_owned(),
                },
            );
            if theirs != ours {
                return Err(format!("data: {key} is a {theirs}, simulated a {ours}"));
            }
            let Kept::Stream(stream) = &held.value else { continue };
            let (theirs, ours) = (Dump::read(&get::<Vec<u8>>(dump.clone())), of_kept(&held.value));
            if theirs != ours {
                return Err(format!("data: {key}: {theirs:#?}\nsimulated {ours:#?}"));
            }
            let theirs: Vec<(String, Vec<Vec<u8>>)> = get(rows.clone());
            let theirs = theirs
                .iter()
                .map(|(id, texts)| (Id::parse(id.as_bytes()).unwrap(), texts.iter().map(Vec::as_slice).collect()));
            let ours = stream
                .iter()
                .map(|row| (row.id, row.fields.iter().flat_map(|(name, value)| [name, value]).collect::<Vec<_>>()));
            if !theirs.eq(ours) {
                return Err(format!("data: {key} has other entries than simulated: {}", show(rows)));
            }
        }
        Ok(())
    }

    /// Everybody holds the same data; the replica has read some histories as they happened.
    fn compare(mut self, replica: &Server) {
        // Nobody else deletes keys that have expired.
        for database in [1, 0] {
            self.client.run(&format!("SELECT {database}"));
            self.client.run(&format!("EXISTS {}", KEYS.join(" ")));
        }
        let expected = self.client.fingerprint();
        caught_up(&self.server, replica);
        assert_eq!(replica.connect().fingerprint(), expected, "the replica");
        self.client.run("BGREWRITEAOF");
        wait_for("no rewrite is under way", || {
            self.client.info("persistence", "aof_rewrite_in_progress") == "0"
                && self.client.info("persistence", "aof_rewrite_scheduled") == "0"
        });
        assert_eq!(self.client.fingerprint(), expected, "after a rewrite");
        let files = self.setup.args(APPEND_ONLY);
        let server = start_again(files.clone(), self.server.kill());
        let mut client = server.connect();
        assert_eq!(client.fingerprint(), expected, "the append-only file");
        client.run("DEBUG RELOAD");
        assert_eq!(client.fingerprint(), expected, "a snapshot");
        let server = start_again(files.without_module(), server.kill());
        assert_eq!(server.connect().fingerprint(), expected, "a server without the module");
    }
}

/// The number of the value that a command restores.
fn dump_of(argv: &[Text]) -> Option<usize> {
    if !argv[0].eq_ignore_ascii_case(b"RESTORE") {
        return None;
    }
    std::str::from_utf8(argv.get(3)?).ok()?.parse().ok()
}

fn is_own(argv: &[Text]) -> bool {
    argv[0].to_ascii_uppercase().starts_with(b"RATELIMIT.")
}

/// Whether the section of INFO has all lines that are simulated.
fn same_info(text: &str, replies: &[Reply]) -> Result<(), String> {
    let [Reply::Array(lines)] = replies else { panic!("INFO is lines") };
    for line in lines {
        let Reply::Status(line) = line else { panic!("INFO is lines") };
        let is_shown = || text.lines().any(|one| one.strip_prefix("ratelimit_") == Some(line));
        if !line.starts_with("section:") && !is_shown() {
            return Err(format!("{text}, simulated {line}"));
        }
    }
    Ok(())
}

fn of_kept(value: &Kept) -> Option<Dump> {
    match value {
        Kept::Stream(stream) => Some(Dump::of(stream)),
        Kept::Other(_) => None,
    }
}

fn is_equal(reply: &Value, ours: &Reply) -> bool {
    match (reply, ours) {
        (Value::Nil, Reply::Nil) => true,
        (Value::Okay, Reply::Status(ours)) => ours == "OK",
        (Value::SimpleString(text), Reply::Status(ours)) => text == ours,
        (Value::Int(integer), Reply::Integer(ours)) => integer == ours,
        (Value::BulkString(bytes), Reply::Text(ours)) => **bytes == **ours,
        (Value::Array(items), Reply::Array(ours)) => {
            items.len() == ours.len() && items.iter().zip(ours).all(|(item, ours)| is_equal(item, ours))
        }
        _ => false,
    }
}

fn shown(told: &Told) -> String {
    format!("{:+} ms: {}", told.now - FIRST, history::shown(std::slice::from_ref(&told.step)))
}

/// Fewer steps that still differ, and how.
fn shrink(real: &mut Real, copies: &mut Copies, recording: &Recording, mut error: String) -> (Vec<Step>, String) {
    // What differs, and upon which command.
    let kind = |error: &str| {
        let parts: Vec<&str> = error.split(": ").collect();
        let name = parts.get(3).and_then(|command| command.split(' ').nth(1));
        (parts[0].to_owned(), name.map(str::to_owned))
    };
    let until = Instant::now() + Duration::from_secs(60);
    let mut steps = recording.steps();
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < steps.len() && Instant::now() < until {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            let now =
                replay::of_steps(copies, &recording.profile, &fewer).and_then(|recording| real.replay(&recording));
            match now.err().filter(|now| kind(now) == kind(&error)) {
                Some(now) => (steps, error) = (fewer, now),
                None => at += size,
            }
        }
        size /= 2;
    }
    (steps, error)
}

/// `SEED` names the first history, `HISTORIES` how many.
#[test]
fn histories_are_equal() {
    let Some(clock) = Clock::at(START) else { return };
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let first = number("SEED").unwrap_or_else(|| fastrand::u64(..1 << 48));
    let histories = number("HISTORIES").unwrap_or(if is_long() { 1_000 } else { 100 });
    let mut real = Real::new(clock);
    let flavor = replay::flavor_of(&real.client.text("INFO server"));
    let module = module();
    let mut copies = Copies::of(&module);
    let (mut calls, mut commands, began) = (0, 0, Instant::now());
    let mut replica = None;
    for seed in first..first + histories {
        if seed + 10 >= first + histories {
            replica.get_or_insert_with(|| replica_of(&real.server, real.setup.clone()));
        }
        let recording = replay::of_seed(&mut copies, seed, flavor)
            .unwrap_or_else(|error| panic!("SEED={seed} fails in the simulation: {error}"));
        calls += recording.calls;
        commands += recording.told.iter().map(|told| told.replies.len()).sum::<usize>();
        let Err(error) = real.replay(&recording) else { continue };
        eprintln!("histories_are_equal: SEED={seed}: {error}");
        let (steps, error) = shrink(&mut real, &mut copies, &recording, error);
        let (name, profile, steps) = (FLAVORS[flavor].name, &recording.profile, history::shown(&steps));
        panic!("SEED={seed} differs on {name}, {profile:?}\nThese steps suffice:\n{steps}\n\n{error}");
    }
    eprintln!(
        "histories_are_equal: {histories} histories, {commands} commands, {calls} of them the module's, {:.0?} (SEED={first})",
        began.elapsed()
    );
    real.compare(&replica.expect("histories"));
}
