//! Broken calls do no harm: a fuzzer knows the grammar of the commands and breaks it, among other commands on the same keys,
//! and sees no crash, no error that is not meant, no answer out of range and no stall.
//!
//! `make test` sends 100,000 calls, `make fuzz` ten million.

use std::collections::BTreeMap;

use support::Server;
use support::client::{HIT, MHIT, PEEK, RESET, RESETSTAT};
use support::errors::{self, COST, LAST_ID_AHEAD, LIMIT, NOT_A_LOG, SYNTAX, TOO_MANY_TIERS, WINDOW, WRONG_TYPE, arity};
use support::fuzzer::fuzz;
use support::judge::Outcome;
use support::seeds::{calls_or, random};

#[test]
fn broken_calls() {
    let calls = calls_or(100_000);
    let seed = random("broken_calls").u64(..);
    let Outcome { errors, allowed, refused, resets, mut stalls } = fuzz(&mut Server::start(), seed, calls);
    eprintln!("{calls} calls: {allowed} allowed, {refused} refused, {resets} logs reset, {errors:#?}");
    // Each error has been met, and no other.
    let mut known =
        [LIMIT, WINDOW, COST, TOO_MANY_TIERS, SYNTAX, WRONG_TYPE, NOT_A_LOG, LAST_ID_AHEAD].map(str::to_owned).to_vec();
    known.extend(
        [errors::NUMKEYS, errors::TOO_FEW_ARGUMENTS, errors::GROUPS, errors::KEY_TWICE, errors::COUNT, errors::TIMEOUT]
            .map(str::to_owned),
    );
    known.extend([HIT, PEEK, MHIT, RESET, RESETSTAT].map(arity));
    known.sort();
    assert_eq!(errors.keys().cloned().collect::<Vec<_>>(), known, "{errors:?}");
    let enough = calls / 100;
    assert!(allowed > enough && refused > enough && resets > 0, "{allowed}, {refused}, {resets}");
    // What stalls the module comes back with the seed; what stalls the machine does not.
    for _ in 0..2 {
        if !stalls.is_empty() {
            let again = fuzz(&mut Server::start(), seed, calls).stalls;
            stalls.retain(|batch, _| again.contains_key(batch));
        }
    }
    assert_eq!(stalls, BTreeMap::new());
}
