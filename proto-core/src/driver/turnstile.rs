//! Letting a few through at a time, first come, first served: work that costs a processor and that strangers can ask for.
//!
//! Whoever sends a wrong password may cost a derivation. On threads without number a flood of these would take the
//! processors from the sessions of everybody else; behind a turnstile it takes its time from those who log in.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::mailbox::lock;

/// So many at a time.
pub(super) struct Turnstile {
    state: Mutex<State>,
}

struct State {
    free: usize,
    next: u64,
    /// Who waits, in the order in which they came.
    waiting: VecDeque<u64>,
    wakers: BTreeMap<u64, Waker>,
    /// Whose turn has come without their having looked.
    called: VecDeque<u64>,
}

impl Turnstile {
    pub(super) fn new(free: usize) -> Arc<Self> {
        let (waiting, wakers, called) = (VecDeque::new(), BTreeMap::new(), VecDeque::new());
        Arc::new(Self { state: Mutex::new(State { free, next: 0, waiting, wakers, called }) })
    }

    /// Waits for a turn. Dropped before that, it is nobody's.
    pub(super) fn enter(self: &Arc<Self>) -> Enter {
        Enter { turnstile: self.clone(), ticket: None }
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    fn leave(&self) {
        let waker = {
            let mut state = lock(&self.state);
            match state.waiting.pop_front() {
                Some(ticket) => {
                    state.called.push_back(ticket);
                    state.wakers.remove(&ticket)
                }
                None => {
                    state.free += 1;
                    None
                }
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A turn that has come. The next one's comes when this is dropped.
pub(super) struct Turn(Arc<Turnstile>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// See [`Turnstile::enter`].
pub(super) struct Enter {
    turnstile: Arc<Turnstile>,
    ticket: Option<u64>,
}

impl Future for Enter {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
        let turnstile = self.turnstile.clone();
        let mut state = lock(&turnstile.state);
        let has_come = match self.ticket {
            None if state.free > 0 => {
                state.free -= 1;
                true
            }
            None => {
                let ticket = state.next;
                state.next += 1;
                state.waiting.push_back(ticket);
                state.wakers.insert(ticket, context.waker().clone());
                self.ticket = Some(ticket);
                false
            }
            Some(ticket) => match state.called.iter().position(|called| *called == ticket) {
                Some(at) => {
                    state.called.remove(at);
                    true
                }
                None => {
                    state.wakers.insert(ticket, context.waker().clone());
                    false
                }
            },
        };
        drop(state);
        if !has_come {
            return Poll::Pending;
        }
        self.ticket = None;
        Poll::Ready(Turn(turnstile))
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let was_called = {
            let mut state = lock(&self.turnstile.state);
            state.wakers.remove(&ticket);
            state.waiting.retain(|waiting| *waiting != ticket);
            let before = state.called.len();
            state.called.retain(|called| *called != ticket);
            state.called.len() < before
        };
        if was_called {
            self.turnstile.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(enter: &mut Enter) -> Option<Turn> {
        match Pin::new(enter).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn so_many_at_a_time_in_the_order_in_which_they_came() {
        let turnstile = Turnstile::new(2);
        let mut all: Vec<Enter> = (0..5).map(|_| turnstile.enter()).collect();
        let mut turns: Vec<Option<Turn>> = all.iter_mut().map(poll).collect();
        assert_eq!(turns.iter().filter(|turn| turn.is_some()).count(), 2);
        for next in 2..5 {
            turns[next - 2] = None;
            // Who looks first makes no difference.
            for at in (2..5).rev() {
                if turns[at].is_none() && at >= next {
                    turns[at] = poll(&mut all[at]);
                }
            }
            let inside: Vec<usize> = (0..5).filter(|at| turns[*at].is_some()).collect();
            assert_eq!(inside, [next - 1, next]);
        }
        drop(turns);
        assert_eq!(lock(&turnstile.state).free, 2);
    }

    #[test]
    fn who_gives_up_holds_nobody_up() {
        let turnstile = Turnstile::new(1);
        let turn = poll(&mut turnstile.enter()).unwrap();
        let (mut second, mut third, mut fourth) = (turnstile.enter(), turnstile.enter(), turnstile.enter());
        assert!(poll(&mut second).is_none() && poll(&mut third).is_none() && poll(&mut fourth).is_none());
        drop(third);
        drop(turn);
        // Called, and gone without having looked.
        drop(second);
        let turn = poll(&mut fourth).unwrap();
        drop(turn);
        let state = lock(&turnstile.state);
        assert_eq!((state.free, state.waiting.len(), state.wakers.len(), state.called.len()), (1, 0, 0, 0));
    }

    #[test]
    fn whose_turn_comes_is_woken() {
        struct Woken(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let turnstile = Turnstile::new(1);
        let turn = poll(&mut turnstile.enter());
        let woken = Arc::new(Woken(std::sync::atomic::AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        let mut enter = turnstile.enter();
        assert!(Pin::new(&mut enter).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(turn);
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(poll(&mut enter).is_some());
    }
}
