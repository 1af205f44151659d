//! What the limiter must answer, by brute force over a plain list of hits. It shares no code with the module.

/// A hit that counts: milliseconds since the epoch, units.
pub type Hit = (u64, u64);

/// At most `.0` units in any interval of `.1` milliseconds.
pub type Tier = (u64, u64);

/// One question to one key at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question<'a> {
    pub tiers: &'a [Tier],
    /// Units. With 0 the log is only described.
    pub cost: u64,
    /// A refused hit is stored as well, if it could ever be allowed.
    pub strict: bool,
    /// A refused hit is stored as well.
    pub force: bool,
}

/// The answer to it: six integers for each tier, and which tier binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub tiers: Vec<[i64; 6]>,
    pub binds: usize,
}

impl Answer {
    pub fn six(&self) -> [i64; 6] {
        self.tiers[self.binds]
    }
}

fn used(hits: &[Hit], now: u64, window: u64) -> u64 {
    let live = hits.iter().filter(|(time, _)| time + window > now);
    live.fold(0, |sum: u64, (_, cost)| sum.saturating_add(*cost))
}

fn fits(hits: &[Hit], now: u64, (limit, window): Tier, cost: u64) -> bool {
    used(hits, now, window).saturating_add(cost) <= limit
}

/// The moment from which a hit fits, if nothing else happens. The cost is at most the limit.
fn fits_from(hits: &[Hit], now: u64, tier: Tier, cost: u64) -> u64 {
    let departures = hits.iter().map(|(time, _)| time + tier.1);
    let mut moments: Vec<u64> = departures.filter(|&at| at > now).chain([now]).collect();
    moments.sort_unstable();
    moments.into_iter().find(|&at| fits(hits, at, tier, cost)).expect("an empty window has room")
}

/// Somebody who waits in line.
#[derive(Clone, Debug)]
pub struct InLine {
    pub tiers: Vec<Tier>,
    pub cost: u64,
    /// When they give up.
    pub deadline: u64,
}

/// When a hit is admitted behind those who wait already, if nothing else happens; never if it is too heavy. No hit is ahead of
/// the clock.
pub fn turn(hits: &[Hit], clock: u64, ahead: &[InLine], (tiers, cost): (&[Tier], u64)) -> Option<u64> {
    let mut hits = hits.to_vec();
    let mut now = clock;
    let next = |hits: &[Hit], now, tiers: &[Tier], cost| {
        tiers.iter().map(|&tier| fits_from(hits, now, tier, cost)).max().expect("there is a tier")
    };
    for one in ahead {
        let at = next(&hits, now, &one.tiers, one.cost);
        if at <= one.deadline {
            hits.push((at, one.cost));
            now = at;
        } else {
            // Until they have gone, nobody passes them.
            now = now.max(one.deadline + 1);
        }
    }
    let is_possible = tiers.iter().all(|(limit, _)| cost <= *limit);
    is_possible.then(|| next(&hits, now, tiers, cost))
}

/// When a question is asked, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The server's clock.
    pub clock: u64,
    /// The end of the windows, which is later than the clock if the log is ahead of it.
    pub now: u64,
    /// The time stamp of a stored hit.
    pub stamp: u64,
}

impl Moment {
    /// The hits may be ahead of the clock, if it was stepped back.
    fn of(hits: &[Hit], clock: u64) -> Self {
        let now = hits.iter().map(|(time, _)| *time).max().unwrap_or(0).max(clock);
        Self { clock, now, stamp: now }
    }
}

/// Adds the hit to `hits` if it is stored, and returns the six integers. `clock` is the server's time.
pub fn ask(hits: &mut Vec<Hit>, clock: u64, question: Question) -> [i64; 6] {
    answer(hits, clock, question).six()
}

/// The same, with every tier.
pub fn answer(hits: &mut Vec<Hit>, clock: u64, question: Question) -> Answer {
    ask_all(std::slice::from_mut(hits), clock, &[question]).remove(0)
}

/// The same for several keys, with a question to each: all are charged or none. All are strict, or forced, or neither.
pub fn ask_all(logs: &mut [Vec<Hit>], clock: u64, questions: &[Question]) -> Vec<Answer> {
    let moments: Vec<Moment> = logs.iter().map(|hits| Moment::of(hits, clock)).collect();
    ask_all_at(logs, &moments, questions)
}

/// The same, if the moments do not follow from the hits.
pub fn ask_all_at(logs: &mut [Vec<Hit>], moments: &[Moment], questions: &[Question]) -> Vec<Answer> {
    let mut keys = logs.iter().zip(moments).zip(questions);
    let allowed = keys.all(|((hits, moment), question)| has_room(hits, moment.now, question));
    let keys = logs.iter_mut().zip(moments).zip(questions);
    keys.map(|((hits, &moment), question)| answer_at(hits, moment, question, allowed)).collect()
}

/// The same for one of the keys of a call that is `allowed` or not.
pub fn answer_at(hits: &mut Vec<Hit>, moment: Moment, question: &Question, allowed: bool) -> Answer {
    let has_room = has_room(hits, moment.now, question);
    let is_possible = question.tiers.iter().all(|(limit, _)| question.cost <= *limit);
    let is_stored = allowed || question.force || question.strict && !has_room && is_possible;
    if is_stored && question.cost > 0 {
        hits.push((moment.stamp, question.cost));
    }
    describe(hits, moment, question, allowed, has_room)
}

/// Whether a hit is allowed.
pub fn has_room(hits: &[Hit], now: u64, question: &Question) -> bool {
    question.cost == 0 || question.tiers.iter().all(|&tier| fits(hits, now, tier, question.cost))
}

/// What is said of a log after the call.
fn describe(hits: &[Hit], moment: Moment, question: &Question, allowed: bool, had_room: bool) -> Answer {
    let Moment { clock, now, .. } = moment;
    let row = |&(limit, window): &Tier| {
        let live: Vec<u64> = hits.iter().map(|hit| hit.0 + window).filter(|&at| at > now).collect();
        let until = |at: Option<&u64>| at.map_or(0, |at| (at - clock) as i64);
        let remaining = limit.saturating_sub(used(hits, now, window));
        let retry = if had_room || question.cost <= limit && fits(hits, now, (limit, window), question.cost) {
            0
        } else if question.cost > limit {
            -1
        } else {
            (fits_from(hits, now, (limit, window), question.cost) - clock) as i64
        };
        let (reset, next) = (until(live.iter().max()), until(live.iter().min()));
        [i64::from(allowed), limit as i64, remaining as i64, retry, reset, next]
    };
    let tiers: Vec<[i64; 6]> = question.tiers.iter().map(row).collect();
    // Most first; among equals the earlier one. A key that refuses is bound by the longest wait, any other by what is left.
    let rank = |row: &[i64; 6]| match (had_room, row[3]) {
        (true, _) => -i128::from(row[2]),
        (false, -1) => i128::MAX,
        (false, wait) => i128::from(wait),
    };
    let binds = (0..tiers.len()).rev().max_by_key(|&at| rank(&tiers[at])).expect("one tier binds");
    Answer { tiers, binds }
}

/// The longest wait that there can be: an entry may be stamped ahead of the clock by a window and a millisecond, and leaves
/// another window later.
pub const LONGEST_WAIT: i64 = 2 * 3_650 * 86_400_000 + 1;

/// What must be true of every answer, whatever is at the key. It names no time beyond `longest`. `alone` if it does not depend
/// on other keys or tiers.
pub fn is_in_range([allowed, limit, remaining, retry, reset, next]: [i64; 6], longest: i64, alone: bool) -> bool {
    let limit_fits = (0..1 << 53).contains(&limit) && (0..=limit).contains(&remaining);
    let verdict_fits = match allowed {
        0 => retry == -1 || retry > 0 || !alone && retry == 0,
        1 => retry == 0 && limit > 0 && reset > 0 && next > 0,
        _ => false,
    };
    limit_fits && verdict_fits && retry <= longest && (0..=reset).contains(&next) && reset <= longest
}

/// The same for `COST 0`, which asks for nothing.
pub fn is_description([allowed, limit, remaining, retry, reset, next]: [i64; 6], longest: i64) -> bool {
    let limit_fits = (0..1 << 53).contains(&limit) && (0..=limit).contains(&remaining);
    limit_fits && (allowed, retry) == (1, 0) && (0..=reset).contains(&next) && reset <= longest
}

/// A call for one window: when, for which, whether it was admitted.
pub type Call = (u64, u64, bool);

/// Where policies share a key, a call must still see every hit since this time: that of an admitted call for its window or a
/// longer one, followed by calls for such a window with gaps shorter than it.
pub fn needed_since(calls: &[Call], now: u64, window: u64) -> u64 {
    let (mut at, mut since) = (now, now);
    for &(time, asked, admitted) in calls.iter().rev() {
        if asked >= window {
            if at - time >= window {
                break;
            }
            at = time;
            if admitted {
                since = time;
            }
        } else if time + window < at {
            break;
        }
    }
    since
}
