//! Commands in pipelines, packed beforehand, over sockets that only count the lines which come back: the server is what is
//! measured, and not its client.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fastrand::Rng;
use redis::{Connection, Value};

use crate::client::{Ask, words};
use crate::clock::now;
use crate::contenders::{Contender, load_scripts};
use crate::servers::{Server, Setup, cpu_time};

/// Commands sent at once over a connection.
pub const BATCH: usize = 50;

/// Connections that send batches at the same time.
pub const CONNECTIONS: usize = 10;

/// What stands for a number in a key, and for a time.
const KEY: &str = "key:000000000000";
const TIME: &str = "9999999999999";

/// One decision as bytes, in which only the number of the key and a time change.
struct Packed {
    bytes: Vec<u8>,
    keys: Vec<usize>,
    times: Vec<usize>,
}

impl Packed {
    fn new(templates: &[String]) -> Self {
        let mut pipe = redis::pipe();
        for template in templates {
            pipe.add_command(words(&template.replace("KEY", KEY).replace("START", TIME)));
        }
        let bytes = pipe.get_packed_pipeline();
        let places = |what: &str| {
            let windows = bytes.windows(what.len()).enumerate();
            windows.filter_map(|(at, window)| (window == what.as_bytes()).then_some(at)).collect::<Vec<_>>()
        };
        let (keys, times) = (places(KEY), places(TIME));
        Self { keys: keys.into_iter().map(|at| at + "key:".len()).collect(), times, bytes }
    }

    fn append(&self, batch: &mut Vec<u8>, key: usize, start: u64) {
        let from = batch.len();
        batch.extend_from_slice(&self.bytes);
        for &at in &self.keys {
            put(&mut batch[from + at..][..12], key as u64);
        }
        for &at in &self.times {
            put(&mut batch[from + at..][..13], start);
        }
    }
}

/// Writes a number with zeros in front.
fn put(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Lines of a reply in RESP2.
fn lines(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(lines).sum::<usize>(),
        Value::BulkString(_) => 2,
        _ => 1,
    }
}

/// Which keys come.
#[derive(Clone)]
pub enum Choice {
    /// One after the other.
    InTurn(usize),
    /// Each as often as any other.
    Uniform(usize),
    /// The n-th most frequent comes 1/n times as often as the first. Running sums of that.
    Zipfian(Vec<f64>),
}

impl Choice {
    pub fn zipfian(keys: usize) -> Self {
        let mut sum = 0.0;
        let sums = (1..=keys).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Self::Zipfian(sums.collect())
    }

    /// The keys of so many decisions. The same round gives the same keys.
    pub fn keys(&self, round: usize, decisions: usize) -> Vec<usize> {
        let mut rng = Rng::with_seed(round as u64);
        let draw = |at| match self {
            Self::InTurn(keys) => (round * decisions + at) % keys,
            Self::Uniform(keys) => rng.usize(..*keys),
            Self::Zipfian(sums) => {
                let keys = sums.len();
                let at = rng.f64() * sums[keys - 1];
                let rank = sums.partition_point(|&sum| sum <= at).min(keys - 1);
                // So that frequent keys do not lie side by side in memory: they were created in the order of their numbers.
                rank * 2_654_435_761 % keys
            }
        };
        (0..decisions).map(draw).collect()
    }
}

/// A contender on its own server.
pub struct Runner {
    pub contender: Contender,
    pub server: Server,
    /// For single commands.
    pub client: Connection,
    packed: Packed,
    /// Lines that come back for one decision.
    lines: usize,
    sockets: Vec<UnixStream>,
}

impl Runner {
    pub fn start(contender: Contender, setup: Setup) -> Self {
        Self::on(contender, setup.start())
    }

    /// Runs on a server that has been started.
    pub fn on(contender: Contender, server: Server) -> Self {
        let mut client = server.connect();
        load_scripts(&mut client);
        (contender.prepare)(&mut client);
        // Not one of the keys that are drawn.
        let decision = contender.decision(&mut client, 999_999_999_999);
        for key in ["KEY", "KEYb", "KEYc"] {
            client.run(&format!("DEL {}", key.replace("KEY", "key:999999999999")));
        }
        let packed = Packed::new(&contender.templates);
        Self { packed, lines: decision.iter().map(lines).sum(), contender, server, client, sockets: Vec::new() }
    }

    /// One decision on each of these keys, and what all of them cost the server's main thread.
    pub fn send(&mut self, keys: &[usize]) -> Duration {
        self.send_over(keys, BATCH, CONNECTIONS)
    }

    /// The same in batches of this size, over so many connections at a time.
    pub fn send_over(&mut self, keys: &[usize], size: usize, connections: usize) -> Duration {
        let start = now() - self.contender.window;
        let batches: Vec<Vec<u8>> = keys
            .chunks(size)
            .map(|keys| {
                let mut batch = Vec::with_capacity(keys.len() * self.packed.bytes.len());
                keys.iter().for_each(|&key| self.packed.append(&mut batch, key, start));
                batch
            })
            .collect();
        if self.sockets.is_empty() {
            self.sockets = (0..CONNECTIONS).map(|_| UnixStream::connect(self.server.socket()).unwrap()).collect();
        }
        let before = cpu_time(self.server.pid());
        let mut left = keys.len();
        for batches in batches.chunks(connections) {
            for (socket, batch) in self.sockets.iter_mut().zip(batches) {
                socket.write_all(batch).unwrap();
            }
            for socket in &mut self.sockets[..batches.len()] {
                let decisions = left.min(size);
                left -= decisions;
                receive(socket, decisions * self.lines);
            }
        }
        cpu_time(self.server.pid()) - before
    }

    /// The same in microseconds for one decision.
    pub fn cost(&mut self, keys: &[usize]) -> f64 {
        self.send(keys).as_secs_f64() / keys.len() as f64 * 1e6
    }

    /// Closes the connections that decisions came over, whose buffers are memory of the server.
    pub fn hang_up(&mut self) {
        self.sockets.clear();
    }
}

/// Takes so many lines, none of which may be an error.
fn receive(socket: &mut UnixStream, mut lines: usize) {
    let mut buffer = [0; 65_536];
    let mut is_start = true;
    while lines > 0 {
        let length = socket.read(&mut buffer).unwrap();
        assert!(length > 0, "the server has hung up");
        for (at, &byte) in buffer[..length].iter().enumerate() {
            if is_start && byte == b'-' {
                panic!("an error: {}", String::from_utf8_lossy(&buffer[at..length.min(at + 200)]));
            }
            is_start = byte == b'\n';
            lines = lines.checked_sub(usize::from(is_start)).expect("a reply has more lines than the first one");
        }
    }
}

/// The one in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
