//! Memory of a key, on a server and on its replica.

use support::contenders::{Contender, FIXED, HIT, SCRIPT, SORTED_SET, Steady, THROTTLE, variants};
use support::replication::{caught_up, replica_of};
use support::traffic::{Choice, Runner};
use support::{Ask, Server, get, words};

/// Keys that share the memory. What else grows, buffers above all, is small beside them.
pub const KEYS: usize = 10_000;

/// Hits on each key.
pub const HITS: [usize; 5] = [1, 3, 10, 30, 100];

/// Backlogs as small as they can be: what a server keeps for its replicas is no memory of a key.
const BACKLOG: [&str; 2] = ["--repl-backlog-size", "16kb"];

/// Bytes of a key, with each of [`HITS`].
pub struct Memory {
    pub name: String,
    pub bytes: [f64; HITS.len()],
    pub on_replica: [f64; HITS.len()],
    /// Bytes of the table of cursors.
    pub table: i64,
}

pub fn measure() -> Vec<Memory> {
    // Nothing leaves the windows of an hour.
    let all = variants(Steady { keys: KEYS, seconds: 3_600 });
    let of = |name: &str| all.iter().find(|contender| contender.name == name).unwrap().clone();
    let small = Contender { args: &["--stream-node-max-bytes", "512"], ..of(HIT) };
    let throttle = Contender::new(THROTTLE, "CL.THROTTLE KEY 1000000 1 180 1");
    [
        of(HIT),
        Contender { name: format!("{HIT}, nodes of 512 bytes"), ..small },
        throttle,
        of(FIXED),
        of(SORTED_SET),
        of(SCRIPT),
        of("Lua: the plain recipe"),
    ]
    .into_iter()
    .map(one)
    .collect()
}

fn one(contender: Contender) -> Memory {
    let name = contender.name.clone();
    let setup = contender.setup().args(BACKLOG).tcp();
    let mut runner = Runner::start(contender, setup.clone());
    let replica = replica_of(&runner.server, setup);
    let setting: Vec<String> = get(runner.client.run("CONFIG GET ratelimit.cursors"));
    let cursors = setting.get(1).cloned().unwrap_or_default();
    let used = |runner: &mut Runner, replica: &Server| {
        caught_up(&runner.server, replica);
        runner.hang_up();
        let all = runner.client.used_memory();
        // The table of cursors is there once, however many keys there are. Others have no such setting.
        let _ = runner.client.ask(&words("CONFIG SET ratelimit.cursors 0"));
        let own = runner.client.used_memory();
        let _ = runner.client.ask(&words(&format!("CONFIG SET ratelimit.cursors {cursors}")));
        ([own, replica.connect().used_memory()], all - own)
    };
    let (before, _) = used(&mut runner, &replica);
    let mut memory = Memory { name, bytes: Default::default(), on_replica: Default::default(), table: 0 };
    for round in 0..HITS[HITS.len() - 1] {
        runner.send(&Choice::InTurn(KEYS).keys(round, KEYS));
        if let Some(at) = HITS.iter().position(|&hits| hits == round + 1) {
            let (now, table) = used(&mut runner, &replica);
            memory.table = memory.table.max(table);
            let [bytes, on_replica] = [0, 1].map(|which| (now[which] - before[which]) as f64 / KEYS as f64);
            (memory.bytes[at], memory.on_replica[at]) = (bytes, on_replica);
            println!("{:<34} {:>4} hits {bytes:8.0} bytes, on a replica {on_replica:8.0}", memory.name, round + 1);
        }
    }
    memory
}
