//! Times of the hot path's parts: `cargo bench -p bearward-benches --bench times`.

#[path = "work.rs"]
mod work;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use work::{Cell, HeadWork, LONG, Lookup, Proving, SHORT, Walk};

fn parts(c: &mut Criterion) {
    for routes in [0, 10, 100] {
        let lookup = Lookup::among(routes);
        c.bench_function(&format!("route lookup, {} routes", routes + 1), |b| b.iter(|| lookup.run()));
    }
    let mut cell = Cell::new();
    c.bench_function("cell read", |b| b.iter(|| cell.run()));
    let proving = Proving::new();
    c.bench_function("DPoP proof, ES256", |b| b.iter(|| proving.run()));
    for (name, text) in [("curl", SHORT), ("browser", LONG)] {
        let heads = HeadWork::on(text);
        c.bench_function(&format!("admit, head of {name}"), |b| b.iter(|| heads.admit()));
        c.bench_function(&format!("strip and edit, head of {name}"), |b| {
            b.iter_batched(|| heads.copy(), |head| heads.rewrite(head), BatchSize::SmallInput);
        });
        let mut walk = Walk::over(text);
        c.bench_function(&format!("framing, head of {name}"), |b| b.iter(|| walk.run()));
    }
    let heads = HeadWork::on(SHORT);
    c.bench_function("judge answer", |b| b.iter(|| heads.judge_answer()));
    let mut walk = Walk::over_chunks();
    c.bench_function("framing, 16 KiB in chunks", |b| b.iter(|| walk.run()));
}

criterion_group!(benches, parts);
criterion_main!(benches);
