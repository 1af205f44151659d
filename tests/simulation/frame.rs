//! One call of a command of the module: what was at its keys before and after it, and what it did.

use std::cell::RefCell;
use std::ffi::CStr;
use std::ops::Range;
use std::rc::Rc;

use crate::database::is_same;
use crate::server::{Effect, Entry, MODULE, Name, Reply, Server, Value, name_of};
use crate::stream::{Fields, Id, Stream, Text, Version};

/// An entry as the documents describe it: how long the log is kept, and what the hit weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    pub keep: u64,
    /// A longer policy may be on its way out, and then it is kept for this long.
    pub fallback: Option<u64>,
    pub cost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: Id,
    /// None if it is foreign.
    pub meaning: Option<Meaning>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Absent,
    Other,
    Stream { rows: Rows, last: Id },
}

/// Entries that are known, which nobody changes any more.
#[derive(Clone, Debug)]
pub struct Rows(Rc<Vec<Row>>);

impl From<Vec<Row>> for Rows {
    fn from(rows: Vec<Row>) -> Self {
        Self(Rc::new(rows))
    }
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

/// What was last seen of a stream, of this version.
#[derive(Clone, Debug, Default)]
pub struct Seen(RefCell<Option<(Version, Rows)>>);

impl Seen {
    fn rows(&self, stream: &Stream) -> Rows {
        let mut seen = self.0.borrow_mut();
        match &*seen {
            Some((version, rows)) if *version == stream.version() => rows.clone(),
            _ => {
                let rows = Rows(Rc::new(rows_of(stream)));
                *seen = Some((stream.version(), rows.clone()));
                rows
            }
        }
    }
}

fn rows_of(stream: &Stream) -> Vec<Row> {
    let mut rows = Vec::with_capacity(stream.len() as usize);
    stream.each(|row| rows.push(Row { id: row.id, meaning: row.fields.meaning() }));
    rows
}

/// What is at a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub what: What,
    /// -1 for never, -2 if it does not exist.
    pub expires: i64,
}

impl Known {
    pub const ABSENT: Self = Self { what: What::Absent, expires: -2 };

    pub fn of(entry: Option<&Entry>) -> Self {
        let Some(entry) = entry else { return Self::ABSENT };
        let what = match &entry.value {
            Value::Other(_) => What::Other,
            Value::Stream(stream) => What::Stream { rows: entry.seen.rows(stream), last: stream.last_id() },
        };
        Self { what, expires: entry.expires.unwrap_or(-1) }
    }

    pub fn rows(&self) -> &[Row] {
        if let What::Stream { rows, .. } = &self.what { &rows.0 } else { &[] }
    }

    pub fn last(&self) -> Id {
        if let What::Stream { last, .. } = self.what { last } else { Id::default() }
    }
}

/// Ten years.
const LONGEST: u64 = 3_650 * 86_400_000;

/// Digits and nothing else.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if digits.len() <= 19 {
        return Some(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
    }
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    digits.iter().try_fold(0, add)
}

impl Meaning {
    pub fn of(fields: &Fields) -> Option<Self> {
        if fields.len() != 1 {
            return None;
        }
        let (name, value) = fields.get(0);
        let mut parts = name.splitn(2, |&byte| byte == b'>');
        let mut span = || {
            let digits = parts.next()?.strip_suffix(b"ms")?;
            number(digits).filter(|ms| (1..=LONGEST).contains(ms))
        };
        let keep = span()?;
        let fallback = match name.contains(&b'>') {
            true => Some(span().filter(|fallback| *fallback < keep)?),
            false => None,
        };
        let cost = number(value).filter(|cost| (1..1 << 53).contains(cost))?;
        Some(Self { keep, fallback, cost })
    }
}

/// The keys that a command names; None if it may touch any.
pub fn keys_of(argv: &[Text]) -> Option<&[Text]> {
    places_of(argv, &name_of(argv)).map(|places| &argv[places])
}

/// Where the keys are in a command of this name.
fn places_of(argv: &[Text], name: &Name) -> Option<Range<usize>> {
    let from = |at: usize, most: usize| at.min(argv.len())..at.saturating_add(most).min(argv.len());
    Some(match name.bytes() {
        b"FLUSHALL" | b"FLUSHDB" | b"SWAPDB" | b"EVAL" => return None,
        b"RATELIMIT.MHIT" => {
            let count = argv.get(1).and_then(|count| number(count)).unwrap_or(0) as usize;
            from(2, count)
        }
        b"RATELIMIT.TOP" | b"RATELIMIT.RESETSTAT" | b"CONFIG" | b"INFO" | b"SELECT" => 0..0,
        b"DEL" | b"UNLINK" | b"RATELIMIT.RESET" | b"EXISTS" => from(1, usize::MAX),
        b"RENAME" | b"COPY" => from(1, 2),
        b"XGROUP" => from(2, 1),
        _ => from(1, 1),
    })
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All that there is.
    Whole,
    /// The module calls it for the first client of a line.
    Called,
    /// The client of this number waits from now on.
    Joins(u64),
    /// The client's time is over, or it is unblocked by command.
    Ends { number: u64, by_command: bool },
}

/// One call, while it runs and when it is over.
pub struct Frame {
    pub database: usize,
    pub argv: Vec<Text>,
    pub name: Name,
    /// Where the keys are.
    places: Range<usize>,
    /// What the module saw when it first looked at the clock.
    pub clock: Option<i64>,
    /// When the command began, by which keys expire.
    pub began: i64,
    pub before: Vec<Known>,
    /// None until the first event is sent, or the command ends.
    pub after: Option<Vec<Known>>,
    /// Others acted between `before` and `after`.
    pub is_disturbed: bool,
    /// A function of the API was made to fail.
    pub has_failed: bool,
    pub reply: Reply,
    /// Indices into `keys`, and names.
    pub events: Vec<(usize, &'static str)>,
    pub signalled: Vec<Text>,
    pub effects: Vec<Effect>,
    pub sends_module_events: bool,
    /// Others have changed that setting meanwhile.
    pub changes_events: bool,
    /// The server knows the command as one that writes.
    pub may_write: bool,
    pub part: Part,
    /// The client may be blocked.
    pub may_block: bool,
    /// Nothing may be written.
    pub is_paused: bool,
    /// A hit was charged in it by another call, which is judged by itself.
    pub has_called: bool,
    /// The server can tell when the command began.
    pub knows_beginning: bool,
    /// In which order it had its effect.
    pub turn: u64,
    /// The table of cursors: the server's, and how often it was made anew.
    pub tables: u64,
    /// How often the module has seen the clock go back, by the end of this call.
    pub clock_steps: u64,
}

impl Frame {
    pub fn begin(server: &Server, database: usize, argv: &[Text]) -> Self {
        let name = name_of(argv);
        let places = places_of(argv, &name).unwrap_or_default();
        let before = argv[places.clone()].iter().map(|key| server.known(database, key)).collect();
        Self {
            database,
            argv: argv.to_vec(),
            name,
            places,
            clock: None,
            began: server.cached,
            before,
            after: None,
            is_disturbed: false,
            has_failed: false,
            reply: Reply::Nil,
            events: Vec::new(),
            signalled: Vec::new(),
            effects: Vec::new(),
            sends_module_events: server.notify_flags & MODULE != 0,
            changes_events: false,
            may_write: false,
            part: Part::Whole,
            may_block: false,
            is_paused: false,
            has_called: false,
            knows_beginning: server.flavor.lacks.is_empty(),
            turn: 0,
            tables: server.tables,
            clock_steps: 0,
        }
    }

    pub fn keys(&self) -> &[Text] {
        &self.argv[self.places.clone()]
    }

    /// Takes note of what the call has left at its keys, before others can act.
    pub fn look_after(&mut self, server: &Server) {
        if self.after.is_none() {
            server.turns.set(server.turns.get() + 1);
            self.turn = server.turns.get();
            let sends_module_events = server.notify_flags & MODULE != 0;
            self.changes_events = self.sends_module_events != sends_module_events;
            self.sends_module_events = sends_module_events;
            let after: Vec<Known> = self.keys().iter().map(|key| server.known(self.database, key)).collect();
            // Whoever ends with an error may not even have looked at the key.
            if !matches!(self.reply, Reply::Error(_)) {
                let mut left = server.left.borrow_mut();
                for (key, known) in self.keys().iter().zip(&after).filter(|(_, known)| !known.rows().is_empty()) {
                    left.insert((self.database, key.clone()), known.clone());
                }
            }
            self.after = Some(after);
        }
    }

    pub fn end(&mut self, server: &Server, reply: &Reply) {
        self.reply = reply.clone();
        self.look_after(server);
        self.clock_steps = server.clock_steps;
    }

    pub fn sent(&mut self, name: &CStr, key: &[u8]) {
        let name = match name.to_bytes() {
            b"del" => "del",
            b"xadd" => "xadd",
            b"xtrim" => "xtrim",
            b"expire" => "expire",
            b"ratelimit.refused" => "ratelimit.refused",
            _ => "an unknown event",
        };
        let at = self.keys().iter().position(|one| is_same(one, key)).unwrap_or(usize::MAX);
        self.events.push((at, name));
    }

    pub fn disturb(&mut self) {
        if self.after.is_none() {
            self.is_disturbed = true;
        }
    }
}
