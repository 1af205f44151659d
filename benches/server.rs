//! One decision of a real server, measured by criterion: batches of commands over a socket, so the server dominates. `make
//! bench` compares contenders in one run; this compares the code before and after a change: `cargo bench --bench server --
//! --save-baseline before`, then the same with `--baseline before`.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::contenders::{BATCH, all, load_scripts};

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("server");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(2)).sample_size(20);
    for contender in all() {
        let server = contender.setup().start();
        let mut client = server.connect();
        load_scripts(&mut client);
        (contender.prepare)(&mut client);
        let mut done = 0;
        group.bench_function(contender.name, |bencher| {
            bencher.iter_custom(|decisions| {
                let mut took = Duration::ZERO;
                for _ in 0..decisions.div_ceil(BATCH as u64) {
                    let batch = contender.batch(done, BATCH);
                    done += BATCH;
                    let start = Instant::now();
                    batch.exec(&mut client).unwrap();
                    took += start.elapsed();
                }
                // Whole batches were sent, perhaps more than was asked for.
                took.mul_f64(decisions as f64 / (decisions.div_ceil(BATCH as u64) * BATCH as u64) as f64)
            });
        });
    }
    group.finish();
}

criterion_group!(server_benches, benches);
criterion_main!(server_benches);
