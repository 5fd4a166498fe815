//! Clocks and alarms.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::{Queue, run};
use crate::driver::host::Host;
use crate::driver::runtime::Alarm;
use crate::driver::serve::pause;
use crate::time::Tick;

const SOON: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_millis(60);
const NEVER: Duration = Duration::from_secs(3600);

async fn ring(alarm: &mut impl Alarm) {
    poll_fn(|context| alarm.poll(context)).await;
}

async fn is_silent(alarm: &mut impl Alarm) -> bool {
    poll_fn(|context| Poll::Ready(alarm.poll(context).is_pending())).await
}

/// Ticks never go back, and the wall clock is not that of 1970.
pub fn clocks_go_forward<H: Host>() {
    let mut last = H::now();
    assert!(last.unix.as_secs() > 1_700_000_000);
    assert_ne!(last.tick, Tick::default());
    for _ in 0..10_000 {
        let now = H::now();
        assert!(now.tick >= last.tick);
        last = now;
    }
}

/// A deadline rings when it has passed, once.
pub fn alarms_ring_once_and_not_early<H: Host>() {
    run::<H, _>(async {
        let mut alarm = H::alarm();
        assert!(is_silent(&mut alarm).await, "an alarm that is not set rings");
        for _ in 0..3 {
            let at = H::now().tick.after(SOON);
            alarm.set(Some(at));
            assert!(is_silent(&mut alarm).await || H::now().tick >= at);
            alarm.set(Some(at));
            ring(&mut alarm).await;
            assert!(H::now().tick >= at, "it rings early");
            assert!(is_silent(&mut alarm).await, "it rings twice");
        }
        // What has passed rings at once, and the end of all ticks never.
        alarm.set(Some(Tick::default()));
        ring(&mut alarm).await;
        alarm.set(Some(Tick::from_nanos(u64::MAX)));
        assert!(is_silent(&mut alarm).await);
    });
}

/// Only the last tick that was set counts, earlier or later than the one before.
pub fn alarms_that_are_moved_ring_at_the_last_tick<H: Host>() {
    run::<H, _>(async {
        let begin = H::now().tick;
        let mut alarm = H::alarm();
        alarm.set(Some(begin.after(NEVER)));
        assert!(is_silent(&mut alarm).await);
        alarm.set(Some(begin.after(SOON)));
        ring(&mut alarm).await;
        assert!(H::now().tick >= begin.after(SOON));

        let begin = H::now().tick;
        alarm.set(Some(begin.after(SOON)));
        let _ = is_silent(&mut alarm).await;
        // Message after message, its deadline moves away.
        for step in 1..=10 {
            alarm.set(Some(begin.after(SOON + (LATER - SOON) * step / 10)));
            let _ = is_silent(&mut alarm).await;
        }
        alarm.set(Some(begin.after(LATER)));
        ring(&mut alarm).await;
        assert!(H::now().tick >= begin.after(LATER), "it rings at a tick that was taken back");
        assert!(is_silent(&mut alarm).await);
    });
}

/// An alarm that is cleared, or gone, wakes nobody into thinking that it rang.
pub fn alarms_that_are_cleared_stay_silent<H: Host>() {
    run::<H, _>(async {
        let mut cleared = H::alarm();
        let mut dropped = H::alarm();
        for alarm in [&mut cleared, &mut dropped] {
            alarm.set(Some(H::now().tick.after(SOON)));
            let _ = is_silent(alarm).await;
        }
        cleared.set(None);
        drop(dropped);
        pause::<H>(LATER).await;
        assert!(is_silent(&mut cleared).await);
        // And can be used again.
        cleared.set(Some(H::now().tick.after(SOON)));
        ring(&mut cleared).await;
    });
}

/// Every one of thousands of alarms rings, whoever set it.
pub fn many_alarms_ring<H: Host>() {
    const ALARMS: u64 = 3000;
    run::<H, _>(async {
        let rang = Queue::new();
        let begin = H::now().tick;
        for number in 0..ALARMS {
            let rang = rang.clone();
            H::spawn(async move {
                let mut alarm = H::alarm();
                let at = begin.after(Duration::from_micros(number * 10));
                alarm.set(Some(at));
                ring(&mut alarm).await;
                rang.put((at, H::now().tick));
            });
        }
        for _ in 0..ALARMS {
            let (at, when) = rang.take().await;
            assert!(when >= at);
        }
    });
}
