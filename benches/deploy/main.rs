//! The allocator over a real etcd: Gazette's own benchmark, clusters that are nearly full, and the loss of
//! a tenth; how many moves, rounds and renames that takes, and how long beside the same writes sent raw.
//!
//! `cargo bench --bench deploy --features allocator,etcd -- [loss [REPEATS]|full|roll [N [SLACK]]]`: rolling are 10 N
//! members, 2,000 N items of three replicas, two zones of 60 and 40 percent; half of the members are
//! replaced in five steps. Without arguments all of it, with N 1, 10 and 20.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(dead_code, reason = "the tests use more of the server")]

mod cluster;
mod full;
mod ledger;
mod loss;
mod recorder;
mod replay;
mod rolling;
#[path = "../../tests/etcd/server.rs"]
mod server;
#[path = "../../tests/support/slots.rs"]
mod slots;

use cluster::Spent;
use full::Case;
use ledger::Faults;
use loss::Loss;
use rolling::Sums;
use tokio::runtime::Runtime;

/// Databases bring an allocator of memory with them; what is sent raw is sent with it too.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As far from its fair share as a member can be.
const WIDE: u32 = 1_500;

/// Most rounds in a step.
const ROUNDS: u64 = 10;

fn losses(runtime: &Runtime, items: usize, repeats: usize) {
    let figures = runtime.block_on(loss::lose(items, repeats));
    println!(
        "Ten of 100 members lost, {items} items, until every replica is placed again, {repeats} times; medians:\n"
    );
    println!(
        "| ms | ours worked | etcd worked | raw ms | ours | etcd | times | least | most | fenced ms | ours | etcd | times |"
    );
    println!("|{}", "---:|".repeat(13));
    let sorted = |figure: &dyn Fn(&Loss) -> f64| {
        let mut sorted: Vec<f64> = figures.iter().map(figure).collect();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let thousandths = |spent: &dyn Fn(&Loss) -> Spent| {
        let wall = sorted(&|loss| spent(loss).wall);
        let ours = sorted(&|loss| spent(loss).ours);
        let etcd = sorted(&|loss| spent(loss).etcd);
        let [wall, ours, etcd] = [wall, ours, etcd].map(|all| all[repeats / 2] * 1_000.0);
        format!("{wall:.0} | {ours:.0} | {etcd:.0}")
    };
    let times = sorted(&Loss::times);
    println!(
        "| {} | {} | {:.2} | {:.2} | {:.2} | {} | {:.2} |\n",
        thousandths(&|loss| loss.spent),
        thousandths(&|loss| loss.raw),
        times[repeats / 2],
        times[0],
        times[repeats - 1],
        thousandths(&|loss| loss.fenced),
        sorted(&|loss| loss.fenced.wall / loss.raw.wall)[repeats / 2],
    );
}

fn fulls(runtime: &Runtime, cases: &[Case]) {
    println!("Nearly full, three zones; one member lost:\n");
    println!(
        "| members | items | limit | rounds to fill | placed | lost | rounds | placed | fit | made | ended |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for case in cases {
        let full = runtime.block_on(full::fill(case));
        let Case { members, items, limit } = case;
        let (filled, placed) = full.filled;
        let (rounds, again, fits) = full.lost;
        let (held, added, removed) = (full.held, full.added, full.removed);
        println!(
            "| {members} | {items} | {limit} | {filled} | {placed} | {held} | {rounds} | {again} | {fits} | {added} | {removed} |"
        );
        assert_eq!(placed, (3 * items).min(limit * members), "everything that fits is placed");
        assert_eq!(again, fits, "everything that fits is placed again");
        assert_eq!(added, held - (placed - again) as u64, "only what was lost is made");
        assert_eq!(removed, 0, "nothing that stands is ended");
        assert!(filled < 5 && rounds < 5, "it settles in fewer than 5 rounds");
    }
    println!();
}

fn rolls(runtime: &Runtime, sizes: &[usize], slacks: &[u32], directions: &[bool]) {
    println!("Half of the members replaced:\n");
    println!(
        "| N | first | slack | moves | bound | moves / bound | moves / hindsight | new primaries | renames | rounds | most a step | txns | refused | s | ours worked | etcd worked | raw s | ours | etcd | times | fenced s | ours | etcd | times |"
    );
    println!("|---:|---|{}", "---:|".repeat(22));
    for (n, slack) in sizes.iter().flat_map(|n| slacks.iter().map(move |slack| (*n, *slack))) {
        for down_first in directions {
            let sums = runtime.block_on(rolling::roll(n, *down_first, slack));
            println!("{}", row(n, *down_first, slack, &sums));
            assert!(sums.moves * 50 <= sums.bound * 51, "at most 1.02 times the bound");
            // In the smallest one a member more or less is a tenth of them.
            if slack == WIDE && n >= 10 {
                let aim = if *down_first { 125 } else { 102 };
                assert!(sums.moves * 100 <= sums.hindsight * aim, "at most {aim} % of the least");
            }
            assert!(sums.most_rounds <= ROUNDS, "at most {ROUNDS} rounds a step");
            assert_eq!(sums.faults, Faults::default(), "nothing happens that must not");
        }
    }
}

fn row(n: usize, down_first: bool, slack: u32, sums: &Sums) -> String {
    let seconds =
        |spent: Spent| format!("{:.1} | {:.1} | {:.1}", spent.wall, spent.ours, spent.etcd);
    let Sums {
        moves,
        bound,
        hindsight,
        renames,
        crowned,
        rounds,
        most_rounds,
        batches,
        failed,
        ..
    } = sums;
    format!(
        "| {n} | {} | {slack} | {moves} | {bound} | {:.3} | {:.2} | {crowned} | {renames} | {rounds} | {most_rounds} | {batches} | {failed} | {} | {} | {:.2} | {} | {:.2} |",
        if down_first { "down" } else { "up" },
        *moves as f64 / *bound as f64,
        *moves as f64 / *hindsight as f64,
        seconds(sums.spent),
        seconds(sums.raw),
        sums.spent.wall / sums.raw.wall,
        seconds(sums.fenced),
        sums.fenced.wall / sums.raw.wall,
    )
}

fn main() {
    // Tests run it too, small.
    let trial = !std::env::args().any(|argument| argument == "--bench");
    let numbers: Vec<usize> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let all = ["loss", "full", "roll"];
    let named = |part: &str| std::env::args().any(|argument| argument == part);
    let wanted = |part: &str| named(part) || !all.iter().any(|part| named(part));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if wanted("loss") {
        let repeats = numbers.first().copied().filter(|_| named("loss"));
        let (items, repeats) =
            if trial { (2_000, 1) } else { (20_000, repeats.unwrap_or(11).max(1)) };
        losses(&runtime, items, repeats);
    }
    if wanted("full") {
        let case = |members, items, limit| Case { members, items, limit };
        let small = [case(100, 2_000, 61), case(10, 2_000, 606)];
        let large = [
            case(1_000, 20_000, 61),
            case(100, 20_000, 606),
            case(100, 100_000, 3_030),
            case(100, 100_000, 3_150),
        ];
        fulls(&runtime, if trial { &small } else { &large });
    }
    if wanted("roll") {
        let sizes = match numbers.first() {
            Some(n) => vec![*n],
            None if trial => vec![1],
            None => vec![1, 10, 20],
        };
        let slacks = match numbers.get(1) {
            Some(slack) => vec![u32::try_from(*slack).unwrap()],
            None if trial => vec![0],
            None => vec![0, WIDE],
        };
        rolls(&runtime, &sizes, &slacks, if trial { &[false] } else { &[false, true] });
    }
}
