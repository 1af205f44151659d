//! What the arguments of commands mean, mainly those after the key:
//! `limit window [limit window ...] [COST units] [STRICT | FORCE | WAIT timeout] [WITHTIERS]`.

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

/// Which hits are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Record {
    /// Those that are allowed.
    #[default]
    Allowed,
    /// `STRICT`: those that are refused as well, if they could ever be allowed.
    Strict,
    /// `FORCE`: all.
    Force,
}

/// The question of one call: may a hit of this cost happen under all of these tiers?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    tiers: [Tier; MAX_TIERS],
    count: usize,
    /// Units, up to [`MAX_UNITS`](crate::number::MAX_UNITS). With 0, the log is described as it is.
    pub cost: u64,
    pub record: Record,
    /// The reply tells of every tier.
    pub with_tiers: bool,
    /// How long the client waits in line for its turn, in milliseconds; 0 if it does not.
    pub wait: u64,
}

/// Whose arguments they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Hit,
    /// Knows neither `STRICT` nor `FORCE` nor `WAIT`, but `COST 0`.
    Peek,
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
    pub fn parse<'a>(&mut self, mut args: impl Iterator<Item = &'a [u8]>, asker: Asker) -> Result<(), Error> {
        self.push(tier(args.next(), args.next())?)?;
        let (mut cost, mut options) = (None, Options::default());
        while let Some(arg) = args.next() {
            if arg.first().is_some_and(u8::is_ascii_digit) {
                self.push(tier(Some(arg), args.next())?)?;
            } else if arg.eq_ignore_ascii_case(b"COST") && cost.is_none() {
                let least = if asker == Asker::Peek { 0 } else { 1 };
                cost = Some(parse_cost(args.next(), least)?);
            } else if arg.eq_ignore_ascii_case(b"WAIT") && asker == Asker::Hit && self.wait == 0 {
                let timeout = args.next().ok_or(error::SYNTAX)?;
                self.wait = duration::parse(timeout).ok_or(error::TIMEOUT)?;
            } else {
                options.parse(arg)?;
            }
        }
        // What is recorded whatever the limits say would move the turn that it waits for.
        if options.record.is_some() && (asker == Asker::Peek || self.wait > 0) {
            return Err(error::SYNTAX);
        }
        self.cost = cost.unwrap_or(1);
        options.apply(self);
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

/// `[STRICT | FORCE] [WITHTIERS]`, in any order.
#[derive(Clone, Copy, Default)]
struct Options {
    record: Option<Record>,
    with_tiers: bool,
}

impl Options {
    /// Any other word, and one that was given already, is a syntax error.
    fn parse(&mut self, word: &[u8]) -> Result<(), Error> {
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        if is(b"STRICT") && self.record.is_none() {
            self.record = Some(Record::Strict);
        } else if is(b"FORCE") && self.record.is_none() {
            self.record = Some(Record::Force);
        } else if is(b"WITHTIERS") && !self.with_tiers {
            self.with_tiers = true;
        } else {
            return Err(error::SYNTAX);
        }
        Ok(())
    }

    fn apply(self, call: &mut Call) {
        call.record = self.record.unwrap_or_default();
        call.with_tiers = self.with_tiers;
    }
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

/// Parses everything after the keys of MHIT: a group for each of `keys` keys, `limit window [limit window ...] [COST units]`,
/// with `AND` between them, and then options.
pub fn parse_groups<'a>(mut args: impl Iterator<Item = &'a [u8]>, keys: usize) -> Result<Vec<Call>, Error> {
    let mut calls = Vec::new();
    let mut options = Options::default();
    let mut is_last = false;
    while !is_last {
        if calls.len() == keys {
            return Err(error::GROUPS);
        }
        let mut call = Call::default();
        call.push(tier(args.next(), args.next())?)?;
        let mut cost = None;
        is_last = loop {
            let Some(arg) = args.next() else { break true };
            if arg.first().is_some_and(u8::is_ascii_digit) {
                call.push(tier(Some(arg), args.next())?)?;
            } else if arg.eq_ignore_ascii_case(b"COST") && cost.is_none() {
                cost = Some(parse_cost(args.next(), 1)?);
            } else if arg.eq_ignore_ascii_case(b"AND") {
                break false;
            } else {
                options.parse(arg)?;
                args.by_ref().try_for_each(|arg| options.parse(arg))?;
            }
        };
        call.cost = cost.unwrap_or(1);
        calls.push(call);
    }
    if calls.len() != keys {
        return Err(error::GROUPS);
    }
    calls.iter_mut().for_each(|call| options.apply(call));
    Ok(calls)
}

/// Parses what follows `COST`.
fn parse_cost(given: Option<&[u8]>, least: u64) -> Result<u64, Error> {
    units(given.ok_or(error::SYNTAX)?).filter(|&cost| cost >= least).ok_or(error::COST)
}

/// Parses the arguments after the key of REFUND: `[COST units]`, 1 by default.
pub fn parse_refund<'a>(mut args: impl Iterator<Item = &'a [u8]>) -> Result<u64, Error> {
    let Some(option) = args.next() else { return Ok(1) };
    if !option.eq_ignore_ascii_case(b"COST") {
        return Err(error::SYNTAX);
    }
    let cost = parse_cost(args.next(), 1)?;
    if args.next().is_some() { Err(error::SYNTAX) } else { Ok(cost) }
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
        call.parse(line.split(' ').map(str::as_bytes), Asker::Hit).map(|()| call)
    }

    #[test]
    fn a_call_in_full() {
        let call = parse("10 1s 500 1h COST 7 STRICT WITHTIERS").unwrap();
        let (second, hour) = (1_000, 3_600_000);
        assert_eq!(call.tiers(), [Tier { limit: 10, window: second }, Tier { limit: 500, window: hour }]);
        assert_eq!((call.cost, call.record, call.with_tiers), (7, Record::Strict, true));
        assert_eq!((call.longest_window(), call.largest_limit()), (hour, 500));
        assert_eq!(parse("10 1s strict 500 1h WithTiers cOsT 7"), Ok(call), "options in any place and case");
        let plain = parse("10 1s").unwrap();
        assert_eq!((plain.cost, plain.record, plain.with_tiers, plain.wait), (1, Record::Allowed, false, 0));
        assert_eq!(parse("10 1s FORCE").unwrap().record, Record::Force);
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
            ("1 60 FORCE FORCE", error::SYNTAX),
            ("1 60 STRICT FORCE", error::SYNTAX),
            ("1 60 WITHTIERS WITHTIERS", error::SYNTAX),
            ("1 60 AND 1 60", error::SYNTAX),
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
    }

    #[test]
    fn what_peek_knows() {
        let parse = |line: &str| {
            let mut call = Call::default();
            call.parse(line.split(' ').map(str::as_bytes), Asker::Peek).map(|()| (call.cost, call.with_tiers))
        };
        assert_eq!(parse("1 60 COST 0 WITHTIERS"), Ok((0, true)));
        assert_eq!(parse("1 60"), Ok((1, false)));
        assert_eq!(parse("1 60 COST -1"), Err(error::COST));
        for line in ["1 60 STRICT", "1 60 FORCE", "1 60 WAIT 1s"] {
            assert_eq!(parse(line), Err(error::SYNTAX), "{line}");
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
    fn a_group_for_each_key() {
        let parse = |line: &str, keys| parse_groups(line.split_terminator(' ').map(str::as_bytes), keys);
        let single = |line: &str| {
            let mut call = Call::default();
            call.parse(line.split(' ').map(str::as_bytes), Asker::Hit).unwrap();
            call
        };
        let calls = parse("10 1s 500 1h cost 7 AND 1000 1m and 3 1d COST 2", 3).unwrap();
        assert_eq!(calls, [single("10 1s 500 1h COST 7"), single("1000 1m"), single("3 1d COST 2")]);
        let calls = parse("10 1s AND 1000 1m COST 5 FORCE WITHTIERS", 2).unwrap();
        assert_eq!(calls, [single("10 1s FORCE WITHTIERS"), single("1000 1m COST 5 FORCE WITHTIERS")]);
        assert_eq!(parse("10 1s COST 2 500 1h", 1).unwrap(), [single("10 1s 500 1h COST 2")]);
        assert_eq!(parse("10 1s WITHTIERS STRICT", 1).unwrap(), [single("10 1s STRICT WITHTIERS")]);
        for (line, keys, expected) in [
            ("", 1, error::SYNTAX),
            ("10 1s", 2, error::GROUPS),
            ("10 1s 500 1h", 2, error::GROUPS),
            ("10 1s AND 500 1h", 1, error::GROUPS),
            ("10 1s AND", 1, error::GROUPS),
            ("10 1s AND", 2, error::SYNTAX),
            ("10 1s AND AND 1 1s", 3, error::LIMIT),
            ("AND 10 1s", 2, error::LIMIT),
            ("10", 1, error::SYNTAX),
            ("x 1s", 1, error::LIMIT),
            ("10 x", 1, error::WINDOW),
            ("COST 7 10 1s", 1, error::LIMIT),
            ("10 1s COST 1 COST 1", 1, error::SYNTAX),
            ("10 1s COST 0", 1, error::COST),
            ("10 1s STRICT AND 10 1s", 2, error::SYNTAX),
            ("10 1s STRICT COST 2", 1, error::SYNTAX),
            ("10 1s STRICT FORCE", 1, error::SYNTAX),
            ("1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9", 1, error::TOO_MANY_TIERS),
        ] {
            assert_eq!(parse(line, keys), Err(expected), "{line}");
        }
    }

    #[test]
    fn what_is_given_back() {
        let parse = |line: &str| parse_refund(line.split_terminator(' ').map(str::as_bytes));
        assert_eq!((parse(""), parse("COST 7"), parse("cost 9007199254740991")), (Ok(1), Ok(7), Ok((1 << 53) - 1)));
        for (line, expected) in [
            ("COST", error::SYNTAX),
            ("COST 1 1", error::SYNTAX),
            ("7", error::SYNTAX),
            ("COST 0", error::COST),
            ("COST x", error::COST),
            ("COST 9007199254740992", error::COST),
        ] {
            assert_eq!(parse(line), Err(expected), "{line}");
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
