//! x
use raft_autopilot::store::{machine::*, *};
use std::time::Duration;
fn key(number: usize) -> String {
    format!("items/{:012}", (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24)
}
fn put(number: usize) -> Txn {
    Txn::new([Op::put(key(number), [7; 64].to_vec())])
}
#[inline(never)]
fn measured(machine: &mut Machine, batch: Vec<Txn>) {
    for txn in batch {
        let _ = std::hint::black_box(machine.apply(Command::Txn(txn), Duration::ZERO));
    }
}
fn cpu() -> Duration {
    let t = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(t.split(' ').next().unwrap().parse().unwrap())
}
fn main() {
    let keys: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let txns: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let len: usize = std::env::args().nth(3).map_or(100_000, |l| l.parse().unwrap());
    let mut machine = Machine::new(Config { history_len: len, ..Config::default() });
    for n in 0..keys {
        let _ = machine.apply(Command::Txn(put(n)), Duration::ZERO);
    }
    let mut done = 0;
    let mut spent = Duration::ZERO;
    while done < txns {
        let batch: Vec<Txn> = (done..done + 10_000).map(|n| put((n * 7919) % keys)).collect();
        done += batch.len();
        let t = cpu();
        measured(&mut machine, batch);
        spent += cpu() - t;
    }
    println!("{:.0} ns", spent.as_nanos() as f64 / done as f64);
}
