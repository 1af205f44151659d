//! With I/O threads, which read, parse and answer beside the thread that executes, nothing is mixed up and every count is exact.

use std::collections::BTreeMap;

use redis::{Cmd, Connection, Value};
use support::client::{number, plain, units_of};
use support::replication::Effects;
use support::seeds::random;
use support::{Ask, Setup, get, six, words};

/// Servers that count the work for their threads would do without them otherwise.
const CONNECTIONS: usize = 32;
const BATCHES: usize = 25;
const BATCH: usize = 40;

const SHARED: usize = 20;
const LIMIT: i64 = 50;

/// A connection's own key.
const OWN: i64 = 9;

/// What a call may have changed, and what its reply must be, as far as this is known.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// On a key that nobody else knows, with so many units left.
    OwnHit {
        left: i64,
    },
    OwnPeek {
        left: i64,
    },
    OwnReset {
        existed: bool,
    },
    Hit {
        key: usize,
    },
    Peek,
    /// Of two keys in the same order as ever, so that both hold the same.
    Both {
        pair: usize,
    },
    Reset {
        key: usize,
    },
}

/// Hits and resets of shared keys, as they were answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    admitted: BTreeMap<String, i64>,
    resets: BTreeMap<String, i64>,
    refused: i64,
}

fn batch(rng: &mut fastrand::Rng, own: &str, used: &mut i64) -> Vec<(Kind, Cmd)> {
    (0..BATCH)
        .map(|_| {
            let left = OWN - *used;
            let key = rng.usize(..SHARED);
            let (kind, line) = match rng.u8(..20) {
                0..6 => {
                    *used = OWN.min(*used + 1);
                    (Kind::OwnHit { left }, format!("HIT {own} {OWN} 1h"))
                }
                6..8 => (Kind::OwnPeek { left }, format!("PEEK {own} {OWN} 1h")),
                8 => {
                    let existed = std::mem::take(used) > 0;
                    (Kind::OwnReset { existed }, format!("RESET {own}"))
                }
                9..14 => (Kind::Hit { key }, format!("HIT shared:{key} {LIMIT} 1h")),
                14 => (Kind::Peek, format!("PEEK shared:{key} {LIMIT} 1h")),
                15..19 => {
                    (Kind::Both { pair: key }, format!("MHIT 2 left:{key} right:{key} {LIMIT} 1h AND {LIMIT} 1h"))
                }
                _ => (Kind::Reset { key }, format!("RESET shared:{key}")),
            };
            (kind, words(&format!("RATELIMIT.{line}")))
        })
        .collect()
}

impl Count {
    /// Checks a reply by what is known, and counts it.
    fn take(&mut self, kind: Kind, reply: &Value) {
        let mut hit = |keys: &[String], answer: [i64; 6]| {
            let [allowed, limit, left, ..] = answer;
            assert!(limit == LIMIT && (0..LIMIT).contains(&left) && (allowed == 1 || left == 0), "{kind:?}: {reply:?}");
            keys.iter().for_each(|key| *self.admitted.entry(key.clone()).or_default() += allowed);
            self.refused += (1 - allowed) * keys.len() as i64;
        };
        match kind {
            Kind::OwnHit { left } => {
                let [allowed, limit, now_left, ..] = six(reply);
                assert_eq!([allowed, limit, now_left], [i64::from(left > 0), OWN, (left - 1).max(0)], "{kind:?}");
                self.refused += 1 - allowed;
                *self.admitted.entry("own".to_owned()).or_default() += allowed;
            }
            Kind::OwnPeek { left } => {
                assert_eq!(six(reply)[..3], [i64::from(left > 0), OWN, (left - 1).max(0)], "{kind:?}");
            }
            Kind::OwnReset { existed } => {
                assert_eq!(*reply, Value::Int(existed.into()), "{kind:?}");
                *self.resets.entry("own".to_owned()).or_default() += i64::from(existed);
            }
            Kind::Hit { key } => hit(&[format!("shared:{key}")], six(reply)),
            Kind::Peek => assert_eq!(six(reply)[1], LIMIT),
            Kind::Both { pair } => {
                let Value::Array(answers) = reply else { panic!("{kind:?}: {reply:?}") };
                let [left, right] = [0, 1].map(|at| six(&answers[at]));
                assert_eq!(left[..3], right[..3], "both hold the same");
                hit(&[format!("left:{pair}"), format!("right:{pair}")], left);
            }
            Kind::Reset { key } => {
                *self.resets.entry(format!("shared:{key}")).or_default() += get::<i64>(reply.clone());
            }
        }
    }

    fn add(&mut self, other: Self) {
        for (sums, more) in [(&mut self.admitted, other.admitted), (&mut self.resets, other.resets)] {
            more.into_iter().for_each(|(key, count)| *sums.entry(key).or_default() += count);
        }
        self.refused += other.refused;
    }
}

fn work(client: &mut Connection, number: usize, mut rng: fastrand::Rng) -> Count {
    let own = format!("own:{number}");
    let (mut count, mut used) = (Count::default(), 0);
    for _ in 0..BATCHES {
        let calls = batch(&mut rng, &own, &mut used);
        let mut pipe = redis::pipe();
        calls.iter().for_each(|(_, cmd)| _ = pipe.add_command(cmd.clone()));
        let replies: Vec<Value> = pipe.query(client).unwrap();
        assert_eq!(replies.len(), calls.len());
        calls.iter().zip(&replies).for_each(|((kind, _), reply)| count.take(*kind, reply));
    }
    assert_eq!(client.integer(&format!("XLEN {own}")), used);
    count
}

#[test]
fn every_count_is_exact() {
    let mut rng = random("every_count_is_exact");
    let (server, mut effects) = Effects::of(Setup::new().args(["--io-threads", "4", "--io-threads-do-reads", "yes"]));
    let mut operator = server.connect();
    // Valkey gives no work to threads if there is little.
    let _ = operator.ask(&words("CONFIG SET events-per-io-thread 0"));
    let mut total = Count::default();
    let mut clients: Vec<Connection> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(number, client)| {
                let rng = rng.fork();
                scope.spawn(move || work(client, number, rng))
            })
            .collect();
        threads.into_iter().for_each(|thread| total.add(thread.join().unwrap()));
    });
    let threaded: u64 = number(&operator.info("stats", "io_threaded_reads_processed"));
    let sums = [&total.admitted, &total.resets].map(|counts| counts.values().sum::<i64>());
    println!("{threaded} reads by threads; {sums:?} admitted and reset, {} refused", total.refused);
    assert!(threaded > 100, "the threads had nothing to do");
    assert!(sums[0] > 3_000 && sums[1] > 200 && total.refused > 3_000, "{total:?}");

    // The server's own count.
    let counted =
        ["hits_admitted", "keys_reset"].map(|field| operator.info("ratelimit", &format!("ratelimit_{field}")));
    assert_eq!(counted, sums.map(|sum| sum.to_string()));

    // What was written, in the order in which it was: between two resets a key admits at most its limit.
    effects.complete(&server);
    let mut logs: BTreeMap<String, i64> = BTreeMap::new();
    let mut written = Count { refused: total.refused, ..Count::default() };
    for line in effects.take() {
        let parts: Vec<&str> = line.split(' ').collect();
        let name = |key: &str| if key.starts_with("own:") { "own".to_owned() } else { key.to_owned() };
        match parts[..] {
            ["XADD", key, .., id, "3600000ms", "1"] | ["RESTORE", key, _, id, "3600000ms", "1", "ABSTTL"] => {
                let units = logs.entry(key.to_owned()).or_default();
                *units += 1;
                assert_eq!(units_of(id), *units as u64, "{line}");
                assert!(*units <= if key.starts_with("own:") { OWN } else { LIMIT }, "{line}");
                *written.admitted.entry(name(key)).or_default() += 1;
            }
            ["UNLINK", key] => {
                assert!(logs.remove(key).is_some(), "{line}");
                *written.resets.entry(name(key)).or_default() += 1;
            }
            ["PEXPIREAT", ..] | ["MULTI"] | ["EXEC"] | ["SELECT", _] => {}
            _ => panic!("{line}"),
        }
    }
    total.resets.retain(|_, count| *count > 0);
    assert_eq!(written, total);
    for (key, units) in logs {
        assert_eq!(operator.integer(&format!("XLEN {key}")), units, "{key}");
    }
    for pair in 0..SHARED {
        assert_eq!(operator.integer(&format!("XLEN left:{pair}")), LIMIT, "it was filled");
        let [left, right] = ["left", "right"].map(|side| {
            let entries = operator.entries(&format!("{side}:{pair}")).into_iter();
            entries.map(|(id, field, value)| (plain(&id), field, value)).collect::<Vec<_>>()
        });
        assert_eq!(left, right);
    }
}
