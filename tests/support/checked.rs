//! Calls that are held to the log itself: a transaction reads the logs of the keys, makes the call and reads what is new.
//! The reply must be what brute force says of the logs, and what is new the hit, on any server and on a clock that runs.

use oracle::{Hit, Question, Tier};
use redis::{Connection, ConnectionLike, RedisResult, Value};

use crate::client::{Ask, MHIT, PEEK, add_groups, id_of, number, six};
use crate::clock::now;

/// Milliseconds by which the clock of a server may be off this one's: builds of Valkey 9.1 count ticks of the processor.
const OFF: u64 = 50;

/// A call with one cost. MHIT has one tier for each key, and that cost for each.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub name: &'static str,
    pub keys: &'a [String],
    pub tiers: &'a [Tier],
    pub cost: u64,
}

/// What became of it.
#[derive(Debug)]
pub struct Checked {
    pub answers: Vec<[i64; 6]>,
    /// The IDs of the entries that were stored, one for each key, or none.
    pub stored: Vec<String>,
}

impl Checked {
    pub fn is_admitted(&self) -> bool {
        self.answers[0][0] == 1
    }
}

/// Entries, as XRANGE lists them.
type Entries = Vec<(String, Vec<String>)>;

/// (Unlike `get` this does not show each one first.)
fn entries(reply: Value) -> Entries {
    redis::from_redis_value(reply).unwrap()
}

fn hits(entries: &Entries) -> Vec<Hit> {
    entries.iter().map(|(id, pair)| (id_of(id).0, number(&pair[1]))).collect()
}

impl Call<'_> {
    /// The call itself.
    pub fn cmd(&self) -> redis::Cmd {
        let mut cmd = redis::cmd(self.name);
        if self.name == MHIT {
            cmd.arg(self.keys.len());
        }
        cmd.arg(self.keys);
        if self.name == MHIT {
            add_groups(&mut cmd, self.tiers, self.cost);
            return cmd;
        }
        for (limit, window) in self.tiers {
            cmd.arg(limit).arg(format!("{window}ms"));
        }
        cmd.arg("COST").arg(self.cost).to_owned()
    }

    /// Makes the call. An error is one of the server or of the connection; a wrong reply fails the test.
    pub fn ask(&self, client: &mut impl ConnectionLike) -> RedisResult<Checked> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        self.keys.iter().for_each(|key| _ = pipe.cmd("XRANGE").arg(&[key, "-", "+"]));
        pipe.add_command(self.cmd());
        self.keys.iter().for_each(|key| _ = pipe.cmd("XREVRANGE").arg(&[key, "+", "-", "COUNT", "1"]));
        let earliest = now() - OFF;
        let replies: Vec<Value> = pipe.query(client)?;
        Ok(self.check(replies, earliest, now() + OFF))
    }

    /// The same in a script, whose server must answer.
    pub fn ask_in_script(&self, client: &mut Connection) -> Result<Checked, String> {
        const SCRIPT: &str = "local r = {} \
            for _, key in ipairs(KEYS) do r[#r + 1] = redis.call('XRANGE', key, '-', '+') end \
            r[#r + 1] = redis.call(unpack(ARGV)) \
            for _, key in ipairs(KEYS) do r[#r + 1] = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1) end return r";
        let mut eval = redis::cmd("EVAL");
        eval.arg(SCRIPT).arg(self.keys.len()).arg(self.keys);
        for word in self.cmd().args_iter() {
            if let redis::Arg::Simple(word) = word {
                eval.arg(word);
            }
        }
        let earliest = now() - OFF;
        let reply = client.ask(&eval)?;
        let Value::Array(replies) = reply else { panic!("{reply:?} is no array") };
        Ok(self.check(replies, earliest, now() + OFF))
    }

    /// `replies` are the logs before, the reply, and the newest entries after it.
    fn check(&self, mut replies: Vec<Value>, earliest: u64, latest: u64) -> Checked {
        let keys = self.keys.len();
        assert_eq!(replies.len(), 2 * keys + 1, "{replies:?}");
        let newest: Vec<Entries> = replies.drain(keys + 1..).map(entries).collect();
        let reply = replies.pop().unwrap();
        let before: Vec<Entries> = replies.into_iter().map(entries).collect();
        let answers: Vec<[i64; 6]> = match &reply {
            Value::Array(items) if self.name == MHIT => items.iter().map(six).collect(),
            reply => vec![six(reply)],
        };
        let logs: Vec<Vec<Hit>> = before.iter().map(hits).collect();
        let last = |entries: &Entries| entries.last().map(|(id, _)| id_of(id));
        let fits = |clock: u64| {
            let mut after = logs.clone();
            if self.expected(&mut after, clock) != answers {
                return false;
            }
            let mut each = before.iter().zip(&newest).zip(logs.iter().zip(&after));
            self.name == PEEK && before.iter().zip(&newest).all(|(before, newest)| last(before) == last(newest))
                || self.name != PEEK
                    && each.all(|((before, newest), (log, after))| {
                        let (known, found) = (last(before), last(newest));
                        match after.get(log.len()) {
                            Some(&(time, cost)) => match (known, found) {
                                (Some(known), found) => found == Some((time, known.1 + cost)),
                                (None, Some(found)) => (found.0, found.1 % 1_000_000) == (time, cost),
                                (None, None) => false,
                            },
                            None => found == known,
                        }
                    })
        };
        // What the answers say of the clock, or else any moment.
        let told = answers.iter().enumerate().find_map(|(at, answer)| self.moment(at, answer, &newest[at]));
        let likely = (earliest + OFF..=latest - OFF).rev();
        let mut moments = told.into_iter().chain(likely).chain(earliest..=latest);
        if !moments.any(|clock| (earliest..=latest).contains(&clock) && fits(clock)) {
            panic!("{self:?}: {answers:?} is wrong from {earliest} to {latest} after {before:?}, before {newest:?}");
        }
        let is_stored = self.name != PEEK && answers[0][0] == 1;
        let stored = if is_stored { newest.iter().map(|newest| newest[0].0.clone()).collect() } else { Vec::new() };
        Checked { answers, stored }
    }

    fn expected(&self, logs: &mut [Vec<Hit>], clock: u64) -> Vec<[i64; 6]> {
        let question = |tiers| Question { tiers, cost: self.cost, ..Question::default() };
        let questions: Vec<Question> = match self.name {
            MHIT => self.tiers.chunks(1).map(question).collect(),
            _ => vec![question(self.tiers)],
        };
        oracle::ask_all(logs, clock, &questions).iter().map(oracle::Answer::six).collect()
    }

    /// The tier that binds is free again when the newest entry leaves it, so the answer of a call that stores tells the clock.
    /// (One of several tiers is known by its limit.)
    fn moment(&self, at: usize, answer: &[i64; 6], newest: &Entries) -> Option<u64> {
        let &[_, limit, _, _, reset, _] = answer;
        let tier = match self.name {
            MHIT => self.tiers.get(at),
            _ => self.tiers.iter().find(|tier| tier.0 as i64 == limit),
        };
        let (id, _) = newest.first()?;
        (reset > 0).then_some(id_of(id).0 + tier?.1 - reset as u64)
    }
}
