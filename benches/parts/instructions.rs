//! Instructions of the hot path's parts, counted under valgrind: the same on a busy machine as on a quiet one.
//! `benches/instructions` runs it.

#[path = "work.rs"]
mod work;

use gungraun::{library_benchmark, library_benchmark_group, main};
use http::HeaderValue;
use http::request::Parts;
use work::{Cell, HeadWork, LONG, Lookup, Proving, SHORT, Walk};

fn rewriting(text: &str) -> (HeadWork, Parts) {
    let work = HeadWork::on(text);
    // Once before it counts: memory that is kept from request to request is there.
    work.rewrite(work.copy());
    let head = work.copy();
    (work, head)
}

#[library_benchmark]
#[bench::one(setup = Lookup::among, args = [0])]
#[bench::eleven(setup = Lookup::among, args = [10])]
#[bench::hundred_and_one(setup = Lookup::among, args = [100])]
fn route_lookup(lookup: Lookup) -> (Lookup, usize) {
    let found = lookup.run();
    (lookup, found)
}

#[library_benchmark]
#[bench::of_900_bytes(Cell::new())]
fn cell_read(mut cell: Cell) -> (Cell, HeaderValue) {
    let header = cell.run();
    (cell, header)
}

#[library_benchmark]
#[bench::es256(Proving::new())]
fn dpop_proof(proving: Proving) -> (Proving, HeaderValue) {
    let proof = proving.run();
    (proving, proof)
}

#[library_benchmark]
#[bench::curl(setup = HeadWork::on, args = [SHORT])]
#[bench::browser(setup = HeadWork::on, args = [LONG])]
fn admit(work: HeadWork) -> (HeadWork, bool) {
    let admitted = work.admit();
    (work, admitted)
}

#[library_benchmark]
#[bench::curl(setup = rewriting, args = [SHORT])]
#[bench::browser(setup = rewriting, args = [LONG])]
fn strip_and_edit((work, head): (HeadWork, Parts)) -> (HeadWork, Parts) {
    let head = work.rewrite(head);
    (work, head)
}

#[library_benchmark]
#[bench::of_six_fields(setup = HeadWork::on, args = [SHORT])]
fn judge_answer(work: HeadWork) -> (HeadWork, bool) {
    let judged = work.judge_answer();
    (work, judged)
}

#[library_benchmark]
#[bench::curl(setup = Walk::over, args = [SHORT])]
#[bench::browser(setup = Walk::over, args = [LONG])]
#[bench::chunks(Walk::over_chunks())]
fn framing(mut walk: Walk) -> (Walk, usize) {
    let turns = walk.run();
    (walk, turns)
}

library_benchmark_group!(
    name = parts,
    benchmarks = [route_lookup, cell_read, dpop_proof, admit, strip_and_edit, judge_answer, framing]
);
main!(library_benchmark_groups = parts);
