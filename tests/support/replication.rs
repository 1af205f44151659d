//! Replicas, append-only files, and the effects that reach both.

use std::path::PathBuf;

use redis::Connection;
use tempfile::TempDir;

use crate::client::Ask;
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
    read: usize,
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

    /// What has come since the last time, one command a line.
    pub fn take(&mut self) -> Vec<String> {
        let bytes = std::fs::read(&self.file).unwrap();
        let mut rest = &bytes[self.read..];
        let mut commands = Vec::new();
        while !rest.is_empty() {
            let arguments = count(&mut rest, b'*');
            let command: Vec<String> = (0..arguments)
                .map(|_| {
                    let length = count(&mut rest, b'$');
                    let (argument, after) = rest.split_at(length);
                    rest = &after[2..];
                    String::from_utf8_lossy(argument).into_owned()
                })
                .collect();
            commands.push(command.join(" "));
        }
        self.read = bytes.len();
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
