//! Damaged streams do no harm: whatever somebody restored or made by hand, the answer is in range or the error that it is
//! no log; it comes at once, and a replica holds the same data.

use support::client::call;
use support::clock::now;
use support::errors::{LAST_ID_AHEAD, NOT_A_LOG};
use support::judge::{Outcome, Stalls};
use support::replication::{REPLICATION, replica_of};
use support::seeds::{calls_or, random};
use support::streams::{append, make_streams};
use support::{Ask, Setup, get, wait_for};

#[test]
fn restored_streams() {
    const CALLS: [&str; 14] = [
        "RATELIMIT.PEEK @ 10 1m",
        "RATELIMIT.PEEK @ 9007199254740991 3650d COST 9007199254740991",
        "RATELIMIT.PEEK @ 1000000 1m COST 500000 100000 30s 9007199254740991 1d",
        "RATELIMIT.HIT @ 0 1ms",
        "RATELIMIT.HIT @ 10 1m",
        "RATELIMIT.HIT @ 10 1m STRICT",
        "RATELIMIT.HIT @ 1000000 1m COST 500000 100000 30s 9007199254740991 1d",
        "RATELIMIT.HIT @ 9007199254740991 1ms COST 9007199254740991",
        "RATELIMIT.HIT @ 9007199254740991 3650d COST 9007199254740991",
        "RATELIMIT.HIT @ 9007199254740991 3650d 9007199254740991 1ms COST 4294967296 STRICT",
        "RATELIMIT.HIT @ 9 1ms 8 1s 7 1m 6 1h 5 1d 4 30d 3 365d 2 3650d",
        "RATELIMIT.MHIT 2 @ another 10 1m AND 10 1m",
        "RATELIMIT.MHIT 2 another @ 10 1m COST 10 AND 9007199254740991 3650d COST 10",
        "RATELIMIT.RESET @",
    ];
    let primary = Setup::new().tcp().args(REPLICATION).start();
    let mut client = primary.connect();
    make_streams(&mut client, now(), 100_000);
    let streams: Vec<String> = get(client.run("KEYS *"));
    let payloads: Vec<Vec<u8>> =
        streams.iter().map(|stream| get(client.ask(redis::cmd("DUMP").arg(stream)).unwrap())).collect();
    client.run("FLUSHALL");
    let replica = replica_of(&primary, Setup::new());

    let mut stalls = Stalls::watch(&primary, &mut client);
    let mut outcome = Outcome::default();
    for (stream, payload) in streams.iter().zip(&payloads) {
        for line in CALLS {
            let key = format!("{stream}: {line}");
            let args: Vec<&str> = line.split(' ').map(|word| if word == "@" { &key } else { word }).collect();
            let mut stall = None;
            // A stall comes back; what the machine does meanwhile does not.
            for _ in 0..3 {
                let mut restore = redis::cmd("RESTORE");
                client.ask(restore.arg(&key).arg(0).arg(payload).arg("REPLACE")).unwrap();
                client.run("DEL another");
                stalls.any(&mut client);
                // The second call finds what the first has left.
                for _ in 0..2 {
                    let reply = client.ask(&call(args[0], &args[1..]));
                    outcome.take(args[0], &args[1..], reply);
                }
                stall = stalls.any(&mut client);
                if stall.is_none() {
                    break;
                }
            }
            assert_eq!(stall, None, "{key}");
            if payload.len() > 100_000 {
                client.run("FLUSHALL");
            }
        }
    }
    let foreign: usize = outcome.errors.values().sum();
    assert_eq!(outcome.errors.keys().collect::<Vec<_>>(), [LAST_ID_AHEAD, NOT_A_LOG]);
    assert!(outcome.allowed > 200 && outcome.refused > 200 && foreign > 50, "{outcome:?}");
    // Keys of short windows expire meanwhile.
    let mut follower = replica.connect();
    wait_for("the replica holds the same", || client.fingerprint() == follower.fingerprint());
}

/// The checksum of a payload of DUMP: CRC-64 as Jones has it.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u64::from(byte), |crc: u64, _| (crc >> 1) ^ (0x95ac_9329_ac4b_c9b5 * (crc & 1)))
    })
}

/// Streams of which a few bytes are changed, as far as the server takes them.
#[test]
fn damaged_streams() {
    const CALLS: [&str; 6] = [
        "RATELIMIT.PEEK key 10 1m",
        "RATELIMIT.HIT key 9007199254740991 1h COST 4503599627370496",
        "RATELIMIT.HIT key 20 1m COST 15",
        "RATELIMIT.HIT key 5 1m STRICT",
        "RATELIMIT.PEEK key 5 1m 10 1s 9007199254740991 10d",
        "RATELIMIT.HIT key 1000 1m",
    ];
    let mut rng = random("damaged_streams");
    let mut server = Setup::new().args(["--sanitize-dump-payload", "yes", "--stream-node-max-entries", "10"]).start();
    let mut client = server.connect();
    let payloads = [1, 3, 9, 25].map(|hits| {
        let ids: Vec<(u64, u64)> = (1..=hits).map(|at| (now() - 1_000 + at * 10, at)).collect();
        append(&mut client, "key", &ids, "60000ms", "1");
        let payload: Vec<u8> = get(client.run("DUMP key"));
        client.run("DEL key");
        payload
    });
    let mut outcome = Outcome::default();
    let mut taken = 0;
    for _ in 0..calls_or(20_000) {
        let mut payload = rng.choice(&payloads).unwrap().clone();
        let end = payload.len() - 8;
        for _ in 0..rng.usize(1..5) {
            // Neither the type in front nor the version behind.
            let byte = &mut payload[rng.usize(1..end - 2)];
            *byte = match rng.u8(..4) {
                0 => rng.u8(..),
                1 => *byte ^ (1 << rng.u8(..8)),
                2 => byte.wrapping_add(1),
                _ => byte.wrapping_sub(1),
            };
        }
        let sum = checksum(&payload[..end]);
        payload[end..].copy_from_slice(&sum.to_le_bytes());
        if client.ask(redis::cmd("RESTORE").arg("key").arg(0).arg(&payload).arg("REPLACE")).is_err() {
            continue;
        }
        taken += 1;
        for line in CALLS {
            let args: Vec<&str> = line.split(' ').collect();
            let reply = client.ask(&call(args[0], &args[1..]));
            assert!(server.is_alive(), "{line}: {}", payload.escape_ascii());
            outcome.take(args[0], &args[1..], reply);
        }
    }
    assert!(outcome.errors.keys().all(|text| text == NOT_A_LOG || text == LAST_ID_AHEAD), "{outcome:?}");
    assert!(taken > 100 && outcome.allowed > taken && outcome.refused > taken, "{taken}: {outcome:?}");
}
