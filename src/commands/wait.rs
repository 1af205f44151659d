//! `RATELIMIT.HIT ... WAIT timeout`: the client waits in line until its hit is admitted.
//!
//! Who waits for a key is served strictly in order ([`limiter::line`]). Nobody waits in vain: where the turn would come later
//! than the timeout, the refusal comes at once. It names the time of the turn, behind all who wait, and not that of the log.
//!
//! One timer serves all lines: each at the moment of its first client's turn, and each once in a while, because others may
//! have changed the key. A client that is served is charged by RATELIMIT.HIT itself, called as if from a script.

use std::collections::BTreeMap;

use limiter::cursors::CachedLog;
use limiter::decision::Decision;
use limiter::error::{self, Error};
use limiter::line::{Held, LOOK_AFTER, Turn};
use limiter::log::Id;
use limiter::plan::Store;
use limiter::policies::Figures;
use limiter::syntax::Call;
use limiter::usage::Usage;

use super::charge::{charge, finish, reply};
use crate::server::{Arg, Asked, Exclusive, Key, LINES, Mode, Outcome, POLICIES, Reply, STATS, Server, Waiting, logs};

/// Milliseconds that a client waits longer than asked: a turn that comes at the last moment is kept.
const GRACE: u64 = 2;

/// Most clients that are served in one step of the server.
const MOST_AT_ONCE: usize = 250;

/// The replies to clients that were served, until the server asks for them.
static ANSWERS: Exclusive<BTreeMap<u64, Reply>> = Exclusive::new(BTreeMap::new());

struct Lines;

/// Runs HIT with `WAIT`. `args` begins with the command's name.
#[cold]
#[inline(never)]
pub fn hit(server: Server, args: &[Arg], call: &Call) -> Result<Reply, Error> {
    let [_, name, ..] = *args else {
        return Err(error::SYNTAX);
    };
    let (database, clock) = (server.database()?, server.clock());
    let mut log = logs::open(server, name, Mode::Read)?;
    let found = LINES.with(|lines| lines.turn(database, name.bytes(), &mut log, call, clock));
    logs::close(log);
    let (turn, others_wait) = found.ok_or(error::INTERNAL)??;
    if !others_wait && turn.time() == Some(clock) {
        let charged = charge(server, name, call, clock, None)?;
        server.notify(name, charged.events)?;
        return Ok(reply(&charged.answer, &charged.tiers));
    }
    let is_in_vain = match turn {
        Turn::Never => true,
        Turn::Unknown => false,
        Turn::At { time, .. } => time > clock.saturating_add(call.wait),
    };
    if is_in_vain || !server.may_block()? {
        return refuse(server, name, call, clock, turn);
    }
    let place = LINES.with(|lines| lines.has_place().then(|| lines.next_id())).flatten();
    let Some(id) = place else { return refuse(server, name, call, clock, turn) };
    let Some(client) = server.block::<Lines>(id, name, &without_wait(args), call.wait.saturating_add(GRACE))? else {
        return refuse(server, name, call, clock, turn);
    };
    let held = Held { call: *call, client };
    LINES.with(|lines| lines.join(database, name.bytes(), id, clock, turn, held));
    count_waiting();
    set_timer(server)?;
    // Whatever fails from here on, the client waits.
    let _ = keep(server, name, call, clock);
    Ok(Reply::Later)
}

/// Whoever waits is owed what a refusal announces: the key outlives the wait. Otherwise a log that is kept for a shorter time than
/// this call looks back would be gone before the turn.
fn keep(server: Server, name: Arg, call: &Call, clock: u64) -> Result<(), Error> {
    let (log, ..) = decline(server, name, call, clock, true)?;
    server.notify(name, logs::close(log))
}

/// The log of a call that is not admitted now, and what is said of it. If it may write, the key lives as long as that announces.
fn decline<'a>(
    server: Server<'a>,
    name: Arg<'a>,
    call: &'a Call,
    clock: u64,
    may_write: bool,
) -> Result<(CachedLog<Key<'a>>, Usage<'a>, Decision), Error> {
    let mut log = logs::open(server, name, if may_write { Mode::Write } else { Mode::Read })?;
    let mut usage = Usage::new(call, clock, Id::default());
    usage.read(&mut log)?;
    let decision = usage.decide(&mut log, false)?;
    if may_write {
        log.apply(&decision.plan)?;
    }
    Ok((log, usage, decision))
}

/// The line of a key is looked at soon, because its log was changed.
pub fn wake(server: Server, name: Arg) -> Result<(), Error> {
    let wakes = |database| LINES.with(|lines| lines.wake(database, name.bytes(), server.clock()));
    if LINES.with(|lines| lines.waiting()) > Some(0) && wakes(server.database()?) == Some(true) {
        set_timer(server)?;
    }
    Ok(())
}

/// The arguments of a call without `WAIT timeout`. The key may have that name.
fn without_wait<'a>(args: &[Arg<'a>]) -> Vec<Arg<'a>> {
    let is_wait = |arg: &Arg| arg.bytes().eq_ignore_ascii_case(b"WAIT");
    let at = args.iter().skip(2).position(is_wait).map(|at| at.saturating_add(2));
    let kept = |place: usize| at.is_none_or(|at| place != at && place != at.saturating_add(1));
    args.iter().enumerate().filter(|(place, _)| kept(*place)).map(|(_, arg)| *arg).collect()
}

/// Refuses a hit that was not to wait, or has waited too long.
#[cold]
fn refuse(server: Server, name: Arg, call: &Call, clock: u64, turn: Turn) -> Result<Reply, Error> {
    // A client that has waited is refused also while nothing may be written.
    let may_write = !server.is_paused()? && !server.is_replica()?;
    let (log, usage, mut decision) = decline(server, name, call, clock, may_write)?;
    // Those ahead in line come first, also if there is room now.
    let turn = turn.time().map_or(0, |time| time.saturating_sub(clock)).max(1);
    let tiers = decision.tiers.iter_mut().map(|(answer, _)| answer);
    for answer in std::iter::once(&mut decision.answer).chain(tiers) {
        answer.retry_after = answer.retry_after.map(|wait| wait.max(turn));
    }
    let charged = finish(server, name, log, &usage, &mut decision, None)?;
    server.notify(name, charged.events)?;
    Ok(reply(&charged.answer, &charged.tiers))
}

fn count_waiting() {
    let waiting = LINES.with(|lines| lines.waiting()).unwrap_or(0);
    STATS.clients_waiting.set(u64::try_from(waiting).unwrap_or(u64::MAX));
}

/// HIT has counted the hit. It does not know that the client has waited.
fn count_admitted(call: &Call) {
    STATS.waits_admitted.add(1);
    POLICIES.with(|table| table.record(call.tiers(), Figures::waited()));
}

/// The server looks for clients whose time is over when it wakes up, for the timer too.
fn set_timer(server: Server) -> Result<(), Error> {
    let next = LINES.with(|lines| {
        let over = lines.next_deadline()?.saturating_add(GRACE).saturating_add(1);
        Some(lines.next_look()?.min(over))
    });
    match next.flatten() {
        Some(at) => server.set_timer::<Lines>(server.clock(), at),
        None => Ok(()),
    }
}

impl Waiting for Lines {
    fn look(server: Server) -> Result<(), Error> {
        let selected = server.database()?;
        LINES.with(|lines| lines.mind_the_clock(server.clock()));
        for _ in 0..MOST_AT_ONCE {
            match serve_next(server) {
                Ok(true) => {}
                Ok(false) => break,
                // The timer must be set again whatever happens.
                Err(_) => break,
            }
        }
        server.select(selected)?;
        set_timer(server)
    }

    fn end(server: Server, client: u64, args: &[Arg]) -> Result<Reply, Error> {
        if let Some(reply) = ANSWERS.with(|answers| answers.remove(&client)).flatten() {
            return Ok(reply);
        }
        let [_, name, ..] = *args else {
            return Err(error::SYNTAX);
        };
        let clock = server.clock();
        let mut log = logs::open(server, name, Mode::Read);
        let turn = LINES.with(|lines| match &mut log {
            Ok(log) => lines.turn_of(client, log, clock),
            Err(error) => Err(*error),
        });
        if let Ok(log) = log {
            logs::close(log);
        }
        // A turn that comes with the end of the time is not missed because the timer is late.
        if let Some(Ok(Turn::At { time, .. })) = turn {
            if time <= clock && !server.is_paused()? {
                if let Some(reply) = serve_last(server, client)? {
                    return Ok(reply);
                }
            }
        }
        let held = LINES.with(|lines| lines.leave(client)).flatten().ok_or(error::INTERNAL)?;
        count_waiting();
        set_timer(server)?;
        STATS.waits_timed_out.add(1);
        refuse(server, name, &held.call, clock, turn.ok_or(error::INTERNAL)??)
    }

    fn left(server: Server, client: u64) -> Result<(), Error> {
        let held = LINES.with(|lines| lines.leave(client)).flatten();
        let answer = ANSWERS.with(|answers| answers.remove(&client)).flatten();
        if held.is_some() || answer.is_some() {
            count_waiting();
            STATS.waits_disconnected.add(1);
            set_timer(server)?;
        }
        Ok(())
    }
}

/// Serves a client whose time is over, if it is the first and its hit is admitted.
fn serve_last(server: Server, client: u64) -> Result<Option<Reply>, Error> {
    let asked = LINES.with(|lines| lines.first(client).map(|held| held.client.asked())).flatten().transpose()?;
    let Some(asked) = asked else { return Ok(None) };
    match server.call(&asked)? {
        Outcome::Reply(reply) if is_admitted(&reply) => {
            let held = LINES.with(|lines| lines.serve(client)).flatten();
            count_waiting();
            held.iter().for_each(|held| count_admitted(&held.call));
            Ok(Some(reply))
        }
        _ => Ok(None),
    }
}

/// What the log says to the first client of a line.
enum Room {
    Now,
    /// At this time, or never.
    Later(Option<u64>),
}

/// Serves the first client of the line that is due, or finds out when to look at it again. False if no line is due.
fn serve_next(server: Server) -> Result<bool, Error> {
    let now = server.clock();
    let due = LINES.with(|lines| {
        let first = lines.first_due(now)?;
        Some((first.number, first.database, first.is_turn, first.held.client.key()))
    });
    let Some((number, database, is_turn, key)) = due.flatten() else {
        return Ok(false);
    };
    let key = key?;
    server.select(database)?;
    if !is_turn && is_as_it_was(server, number, key.as_arg()) {
        LINES.with(|lines| lines.look_again(number, now));
        return Ok(true);
    }
    let due = LINES.with(|lines| {
        let first = lines.first_due(now)?;
        Some((first.number, first.id, first.held.call, first.held.client.asked()))
    });
    let Some((number, id, call, asked)) = due.flatten().filter(|due| due.0 == number) else {
        return Ok(true);
    };
    // Whatever fails below, the line is not looked at again at once.
    look_at(number, now, now.saturating_add(LOOK_AFTER));
    let asked = asked?;
    match room(server, number, asked.key()?, &call, now) {
        Ok(Room::Later(time)) => {
            look_at(number, now, time.unwrap_or(u64::MAX));
        }
        // While writes are paused a command would wait as well.
        Ok(Room::Now) if server.is_paused()? => {}
        Ok(Room::Now) => serve(server, number, id, &asked, now)?,
        Err(error) => answer(server, id, Reply::Error(error.0.into()))?,
    }
    Ok(true)
}

fn look_at(number: u64, now: u64, at: u64) {
    LINES.with(|lines| lines.look_at(number, now, at));
}

/// Whether the log of a line is what it was at the last look.
fn is_as_it_was(server: Server, number: u64, name: Arg) -> bool {
    let Ok(mut key) = Key::open(server, name, Mode::Read) else { return false };
    matches!(LINES.with(|lines| lines.see(number, &mut key)), Some(Ok(true)))
}

#[cold]
fn room(server: Server, number: u64, name: Arg, call: &Call, now: u64) -> Result<Room, Error> {
    let mut log = logs::open(server, name, Mode::Read)?;
    LINES.with(|lines| lines.see(number, &mut log));
    let mut usage = Usage::new(call, now, Id::default());
    usage.read(&mut log)?;
    let (answer, _) = usage.peek(&mut log)?;
    logs::close(log);
    Ok(match answer.allowed {
        true => Room::Now,
        false => Room::Later(answer.retry_after.map(|wait| now.saturating_add(wait))),
    })
}

/// Charges the first client of a line.
fn serve(server: Server, number: u64, id: u64, asked: &Asked, now: u64) -> Result<(), Error> {
    match server.call(asked)? {
        Outcome::Elsewhere => Ok(()),
        // Another module has been faster.
        Outcome::Reply(reply) if !is_admitted(&reply) && !matches!(reply, Reply::Error(_)) => Ok(()),
        Outcome::Reply(reply) => {
            look_at(number, now, now);
            answer(server, id, reply)
        }
    }
}

fn is_admitted(reply: &Reply) -> bool {
    match reply {
        Reply::Integer(allowed) => *allowed == 1,
        Reply::Array(items) => items.first().is_some_and(is_admitted),
        _ => false,
    }
}

/// Takes a client out of its line, and lets the server ask for its reply.
fn answer(server: Server, id: u64, reply: Reply) -> Result<(), Error> {
    let is_served = is_admitted(&reply);
    let held = LINES.with(|lines| if is_served { lines.serve(id) } else { lines.leave(id) });
    count_waiting();
    let Some(held) = held.flatten() else { return Ok(()) };
    if is_served {
        count_admitted(&held.call);
    }
    ANSWERS.with(|answers| answers.insert(id, reply));
    server.answer(held.client)
}
