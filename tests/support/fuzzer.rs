//! A fuzzer that knows the grammar of the commands and breaks it, among other commands on the same keys.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use redis::{ConnectionLike, Value};

use crate::client::{Ask, FORMAT, HIT, MHIT, PEEK, RESET, RESETSTAT, TOP, call, text_of};
use crate::clock::now;
use crate::interference::{Interference, Kind};
use crate::judge::{Outcome, Stalls};
use crate::servers::Server;

type Words = Vec<Vec<u8>>;

/// What others may do to a log, between batches.
const OTHERS: Interference = Interference {
    keys: &LOGS,
    windows: &[1, 5, 60_000, 3_650 * 86_400_000],
    kinds: &[
        Kind::Own,
        Kind::Forged,
        Kind::Foreign,
        Kind::Posing,
        Kind::Deletion,
        Kind::LastId,
        Kind::Keys,
        Kind::Select,
        Kind::Queue,
        Kind::Expiry,
        Kind::Endless,
        Kind::Types,
        Kind::Groups,
        Kind::Dumps,
        Kind::Settings,
    ],
};

const LOGS: [&str; 9] = ["log:0", "log:1", "log:2", "log:3", "log:4", "log:5", "log:6", "log:7", "log:8"];

fn pick<'t>(rng: &mut fastrand::Rng, texts: &[&'t str]) -> &'t str {
    texts[rng.usize(..texts.len())]
}

/// A valid call of any command of the module.
fn valid_call(rng: &mut fastrand::Rng, keys: &[Vec<u8>]) -> (&'static str, Words) {
    const NUMBERS: [&str; 7] = ["0", "1", "2", "5", "30", "1000", "9007199254740991"];
    const WINDOWS: [&str; 9] = ["1ms", "5ms", "0.02", "1", "10s", "1.5m", "1h", "1d", "3650d"];
    let name = pick(rng, &[HIT, HIT, HIT, HIT, PEEK, PEEK, MHIT, MHIT, RESET, TOP, RESETSTAT]);
    let key = |rng: &mut fastrand::Rng| rng.choice(keys).unwrap().clone();
    let mut args = Words::new();
    let mut tiers = if rng.u8(..40) == 0 { rng.usize(8..10) } else { rng.usize(1..4) };
    match name {
        TOP if rng.bool() => args.extend([b"COUNT".to_vec(), pick(rng, &NUMBERS).into()]),
        TOP | RESETSTAT => {}
        RESET => args.extend((0..rng.usize(1..4)).map(|_| key(rng))),
        MHIT => {
            args.push(tiers.to_string().into());
            args.extend((0..tiers).map(|_| key(rng)));
        }
        _ => args.push(key(rng)),
    }
    if ![HIT, PEEK, MHIT].contains(&name) {
        tiers = 0;
    }
    for at in 0..tiers {
        if at > 0 && name == MHIT && rng.u8(..20) > 0 {
            args.push(b"AND".to_vec());
        }
        args.extend([pick(rng, &NUMBERS).into(), pick(rng, &WINDOWS).into()]);
        if name == MHIT && rng.u8(..4) == 0 {
            args.extend([b"COST".to_vec(), pick(rng, &NUMBERS).into()]);
        }
    }
    if tiers > 0 && name != MHIT && rng.u8(..3) == 0 {
        args.extend([b"COST".to_vec(), pick(rng, &NUMBERS).into()]);
    }
    if [HIT, MHIT].contains(&name) && rng.u8(..6) == 0 {
        args.push(pick(rng, &["STRICT", "FORCE"]).into());
    }
    if tiers > 0 && rng.u8(..8) == 0 {
        args.push(b"WITHTIERS".to_vec());
    }
    if name == HIT && rng.u8(..20) == 0 {
        args.extend([b"WAIT".to_vec(), pick(rng, &WINDOWS).into()]);
    }
    (name, args)
}

/// The same, broken in a few places or in none.
fn random_call(rng: &mut fastrand::Rng, keys: &[Vec<u8>]) -> (&'static str, Words) {
    let (name, mut args) = valid_call(rng, keys);
    for _ in 0..rng.usize(..5).saturating_sub(1) {
        if args.is_empty() {
            args.push(vec![rng.u8(..)]);
        }
        let (at, other) = (rng.usize(..args.len()), rng.usize(..args.len()));
        match rng.u8(..8) {
            0 => drop(args.remove(at)),
            1 => args.insert(other, args[at].clone()),
            2 => args.swap(at, other),
            3 => args.truncate(at),
            4 => {
                let length = rng.usize(..=args[at].len());
                args[at].truncate(length);
            }
            5 => args[at] = (0..rng.usize(..12)).map(|_| rng.u8(..)).collect(),
            6 => {
                // A byte of those that numbers and durations are made of is more likely to be nearly right.
                let byte = if rng.bool() { *rng.choice(b"0123456789.-+emsdhx \0%").unwrap() } else { rng.u8(..) };
                let place = rng.usize(..=args[at].len());
                args[at].insert(place, byte);
            }
            _ => {
                if let Some(byte) = args[at].first_mut() {
                    *byte ^= 1 << rng.u8(..8);
                }
            }
        }
    }
    (name, args)
}

/// Sends the bytes of a batch with a few of them changed, and goes away.
fn send_broken(rng: &mut fastrand::Rng, server: &Server, mut bytes: Vec<u8>) {
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..bytes.len());
        bytes[at] = if rng.bool() { *rng.choice(b"$*\r\n0129-").unwrap() } else { rng.u8(..) };
    }
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    // The server may have hung up already.
    let _ = stream.write_all(&bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

pub fn fuzz(server: &mut Server, seed: u64, calls: usize) -> Outcome {
    const BATCH: usize = 50;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut client = server.connect();
    // A call with WAIT decides whether to wait, and then does not.
    client.run("CONFIG SET ratelimit.max-waiters 0");
    // Named by no call that was not made from them, so that these stay as they are.
    let others = ["string", "list", "elsewhere"];
    client.run("SET string x");
    client.run("RPUSH list x");
    client.run("XADD elsewhere * temperature 20");
    let dumps = others.map(|key| client.run(&format!("DUMP {key}")));
    let logs: Vec<Vec<u8>> = LOGS.iter().map(|log| log.as_bytes().to_vec()).collect();
    let mut keys = [others.map(|key| key.as_bytes().to_vec()).to_vec(), logs.clone()].concat();
    keys.extend([vec![], vec![0], vec![0xff; 3], FORMAT.to_vec()]);

    let mut stalls = Stalls::watch(server, &mut client);
    let mut outcome = Outcome::default();
    let mut dumped = Vec::new();
    for batch in 0..calls / BATCH {
        let calls: Vec<_> = (0..BATCH).map(|_| random_call(&mut rng, &keys)).collect();
        let mut pipe = redis::pipe();
        for (name, args) in &calls {
            pipe.add_command(call(name, args));
        }
        let bytes = pipe.get_packed_pipeline();
        let replies = client.req_packed_commands(&bytes, 0, BATCH).unwrap();
        assert_eq!(replies.len(), BATCH);
        for ((name, args), reply) in calls.iter().zip(replies) {
            let reply = match reply {
                Value::ServerError(error) => Err(text_of(&error)),
                reply => Ok(reply),
            };
            outcome.take(name, args, reply);
        }
        outcome.stalls.extend(stalls.any(&mut client).map(|command| (batch, command)));

        // The next batch meets what others have done meanwhile.
        let mut other = server.connect();
        for _ in 0..rng.usize(..10) {
            if rng.u8(..4) > 0 {
                OTHERS.act(&mut rng).carry_out(now(), &mut dumped, |cmd| other.ask(cmd));
            } else {
                let (name, args) = random_call(&mut rng, &logs);
                let _ = other.ask(&call(name, &args));
            }
        }
        if rng.u8(..8) == 0 {
            send_broken(&mut rng, server, bytes);
        }
    }
    assert_eq!(client.text("PING"), "PONG");
    assert!(server.is_alive());
    assert!(!server.log().contains("panicked"));
    for (key, dump) in others.iter().zip(dumps) {
        assert_eq!(client.run(&format!("DUMP {key}")), dump, "{key}");
    }
    outcome
}
