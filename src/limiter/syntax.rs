//! What the arguments of commands mean, mainly those after the key:
//! `limit window [limit window ...] [COST units] [STRICT] [WAIT timeout]`.

use crate::duration;
use crate::error::{self, Error};
use crate::number::{decimal, units};

/// Most tiers of one call.
pub const MAX_TIERS: usize = 8;

/// At most `limit` units in any interval of length `window`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tier {
    /// Units, from 0 to [`MAX_UNITS`](crate::number::MAX_UNITS).
    pub limit: u64,
    /// Milliseconds, from [`duration::MIN_MS`] to [`duration::MAX_MS`].
    pub window: u64,
}

/// The question of one call: may a hit of this cost happen under all of these tiers?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    tiers: [Tier; MAX_TIERS],
    count: usize,
    /// Units, from 1 to [`MAX_UNITS`](crate::number::MAX_UNITS).
    pub cost: u64,
    /// A refused hit is stored as well.
    pub strict: bool,
    /// How long the client waits in line for its turn, in milliseconds; 0 if it does not.
    pub wait: u64,
}

impl Call {
    pub fn new(first: Tier, cost: u64) -> Self {
        let mut call = Self { cost, ..Self::default() };
        let _ = call.push(first);
        call
    }

    fn push(&mut self, tier: Tier) -> Result<(), Error> {
        let free = self.tiers.get_mut(self.count);
        *free.ok_or(error::TOO_MANY_TIERS)? = tier;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Parses everything after the key of HIT and PEEK into an empty call. After the first pair, an argument that starts with
    /// a digit begins another tier. Anything else is an option, in upper or lower case, at most once. (In place, because a
    /// call is large and returning it would copy it.)
    pub fn parse<'a>(&mut self, mut args: impl Iterator<Item = &'a [u8]>, strict: Strict) -> Result<(), Error> {
        self.push(tier(args.next(), args.next())?)?;
        let mut cost = None;
        while let Some(arg) = args.next() {
            if arg.first().is_some_and(u8::is_ascii_digit) {
                self.push(tier(Some(arg), args.next())?)?;
            } else if arg.eq_ignore_ascii_case(b"STRICT") && strict == Strict::Known && !self.strict {
                self.strict = true;
            } else if arg.eq_ignore_ascii_case(b"WAIT") && strict == Strict::Known && self.wait == 0 {
                let timeout = args.next().ok_or(error::SYNTAX)?;
                self.wait = duration::parse(timeout).ok_or(error::TIMEOUT)?;
            } else {
                parse_cost(arg, &mut args, &mut cost)?;
            }
        }
        // A refusal that counts would move the turn that it waits for.
        if self.wait > 0 && self.strict {
            return Err(error::SYNTAX);
        }
        self.cost = cost.unwrap_or(1);
        Ok(())
    }

    /// In the order given; at least one.
    pub fn tiers(&self) -> &[Tier] {
        self.tiers.get(..self.count).unwrap_or_default()
    }

    /// Milliseconds that the log must be kept for this call.
    pub fn longest_window(&self) -> u64 {
        let windows = self.tiers().iter().map(|tier| tier.window);
        windows.max().unwrap_or_default()
    }

    pub fn largest_limit(&self) -> u64 {
        let limits = self.tiers().iter().map(|tier| tier.limit);
        limits.max().unwrap_or_default()
    }
}

/// Whether the command knows the option `STRICT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strict {
    Known,
    Unknown,
}

/// Most keys of one MHIT, so that it does not hold up others for long.
pub const MAX_KEYS: u64 = 1_024;

/// Most keys that TOP lists at once.
pub const MAX_COUNT: u64 = 1_000;

/// Parses `numkeys`, the first argument of MHIT, and checks that at least as many arguments follow.
pub fn parse_numkeys(numkeys: &[u8], following: usize) -> Result<usize, Error> {
    let keys = decimal(numkeys).filter(|&keys| keys > 0).ok_or(error::NUMKEYS)?;
    let count = usize::try_from(keys).ok().filter(|&keys| keys <= following).ok_or(error::TOO_FEW_KEYS)?;
    if keys > MAX_KEYS { Err(error::TOO_MANY_KEYS) } else { Ok(count) }
}

/// Parses everything after the keys of MHIT: one tier for each of `keys` keys, then options.
pub fn parse_each<'a>(mut args: impl Iterator<Item = &'a [u8]>, keys: usize) -> Result<Vec<Call>, Error> {
    let mut calls = Vec::new();
    let mut cost = None;
    while let Some(arg) = args.next() {
        if arg.first().is_some_and(u8::is_ascii_digit) || calls.is_empty() {
            if calls.len() == keys {
                return Err(error::PAIRS);
            }
            calls.push(Call::new(tier(Some(arg), args.next())?, 1));
        } else {
            parse_cost(arg, &mut args, &mut cost)?;
        }
    }
    if calls.len() != keys {
        return Err(error::PAIRS);
    }
    calls.iter_mut().for_each(|call| call.cost = cost.unwrap_or(1));
    Ok(calls)
}

/// Parses `COST units`, of which `arg` is the first word. Any other word is a syntax error.
fn parse_cost<'a>(arg: &[u8], args: &mut impl Iterator<Item = &'a [u8]>, cost: &mut Option<u64>) -> Result<(), Error> {
    if !arg.eq_ignore_ascii_case(b"COST") || cost.is_some() {
        return Err(error::SYNTAX);
    }
    let given = units(args.next().ok_or(error::SYNTAX)?).filter(|&cost| cost > 0);
    *cost = Some(given.ok_or(error::COST)?);
    Ok(())
}

/// Parses the options of TOP: `[COUNT n]`, with `n` from 1 to [`MAX_COUNT`] and 10 by default.
pub fn parse_count<'a>(mut args: impl Iterator<Item = &'a [u8]>) -> Result<usize, Error> {
    let Some(option) = args.next() else { return Ok(10) };
    match (option.eq_ignore_ascii_case(b"COUNT"), args.next(), args.next()) {
        (true, Some(count), None) => {
            let count = decimal(count).filter(|count| (1..=MAX_COUNT).contains(count));
            count.and_then(|count| usize::try_from(count).ok()).ok_or(error::COUNT)
        }
        _ => Err(error::SYNTAX),
    }
}

fn tier(limit: Option<&[u8]>, window: Option<&[u8]>) -> Result<Tier, Error> {
    let limit = units(limit.ok_or(error::SYNTAX)?).ok_or(error::LIMIT)?;
    let window = duration::parse(window.ok_or(error::SYNTAX)?).ok_or(error::WINDOW)?;
    Ok(Tier { limit, window })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Call, Error> {
        let mut call = Call::default();
        call.parse(line.split(' ').map(str::as_bytes), Strict::Known).map(|()| call)
    }

    #[test]
    fn a_call_in_full() {
        let call = parse("10 1s 500 1h COST 7 STRICT").unwrap();
        let (second, hour) = (1_000, 3_600_000);
        assert_eq!(call.tiers(), [Tier { limit: 10, window: second }, Tier { limit: 500, window: hour }]);
        assert_eq!((call.cost, call.strict), (7, true));
        assert_eq!((call.longest_window(), call.largest_limit()), (hour, 500));
        assert_eq!(parse("10 1s strict 500 1h cOsT 7"), Ok(call), "options in any place and case");
        assert_eq!(call.wait, 0);
        let call = parse("10 1s wAiT 500ms 500 1h COST 7").unwrap();
        assert_eq!((call.wait, call.cost, call.tiers().len()), (500, 7, 2));
    }

    #[test]
    fn errors_name_the_argument() {
        for (line, expected) in [
            ("x 60", error::LIMIT),
            ("-1 60", error::LIMIT),
            ("+1 60", error::LIMIT),
            ("01 60", error::LIMIT),
            ("1.0 60", error::LIMIT),
            ("9007199254740992 60", error::LIMIT),
            ("18446744073709551617 60", error::LIMIT),
            (" 60", error::LIMIT),
            ("1 x", error::WINDOW),
            ("1 60 2 x", error::WINDOW),
            ("1 60 2x 1", error::LIMIT),
            ("1", error::SYNTAX),
            ("1 60 2", error::SYNTAX),
            ("1 60 COST", error::SYNTAX),
            ("1 60 -1 60", error::SYNTAX),
            ("1 60 ", error::SYNTAX),
            ("1 60 STRICT STRICT", error::SYNTAX),
            ("1 60 WAIT", error::SYNTAX),
            ("1 60 WAIT 1s WAIT 1s", error::SYNTAX),
            ("1 60 WAIT 1s STRICT", error::SYNTAX),
            ("1 60 STRICT WAIT 1s", error::SYNTAX),
            ("1 60 WAIT 0", error::TIMEOUT),
            ("1 60 WAIT x", error::TIMEOUT),
            ("1 60 COST 1 COST 2", error::SYNTAX),
            ("1 60 NX", error::SYNTAX),
            ("1 60 COST 0", error::COST),
            ("1 60 COST -1", error::COST),
            ("1 60 COST 9007199254740992", error::COST),
            ("1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9", error::TOO_MANY_TIERS),
        ] {
            assert_eq!(parse(line), Err(expected), "{line}");
        }
        for peek in [[b"1" as &[u8], b"1", b"STRICT", b"COST", b"1"], [b"1", b"1", b"WAIT", b"1s", b""]] {
            assert_eq!(Call::default().parse(peek.into_iter(), Strict::Unknown), Err(error::SYNTAX));
        }
    }

    #[test]
    fn the_number_of_keys() {
        for (numkeys, following, expected) in [
            ("1", 1, Ok(1)),
            ("3", 9, Ok(3)),
            ("3", 3, Ok(3)),
            ("4", 3, Err(error::TOO_FEW_KEYS)),
            ("1024", 5_000, Ok(1_024)),
            ("1025", 5_000, Err(error::TOO_MANY_KEYS)),
            ("9999999999", 5_000, Err(error::TOO_FEW_KEYS)),
            ("0", 3, Err(error::NUMKEYS)),
            ("-1", 3, Err(error::NUMKEYS)),
            ("x", 3, Err(error::NUMKEYS)),
        ] {
            assert_eq!(parse_numkeys(numkeys.as_bytes(), following), expected, "{numkeys} {following}");
        }
    }

    #[test]
    fn a_tier_for_each_key() {
        let parse = |line: &str, keys| parse_each(line.split_terminator(' ').map(str::as_bytes), keys);
        let calls = parse("10 1s 500 1h cost 7", 2).unwrap();
        let call = |limit, window| Call::new(Tier { limit, window }, 7);
        assert_eq!(calls, [call(10, 1_000), call(500, 3_600_000)]);
        assert_eq!(parse("10 1s", 1).unwrap(), [Call::new(Tier { limit: 10, window: 1_000 }, 1)]);
        assert_eq!(parse("COST 7 10 1s", 1), Err(error::LIMIT), "the tiers come first");
        assert_eq!(parse("10 1s COST 7 500 1h", 2), Ok(calls));
        for (line, keys, expected) in [
            ("", 1, error::PAIRS),
            ("10 1s", 2, error::PAIRS),
            ("10 1s 500 1h", 1, error::PAIRS),
            ("10 1s COST 7", 2, error::PAIRS),
            ("10", 1, error::SYNTAX),
            ("x 1s", 1, error::LIMIT),
            ("10 x", 1, error::WINDOW),
            ("10 1s STRICT", 1, error::SYNTAX),
            ("10 1s COST 1 COST 1", 1, error::SYNTAX),
            ("10 1s COST 0", 1, error::COST),
        ] {
            assert_eq!(parse(line, keys), Err(expected), "{line}");
        }
    }

    #[test]
    fn how_many_keys_to_list() {
        let parse = |line: &str| parse_count(line.split_terminator(' ').map(str::as_bytes));
        assert_eq!((parse(""), parse("COUNT 1"), parse("count 1000")), (Ok(10), Ok(1), Ok(1_000)));
        for line in ["COUNT 0", "COUNT 1001", "COUNT x", "COUNT -1"] {
            assert_eq!(parse(line), Err(error::COUNT), "{line}");
        }
        for line in ["COUNT", "COUNT 1 2", "LIMIT 1", "1"] {
            assert_eq!(parse(line), Err(error::SYNTAX), "{line}");
        }
    }
}
