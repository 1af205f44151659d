//! Replicas, append-only files, and the effects that reach both.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use redis::Connection;
use tempfile::TempDir;

use crate::client::{Ask, plain};
use crate::servers::{Server, Setup};
use crate::waiting::wait_for;

/// Effects are read from a file that is written before the reply; a background fsync would delay that.
pub const APPEND_ONLY: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "no"];

/// Small nodes, so that little traffic drops some.
pub const NODES_OF_FOUR: [&str; 2] = ["--stream-node-max-entries", "4"];

/// On a clock that stands still or jumps, a server that waits before it forks, or gives up after a minute, would never
/// sync. Without a keep-alive the offset moves by writes only.
pub const REPLICATION: [&str; 6] =
    ["--repl-diskless-sync", "no", "--repl-timeout", "2000000000", "--repl-ping-replica-period", "86400"];

/// The entry of a stream of one entry with one field, in a payload of RESTORE: `1767225600000-1 60000ms 1`.
fn entry_of(payload: &[u8]) -> Option<String> {
    let half = |at: usize| Some(u64::from_be_bytes(payload.get(at..at + 8)?.try_into().ok()?));
    // The type, one node, its key, two bytes of length, the head of the list, and the counts of entries and fields.
    let (id, list) = ((half(3)?, half(11)?), payload.get(33..)?);
    let length = usize::from(list.first()? & 0x3f);
    let field = std::str::from_utf8(list.get(1..=length)?).ok()?;
    // Its length once more, the end of the fields, the flags and the ID, each with its length.
    let value = list.get(length + 10..)?;
    let bytes = |count: usize| value[1..=count].iter().rev().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    let value = match *value.first()? {
        short @ 0..=0x7f => u64::from(short),
        middle @ 0xc0..=0xcf => u64::from(middle & 0x0f) << 8 | bytes(1),
        0xf1 => bytes(2),
        0xf2 => bytes(3),
        0xf3 => bytes(4),
        0xf4 => bytes(8),
        _ => return None,
    };
    Some(format!("{}-{} {field} {value}", id.0, id.1))
}

/// An ID of a log of our own, as if it began to count at 0. Any other word stays.
fn plain_if_id(word: &str) -> String {
    let is_number = |text: &str| (8..20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    match word.split_once('-') {
        Some((time, tally)) if is_number(time) && is_number(tally) => plain(word),
        _ => word.to_owned(),
    }
}

/// Starts a server where another one was, and waits until it has read what that one left.
pub fn start_again(setup: Setup, dir: TempDir) -> Server {
    let server = setup.start_in(dir);
    let mut client = server.connect();
    wait_for("the data are loaded", || client.info("persistence", "loading") == "0");
    server
}

/// The commands that reach the append-only file of a server, which are those that reach its replicas.
pub struct Effects {
    file: PathBuf,
    read: u64,
}

impl Effects {
    /// A server that writes such a file, and its commands from now on.
    pub fn of(setup: Setup) -> (Server, Self) {
        let server = setup.args(APPEND_ONLY).start();
        let file = server.dir().join("appendonlydir/appendonly.aof.1.incr.aof");
        let mut effects = Self { file, read: 0 };
        server.connect().run("SET first command");
        server.connect().run("DEL first");
        effects.complete(&server);
        assert_eq!(effects.take(), ["SELECT 0", "SET first command", "DEL first"]);
        (server, effects)
    }

    /// Waits until the file is as far as the server: with I/O threads Redis 8 may reply before it writes the file.
    pub fn complete(&self, server: &Server) {
        let mut client = server.connect();
        wait_for("the file is written", || client.info("persistence", "aof_buffer_length") == "0");
    }

    /// What has come since the last time, one command a line. Where a log begins by RESTORE, its entry stands in place of
    /// the payload: `RESTORE key 1767225660000 1767225600000-1 60000ms 1 ABSTTL`. IDs are as if logs began to count at 0.
    pub fn take(&mut self) -> Vec<String> {
        let line = |mut command: Vec<Vec<u8>>| {
            if let [name, _, _, payload, _] = &mut command[..] {
                if let (b"RESTORE", Some(entry)) = (&name[..], entry_of(payload)) {
                    *payload = entry.into_bytes();
                }
            }
            let text = String::from_utf8_lossy(&command.join(&b' ')).into_owned();
            text.split(' ').map(plain_if_id).collect::<Vec<_>>().join(" ")
        };
        self.commands().into_iter().map(line).collect()
    }

    /// The same as replicas take it: what belongs together, each command with its database. None is selected at first.
    pub fn steps(&mut self, database: &mut usize) -> Vec<Vec<(usize, Vec<Vec<u8>>)>> {
        let (mut steps, mut is_open) = (Vec::new(), false);
        for command in self.commands() {
            match &command[0][..] {
                b"SELECT" => *database = String::from_utf8_lossy(&command[1]).parse().unwrap(),
                b"MULTI" => {
                    is_open = true;
                    steps.push(Vec::new());
                }
                b"EXEC" => is_open = false,
                _ if is_open => steps.last_mut().unwrap().push((*database, command)),
                _ => steps.push(vec![(*database, command)]),
            }
        }
        steps
    }

    fn commands(&mut self) -> Vec<Vec<Vec<u8>>> {
        let mut file = File::open(&self.file).unwrap();
        file.seek(SeekFrom::Start(self.read)).unwrap();
        let mut bytes = Vec::new();
        self.read += file.read_to_end(&mut bytes).unwrap() as u64;
        let mut rest = &bytes[..];
        let mut commands = Vec::new();
        while !rest.is_empty() {
            let arguments = count(&mut rest, b'*');
            let argument = |_| {
                let length = count(&mut rest, b'$');
                let (argument, after) = rest.split_at(length);
                rest = &after[2..];
                argument.to_vec()
            };
            commands.push((0..arguments).map(argument).collect());
        }
        commands
    }
}

/// The number in a line of RESP such as `*3` or `$11`.
fn count(rest: &mut &[u8], kind: u8) -> usize {
    assert_eq!(rest[0], kind);
    let end = rest.iter().position(|&byte| byte == b'\r').unwrap();
    let number = std::str::from_utf8(&rest[1..end]).unwrap().parse().unwrap();
    *rest = &rest[end + 2..];
    number
}

/// How far a server has got in the stream of its replication.
pub fn offset(client: &mut Connection) -> String {
    let role = client.info("replication", "role");
    client.info("replication", if role == "master" { "master_repl_offset" } else { "slave_repl_offset" })
}

/// A replica of `primary` that has read all there is. It shares the primary's clock.
pub fn replica_of(primary: &Server, setup: Setup) -> Server {
    let port = primary.port.to_string();
    let replica = setup.args(REPLICATION).args(["--replicaof", "127.0.0.1", &port]).start();
    let mut client = replica.connect();
    wait_for("the replica is in sync", || client.info("replication", "master_link_status") == "up");
    caught_up(primary, &replica);
    replica
}

/// Waits until the replica has read everything.
pub fn caught_up(primary: &Server, replica: &Server) {
    let (mut primary, mut replica) = (primary.connect(), replica.connect());
    wait_for("the replica has read everything", || offset(&mut primary) == offset(&mut replica));
}
