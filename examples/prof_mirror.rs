//! x
use raft_autopilot::{
    runtime::TokioRuntime,
    store::{machine::*, mirror::*, *},
};
use std::time::Duration;
fn key(number: usize) -> String {
    format!("items/{:012}", (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24)
}
fn cpu() -> Duration {
    let t = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(t.split(' ').next().unwrap().parse().unwrap())
}
#[inline(never)]
fn measured<T>(f: impl FnOnce() -> T) -> T {
    f()
}
fn main() {
    let keys: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let rounds: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let limits = Limits { operations: 1_000, ..Limits::default() };
    let store =
        rt.block_on(async { Embedded::new(Config { limits, ..Config::default() }, TokioRuntime) });
    rt.block_on(async {
        for first in (0..keys).step_by(100) {
            let puts = (first..first + 100).map(|number| Op::put(key(number), [7; 64].to_vec()));
            store.commit(Txn::new(puts.collect::<Vec<_>>())).await.unwrap();
        }
    });
    let t = cpu();
    let mirror = rt
        .block_on(Mirror::open(
            store.clone(),
            TokioRuntime,
            KeyRange::prefix("items/"),
            |kv: &KeyValue| Ok(kv.value.len() as u64),
            Options::default(),
        ))
        .unwrap();
    println!("load {:?}", cpu() - t);
    let (mut commits, mut shows) = (vec![], vec![]);
    for round in 0..rounds {
        let puts: Vec<_> = (0..1_000)
            .map(|at| Op::put(key((round * 1_000 + at) * 104_729 % keys), [7; 64].to_vec()))
            .collect();
        let t = cpu();
        let done = rt.block_on(store.commit(Txn::new(puts))).unwrap();
        let t2 = cpu();
        measured(|| rt.block_on(mirror.wait(done.revision)).unwrap());
        commits.push(t2 - t);
        shows.push(cpu() - t2);
    }
    println!(
        "commit {:?} show {:?}",
        commits.iter().sum::<Duration>() / rounds as u32,
        shows.iter().sum::<Duration>() / rounds as u32
    );
}
