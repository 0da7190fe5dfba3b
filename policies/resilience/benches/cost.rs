//! What a call costs, in nanoseconds: `cargo bench -p policy-resilience`.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use policy_resilience::{
    AdaptiveConcurrency, AdaptiveSpec, Breaker, BreakerSpec, Concurrency, ConcurrencySpec, EjectionSpec,
    EndpointOutcome, EndpointOutliers, Forced, HalfOpenSpec, LocalOrigin, OpenSpec, OutOfRange, Outcome,
    OutlierDetector, OutlierSpec, RetryBudget, RetryBudgetSpec, WindowSpec,
};

const SLICES: u32 = 101;
/// In a slice.
const CALLS: u32 = 20_000;
const SECOND: Duration = Duration::from_secs(1);

fn main() -> Result<(), OutOfRange> {
    let open = OpenSpec::new(SECOND, 2.0, SECOND * 60, 20)?;
    let half_open = HalfOpenSpec::new(5, 5, SECOND * 60)?;
    let breaker = |window| Ok(Breaker::new(BreakerSpec::new(window, 100, 50, open, half_open)?));
    let call = |breaker: &Arc<Breaker>, now| {
        if let Ok(permit) = breaker.acquire(now, 7) {
            permit.record(Outcome::Success, Duration::from_millis(3), now);
        }
    };
    let (count, time) = (breaker(WindowSpec::count(100)?)?, breaker(WindowSpec::time(SECOND * 10)?)?);
    let (forced, disabled) = (breaker(WindowSpec::count(100)?)?, breaker(WindowSpec::count(100)?)?);
    forced.force(Forced::Open, SECOND);
    disabled.force(Forced::Disabled, SECOND);
    measure("breaker, count window: acquire and record", |now| call(&count, now));
    measure("breaker, time window: acquire and record", |now| call(&time, now));
    measure("breaker, disabled: acquire and record", |now| call(&disabled, now));
    measure("breaker, forced open: refused", |now| call(&forced, now));
    measure("breaker, no transition to take", |_| drop(black_box(count.take_transitions())));

    let limit = Concurrency::new(ConcurrencySpec::new(1000)?);
    measure("concurrency: acquire and drop", |_| drop(black_box(limit.try_acquire())));
    let budget = RetryBudget::new(RetryBudgetSpec::new(20, SECOND * 10, 10, SECOND)?);
    measure("retry budget: deposit", |now| budget.deposit(now));
    measure("retry budget: withdraw", |now| _ = black_box(budget.try_withdraw(now)));
    let ejection = EjectionSpec::new(SECOND, SECOND, 0, 10)?;
    let outliers = OutlierSpec::new(SECOND, ejection, LocalOrigin::AsGatewayError)?.with_consecutive_5xx(5)?;
    let (detector, endpoint) = (OutlierDetector::new(outliers), EndpointOutliers::default());
    measure("outliers: record a success", |now| {
        black_box(detector.record(&endpoint, EndpointOutcome::Success, || [&endpoint], now, 7));
    });
    let adaptive = AdaptiveConcurrency::new(AdaptiveSpec::new(1, 1000, 100, SECOND)?);
    measure("adaptive: acquire and record", |now| {
        if let Ok(permit) = adaptive.try_acquire() {
            permit.record(Duration::from_millis(3), now);
        }
    });
    Ok(())
}

/// Prints what one `call` costs on one thread, and on two that share its state. On a busy machine the two seldom run at
/// once, and the second number says little.
fn measure(name: &str, call: impl Fn(Duration) + Sync) {
    let (alone, together) = (run(1, &call), run(2, &call));
    println!("{name:<44} {alone:>7.1} ns   two threads {together:>7.1} ns");
}

fn run(threads: usize, call: &(impl Fn(Duration) + Sync)) -> f64 {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| time(&start, call))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).fold(0.0, f64::max)
    })
}

/// The median over slices, so that a machine with other work to do disturbs little.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn time(start: &Barrier, call: &impl Fn(Duration)) -> f64 {
    start.wait();
    let slice = |number: u32| {
        let began = Instant::now();
        for micros in number * CALLS..(number + 1) * CALLS {
            call(Duration::from_micros(micros.into()));
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    let mut costs: Vec<f64> = (0..SLICES).map(slice).collect();
    costs.sort_by(f64::total_cmp);
    costs.get(costs.len() / 2).copied().unwrap_or_default()
}
