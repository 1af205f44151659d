//! What there is to say of replies without knowing the call: ranges, and stalls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use oracle::is_description;
pub use oracle::{LONGEST_WAIT, is_in_range};
use redis::{Connection, Value};

use crate::client::{Ask, HIT, MHIT, PEEK, RESET, RESETSTAT, TOP, get, six};
use crate::servers::{Server, cpu_time};

/// Tells when the server was busy with a command of the module for more than 10 ms: its slow log says so by the clock, and
/// the processor time of its thread bears it out, so that a machine that was busy with others is not taken for a stall.
pub struct Stalls {
    pid: u32,
    busy: Duration,
}

impl Stalls {
    const LONG: Duration = Duration::from_millis(10);

    pub fn watch(server: &Server, client: &mut Connection) -> Self {
        client.run("CONFIG SET slowlog-log-slower-than 10000");
        Self { pid: server.pid(), busy: cpu_time(server.pid()) }
    }

    /// The command, if there was one since it was asked last.
    pub fn any(&mut self, client: &mut Connection) -> Option<String> {
        let busy = cpu_time(self.pid);
        let was_busy = busy - std::mem::replace(&mut self.busy, busy) > Self::LONG;
        let Value::Array(entries) = client.run("SLOWLOG GET") else { panic!("no array") };
        client.run("SLOWLOG RESET");
        let slow = entries.iter().map(|entry| format!("{entry:?}"));
        slow.filter(|_| was_busy).find(|entry| entry.to_uppercase().contains("RATELIMIT."))
    }
}

/// Whether these two words are `COST 0`.
fn asks_for_nothing<W: AsRef<[u8]>>(pair: &[W]) -> bool {
    pair[0].as_ref().eq_ignore_ascii_case(b"COST") && pair[1].as_ref() == b"0"
}

/// Counts of what came back.
#[derive(Debug, Default)]
pub struct Outcome {
    pub errors: BTreeMap<String, usize>,
    pub allowed: usize,
    pub refused: usize,
    pub resets: i64,
    /// Batches in which the server stalled, with the command.
    pub stalls: BTreeMap<usize, String>,
}

impl Outcome {
    /// Checks one reply.
    pub fn take<W: AsRef<[u8]>>(&mut self, name: &str, args: &[W], reply: Result<Value, String>) {
        let shown = || (name, args.iter().map(|arg| arg.as_ref().escape_ascii().to_string()).collect::<Vec<_>>());
        // A key may be called COST.
        let options = args.get(1..).unwrap_or_default();
        let reads = name == PEEK && options.windows(2).any(|pair| asks_for_nothing(pair));
        // One answer, or that of every tier.
        let mut answer = |reply: &Value, alone: bool| {
            let answers = match reply {
                Value::Array(tiers) if matches!(tiers[0], Value::Array(_)) => tiers.iter().map(six).collect(),
                reply => vec![six(reply)],
            };
            for answer in &answers {
                let is_fine = if reads {
                    is_description(*answer, LONGEST_WAIT)
                } else {
                    is_in_range(*answer, LONGEST_WAIT, alone && answers.len() == 1)
                };
                assert!(is_fine, "{answer:?}: {:?}", shown());
                assert_eq!(answer[0], answers[0][0], "{answers:?}: {:?}", shown());
            }
            *if answers[0][0] == 1 { &mut self.allowed } else { &mut self.refused } += 1;
            answers[0][0]
        };
        match (name, reply) {
            (_, Err(text)) => *self.errors.entry(text).or_default() += 1,
            (RESET, Ok(Value::Int(deleted))) => {
                assert!((0..=args.len() as i64).contains(&deleted), "{deleted}: {:?}", shown());
                self.resets += deleted;
            }
            (HIT | PEEK, Ok(reply)) => _ = answer(&reply, true),
            (MHIT, Ok(Value::Array(answers))) => {
                let verdicts: BTreeSet<i64> = answers.iter().map(|each| answer(each, false)).collect();
                assert_eq!(verdicts.len(), 1, "{answers:?}: {:?}", shown());
            }
            (TOP, Ok(reply)) => {
                let rows: Vec<(Vec<u8>, u64, u64)> = get(reply);
                assert!(rows.iter().all(|row| row.1 > 0), "{rows:?}");
            }
            (RESETSTAT, Ok(Value::Okay)) => {}
            (_, Ok(reply)) => panic!("{reply:?}: {:?}", shown()),
        }
    }
}
