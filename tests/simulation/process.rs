//! The simulated runtime with processes on it: whatever a process spawned dies with it, at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_sim::{
    Elapsed, SimInstant, SimJoinError, SimJoinHandle, SimRuntime, SimSleep, SimTimeout,
};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

/// One run of one server, from its start to its crash. A task belongs to the process whose task
/// spawned it; tasks spawned outside every process belong to the world and cannot be killed.
pub(crate) struct Process {
    tasks: Mutex<Tasks>,
    on_panic: Box<dyn Fn(String) + Send + Sync>,
}

#[derive(Default)]
struct Tasks {
    dead: bool,
    next: u64,
    /// In the order of their spawning, so that a kill drops them in the same order every time.
    alive: BTreeMap<u64, Arc<dyn Task>>,
}

trait Task: Send + Sync {
    /// Drops the future and wakes whoever polls it, to find it gone.
    fn kill(&self);
}

struct Slot<F> {
    future: Mutex<Option<Pin<Box<F>>>>,
    waker: Mutex<Option<Waker>>,
}

impl<F: Future + Send> Task for Slot<F> {
    fn kill(&self) {
        let future = lock(&self.future).take();
        drop(future);
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    /// A process with no task yet. `on_panic` hears of every task of it that panics.
    pub(crate) fn new(on_panic: impl Fn(String) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { tasks: Mutex::default(), on_panic: Box::new(on_panic) })
    }

    /// Starts a task of this process.
    pub(crate) fn spawn(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.adopt(future));
    }

    /// Drops every task of the process between two polls, as `kill -9` would.
    pub(crate) fn kill(&self) {
        let tasks = {
            let mut tasks = lock(&self.tasks);
            tasks.dead = true;
            std::mem::take(&mut tasks.alive)
        };
        for task in tasks.into_values() {
            task.kill();
        }
    }

    fn adopt<F>(self: &Arc<Self>, future: F) -> SimJoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let slot =
            Arc::new(Slot { future: Mutex::new(Some(Box::pin(future))), waker: Mutex::default() });
        let id = {
            let mut tasks = lock(&self.tasks);
            tasks.next += 1;
            let id = tasks.next;
            if tasks.dead {
                lock(&slot.future).take();
            } else {
                tasks.alive.insert(id, slot.clone());
            }
            id
        };
        SimRuntime::spawn(Owned { process: self.clone(), slot, id })
    }
}

/// A task of a process, as the runtime polls it.
struct Owned<F> {
    process: Arc<Process>,
    slot: Arc<Slot<F>>,
    id: u64,
}

impl<F: Future + Send> Future for Owned<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(mut future) = lock(&self.slot.future).take() else {
            // Whoever joins a killed task sees it fail; nothing is printed.
            resume_unwind(Box::new("the process was killed"));
        };
        {
            let mut waker = lock(&self.slot.waker);
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        let outer = CURRENT.replace(Some(self.process.clone()));
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        CURRENT.set(outer);
        match polled {
            Ok(Poll::Pending) => {
                *lock(&self.slot.future) = Some(future);
                Poll::Pending
            }
            Ok(Poll::Ready(output)) => {
                lock(&self.process.tasks).alive.remove(&self.id);
                Poll::Ready(output)
            }
            Err(panic) => {
                lock(&self.process.tasks).alive.remove(&self.id);
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.or(panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
                (self.process.on_panic)(said.unwrap_or_default());
                resume_unwind(panic)
            }
        }
    }
}

/// Starts a task of the world: what is under way on the network survives the crash of its sender.
pub(crate) fn spawn_in_the_world(future: impl Future<Output = ()> + Send + 'static) {
    drop(SimRuntime::spawn(future));
}

/// openraft's simulated runtime, with [`Process`] added.
#[derive(Debug)]
pub(crate) struct Processes;

impl AsyncRuntime for Processes {
    type JoinError = SimJoinError;
    type JoinHandle<T: OptionalSend + 'static> = SimJoinHandle<T>;
    type Sleep = SimSleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = SimTimeout<T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match CURRENT.with_borrow(Clone::clone) {
            Some(process) => process.adopt(future),
            None => SimRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        SimRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        SimRuntime::sleep_until(deadline)
    }

    fn timeout<R, F>(duration: Duration, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        SimRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        SimRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        SimRuntime::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(_threads: usize) -> Self {
        panic_any("a simulated process is started by the world, not by itself")
    }

    fn block_on<F, T>(&mut self, _future: F) -> T
    where
        F: Future<Output = T>,
    {
        panic_any("a simulated process is started by the world, not by itself")
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        SimRuntime::spawn_blocking(work)
    }
}
