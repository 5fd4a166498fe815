use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::audit::{Event, Protocol, SessionFacts, Sheet, Statement, StatementText};
use crate::session_id::SessionId;
use crate::time::UnixMicros;

/// Long enough for any machine; no test waits for it to pass.
const LONG: Duration = Duration::from_secs(600);

/// The files of a sink, in the order in which they were opened.
type Files = Arc<Mutex<Vec<Vec<u8>>>>;

/// Writes into memory, after `before` has had its say: how many bytes may be written.
struct Sink<F> {
    files: Files,
    reopened: io::Result<Reopened>,
    before: F,
    gone: Sender<()>,
}

impl<F: FnMut(usize) -> io::Result<usize> + Send> AuditSink for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = (self.before)(bytes.len())?.min(bytes.len());
        let mut files = self.files.lock().unwrap();
        files.last_mut().unwrap().extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<Reopened> {
        let reopened = *self.reopened.as_ref().map_err(io::Error::kind)?;
        if reopened == Reopened::Other {
            self.files.lock().unwrap().push(Vec::new());
        }
        Ok(reopened)
    }
}

impl<F> Drop for Sink<F> {
    fn drop(&mut self) {
        let _ = self.gone.send(());
    }
}

fn settings(on_failure: OnFailure) -> Settings {
    Settings {
        on_failure,
        linger: Duration::ZERO,
        min_retry: Duration::from_micros(1),
        max_retry: Duration::from_micros(50),
        ..Settings::default()
    }
}

fn start(
    settings: Settings,
    reopened: io::Result<Reopened>,
    before: impl FnMut(usize) -> io::Result<usize> + Send + 'static,
) -> (AuditLog, Files, Receiver<()>) {
    let files = Files::new(Mutex::new(vec![Vec::new()]));
    let (gone, ended) = channel();
    let log = AuditLog::start(Sink { files: files.clone(), reopened, before, gone }, settings).unwrap();
    (log, files, ended)
}

/// A sink whose writes wait until they are let through.
fn start_gated(settings: Settings) -> (AuditLog, Files, Receiver<()>, Sender<()>) {
    let (entered, writing) = channel();
    let (open, gate) = channel();
    let (log, files, _) = start(settings, Ok(Reopened::Same), move |n| {
        let _ = entered.send(());
        // The gate is open for ever once its sender is gone.
        let _ = gate.recv();
        Ok(n)
    });
    (log, files, writing, open)
}

/// A sink that fails as long as `broken` is set, and tells of every failure.
fn start_breakable(settings: Settings) -> (AuditLog, Files, Receiver<()>, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let (failed, failures) = channel();
    let is_broken = broken.clone();
    let (log, files, _) = start(settings, Ok(Reopened::Same), move |n| {
        if is_broken.load(Ordering::Acquire) {
            let _ = failed.send(());
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(n)
    });
    (log, files, failures, broken)
}

fn record(id: u64, text: &str) -> Record {
    Record {
        time: UnixMicros(0),
        facts: Arc::new(SessionFacts::new(SessionId(1), &Sheet::default())),
        event: Event::Statement(Statement {
            id,
            protocol: Protocol::Simple,
            text: Some(StatementText::new(text.as_bytes(), text.len() as u64, usize::MAX)),
            prepared: None,
            duration: Duration::ZERO,
            rows: None,
            command_tag: None,
            sqlstate: None,
            bytes_to_client: 0,
            bytes_to_server: 0,
        }),
    }
}

fn lines(ids: impl IntoIterator<Item = u64>, text: &str) -> String {
    let mut out = Vec::new();
    for id in ids {
        record(id, text).write_line(&mut out);
    }
    String::from_utf8(out).unwrap()
}

fn written(files: &Files) -> Vec<String> {
    files.lock().unwrap().iter().map(|file| String::from_utf8(file.clone()).unwrap()).collect()
}

#[test]
fn records_are_written_in_order() {
    let (log, files, _) = start(settings(OnFailure::Refuse), Ok(Reopened::Same), Ok);
    for id in 0..5_000 {
        assert!(log.try_reserve().unwrap().record(record(id, "select 1")));
    }
    assert!(log.flush(LONG));
    assert_eq!(written(&files), [lines(0..5_000, "select 1")]);
    assert_eq!(log.counters(), Counters { written: 5_000, ..Counters::default() });
}

#[test]
fn sessions_on_many_threads_share_one_log() {
    let (log, files, _) = start(settings(OnFailure::Refuse), Ok(Reopened::Same), |n| Ok(n.min(100)));
    std::thread::scope(|scope| {
        for session in 0..8 {
            let log = log.clone();
            scope.spawn(move || {
                for n in 0..200 {
                    assert!(log.try_reserve().unwrap().record(record(session * 1_000 + n, "x")));
                }
            });
        }
    });
    assert!(log.flush(LONG));
    let text = written(&files).concat();
    let mut seen: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["statement_id"].as_u64().unwrap())
        .collect();
    assert_eq!(seen.len(), 1_600);
    for session in 0..8 {
        // Each thread's records keep their order.
        assert!(seen.iter().filter(|id| *id / 1_000 == session).is_sorted());
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1_600);
}

#[test]
fn short_and_failing_writes_tear_no_line() {
    let mut calls = 0_usize;
    let (log, files, _) = start(settings(OnFailure::Count), Ok(Reopened::Same), move |_| {
        calls += 1;
        match calls % 5 {
            0 => Err(io::ErrorKind::StorageFull.into()),
            1 => Err(io::ErrorKind::Interrupted.into()),
            2 => Ok(0),
            _ => Ok(calls % 37),
        }
    });
    for id in 0..300 {
        assert!(log.try_reserve().unwrap().record(record(id, "select 'x'")));
    }
    assert!(log.flush(LONG));
    assert_eq!(written(&files), [lines(0..300, "select 'x'")]);
    assert_eq!(log.counters().dropped, 0);
}

#[test]
fn no_permit_without_a_slot() {
    let (log, files, writing, open) = start_gated(Settings { max_records: 3, ..settings(OnFailure::Refuse) });
    assert!(log.try_reserve().unwrap().record(record(1, "x")));
    writing.recv().unwrap();
    // The record that is being written still has its slot.
    let two = log.try_reserve().unwrap();
    let three = log.try_reserve().unwrap();
    assert_eq!(log.try_reserve().err(), Some(AuditDown::Full));
    drop(two);
    let two = log.try_reserve().unwrap();
    assert_eq!(log.try_reserve().err(), Some(AuditDown::Full));
    // Permits that are out keep their promise.
    assert!(two.record(record(2, "x")) && three.record(record(3, "x")));
    assert_eq!(log.try_reserve().err(), Some(AuditDown::Full));
    drop(open);
    assert!(log.flush(LONG));
    assert_eq!(log.counters().reserved, 0);
    assert!(log.try_reserve().is_ok());
    assert_eq!(written(&files), [lines(1..=3, "x")]);
}

#[test]
fn no_permit_above_the_limit_of_bytes() {
    let (log, _, writing, open) = start_gated(Settings { max_bytes: 10_000, ..settings(OnFailure::Refuse) });
    let early = log.try_reserve().unwrap();
    assert!(log.try_reserve().unwrap().record(record(1, &"x".repeat(10_000))));
    writing.recv().unwrap();
    assert_eq!(log.try_reserve().err(), Some(AuditDown::Full));
    assert!(early.record(record(2, "x")));
    drop(open);
    assert!(log.flush(LONG));
    assert!(log.try_reserve().is_ok());
}

#[test]
fn a_failing_sink_refuses_and_loses_nothing() {
    let (log, files, failures, broken) = start_breakable(settings(OnFailure::Refuse));
    let early = log.try_reserve().unwrap();
    broken.store(true, Ordering::Release);
    assert!(log.try_reserve().unwrap().record(record(1, "x")));
    // With the second try, the first failure is known everywhere.
    failures.recv().unwrap();
    failures.recv().unwrap();
    assert_eq!(log.try_reserve().err(), Some(AuditDown::Failing));
    assert!(early.record(record(2, "x")));
    assert!(log.offer(record(3, "x")));
    assert!(!log.flush(Duration::ZERO));
    assert!(log.counters().failing);
    broken.store(false, Ordering::Release);
    assert!(log.flush(LONG));
    assert!(log.try_reserve().is_ok());
    assert_eq!(written(&files), [lines(1..=3, "x")]);
}

#[test]
fn losses_are_counted_when_statements_run_all_the_same() {
    let (log, files, writing, open) = start_gated(Settings { max_records: 4, ..settings(OnFailure::Count) });
    assert!(log.try_reserve().unwrap().record(record(0, "x")));
    writing.recv().unwrap();
    let permits: Vec<_> = (0..10).map(|_| log.try_reserve().unwrap()).collect();
    let kept = permits.into_iter().zip(1..).map(|(permit, id)| permit.record(record(id, "x")));
    assert_eq!(kept.filter(|kept| *kept).count(), 3);
    assert!(!log.offer(record(99, "x")));
    assert_eq!(log.counters().dropped, 8);
    drop(open);
    assert!(log.flush(LONG));
    assert_eq!(written(&files), [lines(0..=3, "x")]);
    // A permit without a slot takes one when it is used, if there is one by then.
    assert!(log.try_reserve().unwrap().record(record(4, "x")));
    assert!(log.flush(LONG));
    assert_eq!(log.counters(), Counters { written: 5, dropped: 8, reserved: 0, failing: false });
}

#[test]
fn rotation_goes_on_in_the_new_file() {
    let (log, files, _) = start(settings(OnFailure::Refuse), Ok(Reopened::Other), Ok);
    for id in 1..=2 {
        assert!(log.offer(record(id, "x")));
        assert!(log.flush(LONG));
        log.reopen();
    }
    assert!(log.offer(record(3, "x")));
    assert!(log.flush(LONG));
    assert_eq!(written(&files), [lines([1], "x"), lines([2], "x"), lines([3], "x")]);
}

#[test]
fn a_file_that_cannot_be_reopened_is_kept() {
    let (log, files, _) = start(settings(OnFailure::Refuse), Err(io::ErrorKind::NotFound.into()), Ok);
    assert!(log.offer(record(1, "x")));
    log.reopen();
    assert!(log.offer(record(2, "x")));
    assert!(log.flush(LONG));
    assert_eq!(written(&files), [lines(1..=2, "x")]);
    assert!(!log.counters().failing);
}

/// The disk is full in the middle of the second line; then the file is rotated.
fn torn(reopened: Reopened) -> Vec<String> {
    let first = lines([1], "x").len();
    let mut room = Some(first + 10);
    let (failed, failures) = channel();
    let reopens = Arc::new(AtomicBool::new(false));
    let repaired = reopens.clone();
    let (log, files, _) = start(settings(OnFailure::Refuse), Ok(reopened), move |n| {
        if repaired.load(Ordering::Acquire) {
            return Ok(n);
        }
        if let Some(room) = room.take() {
            return Ok(room);
        }
        let _ = failed.send(());
        Err(io::ErrorKind::StorageFull.into())
    });
    {
        // Both lines in one batch, so that the first write ends in the second line.
        let mut queue = log.shared().lock();
        for id in 1..=2 {
            log.shared().take_slot().unwrap();
            log.shared().bytes.fetch_add(record(id, "x").size(), Ordering::AcqRel);
            queue.accepted += 1;
            queue.records.push_back(record(id, "x"));
        }
        log.shared().work.notify_one();
    }
    failures.recv().unwrap();
    log.reopen();
    if reopened == Reopened::Other {
        while files.lock().unwrap().len() < 2 {
            failures.recv().unwrap();
        }
    }
    reopens.store(true, Ordering::Release);
    assert!(log.flush(LONG));
    written(&files)
}

#[test]
fn a_torn_line_is_continued_in_its_file_and_repeated_in_another() {
    let both = lines(1..=2, "x");
    assert_eq!(torn(Reopened::Same).concat(), both);
    let cut = lines([1], "x").len() + 10;
    assert_eq!(torn(Reopened::Other), [both[..cut].to_owned(), lines([2], "x")]);
}

#[test]
fn closing_writes_what_is_there_and_takes_no_more() {
    for on_failure in [OnFailure::Refuse, OnFailure::Count] {
        // However long it would linger otherwise.
        let (log, files, ended) = start(Settings { linger: LONG, ..settings(on_failure) }, Ok(Reopened::Same), Ok);
        let late = log.try_reserve().unwrap();
        assert!(log.offer(record(1, "x")));
        assert_eq!(log.close(LONG), 0);
        ended.recv().unwrap();
        assert_eq!(written(&files), [lines([1], "x")]);
        assert_eq!(log.try_reserve().err(), (on_failure == OnFailure::Refuse).then_some(AuditDown::Closed));
        assert!(!late.record(record(2, "x")) && !log.offer(record(3, "x")));
        assert_eq!(log.counters().dropped, 2);
        assert_eq!(log.counters().reserved, 0);
    }
}

#[test]
fn closing_gives_up_on_a_sink_that_does_not_recover() {
    let (log, _, ended) = start(settings(OnFailure::Refuse), Ok(Reopened::Same), |_| Err(io::ErrorKind::Other.into()));
    assert!(log.offer(record(1, "x")) && log.offer(record(2, "x")));
    assert_eq!(log.close(Duration::from_millis(1)), 2);
    ended.recv().unwrap();
}

#[test]
fn a_panic_in_the_sink_leaves_nobody_waiting() {
    let (log, _, ended) = start(settings(OnFailure::Refuse), Ok(Reopened::Same), |_| panic!("as a test"));
    assert!(log.offer(record(1, "x")));
    assert!(!log.flush(LONG));
    assert_eq!(log.try_reserve().err(), Some(AuditDown::Closed));
    assert_eq!(log.close(LONG), 1);
    ended.recv().unwrap();
}

#[test]
fn the_writer_ends_with_the_last_handle() {
    let (log, files, ended) = start(settings(OnFailure::Refuse), Ok(Reopened::Same), Ok);
    let permit = log.try_reserve().unwrap();
    drop(log);
    assert!(permit.record(record(1, "x")));
    ended.recv().unwrap();
    assert_eq!(written(&files), [lines([1], "x")]);
}
