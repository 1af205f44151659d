//! What the limiter must answer, by brute force over a plain list of hits. It shares no code with the module.

/// A hit that counts: milliseconds since the epoch, units.
pub type Hit = (u64, u64);

/// At most `.0` units in any interval of `.1` milliseconds.
pub type Tier = (u64, u64);

/// One question at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub tiers: &'a [Tier],
    pub cost: u64,
    pub strict: bool,
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
    let moment = Moment::of(hits, clock);
    ask_at(hits, moment, question)
}

/// The same, if the moment does not follow from the hits.
pub fn ask_at(hits: &mut Vec<Hit>, moment: Moment, question: Question) -> [i64; 6] {
    let Question { tiers, cost, strict } = question;
    let Moment { clock, now, stamp } = moment;
    let allowed = tiers.iter().all(|&tier| fits(hits, now, tier, cost));
    let possible = tiers.iter().all(|(limit, _)| cost <= *limit);
    if allowed || (strict && possible) {
        hits.push((stamp, cost));
    }

    // (rank, answer): the last row of the highest rank binds, so earlier tiers come last.
    let mut rows = Vec::new();
    for &tier in tiers.iter().rev() {
        let (limit, window) = tier;
        let remaining = limit.saturating_sub(used(hits, now, window));
        let live: Vec<u64> = hits.iter().map(|hit| hit.0 + window).filter(|&at| at > now).collect();
        let reset = live.iter().max().map_or(0, |at| at - clock);
        let next = live.iter().min().map_or(0, |at| at - clock);
        let (rank, retry) = if allowed {
            (u128::from(u64::MAX - remaining), 0)
        } else if cost > limit {
            (u128::MAX, -1)
        } else if fits(hits, now, tier, cost) {
            continue;
        } else {
            let wait = fits_from(hits, now, tier, cost) - clock;
            (u128::from(wait), wait as i64)
        };
        rows.push((rank, [i64::from(allowed), limit as i64, remaining as i64, retry, reset as i64, next as i64]));
    }
    rows.into_iter().max_by_key(|(rank, _)| *rank).expect("one tier binds").1
}

/// The same for several keys, each with one tier: all are charged or none.
pub fn ask_all(logs: &mut [Vec<Hit>], clock: u64, tiers: &[Tier], cost: u64) -> Vec<[i64; 6]> {
    let moments: Vec<Moment> = logs.iter().map(|hits| Moment::of(hits, clock)).collect();
    ask_all_at(logs, &moments, tiers, cost)
}

/// The same, if the moments do not follow from the hits.
pub fn ask_all_at(logs: &mut [Vec<Hit>], moments: &[Moment], tiers: &[Tier], cost: u64) -> Vec<[i64; 6]> {
    let mut keys = logs.iter().zip(moments).zip(tiers);
    let all_fit = keys.all(|((hits, moment), &tier)| fits(hits, moment.now, tier, cost));
    let answer = |((hits, &moment), &tier): ((&mut Vec<Hit>, &Moment), &Tier)| {
        let Moment { clock, now, .. } = moment;
        if all_fit || !fits(hits, now, tier, cost) {
            return ask_at(hits, moment, Question { tiers: &[tier], cost, strict: false });
        }
        // This key has room but is not charged, because another one has none.
        let (limit, window) = tier;
        let live: Vec<u64> = hits.iter().map(|hit| hit.0 + window).filter(|&at| at > now).collect();
        let until = |at: Option<&u64>| at.map_or(0, |at| (at - clock) as i64);
        let remaining = limit - used(hits, now, window);
        [0, limit as i64, remaining as i64, 0, until(live.iter().max()), until(live.iter().min())]
    };
    logs.iter_mut().zip(moments).zip(tiers).map(answer).collect()
}

/// The longest wait that there can be: an entry may be stamped ahead of the clock by a window and a millisecond, and leaves
/// another window later.
pub const LONGEST_WAIT: i64 = 2 * 3_650 * 86_400_000 + 1;

/// What must be true of every answer, whatever is at the key. It names no time beyond `longest`. `alone` if it does not depend
/// on other keys.
pub fn is_in_range([allowed, limit, remaining, retry, reset, next]: [i64; 6], longest: i64, alone: bool) -> bool {
    let limit_fits = (0..1 << 53).contains(&limit) && (0..=limit).contains(&remaining);
    let verdict_fits = match allowed {
        0 => retry == -1 || retry > 0 || !alone && retry == 0,
        1 => retry == 0 && limit > 0 && reset > 0 && next > 0,
        _ => false,
    };
    limit_fits && verdict_fits && retry <= longest && (0..=reset).contains(&next) && reset <= longest
}
