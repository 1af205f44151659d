//! One decision of a real server, measured by criterion: CPU time of the server's main thread. `make bench` compares
//! contenders, and two builds of the module, in one run. This compares the code before and after a change in two runs: `cargo
//! bench --bench server -- --save-baseline before`, then the same with `--baseline before`.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::contenders::{Steady, variants};
use support::traffic::{BATCH, CONNECTIONS, Runner};

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("server");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(2)).sample_size(20);
    for contender in variants(Steady { keys: 100, seconds: 10 }) {
        let setup = contender.setup();
        let mut runner = Runner::start(contender, setup);
        let mut done = 0;
        group.bench_function(runner.contender.name.clone(), |bencher| {
            bencher.iter_custom(|decisions| {
                let sent = (decisions as usize).next_multiple_of(BATCH * CONNECTIONS);
                let keys: Vec<usize> = (done..done + sent).map(|at| at % runner.contender.keys).collect();
                done += sent;
                // Whole batches were sent, perhaps more than was asked for.
                runner.send(&keys).mul_f64(decisions as f64 / sent as f64)
            });
        });
    }
    group.finish();
}

criterion_group!(server_benches, benches);
criterion_main!(server_benches);
